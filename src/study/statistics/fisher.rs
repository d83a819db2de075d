//! Fisher's exact test.
//!
//! Among all tables with the same margins, p is the probability of those that are no more probable than the one observed.
//! A 2 × 2 table runs through its one free cell. A larger one is filled a column at a time: how the rest can be filled
//! depends only on what is left of the rows, so partial tables with the same rest and the same probability so far are
//! one (the network algorithm of Mehta & Patel 1983, doi:10.1080/01621459.1983.10477989). Where even the most probable rest
//! stays below the observed table, or the least probable one above it, the rests are not looked at one by one.

use std::collections::{BTreeMap, HashMap};

use super::categorical::{Table, margins};
use super::descriptive::sum;
use super::groups::plain;
use super::outcome::{Computed, NotComputed, Outcome, Test};

/// Tables whose probabilities differ by less, relatively, count as equally probable: rounding is far below, and so
/// close by chance they hardly are.
const TIE: f64 = 1e-9;

/// Ways to fill a column that are looked at until a table is called too large; about a second.
const MOST_STEPS: usize = 2_000_000;

/// The most cases of a table that is larger than 2 × 2.
const LARGEST: u64 = 100_000;

/// Fisher's exact test of independence in a 2 × 2 or larger table (Fisher 1935; Freeman & Halton 1951).
///
/// Two-sided p: the probability, at these margins, of all tables that are no more probable than the one observed. A
/// 2 × 2 table has the sample odds ratio ad/(bc) as its effect, where it is finite. Empty rows and columns are left out
/// with a note. Needs 2 rows and 2 columns with counts; a table too large to enumerate is refused, and chi-square is
/// the test for it.
pub fn fisher(table: &Table) -> Outcome<Test> {
    let result = table.occupied().and_then(|(counts, notes)| {
        let two = counts.len() == 2 && counts[0].len() == 2;
        let p = if two { four_cells(&counts) } else { larger(&counts)? };
        let mut test = Test {
            name: "Fisher's exact",
            symbol: "",
            statistic: None,
            freedom: Vec::new(),
            p: p.min(1.0),
            method: "exact distribution",
            effects: Vec::new(),
            notes,
        };
        if two {
            let [a, b, c, d] = cells(&counts).map(|v| v as f64);
            if b * c > 0.0 {
                test.effects.push(plain("odds ratio", a * d / (b * c)));
            } else {
                test.notes.push("odds ratio infinite".to_owned());
            }
        }
        test.checked()
    });
    Outcome { samples: table.rows.clone(), result }
}

fn cells(counts: &[Vec<u64>]) -> [u64; 4] {
    [counts[0][0], counts[0][1], counts[1][0], counts[1][1]]
}

/// p of a 2 × 2 table: weights of all first cells by the ratio to their neighbour, from the most probable one outwards.
fn four_cells(counts: &[Vec<u64>]) -> f64 {
    let [a, b, c, d] = cells(counts);
    let (row, column, n) = (a + b, a + c, a + b + c + d);
    let (least, most) = ((row + column).saturating_sub(n), row.min(column));
    // P(k + 1)/P(k).
    let ratio = |k: u64| {
        let up = (row - k) as f64 * (column - k) as f64;
        up / ((k + 1) as f64 * (n + k + 1 - row - column) as f64)
    };
    let mode = ((u128::from(row) + 1) * (u128::from(column) + 1) / (u128::from(n) + 2)) as u64;
    let mode = mode.clamp(least, most);
    let mut weights = vec![1.0; (most - least + 1) as usize];
    for k in mode..most {
        weights[(k + 1 - least) as usize] = weights[(k - least) as usize] * ratio(k);
    }
    for k in (least..mode).rev() {
        weights[(k - least) as usize] = weights[(k + 1 - least) as usize] / ratio(k);
    }
    let limit = weights[(a - least) as usize] * (1.0 + TIE);
    let extreme = sum(weights.iter().copied().filter(|w| *w <= limit));
    extreme / sum(weights.iter().copied())
}

/// p of a larger table.
fn larger(counts: &[Vec<u64>]) -> Computed {
    let (rows, columns) = margins(counts);
    // The long side becomes columns: what is left of few rows has few states.
    let (mut rows, mut columns) =
        if rows.len() > columns.len() { (columns, rows) } else { (rows, columns) };
    let n = rows.iter().sum::<u64>();
    if n > LARGEST {
        return Err(NotComputed::TooLarge { of: "the table" });
    }
    rows.sort_unstable();
    columns.sort_unstable_by(|a, b| b.cmp(a));
    let mut network = Network::new(&columns, n as usize);
    let observed = -sum(counts.iter().flatten().map(|&v| network.logarithms[v as usize]));
    let whole = network.all_rests(0, &rows);
    let mut extreme = Vec::new();
    let mut layer = BTreeMap::from([(rows, Paths::from([(0, (0.0, 1.0))]))]);
    for column in 0..columns.len() {
        let mut next: BTreeMap<Rest, Paths> = BTreeMap::new();
        for (rest, paths) in &layer {
            let (least, most) = network.extremes(column, rest)?;
            let mut open = Vec::new();
            for &(past, ways) in paths.values() {
                if past + most <= observed + TIE {
                    let all = network.all_rests(column, rest);
                    extreme.push(ways * (past + all - whole).exp());
                } else if past + least <= observed + TIE {
                    open.push((past, ways));
                }
            }
            if open.is_empty() {
                continue;
            }
            for (left, weight) in network.fill(column, rest)? {
                let paths = next.entry(left).or_default();
                for &(past, ways) in &open {
                    let past = past + weight;
                    paths.entry((past * 1e10).round() as i64).or_insert((past, 0.0)).1 += ways;
                }
            }
        }
        layer = next;
    }
    Ok(sum(extreme))
}

/// What is left of the rows, sorted.
type Rest = Vec<u64>;

/// Partial tables with one rest, by their rounded log weight: log weight and how many there are.
type Paths = BTreeMap<i64, (f64, f64)>;

/// The columns to fill. The weight of a table is Π 1/x!, its probability up to a factor of the margins.
struct Network {
    columns: Vec<u64>,
    /// ln k!.
    logarithms: Vec<f64>,
    /// Least and greatest log weight of the columns from one on, by rest.
    known: Vec<HashMap<Rest, (f64, f64)>>,
    steps: usize,
}

impl Network {
    fn new(columns: &[u64], n: usize) -> Self {
        let mut logarithms = vec![0.0];
        for k in 1..=n {
            logarithms.push(logarithms[k - 1] + (k as f64).ln());
        }
        let known = vec![HashMap::new(); columns.len()];
        Self { columns: columns.to_vec(), logarithms, known, steps: 0 }
    }

    fn weight(&self, counts: &[u64]) -> f64 {
        -counts.iter().map(|&k| self.logarithms[k as usize]).sum::<f64>()
    }

    /// Log of the summed weights of all ways to fill the columns from one on.
    fn all_rests(&self, column: usize, rest: &[u64]) -> f64 {
        let left = rest.iter().sum::<u64>() as usize;
        self.logarithms[left] + self.weight(rest) + self.weight(&self.columns[column..])
    }

    /// Every way to fill a column: what is left of the rows then, and the column's log weight.
    fn fill(&mut self, column: usize, rest: &[u64]) -> Computed<Vec<(Rest, f64)>> {
        let mut ways = Vec::new();
        let mut cells = vec![0; rest.len()];
        // Beyond each row, what the rows after it can take.
        let mut room = vec![0; rest.len() + 1];
        for i in (0..rest.len()).rev() {
            room[i] = room[i + 1] + rest[i];
        }
        place(rest, &room, 0, self.columns[column], &mut cells, &mut |cells| {
            let mut left: Rest = rest.iter().zip(cells).map(|(r, x)| r - x).collect();
            left.sort_unstable();
            ways.push((left, self.weight(cells)));
            ways.len() + self.steps <= MOST_STEPS
        });
        self.steps += ways.len();
        if self.steps > MOST_STEPS {
            return Err(NotComputed::TooLarge { of: "the table" });
        }
        Ok(ways)
    }

    /// Least and greatest log weight of the ways to fill the columns from one on.
    fn extremes(&mut self, column: usize, rest: &[u64]) -> Computed<(f64, f64)> {
        if column + 1 >= self.columns.len() {
            let only = self.weight(rest);
            return Ok((only, only));
        }
        if let Some(found) = self.known[column].get(rest) {
            return Ok(*found);
        }
        let mut found = (f64::INFINITY, f64::NEG_INFINITY);
        for (left, weight) in self.fill(column, rest)? {
            let (least, most) = self.extremes(column + 1, &left)?;
            found = (found.0.min(weight + least), found.1.max(weight + most));
        }
        self.known[column].insert(rest.to_vec(), found);
        Ok(found)
    }
}

/// Shares `total` out among the cells from `row` on, in every way; ends early where `found` says so.
fn place(
    rest: &[u64],
    room: &[u64],
    row: usize,
    total: u64,
    cells: &mut [u64],
    found: &mut impl FnMut(&[u64]) -> bool,
) -> bool {
    if row == rest.len() {
        return found(cells);
    }
    (total.saturating_sub(room[row + 1])..=total.min(rest[row])).all(|cell| {
        cells[row] = cell;
        place(rest, room, row + 1, total - cell, cells, found)
    })
}
