//! The runs before this one: those whose process died are marked, so that none says `running` for ever.

use crate::catalog::lock::Holder;
use crate::catalog::{self, Catalog, RunRow, RunStatus, SessionAt};
use crate::error::Result;
use crate::watch::status::{self, Run};

/// Marks as killed what says that it is running, since only the holder of the lock runs; `left` is the note of the last
/// holder, which tells how far it came. Returns all runs. Hold the lock.
pub(super) async fn settle(catalog: &Catalog, left: Option<&Holder>) -> Result<Vec<Run>> {
    let runs = status::runs(catalog).await?;
    if runs.iter().all(|run| run.status != RunStatus::Running) {
        return Ok(runs);
    }
    let ctx = catalog.session(SessionAt::Latest).await?;
    let query = "SELECT * FROM runs WHERE status = 'running'";
    let dead: Vec<RunRow> = catalog::rows(&catalog::sql(&ctx, query).await?)?;
    for mut row in dead {
        row.status = RunStatus::Killed;
        let note = left.filter(|left| left.run_id.as_ref() == Some(&row.run_id));
        row.ended_at = note.map(|note| note.beat_at);
        if let Some(progress) = note.and_then(|note| note.progress.as_ref()) {
            row.cases_done = progress.cases_done.cast_signed();
            row.cases_failed = progress.cases_failed.cast_signed();
            row.cases_unchanged = progress.cases_unchanged.cast_signed();
        }
        tracing::warn!(killed_run_id = row.run_id.as_str(), "an earlier run was killed");
        catalog.upsert_run(&row).await?;
    }
    status::runs(catalog).await
}
