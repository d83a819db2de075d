//! `torcula models`: the trained networks of a catalog.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::{CatalogArgs, output, runtime};
use crate::catalog::{self, ModelRow, SessionAt};
use crate::error::{Error, Result};
use crate::formats::files::{copy, publish};

/// `unet3d` in PyTorch.
const UNET3D: &str = include_str!("../../benches/peers/unet3d.py");

/// Arguments of `models`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Print one JSON object a model
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Copy a model's file, which PyTorch and `torcula infer` read, after checking its bytes
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The model, or a step for its newest
    model: String,
    /// Where the file goes (.safetensors)
    output: PathBuf,
    /// Where the network's code in PyTorch goes (.py); a swin_unetr needs none, it is MONAI's SwinUNETR
    #[arg(long, value_name = "FILE")]
    pytorch: Option<PathBuf>,
    #[command(flatten)]
    catalog: CatalogArgs,
}

/// `torcula models`.
pub fn models(args: &ModelsArgs) -> Result<ExitCode> {
    match &args.command {
        Some(ModelsCommand::Export(args)) => export(args),
        None => list(&args.list),
    }
}

fn rows(catalog: &CatalogArgs) -> Result<Vec<ModelRow>> {
    runtime()?.block_on(async {
        let (catalog, _) = catalog.open().await?;
        let ctx = catalog.session(SessionAt::Latest).await?;
        let query = "SELECT * FROM models ORDER BY created_at, model_id";
        catalog::rows(&catalog::sql(&ctx, query).await?)
    })
}

/// What a list shows of a model's parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    levels: Option<u64>,
    filters: Option<u64>,
    batch: Option<u64>,
    learning_rate: Option<f64>,
    swin_unetr: Option<SwinShown>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SwinShown {
    feature_size: u64,
}

impl Shown {
    fn of(row: &ModelRow) -> String {
        let shown: Self = serde_json::from_str(&row.parameters).unwrap_or_default();
        let mut words = match (row.architecture.as_str(), &shown.swin_unetr) {
            ("swin_unetr", Some(swin)) => vec![format!("feature_size {}", swin.feature_size)],
            _ => vec![
                shown.levels.map(|n| format!("levels {n}")).unwrap_or_default(),
                shown.filters.map(|n| format!("filters {n}")).unwrap_or_default(),
            ],
        };
        words.extend(shown.batch.map(|n| format!("batch {n}")));
        words.extend(shown.learning_rate.map(|r| format!("rate {r}")));
        words.retain(|w| !w.is_empty());
        words.join(", ")
    }
}

fn list(args: &ListArgs) -> Result<ExitCode> {
    let rows = rows(&args.catalog)?;
    if args.json {
        for row in &rows {
            let text = serde_json::to_string(row);
            output::line(text.map_err(|e| Error::bug(e.to_string()))?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        output::note("the catalog has no models: a pipeline's train step makes them");
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.model_id.clone(),
                row.architecture.clone(),
                format!("{:.3}", row.best_val_dice),
                format!("{} of {}", row.best_epoch, row.epochs),
                format!("{} + {}", row.train_cases, row.val_cases),
                format!("{:.1}", row.bytes as f64 / 1e6),
                Shown::of(row),
                row.parent.clone().unwrap_or_default(),
                row.lineage.run_id.clone(),
            ]
        })
        .collect();
    let header =
        ["model", "network", "DSC", "epoch", "train + val", "MB", "parameters", "from", "run"];
    output::raw(output::table(&header, &cells).as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn export(args: &ExportArgs) -> Result<ExitCode> {
    let rows = rows(&args.catalog)?;
    let named = |row: &&ModelRow| row.model_id == args.model || row.name == args.model;
    let Some(row) = rows.iter().rev().find(named) else {
        let known: Vec<&str> = rows.iter().map(|r| r.model_id.as_str()).collect();
        return Err(Error::configuration(format!("there is no model `{}`", args.model)).hint(
            match known.as_slice() {
                [] => "the catalog has none: a pipeline's train step makes them".to_owned(),
                known => format!("known: {}", known.join(", ")),
            },
        ));
    };
    if args.pytorch.is_some() && row.architecture != "unet3d" {
        let found = format!("--pytorch: {} is a {}", row.model_id, row.architecture);
        return Err(Error::configuration(found)
            .hint("its tensors have MONAI's names: load them into monai.networks.nets.SwinUNETR"));
    }
    copy(Path::new(&row.uri), &args.output, &row.blake3)?;
    if let Some(path) = &args.pytorch {
        let failed = |e| Error::io(format!("{} cannot be written: {e}", path.display()));
        publish(path, |out| out.write_all(UNET3D.as_bytes()).map_err(failed))?;
    }
    output::note(format!(
        "{} → {} (DSC {:.3})",
        row.model_id,
        args.output.display(),
        row.best_val_dice
    ));
    Ok(ExitCode::SUCCESS)
}
