//! A step of stages: its plan, its operator, and the commit of what comes out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::prelude::SessionContext;
use serde::Deserialize;

use crate::catalog::{self, Table};
use crate::engine::{CaseExec, CaseInput, Metrics, Slot, Work, journal, memory};
use crate::error::{Error, Result};
use crate::pipeline::{Action, Output, Step};

use super::plan::{self, StagePlan};
use super::{Runner, StepReport, model, relations};

/// The operator over what is left of a step. `todo` must be ordered as the cases are to be taken.
pub(super) async fn operator(
    runner: &Runner<'_>,
    step: &str,
    plan: StagePlan,
    todo: DataFrame,
) -> Result<(Arc<CaseExec>, Arc<Metrics>)> {
    let input = needed_columns(todo)?.create_physical_plan().await.map_err(relations::planning)?;
    Ok(over(runner, step, plan, input))
}

/// The operator over rows that are planned already.
pub(super) fn over(
    runner: &Runner<'_>,
    step: &str,
    plan: StagePlan,
    input: Arc<dyn ExecutionPlan>,
) -> (Arc<CaseExec>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(plan.fused.stages().iter().map(|s| s.name())));
    runner.live.attach(&metrics);
    let work = Work {
        step: step.to_owned(),
        fused: plan.fused,
        budget: runner.budget.clone(),
        workers: Arc::clone(&runner.workers),
        timeout: Duration::from_secs_f64(runner.pipeline.timeout_s),
        lineage: runner.lineage.clone(),
        stop: runner.stop.clone(),
        metrics: Arc::clone(&metrics),
        observer: Arc::clone(&runner.observer),
    };
    // One stream feeds all threads, so that the order of taking is the same for any number of partitions.
    let input: Arc<dyn ExecutionPlan> = if input.properties().partitioning.partition_count() == 1 {
        input
    } else {
        Arc::new(CoalescePartitionsExec::new(input))
    };
    (Arc::new(CaseExec::new(input, Arc::new(work))), metrics)
}

/// Only what the engine reads of a row.
fn needed_columns(frame: DataFrame) -> Result<DataFrame> {
    let known = serde_json::to_value(CaseInput::default()).unwrap_or_default();
    let names: Vec<String> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
    let kept: Vec<&str> =
        names.iter().map(String::as_str).filter(|n| known.get(n).is_some()).collect();
    frame.select_columns(&kept).map_err(relations::planning)
}

/// Runs what is left of a step of stages.
pub(super) async fn run(runner: &Runner<'_>, step: &Step) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    // Networks are opened where there is something to do.
    let mut plan = planned(runner, &ctx, step, false).await?;
    let all = relations::fingerprinted(&ctx, step, &plan.salt).await?;
    let total = all.count().await.map_err(relations::planning)? as u64;
    let todo = relations::todo(&ctx, step, &plan).await?;
    let left = todo.clone().count().await.map_err(relations::planning)? as u64;
    if left > 0 && plan.fused.stages().iter().any(|s| s.reads().contains(&Slot::Image)) {
        refuse_metadata(step, &todo, left).await?;
    }
    let mut report = StepReport::new(&step.name, total);
    report.known_failed = match plan.output {
        Output::Files => relations::count_known_failures(&ctx, step, &plan).await?,
        Output::Shards(_) => 0,
    };
    report.unchanged = (total - left).saturating_sub(report.known_failed);
    runner.observer.begin(&step.name, left, total - left);
    if left > 0 {
        if let Action::Infer(action) = &step.action {
            report.note = model::record(runner, &ctx, step, action).await?;
            plan = planned(runner, &ctx, step, true).await?;
        }
        let committed = committed(&ctx, step, &plan, &todo).await?;
        let marker = plan.marker;
        let _held = match plan.held_bytes {
            0 => None,
            bytes => Some(runner.budget.admit(bytes.min(runner.budget.bytes() / 2)).await?),
        };
        let (exec, metrics) = operator(runner, &step.name, plan, todo).await?;
        report.metrics = Some(metrics);
        // What the queries took is not to stand under the volumes.
        memory::trim();
        let outcomes = exec.execute(0, ctx.task_ctx()).map_err(relations::planning)?;
        report.count(journal::drain(outcomes, &runner.catalog, marker, committed).await?);
    }
    runner.observer.end(&step.name);
    Ok(report)
}

/// The plan of the step; `ready` opens its network.
async fn planned(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    ready: bool,
) -> Result<StagePlan> {
    let learner = runner.learner.as_ref().filter(|_| ready);
    let plan = plan::of_step(ctx, runner.pipeline, step, learner).await?;
    plan.ok_or_else(|| match &step.action {
        Action::Infer(action) => model::missing(&step.name, action),
        _ => Error::bug(format!("steps.{} has no plan", step.name)),
    })
}

/// Refuses a step that is to read images where no case has one.
async fn refuse_metadata(step: &Step, todo: &DataFrame, left: u64) -> Result<()> {
    if todo.schema().field_with_unqualified_name("image_uri").is_err() {
        return Ok(());
    }
    let without = todo.clone().filter(col("image_uri").is_null()).map_err(relations::planning)?;
    if (without.count().await.map_err(relations::planning)? as u64) < left {
        return Ok(());
    }
    let found = format!("steps.{}: none of its {left} cases has an image", step.name);
    Err(Error::configuration(found).hint(
        "they were ingested with `metadata_only`: give the manifest a column `image` and set it to false, or run with \
         `--to STEP` the steps that need no images",
    ))
}

/// Rows that a crash left in a table without the marker that would have made their cases "done".
async fn committed(
    ctx: &SessionContext,
    step: &Step,
    plan: &StagePlan,
    todo: &DataFrame,
) -> Result<journal::Committed> {
    #[derive(Deserialize)]
    struct Key {
        case_id: String,
        fingerprint: String,
    }
    let mut tables: BTreeSet<Table> =
        plan.fused.stages().iter().filter_map(|s| s.table()).collect();
    tables.remove(&plan.marker);
    tables.insert(Table::Failures);
    let mut found = journal::Committed::new();
    for table in tables {
        // A transient failure that happens again is news; a lasting one is not.
        let lasting = if table == Table::Failures { " AND NOT transient" } else { "" };
        let rows = ctx
            .sql(&format!(
                "SELECT DISTINCT case_id AS __case, fingerprint AS __print FROM {} WHERE step = '{}'{lasting}",
                table.name(),
                step.name
            ))
            .await
            .map_err(relations::planning)?;
        let keys = todo
            .clone()
            .select_columns(&["case_id", "fingerprint"])
            .and_then(|keys| {
                keys.join(
                    rows,
                    JoinType::LeftSemi,
                    &["case_id", "fingerprint"],
                    &["__case", "__print"],
                    None,
                )
            })
            .map_err(relations::planning)?;
        let batches = keys.collect().await.map_err(relations::planning)?;
        for key in catalog::rows::<Key>(&batches)? {
            found.insert((table, key.case_id, key.fingerprint));
        }
    }
    Ok(found)
}
