//! The threads that do the work: one rayon pool, replaced if a case will not give its thread back.

use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};

/// A pool of `jobs` threads, apart from tokio's, so that no tokio worker ever computes.
#[derive(Debug)]
pub struct Workers {
    pool: RwLock<Arc<rayon::ThreadPool>>,
    jobs: usize,
}

impl Workers {
    /// Starts `jobs` threads.
    pub fn new(jobs: usize) -> Result<Self> {
        let jobs = jobs.max(1);
        Ok(Self { pool: RwLock::new(Arc::new(start(jobs)?)), jobs })
    }

    /// Number of cases that work at once.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Runs `work` on a thread of the pool.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.current().spawn(work);
    }

    /// The pool, for work that waits for its result.
    pub fn current(&self) -> Arc<rayon::ThreadPool> {
        Arc::clone(&self.pool.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with fresh threads, because a case holds one of the old ones for good.
    pub fn renew(&self) -> Result<()> {
        let fresh = Arc::new(start(self.jobs)?);
        let old = std::mem::replace(
            &mut *self.pool.write().unwrap_or_else(PoisonError::into_inner),
            fresh,
        );
        // Dropping a pool waits for nobody: its idle threads end, the stuck one ends with the process.
        drop(old);
        Ok(())
    }
}

fn start(jobs: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .thread_name(|i| format!("torcula-case-{i}"))
        .build()
        .map_err(|e| {
            Error::resource(format!("{jobs} worker threads could not be started: {e}"))
                .hint("pass a smaller --jobs")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_stuck_thread_does_not_stop_the_pool() -> Result<()> {
        let workers = Workers::new(1)?;
        let (release, stuck) = mpsc::channel::<()>();
        workers.spawn(move || assert!(stuck.recv().is_err()));
        workers.renew()?;
        let (done, ended) = mpsc::channel();
        workers.spawn(move || assert!(done.send(()).is_ok()));
        assert!(ended.recv_timeout(Duration::from_secs(20)).is_ok());
        drop(release);
        Ok(())
    }
}
