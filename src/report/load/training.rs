//! The trained model and its curve.

use serde::Deserialize;

use super::query::{Source, literal};
use crate::error::Result;
use crate::report::data::{CurvePoint, Training};

#[derive(Deserialize)]
struct Model {
    model_id: String,
    name: String,
    architecture: String,
    best_epoch: i64,
    best_val_dice: Option<f64>,
    train_cases: i64,
    val_cases: i64,
    parent: Option<String>,
    curve: String,
}

/// The newest model of the step; none where there is no such step or model.
pub async fn load(source: &Source<'_>) -> Result<Option<Training>> {
    let Some(step) = source.job.model_step.as_deref() else { return Ok(None) };
    if !source.has("models").await {
        return Ok(None);
    }
    let sql = format!(
        "SELECT model_id, name, architecture, best_epoch, best_val_dice, train_cases, val_cases, parent, curve\n\
         FROM models WHERE name = {}\nORDER BY created_at DESC, model_id DESC LIMIT 1",
        literal(step)
    );
    let model = source.rows::<Model>(&sql).await?.pop();
    Ok(model.map(|model| Training {
        model_id: model.model_id,
        name: model.name,
        architecture: model.architecture,
        best_epoch: model.best_epoch,
        best_val_dice: model.best_val_dice.filter(|d| d.is_finite()),
        train_cases: model.train_cases,
        val_cases: model.val_cases,
        parent: model.parent,
        // A curve that another version wrote in another form is left out: the page says that there is none.
        curve: serde_json::from_str::<Vec<CurvePoint>>(&model.curve).unwrap_or_default(),
        sql,
    }))
}
