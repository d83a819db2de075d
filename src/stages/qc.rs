//! `qc`: measures the quality of the image, and of its manual mask where there is one, and judges it by limits.
//!
//! A case that fails is quarantined with every reason; a warning is noted and the case goes on. The metrics are in
//! [`crate::imaging::quality`], with their formulas and sources.

pub use crate::imaging::quality::Thresholds as Qc;

use serde_json::{Value, json};

use super::{Check, parameters};
use crate::catalog::Table;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::{Error, Result};
use crate::imaging::quality::{self, Verdict};

impl Check for Qc {}

impl Stage for Qc {
    fn name(&self) -> &'static str {
        "qc"
    }

    fn version(&self) -> u32 {
        2
    }

    fn parameters(&self) -> Value {
        parameters(self)
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn optional(&self) -> &'static [Slot] {
        &[Slot::Truth]
    }

    fn table(&self) -> Option<Table> {
        Some(Table::Quality)
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        12 * voxels
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let image = case.image()?;
        let measured: quality::Quality =
            quality::measure(image, case.truth.as_ref(), &self.measure)?;
        let verdict = quality::judge(&measured, &image.grid(), self);
        let mut row = parameters(&measured);
        if let Value::Object(row) = &mut row {
            row.insert("verdict".to_owned(), json!(verdict.verdict));
            row.insert("reasons".to_owned(), json!(verdict.reasons));
        }
        context.record(Table::Quality, &row)?;
        if verdict.verdict == Verdict::Fail {
            return Err(Error::data(verdict.reasons.join("; "))
                .hint("look at the image; change the limit under qc: if the image is good"));
        }
        Ok(())
    }
}
