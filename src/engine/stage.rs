//! The trait that a stage implements: one verb on one case.

use std::cell::RefCell;
use std::fmt;

use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

use super::case::{Case, Slot};
use super::stop::CaseStop;
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::imaging::random;

/// A row that a stage adds to a table of the catalog; the engine adds the lineage.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The table.
    pub table: Table,
    /// The row as a JSON object.
    pub row: Value,
}

/// What a stage may know beside the case.
#[derive(Debug)]
pub struct Context {
    seed: u64,
    stop: CaseStop,
    records: RefCell<Vec<Record>>,
}

impl Context {
    /// A context for one case.
    pub fn new(seed: u64, stop: CaseStop) -> Self {
        Self { seed, stop, records: RefCell::default() }
    }

    /// Random numbers that depend on the run's seed, the case and the stage, and on nothing else.
    pub fn rng(&self, case: &Case, stage: &str) -> ChaCha8Rng {
        random::keyed(self.seed, &[&case.input.case_id, stage])
    }

    /// Whether to give up. Long kernels poll it.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// An error once the case is to be given up.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Adds a row to a table.
    pub fn record(&self, table: Table, row: &impl Serialize) -> Result<()> {
        let row = serde_json::to_value(row)
            .map_err(|e| Error::bug(format!("a row for {} is no JSON: {e}", table.name())))?;
        self.records.borrow_mut().push(Record { table, row });
        Ok(())
    }

    /// The rows recorded so far.
    pub fn take_records(&self) -> Vec<Record> {
        self.records.take()
    }
}

/// One verb on one case, with its parameters inside.
///
/// A stage changes the slots it [`writes`](Stage::writes) and nothing else; it is called from many threads at
/// once. What it returns must depend on the case's slots, its parameters, and [`Context::rng`] alone.
pub trait Stage: Send + Sync + fmt::Debug {
    /// The name in pipelines and tables.
    fn name(&self) -> &'static str;

    /// To be raised when the same parameters give other output: everything after it is then redone.
    fn version(&self) -> u32;

    /// The parameters, as they enter the fingerprint.
    fn parameters(&self) -> Value;

    /// Slots that must be filled.
    fn reads(&self) -> &'static [Slot];

    /// Slots that it fills or changes.
    fn writes(&self) -> &'static [Slot] {
        &[]
    }

    /// Slots that it uses where the case has them.
    fn optional(&self) -> &'static [Slot] {
        &[]
    }

    /// Slots that it changes together with the image where a later stage or the output uses them.
    fn carries(&self) -> &'static [Slot] {
        &[]
    }

    /// Whether it draws random numbers, so that the seed enters the fingerprint.
    fn is_random(&self) -> bool {
        false
    }

    /// The table that it records a row a case in, if any.
    fn table(&self) -> Option<Table> {
        None
    }

    /// Upper bound of the memory in bytes that it needs beside the slots, for a case of that many voxels.
    fn working_bytes(&self, voxels: u64) -> u64;

    /// Does the work.
    ///
    /// # Errors
    /// Any error quarantines the case: it becomes a row in `failures`, and the run goes on.
    fn run(&self, case: &mut Case, context: &Context) -> Result<()>;
}
