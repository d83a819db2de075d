//! What the sessions of a run share, because it does not change between them: fingerprints of splits and trainings, and the
//! rows of steps that are done.
//!
//! A relation is a plan over the relations before it, so that the plan of a late step of a study holds that of every step
//! before, once for each time that it is named. Where such a plan has become large and nothing will change its rows any
//! more, they are written to a file once, and what reads them reads the file.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::Schema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::{DataFrame, DataFrameWriteOptions};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use super::relations::planning;
use crate::error::Result;

/// Operators of a plan from which on its rows are written to a file. Pipelines of one line of steps stay below it.
const LARGE_PLAN: usize = 150;

/// See the module.
#[derive(Debug, Default)]
pub struct Memo(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fingerprints: HashMap<String, String>,
    settled: Settled,
    rows: HashMap<String, Rows>,
    folder: Option<Arc<TempDir>>,
    past: bool,
}

/// The steps whose rows will not change while the memo lives.
#[derive(Debug)]
enum Settled {
    All,
    These(HashSet<String>),
}

impl Default for Settled {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

/// The rows of a step, in a file; none where there are no rows.
#[derive(Debug, Clone)]
struct Rows {
    schema: Arc<Schema>,
    file: Option<PathBuf>,
}

impl Memo {
    /// For sessions in which nothing runs, so that no step's rows change.
    pub fn of_a_reader() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { settled: Settled::All, ..State::default() })))
    }

    /// For sessions that read the catalog as it was: what lies outside of it, such as a model's file, may be another by now.
    pub fn of_the_past() -> Arc<Self> {
        let state = State { settled: Settled::All, past: true, ..State::default() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// The memo of a session.
    pub fn of(ctx: &SessionContext) -> Option<Arc<Self>> {
        ctx.state_ref().read().config().get_extension()
    }

    /// Says that a step is done.
    pub fn settle(&self, step: &str) {
        if let Settled::These(steps) = &mut self.state().settled {
            steps.insert(step.to_owned());
        }
    }

    /// Forgets all rows: the table `cases` has others.
    pub fn forget_rows(&self) {
        self.state().rows.clear();
    }

    /// Whether the text of that name is known.
    pub fn knows(&self, name: &str) -> bool {
        self.state().fingerprints.contains_key(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_settled(&self, step: &str) -> bool {
        match &self.state().settled {
            Settled::All => true,
            Settled::These(steps) => steps.contains(step),
        }
    }

    /// The rows of a step that are in a file already.
    pub async fn rows(&self, ctx: &SessionContext, step: &str) -> Result<Option<DataFrame>> {
        let found = self.state().rows.get(step).cloned();
        match found {
            Some(rows) => rows.read(ctx).await.map(Some),
            None => Ok(None),
        }
    }

    /// The relation of a step, or a file of its rows where its plan is large and nothing will change them.
    pub async fn settled(
        &self,
        ctx: &SessionContext,
        step: &str,
        relation: DataFrame,
    ) -> Result<DataFrame> {
        if !self.is_settled(step) || !is_large(relation.logical_plan())? {
            return Ok(relation);
        }
        let rows = self.write(step, relation).await?;
        let read = rows.read(ctx).await?;
        self.state().rows.insert(step.to_owned(), rows);
        Ok(read)
    }

    async fn write(&self, step: &str, relation: DataFrame) -> Result<Rows> {
        let folder = self.folder()?;
        let schema = Arc::clone(relation.schema().inner());
        let file = folder.path().join(format!("{step}.parquet"));
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        relation
            .write_parquet(&file.display().to_string(), options, None)
            .await
            .map_err(planning)?;
        Ok(Rows { schema, file: file.is_file().then_some(file) })
    }

    fn folder(&self) -> Result<Arc<TempDir>> {
        let mut state = self.state();
        if let Some(folder) = &state.folder {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(tempfile::Builder::new().prefix("torcula-").tempdir()?);
        state.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }
}

impl Rows {
    async fn read(&self, ctx: &SessionContext) -> Result<DataFrame> {
        let Some(file) = &self.file else {
            let none = arrow::array::RecordBatch::new_empty(Arc::clone(&self.schema));
            return ctx.read_batch(none).map_err(planning);
        };
        let options = ParquetReadOptions::default().schema(&self.schema).skip_metadata(false);
        ctx.read_parquet(file.display().to_string(), options).await.map_err(planning)
    }
}

/// Whether a plan, with those of the relations that it names, has at least [`LARGE_PLAN`] operators.
fn is_large(plan: &LogicalPlan) -> Result<bool> {
    fn count(plan: &LogicalPlan, so_far: &mut usize) -> std::result::Result<(), DataFusionError> {
        plan.apply_with_subqueries(|node| {
            *so_far += 1;
            if *so_far >= LARGE_PLAN {
                return Ok(TreeNodeRecursion::Stop);
            }
            if let LogicalPlan::TableScan(scan) = node
                && let Some(view) = scan.source.get_logical_plan()
            {
                count(&view, so_far)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map(drop)
    }
    let mut operators = 0;
    count(plan, &mut operators).map_err(planning)?;
    Ok(operators >= LARGE_PLAN)
}

/// Whether a session reads the catalog as it was.
pub fn is_past(ctx: &SessionContext) -> bool {
    Memo::of(ctx).is_some_and(|memo| memo.state().past)
}

/// Under what name a training's fingerprint is known.
pub fn trained(step: &str) -> String {
    format!("train {step}")
}

/// The text of that name, made where the session does not know it. A step is asked for its fingerprint after all that it
/// depends on is done.
pub async fn once(
    ctx: &SessionContext,
    name: String,
    make: impl Future<Output = Result<String>>,
) -> Result<String> {
    let memo = Memo::of(ctx);
    if let Some(memo) = &memo
        && let Some(found) = memo.state().fingerprints.get(&name)
    {
        return Ok(found.clone());
    }
    let made = make.await?;
    if let Some(memo) = memo {
        memo.state().fingerprints.insert(name, made.clone());
    }
    Ok(made)
}
