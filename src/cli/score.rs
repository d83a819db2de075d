//! `torcula score`: two masks, no catalog.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output;
use crate::engine::on_grid;
use crate::error::{Error, Result};
use crate::formats::nifti;
use crate::imaging::metrics;

/// Arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The manual mask (voxels above 0.5 are infarct)
    truth: PathBuf,
    /// The predicted mask, on the same grid
    prediction: PathBuf,
    /// Form of the result
    #[arg(short, long, value_enum, default_value = "table")]
    format: ScoreFormat,
}

/// Forms of a score.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScoreFormat {
    /// One line a measure
    Table,
    /// One JSON object; a measure that is not defined is null
    Json,
}

/// `torcula score`.
pub fn score(args: &ScoreArgs) -> Result<ExitCode> {
    let truth = nifti::read_mask(&args.truth)?.0;
    let mut prediction = nifti::read_mask(&args.prediction)?.0;
    on_grid(&args.prediction, &prediction.grid(), &truth.grid())?;
    prediction.affine = truth.affine;
    let scores = metrics::score(&truth, &prediction)?;
    let value = serde_json::to_value(&scores).map_err(|e| Error::bug(e.to_string()))?;
    match args.format {
        ScoreFormat::Json => output::line(value.to_string()),
        ScoreFormat::Table => {
            let rows: Vec<Vec<String>> = value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| {
                    let text = match value {
                        serde_json::Value::Number(n) if n.is_f64() => {
                            format!("{:.4}", n.as_f64().unwrap_or(f64::NAN))
                        }
                        serde_json::Value::Null => "not defined".to_owned(),
                        serde_json::Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    vec![key.clone(), text]
                })
                .collect();
            output::raw(output::table(&["measure", "value"], &rows).as_bytes());
        }
    }
    Ok(ExitCode::SUCCESS)
}
