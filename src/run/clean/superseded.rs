//! Artifacts of other parameters or older bytes than those of the last runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{Artifact, Garbage, Kind, Ran, Rules};
use crate::catalog::{self, Catalog, Timestamp};
use crate::error::Result;
use crate::formats::files;
use crate::pipeline::{Action, Pipeline, Retention};
use crate::run::{relations, session};

const DAY_US: i64 = 86_400_000_000;

/// What is written together and goes together: the files of a case in a step, or a shard with its samples. Step, case (none
/// for a shard), and fingerprint or file.
type Unit<'a> = (&'a str, &'a str, &'a str);

fn unit(artifact: &Artifact) -> Unit<'_> {
    match artifact.role.as_str() {
        "shard" | "sample" => (&artifact.step, "", &artifact.uri),
        _ => {
            (&artifact.step, artifact.case_id.as_deref().unwrap_or_default(), &artifact.fingerprint)
        }
    }
}

/// Finds superseded artifacts that are past their retention.
pub(super) async fn find(
    catalog: &Catalog,
    rules: &Rules,
    artifacts: &[Artifact],
    ran: &[Ran],
    roots: &BTreeSet<PathBuf>,
    garbage: &mut Garbage,
) -> Result<()> {
    let mut seeds = models(catalog).await?;
    for ran in ran {
        let Some(pipeline) = ran.pipeline() else {
            garbage.notes.push(
                "a pipeline of an earlier version of Torcula ran here and cannot be read: no artifact counts as superseded; \
                 run it again first"
                    .to_owned(),
            );
            return Ok(());
        };
        seeds.extend(present(catalog, &pipeline).await?);
    }
    let live = closure(artifacts, seeds);
    let gone = past_retention(artifacts, &live, rules.retention);
    let (removed, kept): (Vec<&Artifact>, Vec<&Artifact>) =
        artifacts.iter().partition(|artifact| gone.contains(&unit(artifact)));
    let named: HashSet<&str> = kept.iter().map(|artifact| artifact.uri.as_str()).collect();
    let mut uris: BTreeSet<&str> = BTreeSet::new();
    for artifact in removed {
        garbage.rows.push(artifact.artifact_id.clone());
        uris.insert(&artifact.uri);
    }
    for uri in uris.into_iter().filter(|uri| !uri.is_empty() && !named.contains(uri)) {
        let path = files::resolve(uri)?;
        if within(&path, roots) {
            garbage.add(Kind::Superseded, path);
        }
    }
    Ok(())
}

/// The units that nothing present needs, and that are older than the rule and not among the newest of their series.
fn past_retention<'a>(
    artifacts: &'a [Artifact],
    live: &HashSet<&str>,
    retention: Retention,
) -> HashSet<Unit<'a>> {
    let mut generations: BTreeMap<(&str, &str), Vec<(Timestamp, Unit<'_>)>> = BTreeMap::new();
    let mut units: HashMap<Unit<'_>, (bool, Timestamp)> = HashMap::new();
    for artifact in artifacts {
        let entry = units.entry(unit(artifact)).or_insert((false, artifact.created_at));
        entry.0 |= live.contains(artifact.artifact_id.as_str());
        entry.1 = entry.1.max(artifact.created_at);
    }
    for (unit, (_, created)) in &units {
        generations.entry((unit.0, series(*unit))).or_default().push((*created, *unit));
    }
    let before = Timestamp(
        Timestamp::now().0.saturating_sub(i64::from(retention.keep_days).saturating_mul(DAY_US)),
    );
    let mut gone: HashSet<Unit<'_>> = HashSet::new();
    for units_of in generations.values_mut() {
        units_of.sort_by(|a, b| b.cmp(a));
        for (rank, (created, unit)) in units_of.iter().enumerate() {
            let past = *created <= before && rank >= retention.keep_versions as usize;
            if past && !units[unit].0 {
                gone.insert(*unit);
            }
        }
    }
    gone
}

/// What a unit is a version of: the case, or the number of the shard.
fn series((step, case, uri): Unit<'_>) -> &str {
    if !case.is_empty() {
        return case;
    }
    let name = uri.rsplit('/').next().unwrap_or_default();
    name.strip_prefix(step).and_then(|rest| rest.get(..6)).unwrap_or(uri)
}

/// Whether a file lies in one of the folders, links followed.
fn within(path: &Path, roots: &BTreeSet<PathBuf>) -> bool {
    path.canonicalize().is_ok_and(|path| roots.iter().any(|root| path.starts_with(root)))
}

/// What models were made from: they are not made again lightly.
async fn models(catalog: &Catalog) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        parents: Vec<String>,
    }
    let ctx = catalog.session(catalog::SessionAt::Latest).await?;
    let rows: Vec<Row> = catalog::rows(&catalog::sql(&ctx, "SELECT parents FROM models").await?)?;
    Ok(rows.into_iter().flat_map(|row| row.parents).collect())
}

/// The artifacts that the steps of a pipeline show now, by one of each case.
async fn present(catalog: &Catalog, pipeline: &Pipeline) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        source_artifact: Option<String>,
    }
    let ctx = session::until(catalog, pipeline, None, &Arc::default()).await?;
    let mut found = Vec::new();
    for step in &pipeline.steps {
        if !matches!(step.action, Action::Stages(_) | Action::Infer(_))
            || !relations::has(&ctx, &step.name, "source_artifact").await?
        {
            continue;
        }
        let query =
            format!("SELECT DISTINCT source_artifact FROM {}", relations::quoted(&step.name));
        let rows: Vec<Row> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
        found.extend(rows.into_iter().filter_map(|row| row.source_artifact));
    }
    Ok(found)
}

/// The artifacts of these identifiers' units, and all that they were made from.
fn closure(artifacts: &[Artifact], seeds: Vec<String>) -> HashSet<&str> {
    let by_id: HashMap<&str, &Artifact> =
        artifacts.iter().map(|artifact| (artifact.artifact_id.as_str(), artifact)).collect();
    let mut together: HashMap<Unit<'_>, Vec<&Artifact>> = HashMap::new();
    for artifact in artifacts {
        together.entry(unit(artifact)).or_default().push(artifact);
    }
    let mut live = HashSet::new();
    let mut open: Vec<&Artifact> =
        seeds.iter().filter_map(|id| by_id.get(id.as_str()).copied()).collect();
    while let Some(artifact) = open.pop() {
        if live.contains(artifact.artifact_id.as_str()) {
            continue;
        }
        for member in together.get(&unit(artifact)).into_iter().flatten() {
            live.insert(member.artifact_id.as_str());
            open.extend(
                member
                    .parents
                    .iter()
                    .filter_map(|id| by_id.get(id.as_str()).copied())
                    .filter(|parent| !live.contains(parent.artifact_id.as_str())),
            );
        }
    }
    live
}
