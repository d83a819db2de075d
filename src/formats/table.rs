//! Tables of text: comma- or tab-separated, with a line of column names.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde_json::{Number, Value};

use super::files::read_text;
use super::limits;
use crate::error::{Error, Result};

/// A table in memory, every cell a trimmed text.
#[derive(Debug)]
pub(super) struct Table {
    pub path: PathBuf,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// One row; `cells` may be shorter or longer than the table is wide.
#[derive(Debug)]
pub(super) struct Row {
    /// Line (or, without lines, row) number in the file, from 1.
    pub line: u64,
    pub cells: StringRecord,
}

/// What separates the cells of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    /// Cells may be quoted.
    Comma,
    /// A quote is a character like any other, as in BIDS.
    Tab,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// A data error where the file is no UTF-8 text, has no columns or one column twice.
    pub fn read(path: &Path, separator: Separator) -> Result<Self> {
        let text = read_text(path, limits::TABLE_BYTES.get())?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if separator == Separator::Comma { b',' } else { b'\t' })
            .quoting(separator == Separator::Comma)
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(text.as_bytes());
        let damaged = |e: csv::Error| Error::data(format!("{}: {e}", path.display()));
        let columns: Vec<String> =
            reader.headers().map_err(damaged)?.iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(damaged)?;
            let line = record.position().map_or(0, |p| {
                // The position is before the empty lines that precede the record.
                let rest = text.get(p.byte() as usize..).unwrap_or_default();
                let empty = rest.len() - rest.trim_start_matches(['\r', '\n']).len();
                p.line() + rest[..empty].matches('\n').count() as u64
            });
            rows.push(Row { line, cells: record });
        }
        let table = Self { path: path.to_owned(), columns, rows };
        table.check_columns()?;
        Ok(table)
    }

    /// Refuses a table without columns or with two of one name.
    pub fn check_columns(&self) -> Result<()> {
        let place = self.path.display();
        if self.columns.iter().all(String::is_empty) {
            return Err(Error::data(format!("{place}: there is no line of column names")));
        }
        for (i, name) in self.columns.iter().enumerate() {
            if self.columns[..i].contains(name) {
                return Err(Error::data(format!("{place}: the column `{name}` is there twice"))
                    .hint("rename or remove one of them"));
            }
        }
        Ok(())
    }

    /// Where a column is.
    ///
    /// # Errors
    /// A configuration error that names the columns there are, and the nearest.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            let error = Error::configuration(format!(
                "{}: there is no column `{name}`; the columns are {}",
                self.path.display(),
                self.columns.join(", ")
            ));
            if self.columns.len() == 1 && self.columns[0].contains([';', ',', '\t']) {
                return error
                    .hint("separate columns by commas in a .csv file, by tabs in a .tsv file");
            }
            match nearest(name, &self.columns) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// Where a column is, if it is there.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// Why a row cannot be used, if it has not as many cells as there are columns.
    pub fn ragged(&self, row: &Row) -> Option<String> {
        (row.cells.len() != self.columns.len()).then(|| {
            format!(
                "{}: line {} has {} cells, where {} columns are expected",
                self.path.display(),
                row.line,
                row.cells.len(),
                self.columns.len()
            )
        })
    }
}

/// The candidate most like `name`, if one is like it at all.
pub(super) fn nearest<'a>(name: &str, candidates: &'a [String]) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .iter()
        .map(|c| (strsim::jaro_winkler(&name, &c.to_lowercase()), c.as_str()))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// Whether a cell says that there is no value.
pub(super) fn is_missing(cell: &str) -> bool {
    ["", "n/a", "na", "nan", "null", "none"].iter().any(|m| cell.eq_ignore_ascii_case(m))
}

/// A cell as a value: null, a number where it is written as JSON writes numbers (so `007` stays text), or text.
pub(super) fn value(cell: &str) -> Value {
    if is_missing(cell) {
        return Value::Null;
    }
    match serde_json::from_str::<Number>(cell) {
        // An integer too large for 64 bits would lose digits as a float: it is an identifier, not a quantity.
        Ok(n) if !n.is_f64() || cell.contains(['.', 'e', 'E']) => Value::Number(n),
        _ => Value::String(cell.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_become_values() {
        for (cell, expected) in [
            ("71", json!(71)),
            ("-3.5", json!(-3.5)),
            ("007", json!("007")),
            ("n/a", json!(null)),
            ("", json!(null)),
            ("F", json!("F")),
            ("123456789012345678901", json!("123456789012345678901")),
        ] {
            assert_eq!(value(cell), expected, "{cell}");
        }
    }

    #[test]
    fn tables_are_read_with_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "\u{feff}id, age \n\"a,b\",7\n\nshort\n").unwrap();
        let table = Table::read(&path, Separator::Comma).unwrap();
        assert_eq!(table.columns, ["id", "age"]);
        assert_eq!(
            (table.rows[0].cells.iter().collect::<Vec<_>>().join("|"), table.rows[0].line),
            ("a,b|7".into(), 2)
        );
        assert!(table.ragged(&table.rows[1]).unwrap().contains("line 4 has 1 cells"));
        let error = table.column("agee").unwrap_err();
        assert!(error.reason().contains("id, age") && error.advice().unwrap().contains("`age`"));
        std::fs::write(&path, "a\ta\n").unwrap();
        assert!(Table::read(&path, Separator::Tab).unwrap_err().reason().contains("twice"));
        std::fs::write(&path, "").unwrap();
        assert!(Table::read(&path, Separator::Tab).is_err());
        std::fs::write(&path, "id;age\n1;2\n").unwrap();
        let error = Table::read(&path, Separator::Comma).unwrap().column("id").unwrap_err();
        assert!(error.advice().unwrap().contains("commas"));
    }
}
