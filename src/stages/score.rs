//! `score`: compares the predicted mask with the manual one in the case's own grid (see [`crate::imaging::metrics`]).

use serde_json::{Value, json};

use super::parameters;
use crate::catalog::Table;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::Result;
use crate::imaging::metrics;

/// Scores a case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score;

impl Stage for Score {
    fn name(&self) -> &'static str {
        "score"
    }

    fn version(&self) -> u32 {
        1
    }

    fn parameters(&self) -> Value {
        Value::Null
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Truth, Slot::Prediction]
    }

    fn table(&self) -> Option<Table> {
        Some(Table::Scores)
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // Labels and runs of both masks, and distances in the box around them, of masks with as many lesions as fit.
        31 * voxels
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let scores = metrics::score(case.mask(Slot::Truth)?, case.mask(Slot::Prediction)?)?;
        let mut row = parameters(&scores);
        if let Value::Object(row) = &mut row {
            row.insert("model_id".to_owned(), json!(case.input.model_id));
        }
        context.record(Table::Scores, &row)
    }
}
