//! A train step: hands the samples of its shards to the learner and puts the model into the catalog.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalog::{self, Table};
use crate::engine::Record;
use crate::engine::feed::SampleRef;
use crate::engine::learner::TrainJob;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, Step, TrainStep};

use super::{Runner, StepReport, plan, relations};

/// To be raised when the same samples and parameters give another model.
const VERSION: u32 = 1;

async fn samples(ctx: &SessionContext, step: &Step) -> Result<String> {
    let input = relations::input(ctx, step).await?;
    for column in ["sample_uri", "part"] {
        if input.schema().field_with_unqualified_name(column).is_err() {
            let hint = if column == "part" {
                "draw the shards from a split"
            } else {
                "train from a step with `to: shards`"
            };
            let found = format!("steps.{}.from: its rows have no `{column}`", step.name);
            return Err(Error::configuration(found).hint(hint));
        }
    }
    let name = format!("__train_{}", step.name);
    drop(ctx.deregister_table(&*name));
    ctx.register_table(&*name, input.into_view()).map_err(relations::planning)?;
    Ok(format!(
        "SELECT case_id, fingerprint, part, sample_uri FROM {} ORDER BY case_id",
        relations::quoted(&name)
    ))
}

/// Identifies the training: parameters, seed, grid, and every sample with its part.
pub async fn fingerprint(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
    action: &TrainStep,
) -> Result<String> {
    let salt = json!({
        "parameters": action.params, "train_part": action.train_part, "val_part": action.val_part,
        "seed": pipeline.seed, "version": VERSION, "step": step.name,
        "resample": plan::training_grid(pipeline, &step.name)?,
    });
    let all = samples(ctx, step).await?;
    // Where a sample lies does not matter, only what it is.
    let query = format!("SELECT case_id, fingerprint, part FROM ({all}) ORDER BY case_id");
    plan::hash_rows(ctx, &query, &salt.to_string()).await
}

#[derive(Debug, Deserialize)]
struct SampleRow {
    case_id: String,
    part: String,
    sample_uri: String,
}

impl SampleRow {
    fn reference(&self) -> Result<SampleRef> {
        let (uri, row) = self
            .sample_uri
            .rsplit_once('#')
            .and_then(|(uri, row)| Some((uri, row.parse().ok()?)))
            .ok_or_else(|| Error::bug(format!("{}: no sample", self.sample_uri)))?;
        Ok(SampleRef { shard: PathBuf::from(uri), row, case_id: self.case_id.clone() })
    }
}

/// The artifacts that the samples are rows of.
async fn shards(ctx: &SessionContext, step: &Step) -> Result<Vec<String>> {
    let query = format!(
        "SELECT DISTINCT artifact_id AS id FROM artifacts WHERE role = 'shard' AND uri IN \
         (SELECT split_part(sample_uri, '#', 1) FROM {}) ORDER BY artifact_id",
        relations::quoted(&format!("__train_{}", step.name))
    );
    let rows: Vec<Value> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    Ok(rows.iter().filter_map(|r| r["id"].as_str().map(str::to_owned)).collect())
}

/// Runs a train step: nothing to do where this very training is in the catalog.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    action: &TrainStep,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    let mut report = StepReport::new(&step.name, 1);
    if let Some(model) = plan::model(&ctx, runner.pipeline, &step.name).await? {
        report.unchanged = 1;
        report.note = Some(format!("model {} is trained already", model.model_id));
        return Ok(report);
    }
    let print = fingerprint(&ctx, runner.pipeline, step, action).await?;
    let query = samples(&ctx, step).await?;
    let rows: Vec<SampleRow> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
    let part = |name: &str| -> Result<Vec<SampleRef>> {
        let rows: Vec<_> = rows.iter().filter(|r| r.part == name).collect();
        if rows.is_empty() {
            return Err(Error::configuration(format!(
                "steps.{}: the part `{name}` has no samples",
                step.name
            ))
            .hint("look at `torcula failures`, or change the shares of the split"));
        }
        rows.into_iter().map(SampleRow::reference).collect()
    };
    let (train, val) = (part(&action.train_part)?, part(&action.val_part)?);
    let shards = shards(&ctx, step).await?;
    let (train_cases, val_cases) = (train.len(), val.len());
    let grid = plan::training_grid(runner.pipeline, &step.name)?;
    let model_id = format!("{}-{}", step.name, &print[..10]);
    let metadata = BTreeMap::from([
        ("torcula.model_id".to_owned(), model_id.clone()),
        ("torcula.fingerprint".to_owned(), print.clone()),
        ("torcula.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("torcula.seed".to_owned(), runner.pipeline.seed.to_string()),
        ("torcula.resample".to_owned(), serde_json::to_string(&grid).unwrap_or_default()),
    ]);
    let job = TrainJob {
        params: action.params.clone(),
        train,
        val,
        spacing_mm: grid.spacing_mm.unwrap_or([1.0; 3]),
        seed: runner.pipeline.seed,
        folder: runner.pipeline.artifacts.join("models").join(&model_id),
        metadata,
        fingerprint: print.clone(),
    };
    let Some(learner) = runner.learner.clone() else {
        return Err(Error::bug("a train step without a learner"));
    };
    let (observer, stop) = (Arc::clone(&runner.observer), runner.stop.clone());
    observer.begin(&step.name, u64::from(action.params.epochs as u32), 0);
    let trained = tokio::task::spawn_blocking(move || {
        learner.train(job, &|epoch| observer.epoch(epoch), &|| stop.is_set())
    })
    .await
    .map_err(|e| Error::bug(format!("the training thread ended: {e}")))?;
    runner.observer.end(&step.name);
    let trained = trained?;
    let row = json!({
        "model_id": model_id,
        "name": step.name,
        "architecture": action.params.model,
        "uri": trained.path.to_string_lossy(),
        "blake3": trained.blake3,
        "bytes": trained.bytes,
        "parameters": serde_json::to_string(&action.params).unwrap_or_default(),
        "epochs": trained.curve.len(),
        "best_epoch": trained.best_epoch,
        "best_val_dice": trained.best_val_dice,
        "train_cases": train_cases,
        "val_cases": val_cases,
        "parent": null,
        "parents": shards,
        "curve": serde_json::to_string(&trained.curve).unwrap_or_default(),
    });
    let mut record = Record { table: Table::Models, row };
    runner.lineage.complete(&mut record, &step.name, "", &print);
    runner.catalog.append_json(Table::Models, &[record.row]).await?;
    report.done = 1;
    report.note = Some(format!(
        "best validation DSC {:.3} in epoch {} of {}",
        trained.best_val_dice,
        trained.best_epoch,
        trained.curve.len()
    ));
    Ok(report)
}
