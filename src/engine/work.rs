//! One case at work: admitted, run on a worker, timed, caught if it panics, given up if it takes too long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::budget::Budget;
use super::case::{Case, CaseInput};
use super::fused::Fused;
use super::metrics::{Metrics, Observer};
use super::outcome::{Outcome, Status};
use super::stage::{Context, Record};
use super::stop::{AbandonOnDrop, CaseStop, Stop};
use super::workers::Workers;
use crate::catalog::{Table, Timestamp};
use crate::error::{Error, Fault, Result};

/// How long a case that passed its limit may take to notice it before its thread is written off.
const GRACE: Duration = Duration::from_secs(10);

/// What every row of a run carries, so that it can be traced.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    /// The run.
    pub run_id: String,
    /// Hash of the resolved pipeline.
    pub pipeline_hash: String,
    /// Version of Torcula.
    pub software_version: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// Version of the `cases` table that the run read.
    pub catalog_version: i64,
}

impl Lineage {
    /// Fills in the columns that every row of a table carries.
    pub fn complete(&self, record: &mut Record, step: &str, case_id: &str, fingerprint: &str) {
        let Value::Object(row) = &mut record.row else { return };
        for column in record.table.columns() {
            let value = match column.name {
                "run_id" => json!(self.run_id),
                "pipeline_hash" => json!(self.pipeline_hash),
                "software_version" => json!(self.software_version),
                "seed" => json!(self.seed.cast_signed()),
                "catalog_version" => json!(self.catalog_version),
                "created_at" | "ingested_at" => json!(Timestamp::now()),
                "step" => json!(step),
                "case_id" if row.get("case_id").is_none_or(|v| v == "") => json!(case_id),
                "fingerprint" if row.get("fingerprint").is_none_or(|v| v == "" || v.is_null()) => {
                    json!(fingerprint)
                }
                _ => continue,
            };
            row.insert(column.name.to_owned(), value);
        }
    }

    /// The row in `failures` for a case that an error stopped.
    pub fn failure(&self, step: &str, stage: &str, input: &CaseInput, error: &Error) -> Record {
        let row = json!({
            "stage": stage,
            "fault": error.fault().name(),
            "reason": error.reason(),
            "hint": error.advice(),
            "transient": error.fault().is_transient(),
        });
        let mut record = Record { table: Table::Failures, row };
        self.complete(&mut record, step, &input.case_id, &input.fingerprint);
        record
    }
}

/// Everything that the cases of one step share.
pub struct Work {
    /// The step's name.
    pub step: String,
    /// Stages and sink.
    pub fused: Fused,
    /// Memory for all cases in work.
    pub budget: Budget,
    /// Threads.
    pub workers: Arc<Workers>,
    /// Longest time that one case may take.
    pub timeout: Duration,
    /// What goes on every row.
    pub lineage: Lineage,
    /// Set when the run is to stop.
    pub stop: Stop,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Hears about every ended case.
    pub observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("step", &self.step)
            .field("fused", &self.fused)
            .finish_non_exhaustive()
    }
}

impl Work {
    /// Runs one case to its end, whatever that is. Never fails: a failure is an outcome.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the case: it publishes nothing and its thread ends at the next check.
    pub async fn process(self: Arc<Self>, input: CaseInput) -> Outcome {
        let span = tracing::info_span!(
            "case",
            case_id = input.case_id.as_str(),
            outcome = Empty,
            stage = Empty,
            fault = Empty,
            otel.status_code = Empty
        );
        self.admitted(input).instrument(span).await
    }

    async fn admitted(self: Arc<Self>, input: CaseInput) -> Outcome {
        let bytes = self.fused.footprint(input.voxels());
        let asked = Instant::now();
        let permit = match self.budget.admit(bytes).await {
            Ok(permit) => permit,
            Err(error) => return self.failed(&input, "admit", &error, Vec::new()),
        };
        self.metrics.waited(asked.elapsed());
        self.metrics.admitted(bytes);
        let stop = CaseStop::new(self.stop.clone());
        let _abandon = AbandonOnDrop(stop.clone());
        let (send, mut ended) = oneshot::channel();
        let (work, row, case_stop) = (Arc::clone(&self), input.clone(), stop.clone());
        let span = Span::current();
        self.workers.spawn(move || {
            let _in = span.enter();
            let outcome = work.run(row, case_stop);
            work.metrics.released(bytes);
            drop(permit);
            drop(send.send(outcome));
        });
        let outcome = match tokio::time::timeout(self.timeout, &mut ended).await {
            Ok(outcome) => outcome.ok(),
            // The case may be publishing at this very moment: then it has won.
            Err(_) if stop.abandon() => Some(self.timed_out(&input, ended).await),
            Err(_) => ended.await.ok(),
        };
        outcome.unwrap_or_else(|| {
            self.failed(&input, "engine", &Error::bug("the worker thread was lost"), Vec::new())
        })
    }

    async fn timed_out(&self, input: &CaseInput, ended: oneshot::Receiver<Outcome>) -> Outcome {
        let error = Error::new(
            Fault::Timeout,
            format!("the case took longer than {} s", self.timeout.as_secs_f64()),
        )
        .hint("raise timeout_s in the pipeline, or look at the case's size");
        let outcome = self.failed(input, "timeout", &error, Vec::new());
        if tokio::time::timeout(GRACE, ended).await.is_err()
            && let Err(error) = self.workers.renew()
        {
            self.observer.note(&error.to_string());
        }
        outcome
    }

    /// The part that computes, on a worker thread.
    fn run(&self, input: CaseInput, stop: CaseStop) -> Outcome {
        let context = Context::new(self.lineage.seed, stop.clone());
        let mut case = Case::new(input.clone());
        let mut stage = "engine";
        let result = caught(|| {
            self.fused.run(&mut case, &context, &self.metrics, &mut |name| stage = name)?;
            if !stop.claim() {
                return Err(Error::cancelled());
            }
            stage = "publish";
            let _span = tracing::debug_span!("stage", stage = "publish").entered();
            let sink = self.fused.sink();
            timed(&self.metrics, self.metrics.publish(), || sink.accept(case))
        });
        let mut records = context.take_records();
        match result {
            Ok(published) => {
                self.metrics.written(published.bytes);
                records.extend(published.records);
                tracing::debug!(written_bytes = published.bytes, "the case is done");
                self.outcome(&input, Status::Done, None, records)
            }
            Err(error) if error.fault() == Fault::Cancelled => {
                self.outcome(&input, Status::Stopped, None, Vec::new())
            }
            // Nothing is wrong with the case, and no other one could be written either.
            Err(error) if error.is_disk_full() => {
                self.stop.halt(error.context(format!("{}, {stage}", input.case_id)));
                self.outcome(&input, Status::Stopped, None, Vec::new())
            }
            Err(error) => self.failed(&input, stage, &error, records),
        }
    }

    /// A quarantined case. Rows recorded before the failure (quality, say) are kept.
    fn failed(
        &self,
        input: &CaseInput,
        stage: &str,
        error: &Error,
        mut records: Vec<Record>,
    ) -> Outcome {
        match caught(|| self.fused.sink().fail(input, error)) {
            Ok(published) => records.extend(published.records),
            Err(error) => self.observer.note(&format!("{}: {error}", self.step)),
        }
        // Why is for `failures` alone: the reason may quote what a registry says of a patient.
        let fault = error.fault().name();
        let span = Span::current();
        span.record("outcome", "failed").record("stage", stage).record("fault", fault);
        span.record("otel.status_code", "error");
        tracing::warn!("the case is quarantined");
        records.push(self.lineage.failure(&self.step, stage, input, error));
        self.outcome(input, Status::Failed, Some(format!("{stage}: {}", error.reason())), records)
    }

    fn outcome(
        &self,
        input: &CaseInput,
        status: Status,
        reason: Option<String>,
        mut records: Vec<Record>,
    ) -> Outcome {
        for record in &mut records {
            self.lineage.complete(record, &self.step, &input.case_id, &input.fingerprint);
        }
        Outcome {
            case_id: input.case_id.clone(),
            centre: input.centre.clone(),
            fingerprint: input.fingerprint.clone(),
            status,
            reason,
            records,
        }
    }
}

/// Runs `work` and books its time and its failure.
pub(super) fn timed<T>(
    metrics: &Metrics,
    stage: usize,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let result = work();
    metrics.stage(stage, start.elapsed(), result.is_err());
    result
}

/// Turns a panic into an error.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::bug(format!("panic: {text}"))
            .hint("this is a mistake in Torcula: please report it with the case's header"))
    })
}
