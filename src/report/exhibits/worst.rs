//! The cases with the worst scores, with pictures and what traces them.

use serde_json::{Map, Value};

use super::frame::columns;
use super::table::{Cell, Table};
use super::{Draft, DraftPart, decimals, measure_label};
use crate::error::Result;
use crate::pipeline::report_spec::{WorstSpec, query};
use crate::report::data::Example;
use crate::report::load::pictures::{self, CaseFiles, ImageAt};
use crate::report::load::query::{Source, identifier};

/// Columns that are shown or needed where the relation has them.
const OPTIONAL: [&str; 10] = [
    "volume_truth_ml",
    "volume_predicted_ml",
    "centre",
    "vendor",
    "image_uri",
    "image_volume",
    "truth_uri",
    "prediction_uri",
    "source_artifact",
    "model_id",
];

pub(super) async fn draft(source: &Source<'_>, spec: &WorstSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let known = columns(source, &from, &["case_id", &spec.measure]).await?;
    let has = |name: &&&str| known.iter().any(|(column, _)| column == **name);
    let select: Vec<String> = ["case_id", spec.measure.as_str()]
        .iter()
        .chain(OPTIONAL.iter().filter(has))
        .map(|name| identifier(name))
        .collect();
    let measure = identifier(&spec.measure);
    let sql = format!(
        "SELECT {}\nFROM ({from})\nWHERE {measure} IS NOT NULL\nORDER BY {measure}, case_id LIMIT {}",
        select.join(", "),
        spec.cases
    );
    let rows: Vec<Map<String, Value>> = source.rows(&sql).await?;
    let mut draft = Draft::default();
    let label = measure_label(&spec.measure);
    let mut table = Table::new(
        "The worst cases first. torcula lineage ID traces an identifier to the bytes of the input files.",
        ["Case", &label, "Reference (mL)", "Predicted (mL)", "Centre", "Lineage"]
            .map(str::to_owned)
            .to_vec(),
    );
    for (i, row) in rows.iter().enumerate() {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let real = |key: &str| row.get(key).and_then(Value::as_f64);
        let case_id = text("case_id");
        let trace = ["source_artifact", "model_id"].map(text).into_iter().find(|id| !id.is_empty());
        let lineage = trace.unwrap_or_else(|| case_id.clone());
        let number = |key: &str, digits| real(key).map_or(Cell::Blank, |v| Cell::Number(v, digits));
        table.push(vec![
            Cell::Text(case_id.clone()),
            number(&spec.measure, decimals(&spec.measure)),
            number("volume_truth_ml", 2),
            number("volume_predicted_ml", 2),
            Cell::Text(text("centre")),
            Cell::Text(lineage.clone()),
        ]);
        let slices = match files(row) {
            Ok(files) => pictures::slices(files).await,
            Err(reason) => Err(reason),
        };
        let example = Example {
            rank: format!("Worst {}", i + 1),
            case_id,
            dice: real(&spec.measure).unwrap_or_default(),
            volume_truth_ml: real("volume_truth_ml").unwrap_or_default(),
            volume_predicted_ml: real("volume_predicted_ml").unwrap_or_default(),
            slices,
        };
        draft.parts.push(DraftPart::Case { example, lineage });
    }
    draft.table("", table);
    draft.query("Cases", sql);
    Ok(draft)
}

fn files(row: &Map<String, Value>) -> Result<CaseFiles, String> {
    let uri = |key: &str| {
        let found = row.get(key).and_then(Value::as_str).map(str::to_owned);
        found.ok_or_else(|| format!("the row has no {key}"))
    };
    let volume = row.get("image_volume").and_then(Value::as_i64).unwrap_or(0);
    Ok(CaseFiles {
        prepared: None,
        image: ImageAt { uri: uri("image_uri")?, volume },
        truth: uri("truth_uri")?,
        prediction: uri("prediction_uri")?,
    })
}
