//! Commands that keep a catalog in order: `clean` and `verify`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{CatalogArgs, lock, output, runtime};
use crate::error::{Error, Result};
use crate::formats::files::human_bytes;
use crate::pipeline::Retention;
use crate::run::clean::{self, Kind, Rules};
use crate::run::verify;

/// Arguments of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Show what would go, remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Keep superseded artifacts for this many days [default: the pipeline's `retention`, or 30]
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<u32>,
    /// Keep this many versions of a case's artifacts in a step [default: the pipeline's `retention`, or 1]
    #[arg(long, value_name = "N")]
    keep_versions: Option<u32>,
    /// Leave alone what was written within this many hours
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    grace_hours: f64,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Take what is damaged out of the catalog, so that the next run makes exactly that again
    #[arg(long)]
    repair: bool,
    /// Files hashed at once [default: all cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `torcula clean`.
pub fn clean(args: &CleanArgs) -> Result<ExitCode> {
    let grace = Duration::try_from_secs_f64(args.grace_hours * 3600.0)
        .map_err(|e| Error::configuration(format!("--grace-hours {}: {e}", args.grace_hours)))?;
    runtime()?.block_on(async {
        let (catalog, pipeline) = args.catalog.open().await?;
        let _lock = lock(&catalog, "clean")?;
        let declared = pipeline.and_then(|p| p.retention).unwrap_or_default();
        let retention = Retention {
            keep_days: args.keep_days.unwrap_or(declared.keep_days),
            keep_versions: args.keep_versions.unwrap_or(declared.keep_versions),
        };
        let garbage = clean::find(&catalog, &Rules { retention, grace }).await?;
        for note in &garbage.notes {
            output::note(note);
        }
        let mut kinds: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
        for item in &garbage.items {
            let entry = kinds.entry(item.kind).or_default();
            entry.0 += 1;
            entry.1 += item.bytes;
            output::line(format!("{}  {}", item.kind, item.path.display()));
        }
        let rows: Vec<Vec<String>> = kinds
            .iter()
            .map(|(kind, (n, bytes))| vec![kind.to_string(), n.to_string(), human_bytes(*bytes)])
            .collect();
        if rows.is_empty() {
            output::line("nothing to clean");
            return Ok(ExitCode::SUCCESS);
        }
        output::line("");
        output::raw(output::table(&["kind", "files", "size"], &rows).as_bytes());
        if args.dry_run {
            output::note("nothing was removed: this was a dry run");
            return Ok(ExitCode::SUCCESS);
        }
        let (files, bytes) = clean::remove(&catalog, &garbage).await?;
        output::note(format!("removed {files} files, {}", human_bytes(bytes)));
        Ok(ExitCode::SUCCESS)
    })
}

/// `torcula verify`.
pub fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or_else(cores).max(1);
    runtime()?.block_on(async {
        let (catalog, _) = args.catalog.open().await?;
        let _lock = match args.repair {
            true => Some(lock(&catalog, "verify --repair")?),
            false => None,
        };
        let verified = verify::verify(&catalog, jobs).await?;
        if args.json {
            let text = serde_json::to_string_pretty(&verified);
            output::line(text.map_err(|e| Error::bug(e.to_string()))?);
        } else {
            for damaged in &verified.damaged {
                output::line(format!(
                    "{:<10}  {}  ({}): {}",
                    damaged.damage, damaged.uri, damaged.of, damaged.found
                ));
            }
        }
        let (files, bad) = (verified.files, verified.damaged.len());
        output::note(format!("{files} files, {} hashed, {bad} damaged", human_bytes(verified.bytes)));
        if bad == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if !args.repair {
            output::note("`torcula verify --repair` takes them out of the catalog; the next run makes them again");
            return Ok(ExitCode::from(1));
        }
        let rows = verify::repair(&catalog, &verified.damaged).await?;
        output::note(format!(
            "{rows} rows were taken out: run the pipeline again, it makes exactly these artifacts"
        ));
        let beyond = verified.damaged.iter().filter(|d| d.kind == verify::Kind::Table).count();
        if beyond > 0 {
            return Err(Error::io(format!("{beyond} files of the catalog's own tables are damaged"))
                .hint("these cannot be made again: restore the catalog's folder from a copy"));
        }
        Ok(ExitCode::SUCCESS)
    })
}
