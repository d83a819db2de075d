//! The rows of any query, as a table.

use serde_json::{Map, Value};

use super::Draft;
use super::frame::columns;
use super::table::{Cell, Table};
use crate::error::Result;
use crate::pipeline::report_spec::{TableSpec, query};
use crate::report::load::query::Source;
use crate::report::tables::count;

/// Most rows that are shown.
const MOST_ROWS: usize = 200;

pub(super) async fn draft(source: &Source<'_>, spec: &TableSpec) -> Result<Draft> {
    let sql = query(&spec.from);
    let known = columns(source, &sql, &[]).await?;
    let head: Vec<String> = known.iter().map(|(name, _)| name.clone()).collect();
    let mut table = Table::new("", head.clone());
    let mut rows = 0;
    source
        .each(&sql, |row: Map<String, Value>| {
            rows += 1;
            if rows <= MOST_ROWS {
                table.push(head.iter().map(|name| cell(row.get(name))).collect());
            }
        })
        .await?;
    if rows > MOST_ROWS {
        table.caption = format!("The first {MOST_ROWS} of {} rows.", count(rows as u64));
    }
    let mut draft = Draft::default();
    draft.table("", table);
    draft.query("Rows", sql);
    Ok(draft)
}

fn cell(value: Option<&Value>) -> Cell {
    match value {
        None | Some(Value::Null) => Cell::Blank,
        Some(Value::String(text)) => Cell::Text(text.clone()),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Cell::Count(whole),
            (None, Some(real)) => Cell::Number(real, 3),
            _ => Cell::Blank,
        },
        Some(Value::Bool(yes)) => Cell::Text(if *yes { "yes" } else { "no" }.to_owned()),
        Some(other) => Cell::Text(other.to_string()),
    }
}
