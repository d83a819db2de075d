//! Proofs about a drawn split, from the rows alone: they trust nothing of how it was drawn.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::study::statistics::{Categories, Group, Outcome, difference, difference_categorical};

/// Standardised difference up to which groups count as balanced (Austin 2009, doi:10.1002/sim.3697).
pub const BALANCED: f64 = 0.1;
/// Examples that a proof shows.
const EXAMPLES: usize = 3;

/// A case in a part; a case of nested subsamples comes once for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The case.
    pub case_id: String,
    /// The patient.
    pub group: String,
    /// The part.
    pub part: String,
    /// Hash of the image's bytes, and which volume of them it is.
    pub image: Option<String>,
    /// Values of the columns whose balance is asked for.
    pub values: Vec<Value>,
}

/// What is true of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Sizes of the parts.
    pub parts: Vec<Part>,
    /// What must hold, and whether it does.
    pub proofs: Vec<Proof>,
    /// How the parts differ in the columns asked for.
    pub balance: Vec<Balance>,
}

/// A part and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub part: String,
    /// Patients in it.
    pub patients: usize,
    /// Cases in it.
    pub cases: usize,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What.
    pub claim: &'static str,
    /// Whether it does.
    pub holds: bool,
    /// What was looked at, or what speaks against it.
    pub found: String,
}

/// How one part differs from the others in one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Balance {
    /// The column.
    pub column: String,
    /// The part.
    pub part: String,
    /// What it is compared with.
    pub against: String,
    /// Standardised mean difference, part − others; of categories a distance, which has no sign.
    pub difference: Outcome<f64>,
}

impl Report {
    /// Whether every proof holds. Balance is told, not judged: chance alone unbalances small parts.
    pub fn holds(&self) -> bool {
        self.proofs.iter().all(|proof| proof.holds)
    }
}

impl Balance {
    /// Whether the difference is within the usual bound; none where it cannot be computed.
    pub fn is_balanced(&self) -> Option<bool> {
        self.difference.result.as_ref().ok().map(|d| d.abs() <= BALANCED)
    }
}

/// Checks a split. `nested` names its subsamples, smallest first, where it has any.
pub fn check(rows: &[Placed], nested: Option<&[String]>, columns: &[String]) -> Report {
    let mut parts: BTreeMap<&str, Vec<&Placed>> = BTreeMap::new();
    for row in rows {
        parts.entry(&row.part).or_default().push(row);
    }
    let groups = |part: &str| -> BTreeSet<&str> {
        parts.get(part).into_iter().flatten().map(|row| row.group.as_str()).collect()
    };
    let size = |(part, rows): (&&str, &Vec<&Placed>)| Part {
        part: (*part).to_owned(),
        patients: groups(part).len(),
        cases: rows.len(),
    };
    let mut sizes: Vec<Part> = parts.iter().map(size).collect();
    if nested.is_some() {
        sizes.sort_by_key(|part| part.cases);
    }
    let proofs = match nested {
        Some(order) => vec![contained(order, &groups), whole(rows, &parts)],
        None => vec![apart(rows), images(rows)],
    };
    let mut balance = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        for part in &sizes {
            let largest = sizes.last().map(|p| p.part.as_str());
            let (others, against): (Vec<&Placed>, _) = match nested {
                Some(_) if Some(part.part.as_str()) == largest => continue,
                Some(_) => {
                    let inside: BTreeSet<&str> =
                        parts[part.part.as_str()].iter().map(|r| r.case_id.as_str()).collect();
                    let all = largest.and_then(|name| parts.get(name)).into_iter().flatten();
                    let outside = all.copied().filter(|r| !inside.contains(r.case_id.as_str()));
                    (outside.collect(), format!("the rest of {}", largest.unwrap_or_default()))
                }
                None => {
                    (rows.iter().filter(|r| r.part != part.part).collect(), "the others".to_owned())
                }
            };
            balance.push(Balance {
                column: column.clone(),
                part: part.part.clone(),
                difference: compare(&part.part, &parts[part.part.as_str()], &against, &others, at),
                against,
            });
        }
    }
    Report { parts: sizes, proofs, balance }
}

/// Standardised difference of one column between two groups.
fn compare(
    name: &str,
    part: &[&Placed],
    against: &str,
    others: &[&Placed],
    at: usize,
) -> Outcome<f64> {
    let value = |row: &&Placed| row.values.get(at).cloned().unwrap_or(Value::Null);
    let (own, other): (Vec<Value>, Vec<Value>) =
        (part.iter().map(value).collect(), others.iter().map(value).collect());
    let numeric = own.iter().chain(&other).all(|v| v.is_null() || v.is_number());
    if numeric {
        let numbers = |values: &[Value]| values.iter().map(Value::as_f64).collect::<Vec<_>>();
        let (own, other) = (numbers(&own), numbers(&other));
        return difference(&Group::new(name, &own), &Group::new(against, &other));
    }
    let words = |values: &[Value]| -> Vec<Option<String>> {
        let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        values.iter().map(|v| (!v.is_null()).then(|| word(v))).collect()
    };
    let (own, other) = (words(&own), words(&other));
    let own: Vec<Option<&str>> = own.iter().map(Option::as_deref).collect();
    let other: Vec<Option<&str>> = other.iter().map(Option::as_deref).collect();
    difference_categorical(&Categories::new(name, &own), &Categories::new(against, &other))
}

/// The first few of what speaks against a claim.
fn some(all: &[String]) -> String {
    let more = all.len().saturating_sub(EXAMPLES);
    let shown = all.iter().take(EXAMPLES).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// Nobody is in two parts.
fn apart(rows: &[Placed]) -> Proof {
    let mut parts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        parts.entry(&row.group).or_default().insert(&row.part);
    }
    let torn: Vec<String> = parts
        .iter()
        .filter(|(_, parts)| parts.len() > 1)
        .map(|(group, parts)| {
            format!("{group} is in {}", parts.iter().copied().collect::<Vec<_>>().join(" and "))
        })
        .collect();
    let found = if torn.is_empty() { format!("{} patients", parts.len()) } else { some(&torn) };
    Proof { claim: "no patient is in two parts", holds: torn.is_empty(), found }
}

/// No image is in two parts under two names.
fn images(rows: &[Placed]) -> Proof {
    let mut seen: BTreeMap<&str, &Placed> = BTreeMap::new();
    let mut doubled = Vec::new();
    for row in rows {
        let Some(image) = row.image.as_deref() else { continue };
        let first = seen.entry(image).or_insert(row);
        if first.part != row.part {
            doubled.push(format!(
                "{} ({}) and {} ({}) have the same image",
                first.case_id, first.part, row.case_id, row.part
            ));
        }
    }
    let without = rows.iter().filter(|row| row.image.is_none()).count();
    let found = match (doubled.is_empty(), without) {
        (false, _) => some(&doubled),
        (true, 0) => format!("{} images", seen.len()),
        (true, n) => format!("{} images; {n} cases have none", seen.len()),
    };
    Proof { claim: "no image is in two parts under two names", holds: doubled.is_empty(), found }
}

/// Each subsample contains the smaller ones.
fn contained<'r>(order: &[String], groups: &dyn Fn(&str) -> BTreeSet<&'r str>) -> Proof {
    let mut against = Vec::new();
    for pair in order.windows(2) {
        let (small, large) = (groups(&pair[0]), groups(&pair[1]));
        let missing: Vec<&str> = small.difference(&large).copied().collect();
        if let Some(first) = missing.first() {
            let n = missing.len();
            against.push(format!("{n} patients of {} are not in {}: {first}, …", pair[0], pair[1]));
        }
    }
    let sizes: Vec<String> =
        order.iter().map(|name| format!("{name} {}", groups(name).len())).collect();
    let found = if against.is_empty() { sizes.join(" ⊂ ") } else { some(&against) };
    Proof { claim: "each subsample contains the smaller ones", holds: against.is_empty(), found }
}

/// A patient is in a subsample with all cases or with none.
fn whole(rows: &[Placed], parts: &BTreeMap<&str, Vec<&Placed>>) -> Proof {
    let mut cases: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        cases.entry(&row.group).or_default().insert(&row.case_id);
    }
    let mut torn = Vec::new();
    for (part, rows) in parts {
        let mut here: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            *here.entry(&row.group).or_default() += 1;
        }
        let some = here.iter().filter(|(group, n)| **n < cases[**group].len());
        torn.extend(some.map(|(group, _)| format!("{part} has some of the cases of {group}")));
    }
    let found = if torn.is_empty() { format!("{} patients", cases.len()) } else { some(&torn) };
    Proof {
        claim: "a patient is in a subsample with all cases or none",
        holds: torn.is_empty(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn placed(case: &str, group: &str, part: &str, image: Option<&str>, age: f64) -> Placed {
        Placed {
            case_id: case.to_owned(),
            group: group.to_owned(),
            part: part.to_owned(),
            image: image.map(str::to_owned),
            values: vec![json!(age), json!(if age > 50.0 { "old" } else { "young" })],
        }
    }

    fn columns() -> Vec<String> {
        vec!["age_y".to_owned(), "generation".to_owned()]
    }

    #[test]
    fn a_good_split_holds_and_its_balance_is_told() {
        let rows = [
            placed("a", "1", "train", Some("x"), 40.0),
            placed("b", "2", "train", Some("y"), 60.0),
            placed("c", "3", "test", Some("z"), 44.0),
            placed("d", "4", "test", None, 64.0),
        ];
        let report = check(&rows, None, &columns());
        assert!(report.holds(), "{report:?}");
        assert_eq!(report.parts[1], Part { part: "train".to_owned(), patients: 2, cases: 2 });
        // import numpy as np
        // a, b = np.array([44, 64.]), np.array([40, 60.])
        // (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        let found = report.balance[0].difference.result.clone();
        assert!(found.is_ok_and(|d| (d - 0.282_842_712_474_619).abs() < 1e-12));
        assert_eq!(report.balance[0].is_balanced(), Some(false));
        assert_eq!(report.balance[2].is_balanced(), Some(true), "{:?}", report.balance[2]);
    }

    #[test]
    fn a_patient_or_an_image_in_two_parts_is_found() {
        let rows = [
            placed("a", "1", "train", Some("x"), 40.0),
            placed("b", "1", "test", Some("y"), 60.0),
            placed("c", "2", "test", Some("x"), 60.0),
        ];
        let report = check(&rows, None, &[]);
        let found: Vec<(bool, &str)> =
            report.proofs.iter().map(|p| (p.holds, p.found.as_str())).collect();
        let expected = [
            (false, "1 is in test and train"),
            (false, "a (train) and c (test) have the same image"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn subsamples_that_do_not_contain_each_other_are_found() {
        let order = ["n1".to_owned(), "n2".to_owned()];
        let mut rows = vec![
            placed("a", "1", "n1", None, 40.0),
            placed("a", "1", "n2", None, 40.0),
            placed("b", "2", "n2", None, 60.0),
        ];
        let report = check(&rows, Some(&order), &columns());
        assert!(report.holds(), "{report:?}");
        assert_eq!(report.proofs[0].found, "n1 1 ⊂ n2 2");
        let reason = report.balance[0].difference.result.clone().map_err(|r| r.to_string());
        assert_eq!(reason, Err("n = 1 in n1, needs 2".to_owned()), "one patient has no spread");
        rows.remove(1);
        assert!(!check(&rows, Some(&order), &[]).holds());
        rows.push(placed("a2", "1", "n2", None, 40.0));
        assert!(!check(&rows, Some(&order), &[]).holds(), "half of a patient");
    }
}
