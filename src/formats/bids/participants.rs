//! `participants.tsv` and `sub-X_sessions.tsv`: what is known about people and visits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ScanOptions;
use crate::error::{Error, Result};
use crate::formats::cases::{Finding, Variables, is_id};
use crate::formats::table::{Row, Separator, Table, is_missing, value};

/// Rows by subject and, where the table has a column `session_id`, by session.
#[derive(Debug, Default)]
pub(super) struct Participants {
    rows: BTreeMap<(String, Option<String>), Variables>,
    /// Subjects whose rows contradict each other or cannot be read: every case of theirs is left out, with a reason.
    pub refused: BTreeMap<String, (String, &'static str)>,
    /// Findings about rows whose identifier names nobody.
    pub findings: Vec<Finding>,
    /// Whether there was a table at all.
    pub given: bool,
}

impl Participants {
    /// Reads `participants.tsv`.
    ///
    /// # Errors
    /// A data error where the table cannot be read or has no column `participant_id`, a configuration error where a
    /// column that the options name is missing.
    pub fn read(path: &Path, options: &ScanOptions) -> Result<Self> {
        let table = Table::read(path, Separator::Tab)?;
        let id_at = table.column("participant_id").map_err(|e| {
            Error::data(e.reason()).hint(
                e.advice()
                    .unwrap_or("name the column with the subjects, sub-…, participant_id")
                    .to_owned(),
            )
        })?;
        let session_at = table.find("session_id");
        let names = variable_names(&table, options)?;
        let mut people = Self { given: true, ..Self::default() };
        for row in &table.rows {
            let id = row.cells.get(id_at).unwrap_or_default();
            let Some(subject) = subject_of(id) else {
                let reason = format!(
                    "{}: line {}: `{}` is not a participant_id",
                    path.display(),
                    row.line,
                    id.escape_debug()
                );
                let id = if id.is_empty() { format!("line-{}", row.line) } else { id.to_owned() };
                let hint = "write sub- and letters or digits";
                people.findings.push(Finding::excludes(&id, reason, hint));
                continue;
            };
            if let Some(reason) = table.ragged(row) {
                people.refused.insert(subject, (reason, "give every row one cell a column"));
                continue;
            }
            let session = session_at
                .and_then(|at| row.cells.get(at))
                .filter(|cell| !is_missing(cell))
                .map(|cell| with_prefix("ses-", cell));
            let variables = variables(row, &names, &[Some(id_at), session_at]);
            people.add(subject, session, variables, path, row.line);
        }
        Ok(people)
    }

    fn add(
        &mut self,
        subject: String,
        session: Option<String>,
        variables: Variables,
        path: &Path,
        line: u64,
    ) {
        let key = (subject, session);
        let Some(first) = self.rows.get(&key) else {
            self.rows.insert(key, variables);
            return;
        };
        let reason = format!("{}: line {line}: {} is there twice", path.display(), key.0);
        if *first == variables {
            self.findings.push(Finding::notes(&key.0, format!("{reason}, with equal values"), ""));
        } else {
            let hint = "keep the row that is right";
            self.refused.insert(key.0, (format!("{reason}, with different values"), hint));
        }
    }

    /// What is known about a visit; of a subject, where the visit has no row of its own.
    pub fn variables(&self, subject: &str, session: Option<&str>) -> Option<&Variables> {
        let of = |session: Option<&str>| {
            self.rows.get(&(subject.to_owned(), session.map(str::to_owned)))
        };
        of(session).or_else(|| of(None))
    }

    /// Every subject in the table.
    pub fn subjects(&self) -> BTreeSet<&str> {
        let refused = self.refused.keys().map(String::as_str);
        self.rows.keys().map(|(subject, _)| subject.as_str()).chain(refused).collect()
    }
}

/// What a `sub-X_sessions.tsv` says, by session.
pub(super) fn sessions(path: &Path, options: &ScanOptions) -> Result<BTreeMap<String, Variables>> {
    let table = Table::read(path, Separator::Tab)?;
    let at = table.column("session_id")?;
    let mut by_session = BTreeMap::new();
    let lenient = |name: &str| name_of(name, options);
    let names: Vec<String> = table.columns.iter().map(|c| lenient(c)).collect();
    for row in &table.rows {
        if let Some(reason) = table.ragged(row) {
            return Err(Error::data(reason));
        }
        let session = with_prefix("ses-", &row.cells[at]);
        by_session.insert(session, variables(row, &names, &[Some(at)]));
    }
    Ok(by_session)
}

/// The variable of each column.
fn variable_names(table: &Table, options: &ScanOptions) -> Result<Vec<String>> {
    for column in options.participants.values() {
        table.column(column)?;
    }
    Ok(table.columns.iter().map(|c| name_of(c, options)).collect())
}

fn name_of(column: &str, options: &ScanOptions) -> String {
    let renamed = options.participants.iter().find(|(_, from)| *from == column);
    renamed.map_or(column, |(name, _)| name).to_owned()
}

fn variables(row: &Row, names: &[String], without: &[Option<usize>]) -> Variables {
    names
        .iter()
        .zip(&row.cells)
        .enumerate()
        .filter(|(at, (name, _))| !without.contains(&Some(*at)) && !name.is_empty())
        .map(|(_, (name, cell))| (name.clone(), value(cell)))
        .collect()
}

fn with_prefix(prefix: &str, label: &str) -> String {
    if label.starts_with(prefix) { label.to_owned() } else { format!("{prefix}{label}") }
}

/// `sub-X` for `sub-X` or `X`; none where X is no label.
pub(super) fn subject_of(id: &str) -> Option<String> {
    let subject = with_prefix("sub-", id);
    is_label(&subject[4..]).then_some(subject)
}

/// Whether a text is a label: letters and digits, and, more than BIDS allows, `-` and `+`.
pub(super) fn is_label(text: &str) -> bool {
    is_id(text) && !text.contains(['_', '.'])
}
