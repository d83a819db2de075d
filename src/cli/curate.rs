//! `torcula curate`: corrections of the registry, with who, when and why.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{CatalogArgs, output, runtime};
use crate::catalog::curation::EXCLUDED;
use crate::catalog::{self, Catalog, CurationRow, EditAction, Format, SessionAt};
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::run::affected;
use crate::run::curate::{self, Wish};

/// Arguments of `curate`.
#[derive(Debug, Args)]
pub struct CurateArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep cases out of every step
    Exclude {
        /// The cases
        #[arg(required = true)]
        cases: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Give a case other values than the registry's
    Set {
        /// The case
        case: String,
        /// Columns and values, `variables.NAME` for what has no column of its own; an empty value clears it
        #[arg(required = true, value_name = "COLUMN=VALUE", value_parser = super::key_value)]
        values: Vec<(String, String)>,
        #[command(flatten)]
        how: How,
    },
    /// Read many corrections from a CSV file with the columns case_id, column, value, reason
    Import {
        /// The file; a row with the column `excluded` excludes its case
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Take back what the last command edited, or one edit by its identifier
    Undo {
        /// The edit, or the beginning of its identifier
        edit: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// List every edit
    Log {
        /// Only this case
        #[arg(long)]
        case: Option<String>,
        #[command(flatten)]
        catalog: CatalogArgs,
        /// Form of the result [default: table on a terminal, csv otherwise]
        #[arg(short, long, value_parser = super::catalog::format)]
        format: Option<Format>,
    },
}

/// What every edit needs.
#[derive(Debug, Args)]
struct How {
    /// Why
    #[arg(short, long, default_value = "")]
    reason: String,
    /// Who makes the edit [default: $USER]
    #[arg(long)]
    author: Option<String>,
    /// Show what would change and which steps it would affect, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    catalog: CatalogArgs,
}

impl How {
    fn author(&self) -> Result<String> {
        let of = |name| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        self.author.clone().or_else(|| of("USER")).or_else(|| of("LOGNAME")).ok_or_else(|| {
            Error::configuration("who makes the edit is not known").hint("add --author NAME")
        })
    }
}

/// `torcula curate`.
pub fn curate(args: &CurateArgs) -> Result<ExitCode> {
    match &args.command {
        Command::Exclude { cases, how } => {
            let wish = |case: &String| Wish {
                place: String::new(),
                case_id: case.clone(),
                column: EXCLUDED.to_owned(),
                value: String::new(),
                reason: how.reason.clone(),
            };
            wishes(&cases.iter().map(wish).collect::<Vec<_>>(), how)
        }
        Command::Set { case, values, how } => {
            let wish = |(column, value): &(String, String)| Wish {
                place: String::new(),
                case_id: case.clone(),
                column: column.clone(),
                value: value.clone(),
                reason: how.reason.clone(),
            };
            wishes(&values.iter().map(wish).collect::<Vec<_>>(), how)
        }
        Command::Import { file, how } => wishes(&read(file, &how.reason)?, how),
        Command::Undo { edit, how } => runtime()?.block_on(async {
            let (catalog, pipeline) = how.catalog.open().await?;
            let _lock = lock(&catalog, how.dry_run)?;
            let reason = if how.reason.is_empty() { "taken back" } else { &how.reason };
            let rows = curate::undo(&catalog, edit.as_deref(), reason, &how.author()?).await?;
            finish(&catalog, pipeline.as_ref(), &rows, how.dry_run).await
        }),
        Command::Log { case, catalog, format } => log(case.as_deref(), catalog, *format),
    }
}

fn wishes(wishes: &[Wish], how: &How) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let (catalog, pipeline) = how.catalog.open().await?;
        let _lock = lock(&catalog, how.dry_run)?;
        let edits = curate::edits(&catalog, wishes, &how.author()?).await?;
        let same = wishes.len() - edits.len();
        if same > 0 {
            output::note(format!("{same} of {} are so already", wishes.len()));
        }
        finish(&catalog, pipeline.as_ref(), &edits, how.dry_run).await
    })
}

fn lock(catalog: &Catalog, dry_run: bool) -> Result<Option<catalog::lock::Guard>> {
    if dry_run {
        return Ok(None);
    }
    super::lock(catalog, "curation").map(Some)
}

/// Shows the edits and what they affect, then makes them.
async fn finish(
    catalog: &Catalog,
    pipeline: Option<&Pipeline>,
    edits: &[CurationRow],
    dry_run: bool,
) -> Result<ExitCode> {
    for edit in edits {
        output::line(told(edit));
    }
    if edits.is_empty() {
        output::line("nothing to change");
        return Ok(ExitCode::SUCCESS);
    }
    match pipeline {
        None => output::line("no pipeline ran on this catalog yet: nothing depends on it"),
        Some(pipeline) => {
            let affected = affected::affected(catalog, pipeline, edits).await?;
            if affected.is_empty() {
                output::line(format!("no step of {} is affected", pipeline.name));
            } else {
                output::line(format!("the next run of {} does again:", pipeline.name));
                let rows: Vec<Vec<String>> = affected
                    .into_iter()
                    .map(|(step, what)| vec![format!("  {step}"), what])
                    .collect();
                let table = output::table(&["  step", "what"], &rows);
                output::raw(table.as_bytes());
            }
        }
    }
    if dry_run {
        output::line("dry run: nothing was changed");
    } else {
        catalog.append_edits(edits).await?;
        let ids: Vec<&str> = edits.iter().map(|e| e.edit_id.as_str()).collect();
        let which = match ids.as_slice() {
            [one] => format!("edit {one}"),
            all => format!("{} edits", all.len()),
        };
        output::line(format!("{which}, catalog version {}", catalog.cases_version()?));
    }
    Ok(ExitCode::SUCCESS)
}

/// An edit in a line.
fn told(edit: &CurationRow) -> String {
    let value = |json: &str| json.trim_matches('"').to_owned();
    let (old, new) = (value(&edit.old_value), value(&edit.new_value));
    match edit.action {
        EditAction::Exclude => format!("{}: excluded, {new}", edit.case_id),
        EditAction::Set => {
            format!("{}: {} {old} → {new} ({})", edit.case_id, edit.column_name, edit.reason)
        }
        EditAction::Undo => {
            format!("{}: {} back from {old} to {new}", edit.case_id, edit.column_name)
        }
    }
}

/// The wishes of a CSV file.
///
/// # Errors
/// The file cannot be read, or lacks a column.
fn read(file: &Path, reason: &str) -> Result<Vec<Wish>> {
    let name = file.display();
    let failed = |error: csv::Error| Error::configuration(format!("{name}: {error}"));
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(file).map_err(failed)?;
    let head: Vec<String> = reader
        .headers()
        .map_err(failed)?
        .iter()
        .map(|h| h.trim_start_matches('\u{feff}').trim().to_ascii_lowercase())
        .collect();
    let place = |wanted: &str| head.iter().position(|h| h == wanted);
    let (Some(case), Some(column)) = (place("case_id"), place("column")) else {
        let found = head.join(", ");
        let reason =
            format!("{name}: expected the columns case_id, column, value, reason; found {found}");
        return Err(Error::configuration(reason)
            .hint("write a row a correction: sub-0001,vendor,Siemens,\"typing mistake\""));
    };
    let (value, why) = (place("value"), place("reason"));
    let mut wishes = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(failed)?;
        let field = |at: Option<usize>| {
            at.and_then(|at| record.get(at)).map(str::trim).unwrap_or_default().to_owned()
        };
        let own = field(why);
        let line = record.position().map_or(i as u64 + 2, csv::Position::line);
        wishes.push(Wish {
            place: format!("{name}, line {line}"),
            case_id: field(Some(case)),
            column: field(Some(column)),
            value: field(value),
            reason: if own.is_empty() { reason.to_owned() } else { own },
        });
    }
    Ok(wishes)
}

fn log(case: Option<&str>, args: &CatalogArgs, format: Option<Format>) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let (catalog, _) = args.open().await?;
        let ctx = catalog.session(SessionAt::Latest).await?;
        let only = case
            .map(|case| format!("WHERE c.case_id = '{}'", case.replace('\'', "''")))
            .unwrap_or_default();
        let query = format!(
            "SELECT c.edit_id, c.edited_at, c.author, c.action, c.case_id, c.column_name, c.old_value, c.new_value, c.reason, \
             c.undoes, c.catalog_version, c.action <> 'undo' AND u.edit_id IS NULL AS stands \
             FROM curation c LEFT JOIN curation u ON u.undoes = c.edit_id {only} ORDER BY c.edit_id"
        );
        super::catalog::show(&ctx, &query, format, None).await
    })
}
