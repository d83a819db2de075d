//! Text for people: a closed pipe ends the output quietly, and errors look the same everywhere.

use std::io::{IsTerminal, Write};

use crate::error::Error;

/// Writes a line to standard output.
pub fn line(text: impl AsRef<str>) {
    raw(text.as_ref().as_bytes());
    raw(b"\n");
}

/// Writes bytes to standard output.
pub fn raw(bytes: &[u8]) {
    // `torcula … | head` closes the pipe: nobody is left to tell.
    drop(std::io::stdout().write_all(bytes));
}

/// Writes a line to standard error.
pub fn note(text: impl AsRef<str>) {
    drop(writeln!(std::io::stderr(), "{}", text.as_ref()));
}

/// Writes an error to standard error.
pub fn error(error: &Error) {
    let (red, bold, off) =
        if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            ("\u{1b}[31;1m", "\u{1b}[1m", "\u{1b}[0m")
        } else {
            ("", "", "")
        };
    note(format!("{red}error:{off} {}", error.reason()));
    if let Some(hint) = error.advice() {
        note(format!("  {bold}hint:{off} {hint}"));
    }
}

/// A table with aligned columns; numbers to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|r| r[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let numeric = |column: usize| {
        rows.iter()
            .all(|r| r[column].is_empty() || r[column].starts_with(|c: char| c.is_ascii_digit()))
    };
    let widths: Vec<(usize, bool)> = (0..header.len()).map(|c| (width(c), numeric(c))).collect();
    let mut text = String::new();
    let heading: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, (width, right))| {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                if *right { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_right_aligned() {
        let rows =
            vec![vec!["n4".to_owned(), "7".to_owned()], vec!["qc".to_owned(), "12".to_owned()]];
        assert_eq!(
            super::table(&["stage", "cases"], &rows),
            "stage  cases\nn4         7\nqc        12\n"
        );
    }
}
