//! What is different between two nights: pure, from two [`Night`]s to a [`Difference`].

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::Serialize;

use super::alarms::alarms;
use super::night::{Case, MEASURES, Night, Scored};
use super::shift::{Drift, Shift};
use super::{DifferenceJob, NightFacts};
use crate::study::statistics::Bootstrap;

/// What is different.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Heading of the report.
    pub title: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run that tells.
    pub run_id: String,
    /// The scored step.
    pub step: String,
    /// The earlier night; none where there is none.
    pub against: Option<NightFacts>,
    /// The night whose input data are the baseline of drift.
    pub baseline: Option<NightFacts>,
    /// Why there is no earlier night, or no baseline.
    pub notes: Vec<String>,
    /// Numbers of cases.
    pub counts: Counts,
    /// The models that predicted, then and now.
    pub models: [Vec<String>; 2],
    /// Cases that the earlier night did not have, or that were removed then.
    pub new: Vec<Listed>,
    /// Cases of both nights with other bytes.
    pub changed: Vec<Listed>,
    /// Cases that take part no longer.
    pub removed: Vec<Listed>,
    /// Cases that fail now and did not.
    pub failed: Vec<Listed>,
    /// Shifts of the mean scores, in all cases and in groups.
    pub shifts: Vec<Division>,
    /// Cases whose DSC moved by more than the limit, most first.
    pub moved: Vec<Moved>,
    /// Input data against those of the baseline night.
    pub drift: Vec<Drift>,
    /// What someone should look at.
    pub alarms: Vec<Alarm>,
}

/// Numbers of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cases of the registries that take part now.
    pub cases: usize,
    /// Cases that are scored now.
    pub scored: usize,
    /// Cases that were scored on the earlier night.
    pub scored_before: usize,
    /// New cases.
    pub new: usize,
    /// Cases with other bytes.
    pub changed: usize,
    /// Removed cases.
    pub removed: usize,
    /// Cases that fail now and did not.
    pub failed: usize,
    /// All cases that fail now.
    pub failing: usize,
    /// Cases of both nights whose score was made anew.
    pub rescored: usize,
    /// Cases whose DSC moved by more than the limit.
    pub moved: usize,
}

/// A case and what happened to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The case.
    pub case_id: String,
    /// Its hospital.
    pub centre: Option<String>,
    /// What happened.
    pub what: String,
}

/// Shifts in the groups of a variable.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Division {
    /// The variable; empty for all cases.
    pub variable: String,
    /// What it is called.
    pub label: String,
    /// Its groups.
    pub groups: Vec<GroupShift>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_computed: Option<String>,
}

/// Shifts of a group of cases.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GroupShift {
    /// The group.
    pub group: String,
    /// Cases that are scored now.
    pub scored: usize,
    /// One a score.
    pub measures: Vec<Shift>,
}

/// A case whose DSC moved.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Moved {
    /// The case.
    pub case_id: String,
    /// Its hospital.
    pub centre: Option<String>,
    /// DSC then.
    pub before: f64,
    /// DSC now.
    pub now: f64,
    /// What is different: `image`, `mask`, `sidecar or variables`, `model`, `parameters`.
    pub why: Vec<String>,
}

/// Something that someone should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// `model`, `data`, `removed` or `failed`.
    pub kind: &'static str,
    /// What was found.
    pub text: String,
}

/// The groups of the scored cases: label, then of each group its name and its cases; or why there are none.
pub type Groups = (String, Result<(String, Vec<(String, Vec<String>)>), String>);

/// Compares two nights. `baseline` is the night that input data are compared with.
pub fn compare(
    job: &DifferenceJob,
    before: Option<&Night>,
    baseline: Option<&Night>,
    now: &Night,
    groups: &[Groups],
) -> Difference {
    let mut found = Difference {
        title: job.params.title.clone(),
        pipeline: job.lineage.pipeline.clone(),
        run_id: job.lineage.run_id.clone(),
        step: job.step.clone(),
        models: [before.map(Night::models).unwrap_or_default(), now.models()],
        ..Difference::default()
    };
    if let Some(before) = before {
        cases(&mut found, before, now);
        found.moved = moved(job.params.dsc_moved, before, now);
        found.shifts = shifts(job, before, now, groups);
    }
    if let Some(baseline) = baseline {
        found.drift = drift(job, baseline, now);
        let unknown = now.unknown.iter();
        found.notes.extend(unknown.map(|name| {
            format!("Drift of {name} is not computed: neither cases nor quality has such a column of numbers.")
        }));
    }
    found.counts = Counts {
        cases: now.present().count(),
        scored: now.scored.len(),
        scored_before: before.map_or(0, |night| night.scored.len()),
        new: found.new.len(),
        changed: found.changed.len(),
        removed: found.removed.len(),
        failed: found.failed.len(),
        failing: now.failed.len(),
        rescored: before.map_or(0, |before| pairs(before, now).filter(rescored).count()),
        moved: found.moved.len(),
    };
    found.alarms = alarms(job, &found);
    found
}

type Pair<'n> = (&'n String, &'n Scored, &'n Scored);

/// Cases that are scored on both nights.
fn pairs<'n>(before: &'n Night, now: &'n Night) -> impl Iterator<Item = Pair<'n>> {
    before.scored.iter().filter_map(|(id, old)| Some((id, old, now.scored.get(id)?)))
}

fn rescored((_, old, new): &Pair<'_>) -> bool {
    old.fingerprint != new.fingerprint
}

/// Which bytes are others.
fn bytes_changed(old: &Case, new: &Case) -> Vec<&'static str> {
    let of = [
        ("image", old.image != new.image),
        ("mask", old.truth != new.truth),
        ("sidecar or variables", old.others != new.others),
    ];
    of.into_iter().filter(|(_, other)| *other).map(|(name, _)| name).collect()
}

fn cases(found: &mut Difference, before: &Night, now: &Night) {
    let listed = |id: &String, case: Option<&Case>, what: String| Listed {
        case_id: id.clone(),
        centre: case.and_then(|case| case.centre.clone()),
        what,
    };
    for (id, case) in now.present() {
        match before.cases.get(id) {
            None => found.new.push(listed(id, Some(case), "new".to_owned())),
            Some(old) => {
                if let Some(reason) = &old.excluded {
                    found.new.push(listed(id, Some(case), format!("back: {reason} then")));
                }
                let what = bytes_changed(old, case);
                if !what.is_empty() {
                    found.changed.push(listed(id, Some(case), what.join(", ")));
                }
            }
        }
    }
    for (id, case) in before.present() {
        let what = match now.cases.get(id) {
            Some(new) => new.excluded.clone(),
            None if now.failed.contains_key(id) => None,
            None => Some("no longer in the catalog".to_owned()),
        };
        found.removed.extend(what.map(|what| listed(id, Some(case), what)));
    }
    for (id, failure) in &now.failed {
        let is_kept_out = now.cases.get(id).is_some_and(|case| case.excluded.is_some());
        if !before.failed.contains_key(id) && !is_kept_out {
            let case = now.cases.get(id).or_else(|| before.cases.get(id));
            let what = format!("{} › {}: {}", failure.step, failure.stage, failure.reason);
            found.failed.push(listed(id, case, what));
        }
    }
}

fn moved(limit: f64, before: &Night, now: &Night) -> Vec<Moved> {
    let mut moved = Vec::new();
    for (id, old, new) in pairs(before, now) {
        let (Some(from), Some(to)) = (old.values[0], new.values[0]) else { continue };
        if (to - from).abs() <= limit {
            continue;
        }
        let cases = before.cases.get(id).zip(now.cases.get(id));
        let mut why: Vec<String> = cases
            .map(|(old, new)| bytes_changed(old, new))
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect();
        if old.model_id != new.model_id {
            why.push("model".to_owned());
        }
        if why.is_empty() {
            why.push("parameters".to_owned());
        }
        let centre = now.cases.get(id).and_then(|case| case.centre.clone());
        moved.push(Moved { case_id: id.clone(), centre, before: from, now: to, why });
    }
    let size = |m: &Moved| (m.now - m.before).abs();
    moved.sort_by(|a, b| size(b).total_cmp(&size(a)).then_with(|| a.case_id.cmp(&b.case_id)));
    moved
}

fn shifts(job: &DifferenceJob, before: &Night, now: &Night, groups: &[Groups]) -> Vec<Division> {
    let all: Vec<String> = now.scored.keys().cloned().collect();
    let everyone = ("All cases".to_owned(), vec![("all cases".to_owned(), all)]);
    let everyone = (String::new(), Ok(everyone));
    let one = |(variable, found): &Groups| match found {
        Err(reason) => Division {
            variable: variable.clone(),
            label: variable.clone(),
            groups: Vec::new(),
            not_computed: Some(reason.clone()),
        },
        Ok((label, groups)) => Division {
            variable: variable.clone(),
            label: label.clone(),
            groups: groups
                .par_iter()
                .map(|(group, cases)| GroupShift {
                    group: group.clone(),
                    scored: cases.len(),
                    measures: measures(job, before, now, (variable, group), cases),
                })
                .collect(),
            not_computed: None,
        },
    };
    std::iter::once(&everyone).chain(groups).map(one).collect()
}

fn measures(
    job: &DifferenceJob,
    before: &Night,
    now: &Night,
    (variable, group): (&str, &str),
    cases: &[String],
) -> Vec<Shift> {
    let both = cases.iter().filter_map(|id| Some((before.scored.get(id)?, now.scored.get(id)?)));
    let both: Vec<(&Scored, &Scored)> = both.collect();
    MEASURES
        .par_iter()
        .enumerate()
        .map(|(i, (measure, ..))| {
            let pairs = both.iter().filter_map(|(old, new)| Some((old.values[i]?, new.values[i]?)));
            let labels = ["difference", measure, variable, group];
            let options = Bootstrap {
                resamples: job.params.resamples,
                seed: job.lineage.seed.cast_unsigned(),
                labels: &labels,
                ..Bootstrap::default()
            };
            Shift::of(measure, &pairs.collect::<Vec<_>>(), &options)
        })
        .collect()
}

fn drift(job: &DifferenceJob, baseline: &Night, now: &Night) -> Vec<Drift> {
    let is_new = |id: &str| match (baseline.cases.get(id), now.cases.get(id)) {
        (Some(old), Some(new)) => old.image != new.image || old.excluded.is_some(),
        _ => true,
    };
    let arrivals: BTreeSet<&str> =
        now.watched.keys().map(String::as_str).filter(|id| is_new(id)).collect();
    let column = |of: &BTreeMap<String, Vec<Option<f64>>>, i: usize| -> Vec<Option<f64>> {
        of.values().map(|values| values.get(i).copied().flatten()).collect()
    };
    let known = job.params.drift.iter().enumerate().filter(|(_, name)| !now.unknown.contains(name));
    known
        .map(|(i, name)| {
            let new = now.watched.iter().filter(|(id, _)| arrivals.contains(id.as_str()));
            let new: Vec<_> = new.map(|(_, values)| values.get(i).copied().flatten()).collect();
            Drift::of(name, &column(&baseline.watched, i), &column(&now.watched, i), &new)
        })
        .collect()
}
