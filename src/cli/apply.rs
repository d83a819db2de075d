//! `torcula apply`: one stage on one image, with the code that a pipeline runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use super::{key_value, output, volume};
use crate::engine::{Case, CaseInput, CaseStop, Context, Slot};
use crate::error::{Error, Result};
use crate::formats::nifti::{self, WriteOptions};
use crate::stages::StageSpec;
use crate::volume::Mask;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The stage: qc, skull_strip, n4, normalize, resample or augment
    stage: String,
    /// The image (.nii, .nii.gz, .hdr/.img)
    input: PathBuf,
    /// Where the image goes; qc needs none
    output: Option<PathBuf>,
    /// Set a parameter of the stage
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
    /// Brain mask to use (n4 without one takes every voxel above 0)
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Manual infarct mask that goes along
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Where the brain mask goes
    #[arg(long, value_name = "FILE")]
    save_mask: Option<PathBuf>,
    /// Where the infarct mask goes
    #[arg(long, value_name = "FILE")]
    save_truth: Option<PathBuf>,
    /// Where the logarithm of the bias field goes
    #[arg(long, value_name = "FILE")]
    field: Option<PathBuf>,
    /// Volume of a 4-D image, from 0 [default: the one nearest to b = 1000 by the .bval file beside the image]
    #[arg(long, value_name = "N")]
    volume: Option<usize>,
    /// Seed of random stages
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A parameter as typed: JSON where it is JSON, text otherwise.
fn parameter(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn stage(args: &ApplyArgs) -> Result<StageSpec> {
    let parameters: Map<String, Value> =
        args.sets.iter().map(|(key, value)| (key.clone(), parameter(value))).collect();
    StageSpec::from_parts(&args.stage, Value::Object(parameters)).map_err(|problems| {
        let text: Vec<String> = problems
            .iter()
            .map(|p| match &p.key {
                Some(key) => format!("--set {key}: {}", p.message),
                None => p.message.clone(),
            })
            .collect();
        let hints: Vec<String> = problems.into_iter().filter_map(|p| p.hint).collect();
        let error = Error::configuration(text.join("\n"));
        if hints.is_empty() { error } else { error.hint(hints.join("; ")) }
    })
}

fn uri(path: &Path) -> Option<String> {
    Some(path.to_string_lossy().into_owned())
}

/// `torcula apply`.
pub fn apply(args: &ApplyArgs) -> Result<ExitCode> {
    let stage = stage(args)?.stage();
    if args.output.is_none() && !stage.writes().is_empty() {
        return Err(Error::configuration(format!(
            "{} makes an image and has no place for it",
            args.stage
        ))
        .hint("name the output file after the input"));
    }
    let mut case = Case::new(CaseInput {
        case_id: args
            .input
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        image_uri: uri(&args.input),
        image_volume: Some(volume::chosen(&args.input, args.volume)? as i64),
        brain_uri: args.mask.as_deref().and_then(uri),
        truth_uri: args.truth.as_deref().and_then(uri),
        ..CaseInput::default()
    });
    let start = Instant::now();
    case.load(Slot::Image)?;
    if args.mask.is_some() {
        case.load(Slot::Brain)?;
    } else if stage.reads().contains(&Slot::Brain) {
        let image = case.image()?;
        let brain = Mask { data: image.data.mapv(|v| u8::from(v > 0.0)), affine: image.affine };
        case.brain = Some(brain);
        output::note("no --mask: every voxel above 0 is taken as brain");
    }
    if args.truth.is_some() {
        case.load(Slot::Truth)?;
    }
    let read = start.elapsed();
    let context = Context::new(args.seed, CaseStop::default());
    let result = stage.run(&mut case, &context);
    let ran = start.elapsed();
    for record in context.take_records() {
        let text = serde_json::to_string_pretty(&record.row);
        output::line(text.map_err(|e| Error::bug(e.to_string()))?);
    }
    result?;
    save(args, &case)?;
    let wrote = start.elapsed();
    output::note(format!(
        "{}: read {:.1} ms, {} {:.1} ms, write {:.1} ms{}",
        args.input.display(),
        read.as_secs_f64() * 1e3,
        args.stage,
        (ran.as_secs_f64() - read.as_secs_f64()) * 1e3,
        (wrote.as_secs_f64() - ran.as_secs_f64()) * 1e3,
        if case.notes.is_empty() {
            String::new()
        } else {
            format!(" {}", Value::Object(case.notes))
        }
    ));
    Ok(ExitCode::SUCCESS)
}

fn save(args: &ApplyArgs, case: &Case) -> Result<()> {
    let options = WriteOptions {
        description: format!("torcula {} {}", env!("CARGO_PKG_VERSION"), args.stage),
    };
    if let Some(path) = &args.output {
        nifti::write_image(path, case.image()?, &options)?;
    }
    if let Some(path) = &args.field {
        let field = case.field.as_ref().ok_or_else(|| {
            Error::configuration(format!("--field: {} makes no bias field", args.stage))
                .hint("only n4 does")
        })?;
        nifti::write_image(path, field, &options)?;
    }
    if let Some(path) = &args.save_mask {
        nifti::write_mask(path, case.mask(Slot::Brain)?, &options)?;
    }
    if let Some(path) = &args.save_truth {
        nifti::write_mask(path, case.mask(Slot::Truth)?, &options)?;
    }
    Ok(())
}
