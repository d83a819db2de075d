//! The numbers of the run at work: counted as cases end, read at any moment by the heartbeat and the exports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metric::{self, Sample};
use crate::catalog::Timestamp;
use crate::catalog::lock::{Progress, Vitals};
use crate::engine::learner::TrainEvent;
use crate::engine::{Budget, Metrics, Observer, Outcome, Status, Stop};

/// Identifies a run.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The run.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Version of Torcula.
    pub version: String,
}

/// The cases of a step by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Went through now.
    pub done: u64,
    /// Quarantined now.
    pub failed: u64,
    /// Done before.
    pub unchanged: u64,
    /// Quarantined before.
    pub known_failed: u64,
    /// Cut short by a stop.
    pub stopped: u64,
}

#[derive(Debug)]
struct StepState {
    name: String,
    began: Instant,
    began_at: Timestamp,
    took: Option<Duration>,
    todo: u64,
    tally: Tally,
    metrics: Vec<Arc<Metrics>>,
    progressed_at: Timestamp,
    feed_wait: Option<f64>,
    epoch: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    steps: Vec<StepState>,
    ended: Option<(Duration, u8)>,
    last_success: Option<Timestamp>,
}

/// A run at work. Hears what the engine tells its observer, and passes it on.
pub struct Live {
    identity: Identity,
    jobs: usize,
    budget: Budget,
    stop: Stop,
    began: Instant,
    state: Mutex<State>,
    observer: Arc<dyn Observer>,
}

impl Live {
    /// A run that starts now, with so many cases in work at once. `observer` hears everything as well.
    pub fn new(
        identity: Identity,
        jobs: usize,
        budget: Budget,
        stop: Stop,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (began, state) = (Instant::now(), Mutex::default());
        Self { identity, jobs, budget, stop, began, state, observer }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The step that began last: cases come from one step at a time.
    fn at_work(&self, change: impl FnOnce(&mut StepState)) {
        if let Some(step) = self.state().steps.last_mut() {
            step.progressed_at = Timestamp::now();
            change(step);
        }
    }

    fn at(&self, name: &str, change: impl FnOnce(&mut StepState)) {
        if let Some(step) = self.state().steps.iter_mut().rev().find(|step| step.name == name) {
            step.progressed_at = Timestamp::now();
            change(step);
        }
    }

    /// When the pipeline ended well before.
    pub fn succeeded_before(&self, at: Option<Timestamp>) {
        self.state().last_success = at;
    }

    /// A step begins.
    pub fn step(&self, name: &str) {
        let now = Timestamp::now();
        self.state().steps.push(StepState {
            name: name.to_owned(),
            began: Instant::now(),
            began_at: now,
            took: None,
            todo: 0,
            tally: Tally::default(),
            metrics: Vec::new(),
            progressed_at: now,
            feed_wait: None,
            epoch: None,
        });
    }

    /// The counters of a part of the step at work.
    pub fn attach(&self, metrics: &Arc<Metrics>) {
        self.at_work(|step| step.metrics.push(Arc::clone(metrics)));
    }

    /// A step ended, with all that it counted.
    pub fn step_ended(&self, name: &str, tally: Tally) {
        self.at(name, |step| {
            step.took = Some(step.began.elapsed());
            step.tally = Tally { stopped: step.tally.stopped, ..tally };
        });
    }

    /// The run ended.
    pub fn ended(&self, exit_code: u8) {
        let mut state = self.state();
        state.ended = Some((self.began.elapsed(), exit_code));
        if exit_code == 0 {
            state.last_success = Some(Timestamp::now());
        }
    }

    /// Every number, for all metrics.
    pub fn samples(&self) -> Vec<Sample> {
        let state = self.state();
        let mut samples = Vec::new();
        let mut add = |metric, labels: &[&str], value| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            samples.push(Sample { metric, labels, value });
        };
        let (took, active) = match state.ended {
            Some((took, code)) => {
                add(&metric::RUN_EXIT_CODE, &[], f64::from(code));
                (took, 0.0)
            }
            None => (self.began.elapsed(), 1.0),
        };
        add(&metric::RUN_ACTIVE, &[&self.identity.run_id, &self.identity.version], active);
        add(&metric::RUN_DURATION, &[], took.as_secs_f64());
        if let Some(at) = state.last_success {
            add(&metric::SUCCESS, &[], at.seconds());
            add(&metric::LAG, &[], at.elapsed().as_secs_f64());
        }
        add(&metric::BUDGET, &[], self.budget.bytes() as f64);
        add(
            &metric::BUDGET_USED,
            &[],
            self.budget.bytes().saturating_sub(self.budget.free()) as f64,
        );
        for step in &state.steps {
            self.of_step(step, &mut add);
        }
        samples
    }

    fn of_step(
        &self,
        step: &StepState,
        add: &mut impl FnMut(&'static metric::Metric, &[&str], f64),
    ) {
        let (name, tally) = (step.name.as_str(), step.tally);
        let outcomes = [
            ("done", tally.done),
            ("failed", tally.failed),
            ("unchanged", tally.unchanged),
            ("known_failed", tally.known_failed),
            ("stopped", tally.stopped),
        ];
        for (outcome, cases) in outcomes {
            add(&metric::CASES, &[name, outcome], cases as f64);
        }
        if let Some(share) = step.feed_wait {
            add(&metric::FEED_WAIT, &[name], share);
        }
        if let Some(epoch) = step.epoch {
            add(&metric::EPOCH, &[name], epoch as f64);
        }
        let Some(first) = step.metrics.first() else { return };
        let sum = |of: fn(&Metrics) -> u64| step.metrics.iter().map(|m| of(m)).sum::<u64>() as f64;
        add(&metric::READ, &[name], sum(Metrics::read_bytes));
        add(&metric::WRITTEN, &[name], sum(Metrics::written_bytes));
        let waited: f64 = step.metrics.iter().map(|m| m.admission_wait().as_secs_f64()).sum();
        let took = step.took.unwrap_or_else(|| step.began.elapsed()).as_secs_f64();
        add(&metric::WAIT, &[name], (waited / (took * self.jobs as f64).max(1e-9)).min(1.0));
        let active = sum(Metrics::in_flight_cases);
        add(&metric::ACTIVE, &[name], active);
        let ended = tally.done + tally.failed + tally.stopped;
        let left = step.todo.saturating_sub(ended) as f64 - active;
        add(&metric::QUEUE, &[name], if step.took.is_some() { 0.0 } else { left.max(0.0) });
        let parts: Vec<_> = step.metrics.iter().map(|m| m.stages()).collect();
        for (k, stage) in first.stages().iter().enumerate() {
            let of = || parts.iter().filter_map(|stages| stages.get(k));
            let (cases, failed): (u64, u64) =
                of().fold((0, 0), |(n, f), s| (n + s.cases, f + s.failed));
            add(&metric::STAGE_CASES, &[name, &stage.stage, "done"], (cases - failed) as f64);
            add(&metric::STAGE_CASES, &[name, &stage.stage, "failed"], failed as f64);
            let busy: f64 = of().map(|s| s.busy.as_secs_f64()).sum();
            add(&metric::STAGE_BUSY, &[name, &stage.stage], busy);
        }
    }

    /// The run.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The memory that it shares out.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What stops it.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Observer for Live {
    fn begin(&self, step: &str, todo: u64, unchanged: u64) {
        self.at(step, |step| {
            step.todo = todo;
            step.tally.unchanged = unchanged;
        });
        self.observer.begin(step, todo, unchanged);
    }

    fn case(&self, outcome: &Outcome, metrics: &Metrics) {
        self.at_work(|step| match outcome.status {
            Status::Done => step.tally.done += 1,
            Status::Failed => step.tally.failed += 1,
            Status::Stopped => step.tally.stopped += 1,
        });
        self.observer.case(outcome, metrics);
    }

    fn training(&self, step: &str, event: &TrainEvent) {
        match event {
            TrainEvent::Batch(batch) => self.at(step, |step| {
                step.feed_wait = Some(batch.feed_wait_share);
                step.epoch = Some(batch.epoch - 1);
            }),
            TrainEvent::Epoch(epoch) => {
                self.at(step, |step| {
                    step.feed_wait = Some(epoch.feed_wait_share);
                    step.epoch = Some(epoch.epoch);
                });
                tracing::info!(
                    epoch = epoch.epoch,
                    epochs = epoch.epochs,
                    train_loss = epoch.train_loss,
                    val_dice = epoch.val_dice,
                    seconds = epoch.seconds,
                    samples_per_s = epoch.samples_per_s,
                    "an epoch ended"
                );
            }
        }
        self.observer.training(step, event);
    }

    fn note(&self, text: &str) {
        self.observer.note(text);
    }

    fn end(&self, step: &str) {
        self.observer.end(step);
    }
}

impl Vitals for Live {
    fn progress(&self) -> Option<Progress> {
        let state = self.state();
        let at_work = state.steps.iter().rev().find(|step| step.took.is_none());
        let step = at_work.or(state.steps.last())?;
        let sum = |of: fn(&Tally) -> u64| state.steps.iter().map(|s| of(&s.tally)).sum();
        let training = step.epoch.map(|epoch| epoch as u64);
        Some(Progress {
            step: step.name.clone(),
            step_started_at: step.began_at,
            todo: step.todo,
            done: training.unwrap_or(step.tally.done),
            failed: step.tally.failed,
            progressed_at: step.progressed_at,
            cases_done: sum(|t| t.done),
            cases_failed: sum(|t| t.failed),
            cases_unchanged: sum(|t| t.unchanged),
        })
    }

    fn lost(&self) {
        self.observer.note("another process took the lock of the catalog: the run stops");
        self.stop.set();
    }

    fn note(&self, text: &str) {
        self.observer.note(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Silent;

    fn live() -> Live {
        let identity = Identity { run_id: "r".into(), pipeline: "p".into(), version: "0".into() };
        Live::new(identity, 2, Budget::new(1 << 20, 1 << 20), Stop::default(), Arc::new(Silent))
    }

    fn outcome(status: Status) -> Outcome {
        Outcome {
            case_id: "sub-1".into(),
            centre: None,
            fingerprint: String::new(),
            status,
            reason: None,
            records: Vec::new(),
        }
    }

    fn value(live: &Live, metric: &metric::Metric, labels: &[&str]) -> Option<f64> {
        live.samples().iter().find(|s| s.metric == metric && s.labels == labels).map(|s| s.value)
    }

    #[test]
    fn what_the_observer_hears_is_counted() {
        let live = live();
        live.step("prepared");
        live.begin("prepared", 5, 10);
        let metrics = Arc::new(Metrics::new(["n4"]));
        live.attach(&metrics);
        live.case(&outcome(Status::Done), &metrics);
        live.case(&outcome(Status::Failed), &metrics);
        assert_eq!(value(&live, &metric::CASES, &["prepared", "done"]), Some(1.0));
        assert_eq!(value(&live, &metric::CASES, &["prepared", "unchanged"]), Some(10.0));
        assert_eq!(value(&live, &metric::QUEUE, &["prepared"]), Some(3.0));
        assert_eq!(value(&live, &metric::STAGE_CASES, &["prepared", "n4", "done"]), Some(0.0));
        let progress = live.progress();
        assert_eq!(progress.map(|p| (p.todo, p.done, p.failed)), Some((5, 1, 1)));
        live.step_ended(
            "prepared",
            Tally { done: 4, failed: 1, unchanged: 9, known_failed: 1, stopped: 0 },
        );
        live.step("split");
        assert_eq!(value(&live, &metric::CASES, &["prepared", "known_failed"]), Some(1.0));
        assert_eq!(value(&live, &metric::QUEUE, &["prepared"]), Some(0.0));
        assert_eq!(live.progress().map(|p| (p.step, p.cases_done)), Some(("split".into(), 4)));
    }

    #[test]
    fn a_run_that_ends_well_is_the_last_success() {
        let live = live();
        assert_eq!(value(&live, &metric::SUCCESS, &[]), None);
        live.succeeded_before(Some(Timestamp(1_000_000)));
        live.ended(1);
        assert_eq!(value(&live, &metric::SUCCESS, &[]), Some(1.0));
        assert_eq!(value(&live, &metric::RUN_EXIT_CODE, &[]), Some(1.0));
        assert_eq!(value(&live, &metric::RUN_ACTIVE, &["r", "0"]), Some(0.0));
        live.ended(0);
        assert!(value(&live, &metric::LAG, &[]).is_some_and(|lag| lag < 60.0));
    }

    #[test]
    fn a_lost_lock_stops_the_run() {
        let live = live();
        live.lost();
        assert!(live.stop.is_set());
    }
}
