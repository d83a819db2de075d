//! From a step of the pipeline to what the engine runs: stages, sink, fingerprint salt, and how "done" is marked.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::SessionContext;

use crate::catalog::{self, ModelRow, Table};
use crate::engine::learner::Learner;
use crate::engine::{FileSink, Fused, RecordSink, ShardSink, Sink, Slot, Stage};
use crate::error::{Error, Result};
use crate::pipeline::{
    Action, InferParams, Output, Pipeline, Source, StagesAction, Step, TrainStep,
};
use crate::stages::StageSpec;
use crate::stages::infer::Infer;
use crate::stages::resample::Resample;
use crate::stages::score::Score;

use super::model::{self, Used};
use super::{relations, train};

/// A step of stages, ready to run or to be looked at.
#[derive(Debug)]
pub struct StagePlan {
    /// Stages and sink.
    pub fused: Fused,
    /// Salt of the step's fingerprints.
    pub salt: String,
    /// The table whose rows mark a case as done.
    pub marker: Table,
    /// Slots that are written to files.
    pub keep: Vec<Slot>,
    /// Files or shards.
    pub output: Output,
    /// The model, in a step that infers.
    pub model_id: Option<String>,
    /// Memory that the sink holds all the time, in bytes.
    pub held_bytes: u64,
}

/// The plan of a step of stages. None where it needs a model that is not trained yet.
pub async fn of_step(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
    learner: Option<&Arc<dyn Learner>>,
) -> Result<Option<StagePlan>> {
    match &step.action {
        Action::Stages(action) => Ok(Some(stages(pipeline, step, action))),
        Action::Score(_) => {
            let stages: Vec<Arc<dyn Stage>> = vec![Arc::new(Score)];
            Ok(Some(plan(pipeline, None, step, stages, Vec::new(), Output::Files)))
        }
        Action::Infer(action) => {
            let Some(model) = model::used(ctx, pipeline, action).await? else { return Ok(None) };
            let infer = infer(action, &model, learner)?;
            let stages: Vec<Arc<dyn Stage>> = vec![Arc::new(infer)];
            let id = Some(model.row.model_id);
            Ok(Some(plan(pipeline, id, step, stages, action.keep.clone(), Output::Files)))
        }
        _ => Err(Error::bug(format!("the step {} has no stages", step.name))),
    }
}

fn stages(pipeline: &Pipeline, step: &Step, action: &StagesAction) -> StagePlan {
    let stages: Vec<Arc<dyn Stage>> = action.stages.iter().map(StageSpec::stage).collect();
    plan(pipeline, None, step, stages, action.keep.clone(), action.output.clone())
}

fn plan(
    pipeline: &Pipeline,
    model_id: Option<String>,
    step: &Step,
    stages: Vec<Arc<dyn Stage>>,
    keep: Vec<Slot>,
    output: Output,
) -> StagePlan {
    let recorded = stages.iter().find_map(|s| s.table());
    let mut held_bytes = 0;
    let (sink, marker): (Arc<dyn Sink>, Table) = match (&output, recorded) {
        (Output::Shards(shards), _) => {
            let folder = pipeline.artifacts.join("shards").join(&step.name);
            let voxels = sample_voxels(&stages);
            let sink = ShardSink::new(
                folder,
                &step.name,
                shards.samples_per_shard as usize,
                shards.dtype,
                voxels,
            );
            held_bytes = sink.held_bytes();
            (Arc::new(sink), Table::Artifacts)
        }
        (Output::Files, Some(table)) if keep.is_empty() => (Arc::new(RecordSink), table),
        (Output::Files, _) => {
            let sink = FileSink::new(pipeline.artifacts.clone(), &step.name, keep.clone())
                .with_parent(model_id.clone());
            (Arc::new(sink), Table::Artifacts)
        }
    };
    let fused = Fused::new(stages, sink);
    let salt = fused.salt(step.seed);
    StagePlan { fused, salt, marker, keep, output, model_id, held_bytes }
}

/// Voxels of a sample, as far as a stage fixes them.
fn sample_voxels(stages: &[Arc<dyn Stage>]) -> u64 {
    let shape = stages.iter().rev().find_map(|s| s.parameters().get("shape").cloned());
    let counts = shape.and_then(|s| serde_json::from_value::<[u64; 3]>(s).ok());
    counts.map_or(0, |c| c.iter().product())
}

/// The newest model that the train step gives for its present samples and parameters, with the pipeline's own seed.
pub async fn of_train_step(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    name: &str,
) -> Result<Option<ModelRow>> {
    let (step, action) = train_step(pipeline, name)?;
    let print = train::fingerprint(ctx, pipeline, step, action, step.seed).await?;
    trained(ctx, name, &print).await
}

/// The newest model of a train step with this fingerprint.
pub async fn trained(ctx: &SessionContext, name: &str, print: &str) -> Result<Option<ModelRow>> {
    Ok(newest_model(ctx, "fingerprint", print).await?.filter(|model| model.name == name))
}

/// The newest model with this value in a column of text.
pub async fn newest_model(
    ctx: &SessionContext,
    column: &str,
    value: &str,
) -> Result<Option<ModelRow>> {
    let value = value.replace('\'', "''");
    let query =
        format!("SELECT * FROM models WHERE {column} = '{value}' ORDER BY created_at DESC LIMIT 1");
    let rows: Vec<ModelRow> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    Ok(rows.into_iter().next())
}

/// The train step of that name.
pub fn train_step<'a>(pipeline: &'a Pipeline, name: &str) -> Result<(&'a Step, &'a TrainStep)> {
    match pipeline.step(name).map(|step| (step, &step.action)) {
        Some((step, Action::Train(action))) => Ok((step, action)),
        _ => Err(Error::configuration(format!("`{name}` is no train step"))),
    }
}

/// The grid that a train step's samples are on: the resample stage of the step that wrote its shards.
pub fn training_grid(pipeline: &Pipeline, train: &str) -> Result<Resample> {
    let (step, stages) = shards_step(pipeline, train)?;
    match stages {
        [] => Ok(Resample::default()),
        [StageSpec::Resample(resample)] => Ok(resample.clone()),
        _ => Err(Error::configuration(format!(
            "steps.{}: a step that writes shards may only resample",
            step.name
        ))
        .hint("put the other stages into the step before it, so that infer sees the same input")),
    }
}

/// The step that wrote the shards of a train step, and its stages.
pub fn shards_step<'p>(
    pipeline: &'p Pipeline,
    train: &'p str,
) -> Result<(&'p Step, &'p [StageSpec])> {
    let find = |name: &str| pipeline.steps.iter().find(|step| step.is_called(name));
    let mut open = vec![train];
    let mut seen = HashSet::new();
    while let Some(name) = open.pop() {
        let Some(step) = find(name).filter(|step| seen.insert(step.name.as_str())) else {
            continue;
        };
        if let Action::Stages(StagesAction { stages, output: Output::Shards(_), .. }) = &step.action
        {
            return Ok((step, stages));
        }
        match &step.from {
            Source::Step { name: from, .. } => open.push(from),
            Source::Sql { steps, .. } => open.extend(steps.iter().map(String::as_str)),
            Source::None => {}
        }
    }
    Err(Error::configuration(format!("steps.{train}: no step before it writes shards")))
}

fn infer(action: &InferParams, model: &Used, learner: Option<&Arc<dyn Learner>>) -> Result<Infer> {
    let options = action.options();
    let predictor = match learner {
        Some(learner) => Some(learner.predictor(Path::new(&model.row.uri), &options)?),
        None => None,
    };
    Ok(Infer {
        predictor,
        model_id: model.row.model_id.clone(),
        model_blake3: model.row.blake3.clone(),
        threshold: action.threshold as f32,
        options,
        resample: model.resample.clone(),
    })
}

/// Hash of every text in the rows of a query, which must be ordered.
pub async fn hash_rows(ctx: &SessionContext, query: &str, salt: &str) -> Result<String> {
    use arrow::array::{Array, AsArray};
    use futures::TryStreamExt;
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(salt);
    let frame = ctx.sql(query).await.map_err(relations::planning)?;
    let mut batches = frame.execute_stream().await.map_err(relations::planning)?;
    while let Some(batch) = batches.try_next().await.map_err(relations::planning)? {
        let columns = batch
            .columns()
            .iter()
            .map(|c| arrow::compute::cast(c, &arrow::datatypes::DataType::Utf8))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Error::bug(e.to_string()))?;
        for row in 0..batch.num_rows() {
            for column in &columns {
                add(if column.is_null(row) { "" } else { column.as_string::<i32>().value(row) });
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
