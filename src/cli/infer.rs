//! `torcula infer`: one image through a trained network, without a catalog.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use super::{key_value, output, run, volume};
use crate::engine::learner::{Learner, PredictOptions, Predictor};
use crate::engine::parameters::{ParameterProblem, parse_strictly};
use crate::engine::{Case, CaseInput, CaseStop, Context, Slot, on_grid};
use crate::error::{Error, Result};
use crate::formats::files::read_text;
use crate::formats::nifti::{self, WriteOptions};
use crate::imaging::resample::{Interpolation, resample_image};
use crate::pipeline;
use crate::stages::infer::{mask, predict};
use crate::stages::resample::Resample;
use crate::stages::{Check, StageSpec};
use crate::volume::{Grid, Image};

/// A model's settings are a few lines.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;
/// Metadata of a model that was trained here: the stages that its images went through, and how its samples were resampled.
const STAGES: &str = "torcula.stages";
const RESAMPLE: &str = "torcula.resample";

/// Arguments of `infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model: what a train step wrote (`torcula models export`), or a Swin UNETR of MONAI (safetensors). Settings beside
    /// a checkpoint from elsewhere (model.yaml or model.json) are taken as if given with --set
    model: PathBuf,
    /// The image (.nii, .nii.gz, .hdr/.img)
    input: PathBuf,
    /// Where the mask goes, on the image's grid
    output: PathBuf,
    /// Where the probability goes
    #[arg(short, long, value_name = "FILE")]
    probability: Option<PathBuf>,
    /// Probability from which a voxel is infarct
    #[arg(short, long, value_name = "P", default_value_t = 0.5)]
    threshold: f32,
    /// Another channel of the network's input, on the image's grid; once for each
    #[arg(long, value_name = "FILE")]
    channel: Vec<PathBuf>,
    /// A stage that the image goes through before, such as skull_strip or 'n4={shrink: 4}'; several in their order.
    /// Without it, the stages that the images of the model's training went through
    #[arg(long, value_name = "STAGE[=PARAMETERS]")]
    stage: Vec<String>,
    /// The image has gone through the model's stages already
    #[arg(long, conflicts_with = "stage")]
    prepared: bool,
    /// Volume of a 4-D image, from 0 [default: the one nearest to b = 1000 by the .bval file beside the image]
    #[arg(long, value_name = "N")]
    volume: Option<usize>,
    /// Set how the network is run (window, overlap, flip, device), and for a checkpoint from elsewhere what it does not say
    /// (spacing_mm, intensity_scale, axes, downsample, normalize, activation, channel)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
}

/// `torcula infer`.
pub fn infer(args: &InferArgs, learner: Option<Arc<dyn Learner>>) -> Result<ExitCode> {
    let asked = args.stage.iter().map(|text| stage(text)).collect::<Result<Vec<_>>>()?;
    let options = options(args)?;
    if !(0.0..=1.0).contains(&args.threshold) {
        let found = format!("--threshold {}: expected 0 to 1", args.threshold);
        return Err(Error::configuration(found).hint("0.5 is the network's own decision"));
    }
    if !args.model.is_file() {
        let found = format!("there is no model file {}", args.model.display());
        return Err(Error::configuration(found)
            .hint("`torcula models` lists the models of a catalog, `torcula models export MODEL FILE` makes a file of one"));
    }
    let Some(learner) = learner else { return Err(run::exec_training()) };
    let start = Instant::now();
    let predictor = learner.predictor(&args.model, &options)?;
    let resample = resample(predictor.as_ref())?;
    let stages = if asked.is_empty() { stages(args, predictor.as_ref())? } else { asked };
    let opened = start.elapsed();
    let context = Context::new(0, CaseStop::default());
    let (image, native) = prepared(args, &stages, &context)?;
    let mut images = vec![image];
    for path in &args.channel {
        let channel = nifti::read_image(path, 0)?.0;
        on_grid(path, &channel.grid(), &images[0].grid())?;
        images.push(channel);
    }
    let read = start.elapsed();
    let channels: Vec<&Image> = images.iter().collect();
    let probability = predict(predictor.as_ref(), &channels, &resample, &context)
        .and_then(|probability| match probability.grid() == native {
            true => Ok(probability),
            false => resample_image(&probability, &native, Interpolation::Linear, 0.0),
        })
        .map_err(|e| e.context(args.input.display().to_string()))?;
    let ran = start.elapsed();
    let lesion = mask(&probability, args.threshold);
    let description = format!("torcula {} infer", env!("CARGO_PKG_VERSION"));
    let written = WriteOptions { description };
    nifti::write_mask(&args.output, &lesion, &written)?;
    if let Some(path) = &args.probability {
        nifti::write_image(path, &probability, &written)?;
    }
    let inside = lesion.data.iter().filter(|v| **v > 0).count();
    let voxel_ml = lesion.grid().affine.spacing_mm().iter().product::<f64>() / 1e3;
    output::note(format!(
        "{}: {inside} voxels, {:.3} mL; model {:.2} s, image {:.2} s, network {:.2} s",
        args.input.display(),
        inside as f64 * voxel_ml,
        opened.as_secs_f64(),
        read.saturating_sub(opened).as_secs_f64(),
        ran.saturating_sub(read).as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The stages of the model's training.
fn stages(args: &InferArgs, predictor: &dyn Predictor) -> Result<Vec<StageSpec>> {
    let metadata = predictor.metadata();
    let Some(text) = metadata.get(STAGES).filter(|_| !args.prepared) else {
        if !args.prepared && metadata.contains_key(RESAMPLE) {
            output::note(
                "the model does not say which stages its images went through: --stage names them",
            );
        }
        return Ok(Vec::new());
    };
    let wrong = |what: String| Error::data(format!("the model's metadata `{STAGES}`: {what}"));
    let found: Vec<Map<String, Value>> =
        serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let stages = found
        .into_iter()
        .flatten()
        // What was random in the training has no place here.
        .filter(|(name, _)| name != "augment")
        .map(|(name, value)| StageSpec::from_parts(&name, value).map_err(|p| problems(STAGES, &p)))
        .collect::<Result<Vec<_>>>()?;
    if !stages.is_empty() {
        let names: Vec<&str> = stages.iter().map(StageSpec::name).collect();
        output::note(format!(
            "as in the model's training, the image goes through {} (not with --prepared)",
            names.join(", ")
        ));
    }
    Ok(stages)
}

/// The image after its stages, and the grid that it had before.
fn prepared(args: &InferArgs, stages: &[StageSpec], context: &Context) -> Result<(Image, Grid)> {
    let name = args.input.file_name().map(|n| n.to_string_lossy().into_owned());
    let mut case = Case::new(CaseInput {
        case_id: name.unwrap_or_default(),
        image_uri: Some(args.input.to_string_lossy().into_owned()),
        image_volume: Some(volume::chosen(&args.input, args.volume)? as i64),
        ..CaseInput::default()
    });
    case.load(Slot::Image)?;
    let native = case.image()?.grid();
    for stage in stages {
        let named = |e: Error| e.context(format!("{}: {}", args.input.display(), stage.name()));
        stage.stage().run(&mut case, context).map_err(named)?;
    }
    let image = case.image.take().ok_or_else(|| Error::bug("a stage left no image"))?;
    Ok((image, native))
}

/// `NAME` or `NAME=PARAMETERS`, the parameters as YAML.
fn stage(text: &str) -> Result<StageSpec> {
    let (name, parameters) = match text.split_once('=') {
        Some((name, parameters)) => (name.trim(), pipeline::parse_value(parameters)?),
        None => (text.trim(), Value::Object(Map::new())),
    };
    StageSpec::from_parts(name, parameters).map_err(|p| problems(&format!("--stage {name}"), &p))
}

/// How the network is run: the settings beside the model, then what was set.
fn options(args: &InferArgs) -> Result<PredictOptions> {
    let mut given = Map::new();
    let mut place = "--set".to_owned();
    for extension in ["yaml", "yml", "json"] {
        let beside = args.model.with_extension(extension);
        if beside.is_file() {
            given = settings(&beside)?;
            place = format!("{} or --set", beside.display());
            break;
        }
    }
    for (key, value) in &args.sets {
        given.insert(key.clone(), pipeline::parse_value(value)?);
    }
    let options: PredictOptions =
        parse_strictly(Value::Object(given), &[]).map_err(|p| problems(&place, &p))?;
    options.validate()?;
    Ok(options)
}

fn settings(path: &Path) -> Result<Map<String, Value>> {
    match pipeline::parse_value(&read_text(path, MAX_SETTINGS_BYTES)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::configuration(format!("{}: no mapping of settings", path.display()))
            .hint("write settings as `window: [96, 96, 32]`, one a line")),
        Err(error) => Err(error.context(path.display().to_string())),
    }
}

fn problems(place: &str, problems: &[ParameterProblem]) -> Error {
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Error::configuration(format!("{place}: {}", text.join("; ")))
        .hint("`torcula infer --help` lists what can be set")
}

/// How images come to the model's grid: as its samples did, or to its spacing, or not at all.
fn resample(predictor: &dyn Predictor) -> Result<Resample> {
    let Some(text) = predictor.metadata().get(RESAMPLE) else {
        return Ok(Resample { spacing_mm: predictor.spacing_mm(), ..Resample::default() });
    };
    let resample: Resample = serde_json::from_str(text)
        .map_err(|e| Error::data(format!("the model's metadata `{RESAMPLE}`: {e}")))?;
    match resample.check().first() {
        Some(problem) => Err(Error::data(format!("the model's metadata `{RESAMPLE}`: {problem}"))),
        None => Ok(resample),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(model: &Path, sets: &[(&str, &str)]) -> InferArgs {
        InferArgs {
            model: model.to_owned(),
            input: PathBuf::from("i.nii"),
            output: PathBuf::from("o.nii"),
            probability: None,
            threshold: 0.5,
            channel: Vec::new(),
            stage: Vec::new(),
            prepared: false,
            volume: None,
            sets: sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn settings_beside_the_model_give_way_to_those_set() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let model = folder.path().join("m.safetensors");
        assert_eq!(options(&args(&model, &[]))?, PredictOptions::default());
        std::fs::write(folder.path().join("m.yaml"), "window: [96, 96, 0]\noverlap: 0.25\n")?;
        let found = options(&args(&model, &[("overlap", "0.75"), ("flip", "[x, z]")]))?;
        assert_eq!(found.window, Some([96, 96, 0]));
        assert_eq!((found.overlap, found.flip.len()), (0.75, 2));
        let wrong = options(&args(&model, &[("windows", "3"), ("overlap", "2")]));
        let text = wrong.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("windows") && text.contains("m.yaml"), "{text}");
        std::fs::write(folder.path().join("m.yaml"), "3")?;
        assert!(options(&args(&model, &[])).is_err());
        Ok(())
    }

    #[test]
    fn stages_are_named_with_their_parameters() {
        assert_eq!(stage("skull_strip").map(|s| s.name()).ok(), Some("skull_strip"));
        let peak = stage("normalize={peak: 100}").map(|s| s.stage().parameters()["peak"].clone());
        assert_eq!(peak.ok().and_then(|p| p.as_f64()), Some(100.0));
        assert!(stage("n5").is_err());
        let wrong = stage("n4={shrnk: 2}").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(wrong.contains("--stage n4") && wrong.contains("shrnk"), "{wrong}");
    }
}
