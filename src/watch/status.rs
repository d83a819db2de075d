//! How the runs of a catalog stand, from the catalog alone: what is running, what is stuck, and when each pipeline last went
//! well.

use serde::{Deserialize, Serialize};

use crate::catalog::lock::{self, Holder};
use crate::catalog::{self, Catalog, RunStatus, SessionAt, Timestamp};
use crate::error::Result;

/// Whether something writes to the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Nothing does.
    Idle,
    /// Something does, and its heart beats.
    Running,
    /// Something holds the lock, and its heartbeat stopped a minute ago or more: it hangs or was suspended.
    Stuck,
}

/// A row of `runs`, without the texts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Run {
    /// The run.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// How it stands.
    pub status: RunStatus,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// One pipeline of a catalog.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineStatus {
    /// Its name.
    pub pipeline: String,
    /// Its runs.
    pub runs: usize,
    /// How the last one stands.
    pub last_status: RunStatus,
    /// When that started.
    pub last_started_at: Timestamp,
    /// When a run last ended well.
    pub last_success_at: Option<Timestamp>,
    /// Seconds since then.
    pub lag_s: Option<f64>,
}

/// How a catalog's runs stand.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The catalog's folder.
    pub catalog: String,
    /// Whether something writes to it.
    pub activity: Activity,
    /// What does.
    pub holder: Option<Holder>,
    /// Seconds since its last heartbeat.
    pub silence_s: Option<f64>,
    /// Cases a second, in the step at work.
    pub cases_per_s: Option<f64>,
    /// Seconds until that step has done all its cases, at this rate.
    pub left_s: Option<f64>,
    /// Every pipeline that ran, by name.
    pub pipelines: Vec<PipelineStatus>,
}

/// All runs, from the first to the last.
///
/// # Errors
/// The table cannot be read.
pub async fn runs(catalog: &Catalog) -> Result<Vec<Run>> {
    let ctx = catalog.session(SessionAt::Latest).await?;
    let query = "SELECT run_id, pipeline, status, started_at, ended_at FROM runs ORDER BY run_id";
    catalog::rows(&catalog::sql(&ctx, query).await?)
}

/// When a pipeline last ended well.
pub fn last_success(runs: &[Run], pipeline: &str) -> Option<Timestamp> {
    let well = |run: &&Run| run.pipeline == pipeline && run.status == RunStatus::Done;
    runs.iter().filter(well).filter_map(|run| run.ended_at).max()
}

/// The run at work: the one that the holder of the lock names.
pub fn at_work(catalog: &Catalog) -> Option<String> {
    let lock = lock::state(catalog.folder());
    lock.holder.filter(|_| lock.held)?.run_id
}

/// How the catalog's runs stand.
///
/// # Errors
/// The table `runs` cannot be read.
pub async fn status(catalog: &Catalog) -> Result<Status> {
    let lock = lock::state(catalog.folder());
    let runs = runs(catalog).await?;
    let holder = lock.holder.filter(|_| lock.held);
    let stale = holder.as_ref().is_some_and(Holder::is_stale);
    let activity = match (lock.held, stale) {
        (false, _) => Activity::Idle,
        (true, false) => Activity::Running,
        (true, true) => Activity::Stuck,
    };
    let rate = holder.as_ref().and_then(rate);
    Ok(Status {
        catalog: catalog.folder().display().to_string(),
        activity,
        silence_s: holder.as_ref().map(|h| h.silence().as_secs_f64()),
        cases_per_s: rate.map(|(rate, _)| rate),
        left_s: rate.map(|(_, left)| left),
        pipelines: pipelines(&runs, holder.as_ref().and_then(|h| h.run_id.as_deref())),
        holder,
    })
}

/// Cases a second in the step at work, and seconds until all are done.
fn rate(holder: &Holder) -> Option<(f64, f64)> {
    let progress = holder.progress.as_ref()?;
    let took = progress.step_started_at.until(holder.beat_at).as_secs_f64();
    let ended = (progress.done + progress.failed) as f64;
    if ended < 1.0 || took <= 0.0 {
        return None;
    }
    let rate = ended / took;
    Some((rate, (progress.todo as f64 - ended).max(0.0) / rate))
}

fn pipelines(runs: &[Run], at_work: Option<&str>) -> Vec<PipelineStatus> {
    let mut names: Vec<&str> = runs.iter().map(|run| run.pipeline.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &str| {
        let own: Vec<&Run> = runs.iter().filter(|run| run.pipeline == name).collect();
        let last = own.last()?;
        // Only the holder of the lock runs: another that says so was killed.
        let killed = last.status == RunStatus::Running && at_work != Some(last.run_id.as_str());
        let last_success_at = last_success(runs, name);
        Some(PipelineStatus {
            pipeline: name.to_owned(),
            runs: own.len(),
            last_status: if killed { RunStatus::Killed } else { last.status },
            last_started_at: last.started_at,
            last_success_at,
            lag_s: last_success_at.map(|at| at.elapsed().as_secs_f64()),
        })
    };
    names.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::lock::Progress;

    fn run(id: &str, pipeline: &str, status: RunStatus, ended: Option<i64>) -> Run {
        let ended_at = ended.map(Timestamp);
        Run {
            run_id: id.into(),
            pipeline: pipeline.into(),
            status,
            started_at: Timestamp(0),
            ended_at,
        }
    }

    #[test]
    fn a_run_that_nobody_holds_the_lock_for_was_killed() {
        let runs = [
            run("1", "a", RunStatus::Done, Some(5)),
            run("2", "b", RunStatus::Running, None),
            run("3", "a", RunStatus::Running, None),
        ];
        let found = pipelines(&runs, Some("3"));
        let short: Vec<_> = found.iter().map(|p| (p.pipeline.as_str(), p.last_status)).collect();
        assert_eq!(short, [("a", RunStatus::Running), ("b", RunStatus::Killed)]);
        assert_eq!(found[0].last_success_at, Some(Timestamp(5)));
        assert_eq!(found[1].lag_s, None);
    }

    #[test]
    fn the_rate_is_that_of_the_step_at_the_last_heartbeat() {
        let holder = Holder {
            what: String::new(),
            run_id: None,
            command: String::new(),
            user: String::new(),
            host: String::new(),
            pid: 1,
            started_at: Timestamp(0),
            beat: 2,
            beat_at: Timestamp(11_000_000),
            progress: Some(Progress {
                step_started_at: Timestamp(1_000_000),
                todo: 50,
                done: 18,
                failed: 2,
                ..Progress::default()
            }),
        };
        assert_eq!(rate(&holder), Some((2.0, 15.0)));
        assert_eq!(rate(&Holder { progress: None, ..holder }), None);
    }
}
