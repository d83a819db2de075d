//! What a step costs: counted by the engine around every stage, never by a stage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::learner::TrainEvent;
use super::outcome::Outcome;

/// Hears about every case that ends, to show progress.
pub trait Observer: Send + Sync {
    /// A step begins with this many cases to do, beside those that are unchanged.
    fn begin(&self, step: &str, todo: u64, unchanged: u64);
    /// A case ended.
    fn case(&self, outcome: &Outcome, metrics: &Metrics);
    /// The training of a step went on; several steps may train at once.
    fn training(&self, step: &str, event: &TrainEvent);
    /// Something worth a line.
    fn note(&self, text: &str);
    /// The step ended.
    fn end(&self, step: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _: &str, _: u64, _: u64) {}
    fn case(&self, _: &Outcome, _: &Metrics) {}
    fn training(&self, _: &str, _: &TrainEvent) {}
    fn note(&self, _: &str) {}
    fn end(&self, _: &str) {}
}

/// Counters of one stage.
#[derive(Debug, Default)]
struct Counter {
    cases: AtomicU64,
    failed: AtomicU64,
    busy_ns: AtomicU64,
}

/// Time and cases of one stage of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTime {
    /// The stage, or `decode` and `publish` around them.
    pub stage: String,
    /// Cases that went through.
    pub cases: u64,
    /// Cases that failed in it.
    pub failed: u64,
    /// Time on a worker thread.
    pub busy: Duration,
}

/// Counters of one step.
#[derive(Debug)]
pub struct Metrics {
    names: Vec<String>,
    stages: Vec<Counter>,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    admission_wait_ns: AtomicU64,
    in_flight_cases: AtomicU64,
    in_flight_bytes: AtomicU64,
    peak_in_flight_bytes: AtomicU64,
}

impl Metrics {
    /// Index of the reading of input files.
    pub const DECODE: usize = 0;

    /// Counters for `decode`, the named stages, and `publish`.
    pub fn new<'a>(stages: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = vec!["decode".to_owned()];
        names.extend(stages.into_iter().map(str::to_owned));
        names.push("publish".to_owned());
        Self {
            stages: names.iter().map(|_| Counter::default()).collect(),
            names,
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            admission_wait_ns: AtomicU64::new(0),
            in_flight_cases: AtomicU64::new(0),
            in_flight_bytes: AtomicU64::new(0),
            peak_in_flight_bytes: AtomicU64::new(0),
        }
    }

    /// Index of the writing of artifacts.
    pub fn publish(&self) -> usize {
        self.stages.len() - 1
    }

    pub(super) fn stage(&self, index: usize, busy: Duration, failed: bool) {
        let counter = &self.stages[index];
        counter.cases.fetch_add(1, Ordering::Relaxed);
        counter.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        counter.busy_ns.fetch_add(nanoseconds(busy), Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, time: Duration) {
        self.admission_wait_ns.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn admitted(&self, bytes: u64) {
        self.in_flight_cases.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_in_flight_bytes.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn released(&self, bytes: u64) {
        self.in_flight_cases.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Time and cases of every stage, in order.
    pub fn stages(&self) -> Vec<StageTime> {
        self.names
            .iter()
            .zip(&self.stages)
            .map(|(name, counter)| StageTime {
                stage: name.clone(),
                cases: counter.cases.load(Ordering::Relaxed),
                failed: counter.failed.load(Ordering::Relaxed),
                busy: Duration::from_nanos(counter.busy_ns.load(Ordering::Relaxed)),
            })
            .collect()
    }

    /// Bytes of input files that were read (as they lie on disk).
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of artifacts that were written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Time that cases waited for memory.
    pub fn admission_wait(&self) -> Duration {
        Duration::from_nanos(self.admission_wait_ns.load(Ordering::Relaxed))
    }

    /// Cases in work at this moment.
    pub fn in_flight_cases(&self) -> u64 {
        self.in_flight_cases.load(Ordering::Relaxed)
    }

    /// Largest sum of predicted footprints in work at one moment, in bytes.
    pub fn peak_in_flight_bytes(&self) -> u64 {
        self.peak_in_flight_bytes.load(Ordering::Relaxed)
    }

    /// The stage with the most busy time.
    pub fn limiting(&self) -> Option<StageTime> {
        self.stages().into_iter().filter(|s| !s.busy.is_zero()).max_by_key(|s| s.busy)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiting_stage_is_the_busiest() {
        let metrics = Metrics::new(["a", "b"]);
        assert_eq!(metrics.limiting(), None);
        metrics.stage(1, Duration::from_millis(5), false);
        metrics.stage(2, Duration::from_millis(9), true);
        assert_eq!(metrics.limiting().map(|s| (s.stage, s.failed)), Some(("b".to_owned(), 1)));
        metrics.admitted(10);
        metrics.admitted(20);
        metrics.released(10);
        assert_eq!(metrics.peak_in_flight_bytes(), 30);
        assert_eq!(metrics.in_flight_cases(), 1);
    }
}
