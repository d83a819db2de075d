//! From a result back to its origins: the run, pipeline, version, seed and fingerprint behind an artifact, a model or a
//! case, then what it was made from, down to the blake3 of the input files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::prelude::SessionContext;
use serde::Serialize;
use serde_json::Value;

use super::errors;
use super::rows::rows;
use super::schema::{
    ArtifactRow, CaseRow, CurationRow, EditAction, Lineage, ModelRow, RunRow, Table, TableRow,
};
use super::session::SessionAt;
use super::store::Catalog;
use crate::error::{Error, Result};

/// Parents printed under one node; the rest are counted.
const SHOWN: usize = 8;
/// The shortest beginning of an identifier that is looked up.
const SHORTEST: usize = 6;

/// One thing and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LineageTree {
    /// `artifact`, `model`, `case`, `run`, or `unknown` where the catalog does not know the identifier.
    pub kind: &'static str,
    /// Its identifier.
    pub id: String,
    /// What is known of it, in the order in which it is printed.
    pub facts: Vec<(&'static str, String)>,
    /// What it was made from. Empty where the same node stands with its parents earlier in the tree.
    pub parents: Vec<Self>,
}

impl fmt::Display for LineageTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_node(self, "", "", f)
    }
}

fn write_node(
    node: &LineageTree,
    first: &str,
    rest: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    writeln!(f, "{first}{} {}", node.kind, node.id)?;
    let bar = if node.parents.is_empty() { "  " } else { "│ " };
    for (name, value) in &node.facts {
        writeln!(f, "{rest}{bar}{name}: {value}")?;
    }
    let shown = node.parents.len().min(SHOWN);
    let hidden = node.parents.len() - shown;
    for (index, parent) in node.parents[..shown].iter().enumerate() {
        let last = index + 1 == shown && hidden == 0;
        let (branch, under) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        write_node(parent, &format!("{rest}{branch}"), &format!("{rest}{under}"), f)?;
    }
    if hidden > 0 {
        writeln!(f, "{rest}└─ and {hidden} more")?;
    }
    Ok(())
}

/// Traces an artifact, a model, a case or a run, named by its identifier or, where only one begins so, by its first
/// six or more characters.
///
/// # Errors
/// The catalog does not know the identifier, or knows several that begin so.
pub async fn trace(catalog: &Catalog, id: &str) -> Result<LineageTree> {
    let session = catalog.session(SessionAt::Latest).await?;
    let mut known = Known::default();
    known.load(&session, &[id.to_owned()]).await?;
    let mut id = id.to_owned();
    if !known.has(&id) {
        id = completed(&session, &id).await?;
        known.load(&session, std::slice::from_ref(&id)).await?;
    }
    let mut frontier = known.sources(&id);
    let mut asked = HashSet::from([id.clone()]);
    while !frontier.is_empty() {
        frontier.retain(|id| asked.insert(id.clone()));
        known.load(&session, &frontier).await?;
        let mut next: Vec<_> = frontier.iter().flat_map(|id| known.sources(id)).collect();
        next.sort_unstable();
        next.dedup();
        frontier = next;
    }
    known.load_edits(catalog).await?;
    known.load_runs(&session).await?;
    Ok(known.node(&id, &mut HashSet::new()))
}

/// What was read from the tables so far, by identifier.
#[derive(Default)]
struct Known {
    artifacts: HashMap<String, ArtifactRow>,
    models: HashMap<String, ModelRow>,
    cases: HashMap<String, CaseRow>,
    /// What people corrected, by case.
    edits: HashMap<String, Vec<String>>,
    runs: BTreeMap<String, RunRow>,
}

impl Known {
    async fn load(&mut self, session: &SessionContext, ids: &[String]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        for row in find::<ArtifactRow>(session, "artifact_id", ids).await? {
            keep(&mut self.artifacts, row.artifact_id.clone(), row, |row| row.lineage.created_at);
        }
        for row in find::<ModelRow>(session, "model_id", ids).await? {
            keep(&mut self.models, row.model_id.clone(), row, |row| row.lineage.created_at);
        }
        for row in find::<CaseRow>(session, "case_id", ids).await? {
            keep(&mut self.cases, row.case_id.clone(), row, |row| row.ingested_at);
        }
        for row in find::<RunRow>(session, "run_id", ids).await? {
            self.runs.insert(row.run_id.clone(), row);
        }
        Ok(())
    }

    async fn load_edits(&mut self, catalog: &Catalog) -> Result<()> {
        for edit in catalog.edits().await? {
            let CurationRow { action, column_name, new_value, reason, author, edited_at, .. } =
                edit;
            let said = match action {
                EditAction::Exclude => format!("excluded: {reason}"),
                EditAction::Set => format!("{column_name} = {new_value}: {reason}"),
                EditAction::Undo => format!("{column_name} taken back: {reason}"),
            };
            let line = format!("{said} ({author}, {edited_at})");
            self.edits.entry(edit.case_id).or_default().push(line);
        }
        Ok(())
    }

    async fn load_runs(&mut self, session: &SessionContext) -> Result<()> {
        let of_artifacts = self.artifacts.values().map(|row| &row.lineage.run_id);
        let of_models = self.models.values().map(|row| &row.lineage.run_id);
        let of_cases = self.cases.values().map(|row| &row.run_id);
        let mut ids: Vec<_> = of_artifacts.chain(of_models).chain(of_cases).cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        for row in find::<RunRow>(session, "run_id", &ids).await? {
            self.runs.insert(row.run_id.clone(), row);
        }
        Ok(())
    }

    fn has(&self, id: &str) -> bool {
        self.artifacts.contains_key(id)
            || self.models.contains_key(id)
            || self.cases.contains_key(id)
            || self.runs.contains_key(id)
    }

    /// The identifiers that something was made from: an artifact's parents, or its case where it has none; the model
    /// that a model started from, then what it was trained on.
    fn sources(&self, id: &str) -> Vec<String> {
        if let Some(row) = self.artifacts.get(id) {
            let case = row.case_id.iter().filter(|_| row.parents.is_empty());
            return row.parents.iter().chain(case).cloned().collect();
        }
        match self.models.get(id) {
            Some(row) => row.parent.iter().chain(&row.parents).cloned().collect(),
            None => Vec::new(),
        }
    }

    fn node(&self, id: &str, seen: &mut HashSet<String>) -> LineageTree {
        let (kind, mut facts) = self.facts(id);
        let mut parents = Vec::new();
        let sources = self.sources(id);
        if seen.insert(id.to_owned()) {
            parents = sources.iter().map(|source| self.node(source, seen)).collect();
        } else if !sources.is_empty() {
            facts = vec![("see", "above".to_owned())];
        }
        LineageTree { kind, id: id.to_owned(), facts, parents }
    }

    fn facts(&self, id: &str) -> (&'static str, Vec<(&'static str, String)>) {
        if let Some(row) = self.artifacts.get(id) {
            let mut facts = vec![
                ("made by", format!("step {}, stage {}", row.step, row.stage)),
                (row.role.name(), located(&row.uri, row.row_index)),
                ("blake3", row.blake3.clone()),
            ];
            facts.extend(row.case_id.clone().map(|case| ("case", case)));
            facts.extend(self.origin(&row.lineage));
            return ("artifact", facts);
        }
        if let Some(row) = self.models.get(id) {
            let mut facts = vec![
                ("made by", format!("step {}", row.name)),
                ("weights", row.uri.clone()),
                ("architecture", row.architecture.clone()),
                (
                    "trained on",
                    format!("{} cases, validated on {}", row.train_cases, row.val_cases),
                ),
            ];
            facts.extend(self.origin(&row.lineage));
            return ("model", facts);
        }
        if let Some(row) = self.cases.get(id) {
            let mut facts = vec![("source", row.source.clone())];
            facts.extend(input_files(row));
            facts.push(("fingerprint", row.fingerprint.clone()));
            let edits = self.edits.get(id).into_iter().flatten();
            facts.extend(edits.map(|edit| ("curated", edit.clone())));
            facts.push(("ingested", format!("{} by {}", row.ingested_at, self.run(&row.run_id))));
            return ("case", facts);
        }
        if let Some(row) = self.runs.get(id) {
            return ("run", run_facts(row));
        }
        ("unknown", Vec::new())
    }

    fn origin(&self, lineage: &Lineage) -> [(&'static str, String); 6] {
        [
            ("run", self.run(&lineage.run_id)),
            ("pipeline", lineage.pipeline_hash.clone()),
            ("software", format!("torcula {}", lineage.software_version)),
            ("fingerprint", lineage.fingerprint.clone()),
            ("seed", lineage.seed.to_string()),
            ("catalog", format!("version {}, {}", lineage.catalog_version, lineage.created_at)),
        ]
    }

    fn run(&self, id: &str) -> String {
        match self.runs.get(id) {
            Some(run) => format!("{id} ({}, {})", run.pipeline, run.status),
            None => id.to_owned(),
        }
    }
}

fn run_facts(row: &RunRow) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("command", row.command.clone()),
        ("pipeline", format!("{} {}", row.pipeline, row.pipeline_hash)),
        ("software", format!("torcula {}", row.software_version)),
        ("status", row.status.to_string()),
        ("started", row.started_at.to_string()),
    ];
    facts.extend(row.ended_at.map(|moment| ("ended", moment.to_string())));
    let (done, failed, unchanged) = (row.cases_done, row.cases_failed, row.cases_unchanged);
    facts.push(("cases", format!("{done} done, {failed} failed, {unchanged} unchanged")));
    facts
}

/// The input files with their hashes.
fn input_files(row: &CaseRow) -> Vec<(&'static str, String)> {
    let listed: Vec<Value> = serde_json::from_str(&row.files).unwrap_or_default();
    let text = |file: &Value, key: &str| {
        file.get(key).and_then(Value::as_str).unwrap_or("unknown").to_owned()
    };
    let mut files: Vec<_> = listed
        .iter()
        .map(|file| ("input", format!("{} blake3 {}", text(file, "uri"), text(file, "blake3"))))
        .collect();
    if files.is_empty() {
        if let (Some(uri), Some(hash)) = (&row.image_uri, &row.image_blake3) {
            files.push(("input", format!("{uri} blake3 {hash}")));
        }
        if let (Some(uri), Some(hash)) = (&row.truth_uri, &row.truth_blake3) {
            files.push(("input", format!("{uri} blake3 {hash}")));
        }
    }
    files
}

fn located(uri: &str, row: Option<i64>) -> String {
    match row {
        Some(row) => format!("{uri} row {row}"),
        None => uri.to_owned(),
    }
}

/// Keeps the newest of several rows with the same identifier: a crash between a file and its row makes the work, and
/// then the row, a second time.
fn keep<R, K: Ord>(into: &mut HashMap<String, R>, id: String, row: R, age: impl Fn(&R) -> K) {
    match into.get(&id) {
        Some(kept) if age(kept) >= age(&row) => {}
        _ => {
            into.insert(id, row);
        }
    }
}

async fn find<R: TableRow + serde::de::DeserializeOwned>(
    session: &SessionContext,
    column: &str,
    ids: &[String],
) -> Result<Vec<R>> {
    let ids = ids.iter().map(|id| lit(id.as_str())).collect();
    rows(&filtered(session, R::TABLE, ident(column).in_list(ids, false)).await?)
}

async fn filtered(
    session: &SessionContext,
    table: Table,
    filter: Expr,
) -> Result<Vec<arrow::array::RecordBatch>> {
    let failed = |error: DataFusionError| errors::query(&error);
    let frame = session.table(table.name()).await.map_err(failed)?;
    frame.filter(filter).map_err(failed)?.collect().await.map_err(failed)
}

/// The one identifier that begins with `start`.
async fn completed(session: &SessionContext, start: &str) -> Result<String> {
    let mut found = Vec::new();
    if start.len() >= SHORTEST {
        for (table, column) in [
            (Table::Artifacts, "artifact_id"),
            (Table::Models, "model_id"),
            (Table::Cases, "case_id"),
            (Table::Runs, "run_id"),
        ] {
            let begins =
                datafusion::functions::string::expr_fn::starts_with(ident(column), lit(start));
            for row in super::json_rows(&filtered(session, table, begins).await?)? {
                found.extend(row.get(column).and_then(Value::as_str).map(str::to_owned));
            }
        }
        found.sort_unstable();
        found.dedup();
    }
    match &found[..] {
        [id] => Ok(id.clone()),
        [] => Err(Error::configuration(format!(
            "the catalog has no artifact, model, case or run '{start}'"
        ))
        .hint(
            "`torcula sql \"SELECT artifact_id, role, case_id FROM artifacts\"` lists artifacts",
        )),
        [first, .., last] => Err(Error::configuration(format!(
            "{} identifiers begin with '{start}', from {first} to {last}",
            found.len()
        ))
        .hint("give more of it")),
    }
}
