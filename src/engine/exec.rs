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
use tracing::Instrument as _;

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
        let work_on = async move {
            let jobs = work.workers.jobs();
            let stop = work.stop.clone();
            // Rows are decoded as they are taken: decoded, they need many times the memory of their batch.
            let rows = input
                .map_ok(|batch| stream::iter(catalog::slices(&batch).map(Ok)))
                .try_flatten()
                .and_then(|part| async move { catalog::rows::<CaseInput>(&[part]).map_err(fail) })
                .map_ok(|cases| stream::iter(cases.into_iter().map(Ok)))
                .try_flatten();
            let outcomes = rows
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
        };
        builder.spawn(work_on.in_current_span());
        Ok(builder.build())
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&SCHEMA)
    }
}

fn fail(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a test may panic")]

    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use datafusion::prelude::SessionContext;
    use serde_json::Value;

    use super::*;
    use crate::catalog::Table;
    use crate::engine::outcome::from_batch;
    use crate::engine::{
        Budget, Case, Context, Fused, Lineage, Metrics, Observer, Outcome, RecordSink, Silent,
        Slot, Stage, Status, Stop, Workers,
    };
    use crate::error::{Error, Result};

    /// Does what the case's name says.
    #[derive(Debug)]
    struct Obey(Arc<Mutex<Vec<String>>>);

    impl Stage for Obey {
        fn name(&self) -> &'static str {
            "obey"
        }
        fn version(&self) -> u32 {
            1
        }
        fn parameters(&self) -> Value {
            Value::Null
        }
        fn reads(&self) -> &'static [Slot] {
            &[]
        }
        fn working_bytes(&self, _: u64) -> u64 {
            0
        }
        fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
            match case.input.case_id.split('-').next() {
                Some("panic") => panic!("as told"),
                Some("error") => Err(Error::data("as told").hint("tell it otherwise")),
                Some("wait") => {
                    while !context.is_stopped() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    if let Ok(mut ended) = self.0.lock() {
                        ended.push(case.input.case_id.clone());
                    }
                    context.check()
                }
                _ => Ok(()),
            }
        }
    }

    fn operator(
        names: &[&str],
        timeout: Duration,
        ended: &Arc<Mutex<Vec<String>>>,
    ) -> (CaseExec, Arc<TaskContext>) {
        let ids: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let batch =
            RecordBatch::try_from_iter([("case_id", Arc::clone(&ids)), ("fingerprint", ids)]);
        let ctx = SessionContext::new();
        let frame = ctx.read_batch(batch.expect("two columns")).expect("a batch");
        let plan = futures::executor::block_on(frame.create_physical_plan()).expect("a plan");
        let work = Work {
            step: "test".to_owned(),
            fused: Fused::new(vec![Arc::new(Obey(Arc::clone(ended)))], Arc::new(RecordSink)),
            budget: Budget::new(64 << 20, 64 << 20),
            workers: Arc::new(Workers::new(2).expect("threads")),
            timeout,
            lineage: Lineage::default(),
            stop: Stop::default(),
            metrics: Arc::new(Metrics::new(["obey"])),
            observer: Arc::new(Silent) as Arc<dyn Observer>,
        };
        (CaseExec::new(plan, Arc::new(work)), ctx.task_ctx())
    }

    async fn outcomes(names: &[&str], timeout: Duration) -> Vec<Outcome> {
        let (exec, context) = operator(names, timeout, &Arc::default());
        let stream = exec.execute(0, context).expect("a stream");
        let batches: Vec<_> = stream.try_collect().await.expect("no case is an error of the plan");
        let mut all: Vec<Outcome> =
            batches.iter().flat_map(|b| from_batch(b).expect("outcomes")).collect();
        all.sort_by(|a, b| a.case_id.cmp(&b.case_id));
        all
    }

    #[tokio::test]
    async fn a_stage_that_panics_or_fails_is_a_failure_row_and_the_others_go_on() {
        let all = outcomes(&["a", "error-1", "b", "panic-1", "c"], Duration::from_secs(60)).await;
        let status: Vec<_> = all.iter().map(|o| (o.case_id.as_str(), o.status)).collect();
        let (done, failed) = (Status::Done, Status::Failed);
        let expected =
            [("a", done), ("b", done), ("c", done), ("error-1", failed), ("panic-1", failed)];
        assert_eq!(status, expected);
        let row = &all[4].records[0];
        assert_eq!(row.table, Table::Failures);
        assert_eq!(row.row["stage"], "obey");
        assert_eq!(row.row["fault"], "bug");
        assert!(row.row["reason"].as_str().is_some_and(|r| r.contains("as told")), "{row:?}");
        assert_eq!(all[3].records[0].row["hint"], "tell it otherwise");
    }

    #[tokio::test]
    async fn a_case_over_its_time_limit_is_a_transient_failure() {
        let all = outcomes(&["wait-1", "a"], Duration::from_millis(200)).await;
        assert_eq!(all[0].status, Status::Done);
        assert_eq!(all[1].records[0].row["fault"], "timeout");
        assert_eq!(all[1].records[0].row["transient"], true);
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_the_work_behind_it() {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let (exec, context) = operator(&["wait-1", "wait-2"], Duration::from_secs(60), &ended);
        let mut stream = exec.execute(0, context).expect("a stream");
        // A runtime of one thread: were a stage run on it, this would never come back.
        assert!(tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_err());
        drop(stream);
        let start = Instant::now();
        while ended.lock().is_ok_and(|e| e.len() < 2) {
            assert!(start.elapsed() < Duration::from_secs(20), "the work goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
