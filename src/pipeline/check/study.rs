//! Reads what a study declares: the rules of a cohort, the parts of a split, the relation that a step is one part of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::sql;
use super::steps::{Draft, check_name, read};
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::spec::MatrixValue;
use crate::pipeline::study_spec::{
    ALL, CohortParams, Division, Membership, PartSize, SplitParams, are_counts,
};
use crate::pipeline::tree::{Entry, Node};

/// Reads a cohort: every condition must be SQL, every reason is given once.
pub fn cohort(
    verb: &Entry,
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) -> Option<CohortParams> {
    let (node, at) = (&verb.value, verb.key_span);
    let params: CohortParams = read(node, at, problems)?;
    let mut fine = true;
    let mut reasons = BTreeSet::new();
    for (n, rule) in params.exclude.iter().enumerate() {
        let place = |key: &str| node.locate(&format!("exclude.{n}.{key}"), false, at);
        if rule.reason.trim().is_empty() || !reasons.insert(&rule.reason) {
            let message = "a rule needs a reason of its own, which the flow chart shows";
            problems.add(place("reason"), message, "reason: DWI poor or unavailable");
            fine = false;
        }
        // Alone it is no statement; in brackets, so that it ends where it ends.
        match sql::relations(&format!("SELECT 1 WHERE ({}\n)", rule.when)) {
            Ok(names) => draft.reads.extend(names.into_iter().map(|name| (name, place("when")))),
            Err(_) => {
                let message = "this condition is not valid SQL";
                let hint =
                    "write what holds for a case to be excluded: `age_y < 18`, `centre IS NULL`";
                problems.add(place("when"), message, hint);
                fine = false;
            }
        }
    }
    fine.then_some(params)
}

/// Reads a split: one way to divide, with sizes that can be.
pub fn split(node: &Node, at: Span, problems: &mut Problems) -> Option<SplitParams> {
    let mut params: SplitParams = read(node, at, problems)?;
    let Some(division) = params.division() else {
        let ways = [
            !params.parts.is_empty(),
            !params.nested.is_empty(),
            params.folds.is_some(),
            params.leave_out.is_some(),
        ];
        let message = match ways.iter().filter(|given| **given).count() {
            0 => "the split says nothing of how to divide",
            _ => "the split divides in more than one way",
        };
        let hint = "give one of `parts: { train: 0.8, val: 0.2 }`, `nested: { n50: 50, all: 1 }`, `folds: 5`, \
                    `leave_out: centre`";
        problems.add(at, message, hint);
        return None;
    };
    let mut fine = match division {
        Division::Parts(sizes) => {
            sizes_are_fine("parts", sizes, node, at, problems)
                && sums_to_one(sizes, node, at, problems)
        }
        Division::Nested(sizes) => {
            sizes_are_fine("nested", sizes, node, at, problems)
                && sizes_differ(sizes, node, at, problems)
        }
        Division::Folds(_) | Division::By(_) => true,
    };
    if let Some(held) = params.hold_out.as_ref().filter(|_| params.leave_out.is_none()) {
        let message = format!("`{held}` cannot be held out: the split does not divide by a column");
        let hint = "hold_out belongs to leave_out; of folds: `from: FOLDS, split: { leave_out: part, hold_out: fold_2 }`";
        problems.add(node.locate("hold_out", true, at), message, hint);
        fine = false;
    }
    if params.overfit && !matches!(division, Division::Parts(_)) {
        let message = "`overfit` stands for the parts of a split, and this one has none";
        problems.add(node.locate("overfit", true, at), message, "give `parts`");
        fine = false;
    }
    if params.overfit {
        params.parts.insert(ALL.to_owned(), PartSize::Number(1.0));
    }
    fine.then_some(params)
}

/// Whether every size is one, and they are all of a kind.
fn sizes_are_fine(
    key: &str,
    sizes: &BTreeMap<String, PartSize>,
    node: &Node,
    at: Span,
    problems: &mut Problems,
) -> bool {
    let counts = are_counts(sizes);
    let mut fine = true;
    for (part, size) in sizes {
        let span = node.locate(&format!("{key}.{part}"), false, at);
        let Some(number) = size.number() else {
            if key == "nested" {
                let hint = "give the whole as `1.0`";
                problems.add(span, "a nested subsample has a size of its own", hint);
                fine = false;
            }
            continue;
        };
        let (good, hint) = match (number > 0.0, counts && key == "parts") {
            (false, _) => (false, "a share is above 0 and at most 1, a count is 1 or more"),
            (true, true) => {
                (number >= 1.0, "give shares for all parts, or counts of patients for all")
            }
            // Subsamples may be a mixture: counts, and the whole as 1.0.
            (true, false) => (true, ""),
        };
        if !good {
            problems.add(span, format!("the share of `{part}` is {number}"), hint);
        } else if number > 1.0 && number.fract() != 0.0 {
            let message = format!("the size of `{part}` is {number}");
            problems.add(span, message, "a count of patients is a whole number, a share at most 1");
            fine = false;
        }
        fine &= good;
    }
    let rests = sizes.values().filter(|size| size.number().is_none()).count();
    if rests > 1 {
        let message = "only one part can be the rest";
        problems.add(node.locate(key, true, at), message, "give the others a share or a count");
        fine = false;
    }
    fine
}

/// Whether shares without a rest sum to 1, and with one to less.
fn sums_to_one(
    sizes: &BTreeMap<String, PartSize>,
    node: &Node,
    at: Span,
    problems: &mut Problems,
) -> bool {
    if are_counts(sizes) {
        return true;
    }
    let sum: f64 = sizes.values().filter_map(|size| size.number()).sum();
    let rest = sizes.values().any(|size| size.number().is_none());
    let shown = (sum * 1e6).round() / 1e6;
    let span = node.locate("parts", true, at);
    match rest {
        true if sum >= 1.0 - 1e-6 => {
            let message = format!("the shares sum to {shown}, and nothing is left for the rest");
            problems.add(span, message, "make a share smaller, or remove the rest");
            false
        }
        false if (sum - 1.0).abs() > 1e-6 => {
            let message = format!("the shares sum to {shown}, not to 1");
            problems.add(
                span,
                message,
                "change a share, or add a part for the rest: `other: rest`",
            );
            false
        }
        _ => true,
    }
}

fn sizes_differ(
    sizes: &BTreeMap<String, PartSize>,
    node: &Node,
    at: Span,
    problems: &mut Problems,
) -> bool {
    let mut seen: Vec<f64> = Vec::new();
    let mut fine = true;
    for (part, size) in sizes {
        let number = size.number().unwrap_or_default();
        if seen.iter().any(|other| other.total_cmp(&number).is_eq()) {
            let message = format!("`{part}` is as large as another subsample");
            let span = node.locate(&format!("nested.{part}"), false, at);
            problems.add(span, message, "give every subsample its own size");
            fine = false;
        }
        seen.push(number);
    }
    fine
}

/// Reads `part_of: { unet: { n: 50 } }`.
pub fn membership(entry: &Entry, problems: &mut Problems) -> Option<Membership> {
    let read: BTreeMap<String, BTreeMap<String, MatrixValue>> =
        read(&entry.value, entry.key_span, problems)?;
    let [relation] = entry.value.entries() else {
        let hint = "part_of: { unet: { n: 50 } }";
        problems.add(entry.key_span, "`part_of` names one relation", hint);
        return None;
    };
    check_name(&relation.key, relation.key_span, problems);
    if read.values().any(BTreeMap::is_empty) {
        let message = "a step that is one part of a relation needs a value that tells it apart";
        problems.add(relation.key_span, message, "part_of: { unet: { n: 50 } }");
        return None;
    }
    let values: Vec<(String, Value)> =
        relation.value.entries().iter().map(|e| (e.key.clone(), e.value.to_json())).collect();
    Some(Membership { name: relation.key.clone(), values })
}
