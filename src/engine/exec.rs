//! The one DataFusion operator: catalog rows in, the outcome of each case out.
//!
//! Cases of all partitions share one thread pool and one memory budget. The stream only schedules: decoding and computing happen on
//! the pool. Dropping the stream abandons every case in work.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::case::CaseInput;
use super::outcome::{SCHEMA, to_batch};
use super::work::Work;
use crate::catalog;

/// Outcomes to gather into one batch, where several are there at once.
const OUTCOMES_A_BATCH: usize = 64;

/// Runs fused stages over the rows of its input.
#[derive(Debug)]
pub struct CaseExec {
    input: Arc<dyn ExecutionPlan>,
    work: Arc<Work>,
    properties: Arc<PlanProperties>,
}

impl CaseExec {
    /// An operator over `input`, whose rows need at least `case_id` and `fingerprint`.
    pub fn new(input: Arc<dyn ExecutionPlan>, work: Arc<Work>) -> Self {
        let partitions = input.properties().partitioning.partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&SCHEMA)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, work, properties: Arc::new(properties) }
    }
}

impl DisplayAs for CaseExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<_> = self.work.fused.stages().iter().map(|s| s.name()).collect();
        let keep: Vec<_> = self.work.fused.sink().needs().iter().map(|s| s.name()).collect();
        write!(
            f,
            "CaseExec: step={}, stages=[{}], keeps=[{}], jobs={}, memory={}",
            self.work.step,
            stages.join(" → "),
            keep.join(", "),
            self.work.workers.jobs(),
            super::budget::human(self.work.budget.bytes()),
        )
    }
}

impl ExecutionPlan for CaseExec {
    fn name(&self) -> &'static str {
        "CaseExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => Ok(Arc::new(Self::new(child, Arc::clone(&self.work)))),
            _ => Err(DataFusionError::Internal("CaseExec has exactly one input".to_owned())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let mode = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, mode)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> PlanResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let work = Arc::clone(&self.work);
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), OUTCOMES_A_BATCH);
        let sender = builder.tx();
        builder.spawn(async move {
            let jobs = work.workers.jobs();
            let stop = work.stop.clone();
            let rows = input.map_err(fail).map(|batch| {
                let cases = batch.and_then(|b| catalog::rows::<CaseInput>(&[b]).map_err(fail));
                stream::iter(match cases {
                    Ok(cases) => cases.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                })
            });
            let outcomes = rows
                .flatten()
                .take_while(move |_| std::future::ready(!stop.is_set()))
                .map(move |row: PlanResult<CaseInput>| {
                    let work = Arc::clone(&work);
                    async move {
                        let outcome = Arc::clone(&work).process(row?).await;
                        work.observer.case(&outcome, &work.metrics);
                        Ok::<_, DataFusionError>(outcome)
                    }
                })
                .buffer_unordered(jobs);
            let mut batches = std::pin::pin!(outcomes.ready_chunks(OUTCOMES_A_BATCH));
            while let Some(chunk) = batches.next().await {
                let chunk: PlanResult<Vec<_>> = chunk.into_iter().collect();
                let batch = chunk.and_then(|outcomes| to_batch(&outcomes).map_err(fail));
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&SCHEMA)
    }
}

fn fail(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
