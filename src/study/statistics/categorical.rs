//! Contingency tables and the chi-square test.

use std::collections::BTreeMap;

use super::descriptive::sum;
use super::distributions::chi_square_upper;
use super::groups::plain;
use super::outcome::{Categories, Computed, NotComputed, Outcome, Sample, Test};

/// How often each category occurs in each group: a row a group, a column a category.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    /// A row's name and how many cases are in it, or missing.
    pub rows: Vec<Sample>,
    /// Names of the categories.
    pub columns: Vec<String>,
    /// One row a group.
    pub counts: Vec<Vec<u64>>,
}

impl Table {
    /// Counts categories in groups; the categories that occur, in alphabetical order.
    pub fn of_groups(groups: &[Categories]) -> Self {
        let known = groups.iter().flat_map(|g| g.values.iter().flatten());
        let mut places: BTreeMap<&str, usize> = known.map(|&name| (name, 0)).collect();
        for (i, place) in places.values_mut().enumerate() {
            *place = i;
        }
        let mut table = Self {
            rows: Vec::new(),
            columns: places.keys().map(|&name| name.to_owned()).collect(),
            counts: Vec::new(),
        };
        for group in groups {
            let mut counts = vec![0; places.len()];
            for name in group.values.iter().flatten() {
                counts[places[name]] += 1;
            }
            let n = group.values.iter().flatten().count();
            table.rows.push(Sample {
                name: group.name.to_owned(),
                n,
                missing: group.values.len() - n,
                infinite: 0,
            });
            table.counts.push(counts);
        }
        table
    }

    /// A table of counts made elsewhere, with numbers for names; short rows end in zeros.
    pub fn from_counts(counts: &[&[u64]]) -> Self {
        let width = counts.iter().map(|row| row.len()).max().unwrap_or_default();
        let row = |(i, row): (usize, &&[u64])| Sample {
            name: (i + 1).to_string(),
            n: row.iter().sum::<u64>() as usize,
            missing: 0,
            infinite: 0,
        };
        let full =
            |row: &&[u64]| row.iter().copied().chain([0].into_iter().cycle()).take(width).collect();
        Self {
            rows: counts.iter().enumerate().map(row).collect(),
            columns: (1..=width).map(|i| i.to_string()).collect(),
            counts: counts.iter().map(full).collect(),
        }
    }

    /// The counts without empty rows and columns, which say nothing, and a note of how many were left out.
    ///
    /// Refuses fewer than 2 rows or columns.
    pub(super) fn occupied(&self) -> Computed<(Vec<Vec<u64>>, Vec<String>)> {
        let columns: Vec<usize> =
            (0..self.columns.len()).filter(|&c| self.counts.iter().any(|row| row[c] > 0)).collect();
        let rows: Vec<Vec<u64>> = self
            .counts
            .iter()
            .filter(|row| row.iter().any(|&count| count > 0))
            .map(|row| columns.iter().map(|&c| row[c]).collect())
            .collect();
        for (of, n) in [("groups with values", rows.len()), ("categories", columns.len())] {
            if n < 2 {
                return Err(NotComputed::TooFewGroups { of, n, needs: 2 });
            }
        }
        let empty = [
            ("rows", self.rows.len() - rows.len()),
            ("columns", self.columns.len() - columns.len()),
        ];
        let notes = empty
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("empty {what} left out: {n}"))
            .collect();
        Ok((rows, notes))
    }
}

/// Whether chi-square of a 2 × 2 table is corrected for continuity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Continuity {
    /// No correction.
    #[default]
    None,
    /// Yates 1934: ½ less in each |observed − expected| of a 2 × 2 table, or all of it where it is smaller; larger tables
    /// are not corrected.
    Yates,
}

/// Pearson's chi-square: do groups have the same shares of categories?
///
/// χ² = Σ (O − E)²/E with E = row sum · column sum / N, against chi-square with (r − 1)(c − 1) degrees of freedom (Pearson 1900). The
/// effect is Cramér's V = √(χ²/(N · min(r − 1, c − 1))), of the uncorrected χ². Empty rows and columns are left out with a
/// note; another says how many expected counts are below 5, where Fisher's exact test is the better one. Needs 2 rows and 2
/// columns with counts.
pub fn chi_square(table: &Table, continuity: Continuity) -> Outcome<Test> {
    let result = table.occupied().and_then(|(counts, notes)| pearson(&counts, continuity, notes));
    Outcome { samples: table.rows.clone(), result }
}

fn pearson(counts: &[Vec<u64>], continuity: Continuity, mut notes: Vec<String>) -> Computed<Test> {
    let (rows, columns) = margins(counts);
    let n = rows.iter().sum::<u64>() as f64;
    let cells: Vec<(f64, f64)> = counts
        .iter()
        .zip(&rows)
        .flat_map(|(row, r)| row.iter().zip(&columns).map(move |(o, c)| (o, r, c)))
        .map(|(o, r, c)| (*o as f64, *r as f64 * *c as f64 / n))
        .collect();
    let freedom = (rows.len() - 1) * (columns.len() - 1);
    let corrected = freedom == 1 && continuity == Continuity::Yates;
    let statistic = |less: f64| {
        sum(cells.iter().map(|(o, e)| {
            let off = ((o - e).abs() - less).max(0.0);
            off * off / e
        }))
    };
    let chi = statistic(if corrected { 0.5 } else { 0.0 });
    let small = cells.iter().filter(|(_, e)| *e < 5.0).count();
    if small > 0 {
        notes.push(format!("expected counts below 5: {small} of {}", cells.len()));
    }
    let least = (rows.len().min(columns.len()) - 1) as f64;
    Test {
        name: "chi-square",
        symbol: "χ²",
        statistic: Some(chi),
        freedom: vec![freedom as f64],
        p: chi_square_upper(chi, freedom as f64),
        method: if corrected {
            "chi-square distribution with Yates's continuity correction"
        } else {
            "chi-square distribution"
        },
        effects: vec![plain("Cramér's V", (statistic(0.0) / (n * least)).sqrt())],
        notes,
    }
    .checked()
}

/// Sums of rows and columns.
pub(super) fn margins(counts: &[Vec<u64>]) -> (Vec<u64>, Vec<u64>) {
    let rows = counts.iter().map(|row| row.iter().sum()).collect();
    let columns = (0..counts[0].len()).map(|c| counts.iter().map(|row| row[c]).sum()).collect();
    (rows, columns)
}
