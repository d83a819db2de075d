//! Splits: who goes into which part. Patients are divided, never their images.
//!
//! Every stratum is put into an order that the seed decides, at equal distances from a start of its own between 0 and
//! 1, and the strata are merged by their places. A part is a stretch of that one order. So each part has each stratum's share to
//! within one patient (systematic sampling with a random start), sizes are exact, and one rule serves shares, counts,
//! folds and nested subsamples, which are stretches laid end to end.
//!
//! Patients who were drawn once keep their part: only those who have none are put into an order, and fill what is left
//! of each part. Nobody moves when cases are added, and the new ones are divided as evenly as the old.

pub mod check;
mod sizes;
pub mod strata;

use std::collections::{BTreeMap, BTreeSet};

pub use self::check::{Placed, Proof, Report, check};
use crate::error::{Error, Result};
use crate::pipeline::study_spec::{Division, SplitParams, TEST, TRAIN};

/// A case to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The case.
    pub case_id: String,
    /// The patient, or whoever else must not be divided.
    pub group: String,
    /// Its stratum; of the cases of a patient the first one's counts.
    pub stratum: String,
    /// The value that decides its part, in a split by a column.
    pub value: Option<String>,
}

/// The parts that cases were given by an earlier draw of the same split.
pub type History = BTreeMap<String, BTreeSet<String>>;

/// A drawn split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drawn {
    /// Case and part, in the order of the members; several parts of a case in nested subsamples.
    pub rows: Vec<(String, String)>,
    /// Patients who kept their part.
    pub kept: usize,
    /// Patients who were placed.
    pub placed: usize,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// The patients: cases by group.
type Groups<'m> = BTreeMap<&'m str, Vec<&'m Member>>;

/// Draws a split of `members`, in whatever order they come. `label` keeps the draws of different splits apart.
///
/// # Errors
/// A configuration error where the sizes ask for more patients than there are, or a column cannot divide them.
pub fn draw(
    params: &SplitParams,
    seed: u64,
    label: &str,
    members: &[Member],
    history: &History,
) -> Result<Drawn> {
    let mut groups: Groups<'_> = BTreeMap::new();
    for member in members {
        groups.entry(&member.group).or_default().push(member);
    }
    for cases in groups.values_mut() {
        cases.sort_by(|a, b| a.case_id.cmp(&b.case_id));
    }
    if groups.is_empty() {
        return Err(Error::configuration("its cohort has no cases")
            .hint("look at `torcula cohort`, or at what its query gives"));
    }
    let division = params
        .division()
        .ok_or_else(|| Error::bug("a split that divides in no way or in several"))?;
    if let Division::By(column) = division {
        return by_values(params, column, members, &groups);
    }
    let layers = sizes::layers(division, groups.len())?;
    let mut notes = Vec::new();
    let mut assigned = remembered(&groups, &layers, history, &mut notes);
    let kept = assigned.len();
    let key = Key { seed, label: &format!("{label} draw {}", params.draw) };
    place(&key, &groups, &layers, &mut assigned);
    notes.extend(remarks(params, &groups, &layers, &assigned, kept));
    let drawn = |parts: &dyn Fn(usize) -> Vec<String>| Drawn {
        rows: members
            .iter()
            .filter_map(|m| Some((m, *assigned.get(m.group.as_str())?)))
            .flat_map(|(m, at)| parts(at).into_iter().map(|part| (m.case_id.clone(), part)))
            .collect(),
        kept,
        placed: assigned.len() - kept,
        notes,
    };
    let name = |at: usize| layers[at].name.clone();
    Ok(match division {
        Division::Nested(_) => drawn(&|at| (at..layers.len()).map(name).collect()),
        _ => drawn(&|at| vec![name(at)]),
    })
}

/// A part, or what a nested subsample has beyond the next smaller one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    name: String,
    target: usize,
}

/// The layers that patients were put into before.
fn remembered<'m>(
    groups: &Groups<'m>,
    layers: &[Layer],
    history: &History,
    notes: &mut Vec<String>,
) -> BTreeMap<&'m str, usize> {
    let smallest = |case: &str| {
        let parts = history.get(case)?;
        layers.iter().position(|layer| parts.contains(&layer.name))
    };
    let mut torn = 0;
    let mut assigned = BTreeMap::new();
    for (group, cases) in groups {
        let found: BTreeSet<usize> = cases.iter().filter_map(|c| smallest(&c.case_id)).collect();
        torn += usize::from(found.len() > 1);
        if let Some(first) = cases.iter().find_map(|c| smallest(&c.case_id)) {
            assigned.insert(*group, first);
        }
    }
    if torn > 0 {
        notes.push(format!(
            "{torn} patients have cases that were drawn into several parts, before they were known to be of one \
             patient: all of them are in the part of the first"
        ));
    }
    assigned
}

/// What decides an order.
struct Key<'a> {
    seed: u64,
    label: &'a str,
}

impl Key<'_> {
    fn hash(&self, kind: &str, text: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        for part in [kind, self.label, text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// A number in [0, 1).
    fn start(&self, stratum: &str) -> f64 {
        let hash = self.hash("stratum", stratum);
        let bits = u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8])) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// Puts those who have no layer into what is left of each.
fn place<'m>(
    key: &Key<'_>,
    groups: &Groups<'m>,
    layers: &[Layer],
    assigned: &mut BTreeMap<&'m str, usize>,
) {
    let mut strata: BTreeMap<&str, Vec<&'m str>> = BTreeMap::new();
    for (group, cases) in groups {
        if !assigned.contains_key(group) {
            strata.entry(&cases[0].stratum).or_default().push(*group);
        }
    }
    let mut order: Vec<(f64, &str, &'m str)> = Vec::new();
    for (stratum, mut members) in strata {
        members.sort_by_cached_key(|group| key.hash("group", group));
        let (start, n) = (key.start(stratum), members.len() as f64);
        let places = members.iter().enumerate().map(|(j, group)| {
            let at = (j as f64 + start) / n;
            (at, stratum, *group)
        });
        order.extend(places);
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let mut have = vec![0_usize; layers.len()];
    for at in assigned.values() {
        have[*at] += 1;
    }
    let open: Vec<usize> =
        layers.iter().zip(&have).map(|(layer, have)| layer.target.saturating_sub(*have)).collect();
    let mut from = 0;
    for (at, to) in sizes::stretches(&open, order.len()).into_iter().enumerate() {
        for (_, _, group) in &order[from..to] {
            assigned.insert(group, at);
        }
        from = to;
    }
}

/// What a reader should know of a draw.
fn remarks(
    params: &SplitParams,
    groups: &Groups<'_>,
    layers: &[Layer],
    assigned: &BTreeMap<&str, usize>,
    kept: usize,
) -> Vec<String> {
    let mut notes = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let n = assigned.values().filter(|found| **found == at).count();
        let name = &layer.name;
        if n == 0 {
            notes.push(format!("no patient is in `{name}`: there are {} in all", groups.len()));
        } else if n != layer.target && kept > 0 {
            notes.push(format!(
                "`{name}` has {n} patients, not {}: nobody moves who was drawn before (raise `draw` to \
                 draw all again)",
                layer.target
            ));
        }
    }
    if !params.stratify.is_empty() {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for cases in groups.values() {
            *sizes.entry(&cases[0].stratum).or_default() += 1;
        }
        let single = sizes.values().filter(|n| **n == 1).count();
        if single > 0 {
            notes.push(format!(
                "{single} of {} strata have one patient, who is in one part only",
                sizes.len()
            ));
        }
    }
    notes
}

/// A split by the values of a column: nothing is drawn.
fn by_values(
    params: &SplitParams,
    column: &str,
    members: &[Member],
    groups: &Groups<'_>,
) -> Result<Drawn> {
    let unknown = members.iter().filter(|m| m.value.is_none()).count();
    if unknown > 0 {
        let found = format!("{unknown} of {} cases have no `{column}`", members.len());
        let hint = format!("exclude them in a cohort: `when: {column} IS NULL`");
        return Err(Error::configuration(found).hint(hint));
    }
    let torn = groups.iter().find(|(_, cases)| cases.iter().any(|c| c.value != cases[0].value));
    if let Some((group, _)) = torn {
        let found = format!("the patient {group} has cases of several `{column}`");
        let hint = "a patient cannot be in two parts: correct the column, or exclude those cases";
        return Err(Error::configuration(found).hint(hint));
    }
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for cases in groups.values() {
        *sizes.entry(cases[0].value.as_deref().unwrap_or_default()).or_default() += 1;
    }
    if sizes.len() < 2 {
        let found = format!("`{column}` has one value: there is nothing to leave out");
        return Err(Error::configuration(found).hint("name a column with several values"));
    }
    if let Some(held) = params.hold_out.as_deref().filter(|held| !sizes.contains_key(held)) {
        let known: Vec<&str> = sizes.keys().copied().collect();
        let found = format!("no case has `{held}` as its `{column}`");
        return Err(Error::configuration(found).hint(format!("there are {}", known.join(", "))));
    }
    let part = |value: &str| match params.hold_out.as_deref() {
        None => value.to_owned(),
        Some(held) if held == value => TEST.to_owned(),
        Some(_) => TRAIN.to_owned(),
    };
    let small = sizes.iter().filter(|(_, n)| **n == 1);
    let notes = small.map(|(value, _)| format!("`{value}` has one patient: n = 1 tells no spread"));
    Ok(Drawn {
        rows: members
            .iter()
            .map(|m| (m.case_id.clone(), part(m.value.as_deref().unwrap_or_default())))
            .collect(),
        kept: 0,
        placed: groups.len(),
        notes: notes.collect(),
    })
}

#[cfg(test)]
mod tests;
