//! The network of an inference: what a step of the pipeline trained, what the catalog holds, or a file.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::catalog::{ModelRow, Table};
use crate::engine::Record;
use crate::error::{Error, Result};
use crate::formats::{files, safetensors};
use crate::pipeline::{InferParams, ModelSource, Pipeline, Step};
use crate::stages::Check;
use crate::stages::resample::Resample;

use super::{Runner, memo, plan};

/// Metadata of a model that was trained by Torcula.
const RESAMPLE: &str = "torcula.resample";
const STAGES: &str = "torcula.stages";
const MODEL_ID: &str = "torcula.model_id";
const NETWORK: &str = "torcula.network";
const EPOCH: &str = "torcula.epoch";
const VAL_DICE: &str = "torcula.val_dice";

/// A network and how images come to its grid.
#[derive(Debug, Clone)]
pub struct Used {
    /// The model.
    pub row: ModelRow,
    /// The grid that its samples were on.
    pub resample: Resample,
    /// What the file says of it; empty for a model that a step of the same pipeline trains.
    metadata: BTreeMap<String, String>,
    /// Whether the catalog has no row of it yet.
    is_new: bool,
}

/// The network that an inference uses; none where there is none yet.
///
/// # Errors
/// The model's file cannot be read, or does not say how its samples were resampled.
pub async fn used(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    action: &InferParams,
) -> Result<Option<Used>> {
    let found = match action.source() {
        ModelSource::Step(name) => {
            let Some(row) = plan::of_train_step(ctx, pipeline, name).await? else {
                return Ok(None);
            };
            let resample = plan::training_grid(pipeline, name)?;
            return Ok(Some(Used { row, resample, metadata: BTreeMap::new(), is_new: false }));
        }
        ModelSource::Newest(name) => plan::newest_model(ctx, "name", name).await?,
        ModelSource::Id(id) => plan::newest_model(ctx, "model_id", id).await?,
        ModelSource::File(name) => of_file(ctx, name).await?,
    };
    let Some(row) = found else { return Ok(None) };
    let metadata = safetensors::metadata(&files::resolve(&row.uri)?)
        .map_err(|error| error.context(format!("model {}", row.model_id)))?;
    let resample = resample(&row.uri, &metadata)?;
    let is_new = row.lineage.run_id.is_empty();
    Ok(Some(Used { row, resample, metadata, is_new }))
}

/// What to say where there is no such model.
pub(super) fn missing(step: &str, action: &InferParams) -> Error {
    let place = format!("steps.{step}.infer.model");
    match action.source() {
        ModelSource::Step(_) => {
            Error::configuration(format!("steps.{step}: its model is not trained yet"))
                .hint("put the train step before it")
        }
        ModelSource::Newest(name) => {
            Error::configuration(format!("{place}: the catalog has no model of a step `{name}`"))
                .hint("`torcula models` lists the catalog's; a pipeline with the same `catalog` trains one, or name a file")
        }
        ModelSource::Id(name) | ModelSource::File(name) => {
            Error::configuration(format!("{place}: the catalog has no model `{name}`"))
                .hint("`torcula models` lists the catalog's")
        }
    }
}

/// The row of a file: the one that an earlier run recorded of these bytes, or a new one. A session of the past takes the file
/// as the last run of that time recorded it.
async fn of_file(ctx: &SessionContext, name: &str) -> Result<Option<ModelRow>> {
    let recorded = plan::newest_model(ctx, "name", name).await?;
    if memo::is_past(ctx) {
        return Ok(recorded);
    }
    let path = Path::new(name);
    let hashed = async {
        let found = files::hash_file(path)?;
        Ok(json!([found.blake3, found.bytes]).to_string())
    };
    let text = memo::once(ctx, format!("model file {name}"), hashed).await?;
    let (blake3, bytes): (String, i64) =
        serde_json::from_str(&text).map_err(|e| Error::bug(e.to_string()))?;
    if let Some(row) = recorded.filter(|row| row.blake3 == blake3) {
        return Ok(Some(row));
    }
    let metadata = safetensors::metadata(path)?;
    let number = |key: &str| metadata.get(key).and_then(|text| text.parse::<f64>().ok());
    let uri = std::path::absolute(path)?.to_string_lossy().into_owned();
    Ok(Some(ModelRow {
        model_id: format!("file-{}", &blake3[..10]),
        name: name.to_owned(),
        architecture: architecture(&metadata),
        uri,
        bytes,
        blake3,
        parameters: "{}".to_owned(),
        epochs: number(EPOCH).unwrap_or(0.0) as i64,
        best_epoch: number(EPOCH).unwrap_or(0.0) as i64,
        best_val_dice: number(VAL_DICE).unwrap_or(0.0),
        // It is that model, in another file.
        parent: metadata.get(MODEL_ID).cloned(),
        curve: "[]".to_owned(),
        ..ModelRow::default()
    }))
}

/// The network's name: the one key of its shape. What does not say is MONAI's.
fn architecture(metadata: &BTreeMap<String, String>) -> String {
    let spec: Value =
        metadata.get(NETWORK).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    let shape = spec["network"].as_object().and_then(|shape| shape.keys().next().cloned());
    shape.unwrap_or_else(|| "swin_unetr".to_owned())
}

fn resample(uri: &str, metadata: &BTreeMap<String, String>) -> Result<Resample> {
    let Some(text) = metadata.get(RESAMPLE) else { return Ok(Resample::default()) };
    let wrong = |what: &str| Error::data(format!("{uri}: metadata `{RESAMPLE}`: {what}"));
    let resample: Resample = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
    match resample.check().first() {
        Some(problem) => Err(wrong(&problem.to_string())),
        None => Ok(resample),
    }
}

/// Puts a model that is a file into the catalog, so that lineage knows it. Returns a warning where the images of its training
/// went through other stages than those of the step.
pub(super) async fn record(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    action: &InferParams,
) -> Result<Option<String>> {
    let Some(used) = used(ctx, runner.pipeline, action).await? else { return Ok(None) };
    if used.is_new {
        let print = used.row.blake3.clone();
        let row = serde_json::to_value(&used.row).map_err(|e| Error::bug(e.to_string()))?;
        let mut record = Record { table: Table::Models, row };
        runner.lineage.complete(&mut record, &step.name, "", &print);
        runner.catalog.append_json(Table::Models, &[record.row]).await?;
    }
    Ok(other_stages(runner.pipeline, step, &used))
}

/// A warning where the images of the training went through other stages. Quality control changes no image.
fn other_stages(pipeline: &Pipeline, step: &Step, used: &Used) -> Option<String> {
    let trained: Vec<Value> = serde_json::from_str(used.metadata.get(STAGES)?).ok()?;
    let here = serde_json::to_value(pipeline.stages_of(step)?).ok()?;
    let changing = |stages: &[Value]| -> Vec<Value> {
        stages.iter().filter(|s| s.get("qc").is_none() && *s != "qc").cloned().collect()
    };
    let (trained, here) = (changing(&trained), changing(here.as_array()?));
    let words = |stages: &[Value]| -> String {
        let named = stages.iter().map(|stage| stage.to_string().replace('"', ""));
        named.collect::<Vec<_>>().join(", ")
    };
    (trained != here).then(|| {
        format!(
            "warning: {} was trained on images after [{}], and these come after [{}]",
            used.row.model_id,
            words(&trained),
            words(&here)
        )
    })
}
