//! What the steps of a run share, and running them one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::memo::Memo;
use super::{
    Ending, cohort, difference, ingest, session, split, stage_step, summary, together, train,
};
use crate::catalog::Catalog;
use crate::engine::journal::Counts;
use crate::engine::learner::Learner;
use crate::engine::{Budget, Lineage, Metrics, Observer, Stop, Workers, memory};
use crate::error::Result;
use crate::pipeline::{Action, Pipeline, Step};
use crate::report::{self, difference::DifferenceSummary};
use crate::watch::Live;
use crate::watch::live::Tally;

/// What the steps of a run share.
pub struct Runner<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) catalog: Catalog,
    pub(super) workers: Arc<Workers>,
    pub(super) budget: Budget,
    pub(super) stop: Stop,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) live: Arc<Live>,
    pub(super) learner: Option<Arc<dyn Learner>>,
    pub(super) lineage: Lineage,
    pub(super) memo: Arc<Memo>,
}

/// What became of a step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The step.
    pub step: String,
    /// Cases that it reads.
    pub total: u64,
    /// Cases that an earlier run did, from the same bytes with the same parameters.
    pub unchanged: u64,
    /// Cases that an earlier run quarantined, from the same bytes.
    pub known_failed: u64,
    /// Cases done now.
    pub done: u64,
    /// Cases quarantined now.
    pub failed: u64,
    /// Done and failed cases of each centre.
    pub centres: BTreeMap<String, (u64, u64)>,
    /// Cases of each part, in a split.
    pub parts: BTreeMap<String, u64>,
    /// Anything worth a line.
    pub note: Option<String>,
    /// What changed since an earlier night, in a step that tells it.
    pub difference: Option<DifferenceSummary>,
    /// Who waited for whom in the last epoch, in a training.
    pub waits: Option<String>,
    /// Counters, in a step of stages.
    pub metrics: Option<Arc<Metrics>>,
    /// Time it took.
    pub elapsed: Duration,
}

impl StepReport {
    pub(super) fn new(step: &str, total: u64) -> Self {
        Self {
            step: step.to_owned(),
            total,
            unchanged: 0,
            known_failed: 0,
            done: 0,
            failed: 0,
            centres: BTreeMap::new(),
            parts: BTreeMap::new(),
            note: None,
            difference: None,
            waits: None,
            metrics: None,
            elapsed: Duration::ZERO,
        }
    }

    fn tally(&self) -> Tally {
        let Self { done, failed, unchanged, known_failed, .. } = *self;
        Tally { done, failed, unchanged, known_failed, stopped: 0 }
    }

    pub(super) fn count(&mut self, counts: Counts) {
        self.done = counts.done;
        self.failed = counts.failed;
        self.centres = counts.centres;
    }
}

impl Runner<'_> {
    /// The tables and the steps before `until`.
    pub(super) async fn session(&self, until: Option<&str>) -> Result<SessionContext> {
        session::until(&self.catalog, self.pipeline, until, &self.memo).await
    }

    /// Puts small files together, since every query costs memory and time a file and a step leaves a file a commit, and hands
    /// free memory back.
    pub(super) async fn tidy(&self) {
        if let Err(error) = self.catalog.compact().await {
            self.observer.note(&format!("the catalog was not compacted: {error}"));
        }
        memory::trim();
    }

    /// Runs these steps, to the first that ends the run.
    pub(super) async fn steps(&mut self, chosen: Vec<&Step>) -> Result<(Vec<StepReport>, Ending)> {
        let mut steps = Vec::new();
        let mut left = &chosen[..];
        while !left.is_empty() {
            if steps.last().is_some_and(|before: &StepReport| before.done + before.failed > 0) {
                self.tidy().await;
            }
            let (group, rest) = left.split_at(together::next(left));
            left = rest;
            self.lineage.seed = group[0].seed;
            for (step, result) in together::run(self, group).await {
                let report = match result {
                    Ok(report) => report,
                    Err(_) if self.stop.is_set() => {
                        return Ok((steps, Ending::stopped(&self.stop)));
                    }
                    Err(error) => {
                        let error = error.context(format!("step {}", step.name));
                        return Ok((steps, Ending::Failed(error)));
                    }
                };
                self.lineage.catalog_version = self.catalog.cases_version()?;
                if matches!(step.action, Action::Ingest(_)) {
                    self.memo.forget_rows();
                }
                self.memo.settle(&step.name);
                let over = summary::over_limit(self.pipeline, &report);
                steps.push(report);
                if let Some(reason) = over {
                    return Ok((steps, Ending::OverLimit(reason)));
                }
            }
            if self.stop.is_set() {
                return Ok((steps, Ending::stopped(&self.stop)));
            }
        }
        Ok((steps, Ending::Done))
    }

    /// A step, with its span and its place in what is exported. Of those that run side by side it is number `place`, from 0.
    pub(super) async fn watched(&self, step: &Step, place: usize) -> Result<StepReport> {
        let started = Instant::now();
        self.live.step(&step.name);
        let (name, action) = (step.name.as_str(), step.action.name());
        let span = tracing::info_span!("step", step = name, action, otel.status_code = Empty);
        let mut report = match self.step(step, place).instrument(span.clone()).await {
            Ok(report) => report,
            Err(error) => {
                span.record("otel.status_code", "error");
                let fault = error.fault().name();
                span.in_scope(|| tracing::error!(fault, "the step failed"));
                return Err(error);
            }
        };
        report.elapsed = started.elapsed();
        let tally = report.tally();
        self.live.step_ended(name, tally);
        let Tally { done, failed, unchanged, known_failed, .. } = tally;
        let seconds = report.elapsed.as_secs_f64();
        span.in_scope(|| {
            tracing::info!(done, failed, unchanged, known_failed, seconds, "the step ended");
        });
        Ok(report)
    }

    async fn step(&self, step: &Step, place: usize) -> Result<StepReport> {
        match &step.action {
            Action::Ingest(action) => ingest::run(self, step, action).await,
            Action::Cohort(action) => cohort::run(self, step, action).await,
            Action::Split(action) => split::run(self, step, action).await,
            Action::Train(action) => train::run(self, step, action, place).await,
            Action::Stages(_) | Action::Infer(_) | Action::Score(_) => {
                stage_step::run(self, step).await
            }
            Action::Difference(action) => difference::run(self, step, action).await,
            Action::Report(action) => {
                let ctx = self.session(None).await?;
                let job = summary::report_job(self.pipeline, action, &self.lineage);
                let written = report::write(&ctx, &job).await?;
                let mut done = StepReport::new(&step.name, 1);
                done.done = 1;
                done.note = Some(format!("report: {}", written.html.display()));
                Ok(done)
            }
        }
    }
}
