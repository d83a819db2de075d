//! Commands that read a catalog: `sql`, `lineage`, `failures`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use datafusion::prelude::SessionContext;

use super::{CatalogArgs, output, runtime};
use crate::catalog::{self, Catalog, Format, SessionAt, Timestamp};
use crate::error::{Error, Fault, Result};
use crate::pipeline::Pipeline;
use crate::run::{self, session};

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The query; `SELECT … FROM cases VERSION AS OF 3` reads an earlier version
    query: String,
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Form of the result [default: table on a terminal, csv otherwise]
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
    /// Write to a file (needed for parquet)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read every table as it was at this version of `cases`, or at this time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "VERSION|TIME")]
    as_of: Option<String>,
}

/// Arguments of `lineage`.
#[derive(Debug, Args)]
pub struct LineageArgs {
    /// An artifact, model, case or run
    id: String,
    #[command(flatten)]
    catalog: CatalogArgs,
}

/// Arguments of `failures`.
#[derive(Debug, Args)]
pub struct FailuresArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Only this run [default: all]
    #[arg(long)]
    run: Option<String>,
    /// Form of the result
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
}

impl CatalogArgs {
    /// The catalog, and the pipeline whose steps are relations.
    pub(super) async fn open(&self) -> Result<(Catalog, Option<Pipeline>)> {
        let (catalog, named) = self.named().await?;
        let pipeline = match named {
            Some(pipeline) => Some(pipeline),
            None => run::last_pipeline(&catalog).await?,
        };
        Ok((catalog, pipeline))
    }

    /// The catalog, and the pipeline file where one is named.
    pub(super) async fn named(&self) -> Result<(Catalog, Option<Pipeline>)> {
        if let Some(file) = &self.pipeline {
            let pipeline = crate::pipeline::load(file, &self.sets)
                .map_err(|d| Error::configuration(d.render(std::io::stderr().is_terminal())))?;
            return Ok((Catalog::open(&pipeline.catalog).await?, Some(pipeline)));
        }
        let folder = self
            .catalog
            .clone()
            .or_else(|| std::env::var_os("TORCULA_CATALOG").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from("catalog"));
        Ok((Catalog::open(&folder).await?, None))
    }
}

/// The form of a result, by its name.
pub(super) fn format(text: &str) -> std::result::Result<Format, String> {
    text.parse().map_err(|e: Error| e.reason().to_owned())
}

/// `torcula sql`.
pub fn sql(args: &SqlArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let (catalog, pipeline) = args.catalog.open().await?;
        let ctx = match (&args.as_of, &pipeline) {
            (Some(moment), _) => catalog.session(moment_of(moment)?).await?,
            (None, Some(pipeline)) => session::for_query(&catalog, pipeline, &args.query).await?,
            (None, None) => catalog.session(SessionAt::Latest).await?,
        };
        let shown = show(&ctx, &args.query, args.format, args.output.as_ref()).await;
        match (shown, &pipeline) {
            // Among all steps the one that was meant may be found.
            (Err(error), Some(pipeline))
                if error.fault() == Fault::Configuration && args.as_of.is_none() =>
            {
                let ctx = session::of_all(&catalog, pipeline).await?;
                show(&ctx, &args.query, args.format, args.output.as_ref()).await
            }
            (shown, _) => shown,
        }
    })
}

fn moment_of(text: &str) -> Result<SessionAt> {
    match text.parse::<i64>() {
        Ok(version) => Ok(SessionAt::Version(version)),
        Err(_) => text.parse::<Timestamp>().map(SessionAt::Timestamp),
    }
}

/// Answers a query, to standard output or into a file.
pub(super) async fn show(
    ctx: &SessionContext,
    query: &str,
    format: Option<Format>,
    file: Option<&PathBuf>,
) -> Result<ExitCode> {
    let batches = catalog::sql(ctx, query).await?;
    let terminal = std::io::stdout().is_terminal();
    let format =
        format.unwrap_or(if terminal && file.is_none() { Format::Table } else { Format::Csv });
    match file {
        Some(path) => {
            let out =
                File::create(path).map_err(|e| Error::io(format!("{}: {e}", path.display())))?;
            format.write(&batches, &mut BufWriter::new(out))?;
        }
        None if format == Format::Parquet && terminal => {
            return Err(Error::configuration("parquet is no text for a terminal")
                .hint("add --output FILE, or redirect the output"));
        }
        None => {
            let mut bytes = Vec::new();
            format.write(&batches, &mut bytes)?;
            output::raw(&bytes);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `torcula lineage`.
pub fn lineage(args: &LineageArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let (catalog, _) = args.catalog.open().await?;
        output::raw(catalog::trace(&catalog, &args.id).await?.to_string().as_bytes());
        Ok(ExitCode::SUCCESS)
    })
}

/// `torcula failures`.
pub fn failures(args: &FailuresArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let (catalog, _) = args.catalog.open().await?;
        let ctx = catalog.session(SessionAt::Latest).await?;
        let only = args
            .run
            .as_ref()
            .map(|run| format!("WHERE run_id = '{}'", run.replace('\'', "''")))
            .unwrap_or_default();
        let query = format!(
            "SELECT case_id, step, stage, reason, hint, created_at FROM failures {only} \
             ORDER BY created_at, case_id"
        );
        if args.format.is_some() || !std::io::stdout().is_terminal() {
            return show(&ctx, &query, args.format, None).await;
        }
        let rows = catalog::json_rows(&catalog::sql(&ctx, &query).await?)?;
        for row in &rows {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            output::line(format!("{}  {} / {}", text("case_id"), text("step"), text("stage")));
            output::line(format!("    {}", text("reason")));
            if !text("hint").is_empty() {
                output::line(format!("    hint: {}", text("hint")));
            }
        }
        output::line(format!("{} failures", rows.len()));
        Ok(ExitCode::SUCCESS)
    })
}
