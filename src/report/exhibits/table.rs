//! Tables as values: one table is markup on the page, CSV with every number in full, and LaTeX.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::published;
use crate::report::tables::count;
use crate::study::statistics::{Description, NotComputed};

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What the numbers are.
    pub caption: String,
    /// Headings of the columns.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// A heading over the rows that follow.
    Heading(String),
    /// One cell a column.
    Cells(Vec<Cell>),
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// Nothing.
    Blank,
    /// Words.
    Text(String),
    /// A number of cases.
    Count(u64),
    /// A number, written with so many decimals.
    Number(f64, usize),
    /// A mean with what it rests on.
    Mean(Spread),
    /// A median with what it rests on.
    Median(Spread),
    /// So many of so many, and how many are not known.
    Share {
        /// Cases that have it.
        cases: u64,
        /// Cases where it is known.
        of: u64,
    },
    /// A number with its confidence interval.
    Interval {
        /// The estimate.
        value: f64,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
        /// Decimals.
        decimals: usize,
    },
    /// The p value of a test, and which test.
    P(f64, String),
    /// Why there is no number.
    NotComputed(String),
}

/// Middle and spread of a variable: mean, SD and SE, or median and quartiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean, or median.
    pub middle: f64,
    /// SD, or the first quartile; none below two values.
    pub first: Option<f64>,
    /// Standard error, or the third quartile; none below two values.
    pub second: Option<f64>,
    /// Values.
    pub n: u64,
    /// Missing values.
    pub missing: u64,
    /// Decimals.
    pub decimals: usize,
}

impl Cell {
    /// Mean, SD and SE of a variable, or why there are none.
    pub fn mean(found: &Description, decimals: usize) -> Self {
        match &found.mean {
            Ok(mean) => Self::Mean(Spread {
                middle: *mean,
                first: found.sd.clone().ok(),
                second: found.se.clone().ok(),
                n: found.n as u64,
                missing: found.missing as u64,
                decimals,
            }),
            Err(reason) => Self::none(reason),
        }
    }

    /// Median and quartiles of a variable, or why there are none.
    pub fn median(found: &Description, decimals: usize) -> Self {
        match &found.median {
            Ok(median) => Self::Median(Spread {
                middle: *median,
                first: found.q1.clone().ok(),
                second: found.q3.clone().ok(),
                n: found.n as u64,
                missing: found.missing as u64,
                decimals,
            }),
            Err(reason) => Self::none(reason),
        }
    }

    /// What was published of a measure; an empty cell where nothing was.
    pub fn published(value: Option<&Value>, measure: &str) -> Self {
        value.map_or(Self::Blank, |value| Self::Text(published::words_of(value, measure)))
    }

    /// A result that may not be there.
    pub fn computed(value: &Result<f64, NotComputed>, decimals: usize) -> Self {
        match value {
            Ok(value) => Self::Number(*value, decimals),
            Err(reason) => Self::none(reason),
        }
    }

    /// Why there is no number.
    pub fn none(reason: &NotComputed) -> Self {
        Self::NotComputed(reason.to_string())
    }

    /// What the cell says, and smaller print under it.
    pub fn words(&self) -> (String, String) {
        let plain = |text: String| (text, String::new());
        match self {
            Self::Blank => plain(String::new()),
            Self::Text(text) => plain(text.clone()),
            Self::Count(n) => plain(count(*n)),
            Self::Number(value, decimals) => plain(number(*value, *decimals)),
            Self::Mean(of) => {
                let middle = number(of.middle, of.decimals);
                match (of.first, of.second) {
                    (Some(sd), Some(se)) => (
                        format!("{middle} ± {}", number(sd, of.decimals)),
                        format!("SE {}{}", number(se, of.decimals + 1), missing(of.missing)),
                    ),
                    _ => (middle, format!("SD not computed: n = {}{}", of.n, missing(of.missing))),
                }
            }
            Self::Median(of) => {
                let middle = number(of.middle, of.decimals);
                let quartiles = of.first.zip(of.second).map(|(low, high)| {
                    format!(" ({}–{})", number(low, of.decimals), number(high, of.decimals))
                });
                let small = missing(of.missing).trim_start_matches(", ").to_owned();
                (middle + &quartiles.unwrap_or_default(), small)
            }
            Self::Share { cases, of } => match of {
                0 => (count(*cases), "not computed: n = 0".to_owned()),
                of => plain(format!(
                    "{} ({:.1} %)",
                    count(*cases),
                    100.0 * *cases as f64 / *of as f64
                )),
            },
            Self::Interval { value, low, high, decimals } => (
                number(*value, *decimals),
                format!("95 % CI {} to {}", number(*low, *decimals), number(*high, *decimals)),
            ),
            Self::P(p, test) => (p_value(*p), test.clone()),
            Self::NotComputed(reason) => (format!("not computed: {reason}"), String::new()),
        }
    }

    /// The numbers behind the cell, each with its name; a lone number has none.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let real = |value: f64| format!("{value}");
        let or_blank = |value: Option<f64>| value.map(real).unwrap_or_default();
        match self {
            Self::Blank => Vec::new(),
            Self::Text(text) => vec![("", text.clone())],
            Self::Count(n) => vec![("", n.to_string())],
            Self::Number(value, _) => vec![("", real(*value))],
            Self::Mean(of) => vec![
                ("mean", real(of.middle)),
                ("sd", or_blank(of.first)),
                ("se", or_blank(of.second)),
                ("n", of.n.to_string()),
                ("missing", of.missing.to_string()),
            ],
            Self::Median(of) => vec![
                ("median", real(of.middle)),
                ("q1", or_blank(of.first)),
                ("q3", or_blank(of.second)),
                ("n", of.n.to_string()),
                ("missing", of.missing.to_string()),
            ],
            Self::Share { cases, of } => {
                vec![("cases", cases.to_string()), ("n", of.to_string())]
            }
            Self::Interval { value, low, high, .. } => {
                vec![("", real(*value)), ("low", real(*low)), ("high", real(*high))]
            }
            Self::P(p, test) => vec![("", real(*p)), ("test", test.clone())],
            Self::NotComputed(reason) => vec![("note", format!("not computed: {reason}"))],
        }
    }
}

fn missing(n: u64) -> String {
    if n == 0 { String::new() } else { format!(", missing {}", count(n)) }
}

/// A number with so many decimals and a true minus sign.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| matches!(c, '0' | '.')) => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// A p value as journals print it: three decimals, `< 0.001` below.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

impl Table {
    /// A table with these headings.
    pub fn new(caption: impl Into<String>, head: Vec<String>) -> Self {
        Self { caption: caption.into(), head, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    /// The caption, or `other` where there is none.
    pub fn caption_or<'a>(&'a self, other: &'a str) -> &'a str {
        if self.caption.is_empty() { other } else { &self.caption }
    }

    /// The cells of every row, with the heading that it stands under.
    fn under_headings(&self) -> Vec<(&str, &[Cell])> {
        let mut heading = "";
        let mut rows = Vec::new();
        for row in &self.rows {
            match row {
                Row::Heading(text) => heading = text,
                Row::Cells(cells) => rows.push((heading, &cells[..])),
            }
        }
        rows
    }

    /// The table as CSV: a column for each number of a cell, in full precision, so that it can be computed with.
    pub fn csv(&self) -> String {
        let rows = self.under_headings();
        let headed = rows.iter().any(|(heading, _)| !heading.is_empty());
        let mut names: Vec<Vec<&str>> = vec![Vec::new(); self.head.len()];
        for (_, cells) in &rows {
            for (names, cell) in names.iter_mut().zip(*cells) {
                for (name, _) in cell.facts() {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        let mut head: Vec<String> = headed.then(|| "group".to_owned()).into_iter().collect();
        for (title, names) in self.head.iter().zip(&mut names) {
            if names.is_empty() {
                names.push("");
            }
            head.extend(names.iter().map(|name| format!("{title} {name}").trim().to_owned()));
        }
        let mut text = csv_line(&head);
        for (heading, cells) in rows {
            let mut line: Vec<String> = headed.then(|| heading.to_owned()).into_iter().collect();
            for (cell, names) in cells.iter().zip(&names) {
                let facts = cell.facts();
                line.extend(names.iter().map(|name| {
                    facts.iter().find(|(n, _)| n == name).map_or_else(String::new, |f| f.1.clone())
                }));
            }
            text.push_str(&csv_line(&line));
        }
        text
    }

    /// The table as LaTeX, for the packages booktabs and fontenc (T1).
    pub fn latex(&self) -> String {
        let columns = format!("l{}", "r".repeat(self.head.len().saturating_sub(1)));
        let mut text = format!("% {}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n", self.caption);
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        text.push_str(&line(self.head.iter().map(|h| latex(h)).collect()));
        text.push_str("\\midrule\n");
        for row in &self.rows {
            match row {
                Row::Heading(heading) => {
                    let _ = writeln!(
                        text,
                        "\\multicolumn{{{}}}{{l}}{{\\textbf{{{}}}}} \\\\",
                        self.head.len(),
                        latex(heading)
                    );
                }
                Row::Cells(cells) => {
                    let cell = |cell: &Cell| match cell {
                        Cell::NotComputed(_) | Cell::Interval { .. } => {
                            let (main, small) = cell.words();
                            latex(format!("{main} {small}").trim())
                        }
                        _ => latex(&cell.words().0),
                    };
                    text.push_str(&line(cells.iter().map(cell).collect()));
                }
            }
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        text
    }
}

fn csv_line(fields: &[String]) -> String {
    let quoted = |field: &String| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Text that LaTeX prints as it is.
fn latex(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '±' => out.push_str("$\\pm$"),
            '−' => out.push_str("$-$"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            '≥' => out.push_str("$\\geq$"),
            '≤' => out.push_str("$\\leq$"),
            '²' => out.push_str("$^2$"),
            '–' => out.push_str("--"),
            '×' => out.push_str("$\\times$"),
            'η' => out.push_str("$\\eta$"),
            'χ' => out.push_str("$\\chi$"),
            '₁' => out.push_str("$_1$"),
            '₀' => out.push_str("$_0$"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::statistics::describe;

    fn table() -> Table {
        let mut table =
            Table::new("DSC", vec!["Group".to_owned(), "n".to_owned(), "DSC".to_owned()]);
        table.rows.push(Row::Heading("Vendor, \"all\"".to_owned()));
        let values = [Some(0.5), Some(0.75), None];
        table.push(vec![
            Cell::Text("A & B".to_owned()),
            Cell::Count(1203),
            Cell::mean(&describe(&values), 2),
        ]);
        table.push(vec![
            Cell::Text("C_1".to_owned()),
            Cell::Count(1),
            Cell::mean(&describe(&[Some(0.25)]), 2),
        ]);
        table.push(vec![Cell::Text("D".to_owned()), Cell::Count(0), Cell::mean(&describe(&[]), 2)]);
        table
    }

    #[test]
    fn csv_holds_every_number_in_full() {
        let expected = "group,Group,n,DSC mean,DSC sd,DSC se,DSC n,DSC missing,DSC note\r\n\
            \"Vendor, \"\"all\"\"\",A & B,1203,0.625,0.1767766952966369,0.125,2,1,\r\n\
            \"Vendor, \"\"all\"\"\",C_1,1,0.25,,,1,0,\r\n\
            \"Vendor, \"\"all\"\"\",D,0,,,,,,\"not computed: n = 0, needs 1\"\r\n";
        assert_eq!(table().csv(), expected);
    }

    #[test]
    fn latex_is_escaped() {
        let text = table().latex();
        assert!(text.contains("A \\& B & 1,203 & 0.62 $\\pm$ 0.18 \\\\"), "{text}");
        assert!(text.contains("C\\_1") && text.contains("not computed: n = 0, needs 1"));
        assert!(text.starts_with("% DSC\n\\begin{tabular}{lrr}"));
        assert_eq!(latex("p < 5 % ~ \\"), "p $<$ 5 \\% \\textasciitilde{} \\textbackslash{}");
    }

    #[test]
    fn cells_say_what_is_missing_and_why() {
        let one = Cell::mean(&describe(&[Some(0.25), None]), 2);
        assert_eq!(
            one.words(),
            ("0.25".to_owned(), "SD not computed: n = 1, missing 1".to_owned())
        );
        let median = Cell::median(&describe(&[Some(1.0), Some(2.0), Some(4.0), None]), 1);
        assert_eq!(median.words(), ("2.0 (1.5–3.0)".to_owned(), "missing 1".to_owned()));
        let share = Cell::Share { cases: 1, of: 3 };
        assert_eq!(share.words().0, "1 (33.3 %)");
        assert_eq!(Cell::P(0.0004, "F".to_owned()).words().0, "< 0.001");
        assert_eq!((number(-0.001, 2), number(-1.5, 1)), ("0.00".to_owned(), "−1.5".to_owned()));
    }
}
