//! Runs a pipeline: step after step, each doing only what is left, everything committed on the way.

pub mod affected;
pub mod clean;
pub mod cohort;
pub mod curate;
mod difference;
mod explain;
mod history;
mod ingest;
mod memo;
pub mod model;
pub mod notify;
pub mod plan;
pub mod relations;
pub mod reveal;
mod runner;
pub mod session;
pub mod split;
mod stage_step;
mod summary;
mod together;
mod train;
pub mod verify;

use std::sync::Arc;

use tracing::Instrument as _;
use tracing::field::Empty;

pub use explain::explain;
pub use runner::StepReport;
pub use summary::{Ending, RunSummary};

use crate::catalog::lock::{self, Owner, Vitals};
use crate::catalog::{self, Catalog, RunRow, RunStatus, Table, Timestamp};
use crate::engine::learner::Learner;
use crate::engine::parameters::suggest;
use crate::engine::{Budget, Lineage, Observer, Stop, Workers};
use crate::error::{Error, Result};
use crate::formats::files::make_folder;
use crate::formats::privacy::Privacy;
use crate::pipeline::{Action, IngestParams, Pipeline, Step};
use crate::watch::live::Identity;
use crate::watch::{Exports, Live, status};
use runner::Runner;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cases in work at once.
    pub jobs: usize,
    /// Memory for cases in work, in bytes.
    pub memory_bytes: u64,
    /// Memory that one case alone may take at most, in bytes.
    pub ceiling_bytes: u64,
    /// The command line, for the `runs` table.
    pub command: String,
    /// Steps, or names of matrices, to which it runs: those and what they need. All steps where there is none.
    pub to: Vec<String>,
    /// Where the run's numbers go.
    pub exports: Exports,
}

impl Options {
    /// The steps to run, in their order.
    ///
    /// # Errors
    /// A configuration error where one of `to` names no step.
    pub fn steps<'p>(&self, pipeline: &'p Pipeline) -> Result<Vec<&'p Step>> {
        if self.to.is_empty() {
            return Ok(pipeline.steps.iter().collect());
        }
        let unknown =
            self.to.iter().find(|name| !pipeline.steps.iter().any(|step| step.is_called(name)));
        if let Some(name) = unknown {
            let known: Vec<&str> = pipeline
                .steps
                .iter()
                .map(|step| step.part_of.as_ref().map_or(&step.name, |of| &of.name).as_str())
                .collect();
            return Err(Error::configuration(format!("there is no step `{name}` to run to"))
                .hint(suggest(name, &known)));
        }
        let names: Vec<&str> = self.to.iter().map(String::as_str).collect();
        Ok(pipeline.closure(&names))
    }
}

/// Runs a pipeline to its end, to the first step over its failure limit, or until it is stopped.
///
/// # Errors
/// What makes the run impossible: a catalog that cannot be written, a lock held by another run, a step that cannot be planned. A
/// broken case is no error.
pub async fn run(
    pipeline: &Pipeline,
    options: &Options,
    learner: Option<Arc<dyn Learner>>,
    stop: Stop,
    observer: Arc<dyn Observer>,
) -> Result<RunSummary> {
    let identity = Identity {
        run_id: uuid::Uuid::now_v7().to_string(),
        pipeline: pipeline.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (run_id, name) = (identity.run_id.as_str(), pipeline.name.as_str());
    let span = tracing::info_span!("run", run_id, pipeline = name, otel.status_code = Empty);
    let budget = Budget::new(options.memory_bytes, options.ceiling_bytes);
    let live = Arc::new(Live::new(identity, options.jobs, budget, stop, observer));
    let ran = locked(pipeline, options, learner, live).instrument(span.clone()).await;
    let code = ran.as_ref().map_or(1, |summary| summary.ending.exit_code());
    if code != 0 {
        span.record("otel.status_code", "error");
    }
    if let Err(error) = &ran {
        span.in_scope(|| tracing::error!(fault = error.fault().name(), "the run is impossible"));
    }
    ran
}

/// The run, once it holds the catalog's lock.
async fn locked(
    pipeline: &Pipeline,
    options: &Options,
    learner: Option<Arc<dyn Learner>>,
    live: Arc<Live>,
) -> Result<RunSummary> {
    let chosen = options.steps(pipeline)?;
    hold_keys(pipeline);
    make_folder(&pipeline.catalog)
        .map_err(|e| Error::from(e).context(pipeline.catalog.display()))?;
    // Before anything is looked at: what is torn of a catalog is set aside by one process.
    let run_id = live.identity().run_id.clone();
    let owner = Owner {
        what: format!("run of {}", pipeline.name),
        run_id: Some(run_id.clone()),
        command: options.command.clone(),
    };
    let lock = lock::acquire(&pipeline.catalog, &owner, Arc::clone(&live) as Arc<dyn Vitals>)?;
    let catalog = Catalog::create_or_open(&pipeline.catalog).await?;
    let before = history::settle(&catalog, lock.left()).await?;
    live.succeeded_before(status::last_success(&before, &pipeline.name));
    let _exporting = options.exports.start(&live)?;
    for repair in catalog.repairs() {
        Observer::note(&*live, &format!("the catalog was repaired: {repair}"));
    }
    let lineage = Lineage {
        run_id,
        pipeline_hash: pipeline.hash.clone(),
        software_version: live.identity().version.clone(),
        seed: pipeline.seed,
        catalog_version: catalog.cases_version()?,
    };
    let mut row = run_row(pipeline, options, &lineage);
    catalog.upsert_run(&row).await?;
    tracing::info!(steps = chosen.len(), jobs = options.jobs, "the run begins");
    let mut runner = Runner {
        pipeline,
        catalog: catalog.clone(),
        workers: Arc::new(Workers::new(options.jobs)?),
        budget: live.budget().clone(),
        stop: live.stop().clone(),
        observer: Arc::clone(&live) as Arc<dyn Observer>,
        live,
        learner,
        lineage,
        memo: Arc::default(),
    };
    let (steps, mut ending) = runner.steps(chosen).await?;
    if let (Ending::Done, Some(alarms)) = (&ending, summary::alarms(pipeline, &steps)) {
        ending = Ending::Alarm(alarms);
    }
    finish(&mut row, &steps, &ending);
    if let Err(error) = catalog.upsert_run(&row).await {
        let error = error.context("the end of the run is not in the catalog");
        match &ending {
            // The reason why it ended says more.
            Ending::Failed(_) => runner.observer.note(&error.to_string()),
            _ => ending = Ending::Failed(error),
        }
    }
    runner.live.ended(ending.exit_code());
    tell(&row, &ending);
    runner.tidy().await;
    // Only what ran has news to tell.
    let scored = steps.iter().filter_map(|report| pipeline.step(&report.step));
    let scored = scored.filter(|step| matches!(step.action, Action::Score(_))).count();
    let scores = match scored {
        0 => None,
        _ => match runner.session(None).await {
            Ok(ctx) => summary::scores(&ctx, pipeline, &runner.lineage).await,
            Err(_) => None,
        },
    };
    Ok(RunSummary { run_id: runner.lineage.run_id, steps, ending, scores })
}

/// Logs how a run ended.
fn tell(row: &RunRow, ending: &Ending) {
    let fault = match ending {
        Ending::Failed(error) => error.fault().name(),
        _ => "",
    };
    tracing::info!(
        status = row.status.name(),
        fault,
        exit_code = row.exit_code,
        cases_done = row.cases_done,
        cases_failed = row.cases_failed,
        cases_unchanged = row.cases_unchanged,
        "the run ended"
    );
}

/// Lets the steps open what the pipeline's ingests sealed, those of earlier runs included. A key that is missing is reported by
/// who needs it.
fn hold_keys(pipeline: &Pipeline) {
    for step in &pipeline.steps {
        if let Action::Ingest(IngestParams { privacy: Some(policy), .. }) = &step.action {
            drop(Privacy::open(policy));
        }
    }
}

fn run_row(pipeline: &Pipeline, options: &Options, lineage: &Lineage) -> RunRow {
    RunRow {
        run_id: lineage.run_id.clone(),
        pipeline: pipeline.name.clone(),
        pipeline_hash: lineage.pipeline_hash.clone(),
        resolved: pipeline.resolved.to_string(),
        command: options.command.clone(),
        status: RunStatus::Running,
        started_at: Timestamp::now(),
        software_version: lineage.software_version.clone(),
        host_cores: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
        ..RunRow::default()
    }
}

fn finish(row: &mut RunRow, steps: &[StepReport], ending: &Ending) {
    let sum = |f: fn(&StepReport) -> u64| steps.iter().map(f).sum::<u64>().cast_signed();
    row.status = ending.status();
    row.exit_code = Some(i64::from(ending.exit_code()));
    row.ended_at = Some(Timestamp::now());
    row.cases_done = sum(|s| s.done);
    row.cases_failed = sum(|s| s.failed);
    row.cases_unchanged = sum(|s| s.unchanged);
}

/// The pipeline as the catalog's last run resolved it, to name its steps in SQL; none where nothing ran yet.
pub async fn last_pipeline(catalog: &Catalog) -> Result<Option<Pipeline>> {
    let ctx = catalog.session(catalog::SessionAt::Latest).await?;
    let query =
        format!("SELECT resolved FROM {} ORDER BY started_at DESC LIMIT 1", Table::Runs.name());
    let Some(resolved) = relations::one_text(&ctx, &query).await? else { return Ok(None) };
    // A pipeline of an older version may no longer be good; the tables can be queried all the same.
    Ok(crate::pipeline::load_text("the last run's pipeline", &resolved, &[]).ok())
}
