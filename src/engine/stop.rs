//! Stopping: the whole run (Ctrl-C), or one case (time limit, a dropped stream), without killing a thread.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::Error;

/// Set once, seen by everyone: the run is to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    stop: AtomicBool,
    reason: OnceLock<Error>,
}

impl Stop {
    /// Asks everything to stop.
    pub fn set(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }

    /// Asks everything to stop because going on is of no use: the disk is full.
    pub fn halt(&self, reason: Error) {
        self.0.reason.get_or_init(|| reason);
        self.set();
    }

    /// Whether the run is to stop.
    pub fn is_set(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// Why going on is of no use, where nobody asked for the stop.
    pub fn reason(&self) -> Option<&Error> {
        self.0.reason.get()
    }
}

const RUNNING: u8 = 0;
const PUBLISHING: u8 = 1;
const ABANDONED: u8 = 2;

/// The state of one case in work. A case is either abandoned or published, never both.
#[derive(Debug, Clone, Default)]
pub struct CaseStop {
    run: Stop,
    state: Arc<AtomicU8>,
}

impl CaseStop {
    /// A case of a run.
    pub fn new(run: Stop) -> Self {
        Self { run, state: Arc::default() }
    }

    /// Whether the work on the case has no more use. Kernels poll this in their outer loops.
    pub fn is_set(&self) -> bool {
        self.run.is_set() || self.state.load(Ordering::SeqCst) == ABANDONED
    }

    /// Claims the right to publish: false once the case is abandoned.
    pub fn claim(&self) -> bool {
        self.state.compare_exchange(RUNNING, PUBLISHING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Gives the case up: false if it is being published already.
    pub fn abandon(&self) -> bool {
        self.state.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Abandons the case when dropped, so that a dropped stream stops the work behind it.
#[derive(Debug)]
pub(super) struct AbandonOnDrop(pub CaseStop);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_published_or_abandoned_but_not_both() {
        let a = CaseStop::default();
        assert!(a.claim() && !a.abandon() && !a.is_set());
        let b = CaseStop::default();
        assert!(b.abandon() && !b.claim() && b.is_set());
    }

    #[test]
    fn stopping_the_run_stops_its_cases() {
        let run = Stop::default();
        let case = CaseStop::new(run.clone());
        assert!(!case.is_set());
        run.set();
        assert!(case.is_set());
    }
}
