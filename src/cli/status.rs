//! `torcula status` and `torcula runs`: how the runs of a catalog stand.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{CatalogArgs, output, runtime};
use crate::catalog::lock::Holder;
use crate::catalog::{self, Format, SessionAt, Timestamp};
use crate::error::Result;
use crate::units::human_duration;
use crate::watch::status::{self, Activity, PipelineStatus, Status};

/// A step without an ended case for so long is worth a word.
const QUIET: Duration = Duration::from_secs(120);

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 with --max-lag where a pipeline is late or a run is stuck: for cron, Nagios, a readiness probe."
)]
pub struct StatusArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Exit with code 1 where a run is stuck, or a pipeline last went well longer ago than this, like 26h
    #[arg(long, value_name = "TIME", value_parser = lag)]
    max_lag: Option<Duration>,
}

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// How many runs to show
    #[arg(short = 'n', long, default_value_t = 10)]
    last: usize,
    /// Form of the result [default: a table to read on a terminal, csv otherwise]
    #[arg(short, long, value_parser = super::catalog::format)]
    format: Option<Format>,
}

/// `90m`, `26h`, `2d`.
fn lag(text: &str) -> std::result::Result<Duration, String> {
    let mistake = || "write it like 90m, 26h or 2d".to_owned();
    let text = text.trim();
    let split = text.len() - text.chars().last().map_or(0, char::len_utf8);
    let unit = match &text[split..] {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(mistake()),
    };
    let number: f64 = text[..split].trim().parse().map_err(|_| mistake())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| mistake())
}

/// `torcula status`.
pub fn status(args: &StatusArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let catalog = args.catalog.named().await?.0;
        let found = status::status(&catalog).await?;
        if args.json {
            let text = serde_json::to_string_pretty(&found);
            output::line(text.map_err(|e| crate::error::Error::bug(e.to_string()))?);
        } else {
            output::raw(told(&found).as_bytes());
        }
        let late = args.max_lag.is_some_and(|limit| is_late(&found, limit));
        if late && !args.json {
            output::line("late: see --max-lag");
        }
        Ok(ExitCode::from(u8::from(late)))
    })
}

fn is_late(status: &Status, limit: Duration) -> bool {
    let late = |p: &PipelineStatus| p.lag_s.is_none_or(|lag| lag > limit.as_secs_f64());
    status.activity == Activity::Stuck
        || status.pipelines.is_empty()
        || status.pipelines.iter().any(late)
}

/// The second of a moment.
fn second(moment: Timestamp) -> String {
    moment.to_string().get(..19).unwrap_or_default().replace('T', " ")
}

fn ago(seconds: f64) -> String {
    human_duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// The status for people.
fn told(status: &Status) -> String {
    let mut text = match (&status.activity, &status.holder) {
        (Activity::Idle, _) => "idle: nothing writes to the catalog\n".to_owned(),
        (activity, None) => format!("{}: another process holds the lock\n", word(*activity)),
        (activity, Some(holder)) => at_work(status, *activity, holder),
    };
    let rows: Vec<Vec<String>> = status
        .pipelines
        .iter()
        .map(|p| {
            vec![
                p.pipeline.clone(),
                p.last_status.to_string(),
                second(p.last_started_at),
                p.last_success_at.map(second).unwrap_or_default(),
                p.lag_s.map(|lag| format!("{} ago", ago(lag))).unwrap_or_default(),
                p.runs.to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["pipeline", "last run", "started (UTC)", "last success (UTC)", "", "runs"];
        text.push('\n');
        text.push_str(&output::table(&header, &rows));
    }
    text
}

fn word(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Running => "running",
        Activity::Stuck => "STUCK",
    }
}

/// What is at work, how far it is, and what to do where it hangs.
fn at_work(status: &Status, activity: Activity, holder: &Holder) -> String {
    let run = holder.run_id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
    let mut text = format!("{}: {}{run}\n", word(activity), holder.what);
    if let Some(progress) = &holder.progress {
        let ended = progress.done + progress.failed;
        let failed = match progress.failed {
            0 => String::new(),
            n => format!(" ({n} quarantined)"),
        };
        let rate = match (status.cases_per_s, status.left_s) {
            (Some(rate), Some(left)) => format!(", {rate:.1}/s, {} left", ago(left)),
            _ => String::new(),
        };
        let far = match progress.todo {
            0 => String::new(),
            todo => format!(": {ended} of {todo}{failed}{rate}"),
        };
        text.push_str(&format!("  step {}{far}\n", progress.step));
        let quiet = progress.progressed_at.until(holder.beat_at);
        if quiet > QUIET {
            text.push_str(&format!("  nothing ended for {}\n", human_duration(quiet)));
        }
    }
    let Holder { user, host, pid, .. } = holder;
    text.push_str(&format!(
        "  {user} on {host}, process {pid}, since {} UTC ({}), last heartbeat {} ago\n",
        second(holder.started_at),
        human_duration(holder.started_at.elapsed()),
        human_duration(holder.silence()),
    ));
    if activity == Activity::Stuck {
        text.push_str(&format!(
            "  it does not answer: `kill -CONT {pid}` wakes it where it was suspended, `kill -9 {pid}` ends it; the next run goes on\n"
        ));
    }
    text
}

/// `torcula runs`.
pub fn runs(args: &RunsArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let catalog = args.catalog.named().await?.0;
        let ctx = catalog.session(SessionAt::Latest).await?;
        let at_work = status::at_work(&catalog).unwrap_or_default().replace('\'', "''");
        // Only the holder of the lock runs: another that says so was killed.
        let query = format!(
            "SELECT run_id, pipeline, \
               CASE WHEN status = 'running' AND run_id <> '{at_work}' THEN 'killed' ELSE status END AS status, \
               started_at, ended_at, exit_code, cases_done, cases_failed, cases_unchanged, \
               (CAST(ended_at AS BIGINT) - CAST(started_at AS BIGINT)) / 1e6 AS seconds \
             FROM runs ORDER BY run_id DESC LIMIT {}",
            args.last
        );
        let query = format!(
            "SELECT *, CASE WHEN seconds > 0 THEN cases_done / seconds END AS cases_per_s FROM ({query}) ORDER BY run_id DESC"
        );
        if args.format.is_some() || !std::io::stdout().is_terminal() {
            return super::catalog::show(&ctx, &query, args.format, None).await;
        }
        let rows = catalog::json_rows(&catalog::sql(&ctx, &query).await?)?;
        output::raw(table(&rows).as_bytes());
        Ok(ExitCode::SUCCESS)
    })
}

/// The runs for people.
fn table(rows: &[Value]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| match &row[key] {
                Value::String(s) => s.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let moment = |key: &str| text(key).parse().map(second).unwrap_or_default();
            vec![
                text("run_id"),
                text("pipeline"),
                text("status"),
                moment("started_at"),
                row["seconds"].as_f64().map(ago).unwrap_or_default(),
                text("cases_done"),
                text("cases_unchanged"),
                text("cases_failed"),
                row["cases_per_s"].as_f64().map(|rate| format!("{rate:.1}")).unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "run",
        "pipeline",
        "status",
        "started (UTC)",
        "took",
        "done",
        "unchanged",
        "quarantined",
        "cases/s",
    ];
    output::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_are_written_as_people_write_them() {
        assert_eq!(lag("26h"), Ok(Duration::from_secs(93_600)));
        assert_eq!(lag("1.5d"), Ok(Duration::from_secs(129_600)));
        assert_eq!(lag("90 m"), Ok(Duration::from_secs(5400)));
        assert!(
            lag("26").is_err() && lag("").is_err() && lag("-1h").is_err() && lag("2µ").is_err()
        );
    }
}
