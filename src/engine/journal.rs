//! Commits the outcomes of a step: in batches, every row once, the rows that mark a case as done last.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::{Stream, StreamExt};
use serde_json::Value;
use tracing::Instrument as _;

use super::memory;
use super::outcome::{Outcome, Status, from_batch};
use crate::catalog::{Catalog, Table};
use crate::error::{Error, Result};

/// Longest time that an ended case waits for its commit.
const INTERVAL: Duration = Duration::from_secs(5);
/// Largest number of rows that wait for a commit.
const ROWS: usize = 500;

/// Which rows are in the catalog already although their case is not marked as done: a commit was cut short between two tables.
pub type Committed = HashSet<(Table, String, String)>;

/// Cases of a step by how they ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cases that went through.
    pub done: u64,
    /// Cases that are quarantined.
    pub failed: u64,
    /// Cases that a stop cut short.
    pub stopped: u64,
    /// Done and failed cases of each centre.
    pub centres: BTreeMap<String, (u64, u64)>,
}

impl Counts {
    /// Adds the cases of another part of the same step.
    pub fn absorb(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.stopped += other.stopped;
        for (centre, (done, failed)) in other.centres {
            let entry = self.centres.entry(centre).or_default();
            entry.0 += done;
            entry.1 += failed;
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        let centre = outcome.centre.clone().unwrap_or_else(|| "unknown".to_owned());
        let entry = self.centres.entry(centre).or_default();
        match outcome.status {
            Status::Done => {
                self.done += 1;
                entry.0 += 1;
            }
            Status::Failed => {
                self.failed += 1;
                entry.1 += 1;
            }
            Status::Stopped => self.stopped += 1,
        }
    }
}

/// Rows that wait for their commit.
struct Journal<'a> {
    catalog: &'a Catalog,
    marker: Table,
    committed: Committed,
    waiting: BTreeMap<Table, Vec<Value>>,
    rows: usize,
}

impl Journal<'_> {
    fn add(&mut self, outcome: Outcome) {
        if outcome.status == Status::Stopped {
            return;
        }
        for record in outcome.records {
            let key = (record.table, outcome.case_id.clone(), outcome.fingerprint.clone());
            if record.table != self.marker && self.committed.contains(&key) {
                continue;
            }
            self.waiting.entry(record.table).or_default().push(record.row);
            self.rows += 1;
        }
    }

    /// Commits all tables, the marker's last: a crash in between leaves cases unmarked, and they are done again.
    async fn commit(&mut self) -> Result<()> {
        let span = tracing::debug_span!("commit", rows = self.rows);
        self.commit_rows().instrument(span).await
    }

    async fn commit_rows(&mut self) -> Result<()> {
        self.rows = 0;
        let marked = self.waiting.remove(&self.marker);
        let others = std::mem::take(&mut self.waiting);
        for (table, rows) in others.into_iter().chain(marked.map(|rows| (self.marker, rows))) {
            if table == Table::Cases {
                let rows = rows.into_iter().map(serde_json::from_value);
                let rows: Vec<_> = rows
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|e| Error::bug(format!("a case row: {e}")))?;
                self.catalog.upsert_cases(&rows).await?;
            } else {
                self.catalog.append_json(table, &rows).await?;
            }
        }
        memory::trim();
        Ok(())
    }
}

/// Reads outcomes until the stream ends and commits them on the way. `marker` is the table whose rows say that a case is done.
///
/// # Errors
/// The stream's error or the catalog's; what had ended before is committed either way.
///
/// # Cancel safety
/// Dropping the future loses the rows of at most one interval; their cases are done again by the next run.
pub async fn drain<S>(
    outcomes: S,
    catalog: &Catalog,
    marker: Table,
    committed: Committed,
) -> Result<Counts>
where
    S: Stream<Item = datafusion::error::Result<arrow::array::RecordBatch>>,
{
    let mut journal = Journal { catalog, marker, committed, waiting: BTreeMap::new(), rows: 0 };
    let mut counts = Counts::default();
    let mut outcomes = std::pin::pin!(outcomes);
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    timer.tick().await;
    let mut fault = None;
    loop {
        tokio::select! {
            batch = outcomes.next() => match batch {
                None => break,
                Some(Err(error)) => {
                    fault = Some(Error::bug(format!("the plan failed: {error}")));
                    break;
                }
                Some(Ok(batch)) => {
                    for outcome in from_batch(&batch)? {
                        counts.add(&outcome);
                        journal.add(outcome);
                    }
                }
            },
            _ = timer.tick() => journal.commit().await?,
        }
        if journal.rows >= ROWS {
            journal.commit().await?;
        }
    }
    journal.commit().await?;
    fault.map_or(Ok(counts), Err)
}
