//! Between Arrow batches and Rust rows. Numbers pass unchanged: nothing goes through decimal text.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::json::ReaderBuilder;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Timestamp;
use super::schema::Table;
use crate::error::{Error, Result};

/// Rows encoded at a time.
const CHUNK: usize = 8192;

/// Rows decoded at a time: on the way a row is a JSON object, which takes several times its memory.
const DECODED: usize = 64;

/// The rows of query results as Rust values, by column name.
///
/// # Errors
/// A row lacks a field of `T`, or holds another type there.
pub fn rows<T: DeserializeOwned>(batches: &[RecordBatch]) -> Result<Vec<T>> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for part in batches.iter().flat_map(slices) {
        for row in objects(&part)? {
            rows.push(serde_json::from_value(row).map_err(|error| {
                Error::bug(format!("a row is not a {}: {error}", std::any::type_name::<T>()))
            })?);
        }
    }
    Ok(rows)
}

/// A batch in parts that share its memory, each of so few rows that decoding it takes little more.
pub fn slices(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + use<> {
    let (batch, count) = (batch.clone(), batch.num_rows());
    (0..count).step_by(DECODED).map(move |start| batch.slice(start, DECODED.min(count - start)))
}

/// The rows of query results as JSON objects. Moments become RFC 3339 text; NaN and infinities become null, as JSON
/// has none.
///
/// # Errors
/// A column has a type that cannot be shown as text.
pub fn json_rows(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        rows.extend(objects(batch)?);
    }
    Ok(rows)
}

/// One batch as JSON objects.
pub(super) fn objects(batch: &RecordBatch) -> Result<Vec<Value>> {
    let mut objects = vec![Map::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (object, value) in objects.iter_mut().zip(values(column)?) {
            object.insert(field.name().clone(), value);
        }
    }
    Ok(objects.into_iter().map(Value::Object).collect())
}

/// One column as JSON values.
pub(super) fn values(column: &ArrayRef) -> Result<Vec<Value>> {
    let to = |kind: &DataType| {
        cast(column, kind).map_err(|error| Error::bug(format!("a column cannot be read: {error}")))
    };
    let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
    Ok(match column.data_type() {
        DataType::Null => vec![Value::Null; column.len()],
        DataType::Utf8 => column.as_string::<i32>().iter().map(Value::from).collect(),
        DataType::LargeUtf8 | DataType::Utf8View => values(&to(&DataType::Utf8)?)?,
        DataType::Dictionary(_, kind) => values(&to(kind)?)?,
        DataType::Boolean => column.as_boolean().iter().map(Value::from).collect(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().iter().map(Value::from).collect(),
        kind if kind.is_integer() => {
            to(&DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Value::from).collect()
        }
        kind if kind.is_floating() || kind.is_decimal() => {
            to(&DataType::Float64)?.as_primitive::<Float64Type>().iter().map(Value::from).collect()
        }
        DataType::Timestamp(_, zone) => {
            let micros = to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            let text = |micros| Value::from(Timestamp(micros).to_string());
            micros.iter().map(|micros| or_null(micros.map(text))).collect()
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>().iter();
            lists
                .map(|list| list.map_or(Ok(Value::Null), |list| Ok(Value::from(values(&list)?))))
                .collect::<Result<_>>()?
        }
        DataType::Struct(_) => {
            let parts = column.as_struct();
            let mut rows = objects(&RecordBatch::from(parts.clone()))?;
            for (index, row) in rows.iter_mut().enumerate() {
                if parts.is_null(index) {
                    *row = Value::Null;
                }
            }
            rows
        }
        _ => shown(column)?,
    })
}

/// A column of any other type, as the text that a table would show.
fn shown(column: &ArrayRef) -> Result<Vec<Value>> {
    let failed = |error: arrow::error::ArrowError| Error::configuration(error.to_string());
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    (0..column.len())
        .map(|index| {
            if column.is_null(index) {
                return Ok(Value::Null);
            }
            let text = formatter.value(index).try_to_string().map_err(failed)?;
            Ok(Value::from(text))
        })
        .collect()
}

/// Rows as batches of the table's schema.
///
/// # Errors
/// Names the first row that does not fit, by its index.
pub(super) fn encode<R: Serialize>(table: Table, rows: &[R]) -> Result<Vec<RecordBatch>> {
    rows.chunks(CHUNK)
        .enumerate()
        .map(|(chunk, rows)| {
            encode_chunk(table, rows).map_err(|whole| {
                // Rare and on the way out: go through the rows again to name the one at fault.
                let single = rows.iter().enumerate().find_map(|(index, row)| {
                    let error = encode_chunk(table, std::slice::from_ref(row)).err()?;
                    Some(format!("row {}: {error}", chunk * CHUNK + index))
                });
                Error::bug(format!("table '{table}', {}", single.unwrap_or(whole)))
            })
        })
        .collect()
}

fn encode_chunk<R: Serialize>(table: Table, rows: &[R]) -> Result<RecordBatch, String> {
    let schema = table.arrow_schema();
    let mut decoder = ReaderBuilder::new(schema)
        .with_batch_size(rows.len())
        .with_strict_mode(true)
        .build_decoder()
        .map_err(|error| error.to_string())?;
    decoder.serialize(rows).map_err(|error| error.to_string())?;
    let batch = decoder.flush().map_err(|error| error.to_string())?;
    batch.ok_or_else(|| "no rows".to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use arrow::array::{
        Date32Array, DictionaryArray, Float32Array, Int8Array, StringViewArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;
    use serde_json::json;

    use super::*;
    use crate::catalog::{CaseRow, FailureRow, RunRow};
    use crate::error::Fault;

    fn case() -> CaseRow {
        CaseRow {
            case_id: "sub-1".into(),
            // 0.1 + 0.2 and a number next to it: decimal text without care would merge them.
            affine: vec![0.1 + 0.2, 0.3, f64::MIN_POSITIVE, -0.0],
            age_y: Some(71.300_000_000_000_01),
            findings: vec!["odd \"quote\"".into(), String::new()],
            chronic_infarct: Some(false),
            ingested_at: Timestamp(1_769_860_800_250_001),
            ..CaseRow::default()
        }
    }

    #[test]
    fn a_row_survives_the_way_there_and_back() {
        let batches = encode(Table::Cases, &[case(), CaseRow::default()]).unwrap();
        assert_eq!(batches[0].schema(), Table::Cases.arrow_schema());
        assert_eq!(rows::<CaseRow>(&batches).unwrap(), [case(), CaseRow::default()]);
    }

    #[test]
    fn enums_are_words() {
        let failure = FailureRow {
            run_id: "r".into(),
            step: "s".into(),
            stage: "n4".into(),
            case_id: "c".into(),
            fault: Fault::Timeout,
            reason: "slow".into(),
            hint: None,
            fingerprint: "f".into(),
            transient: true,
            created_at: Timestamp(1),
        };
        let batches = encode(Table::Failures, std::slice::from_ref(&failure)).unwrap();
        assert_eq!(json_rows(&batches).unwrap()[0]["fault"], "timeout");
        assert_eq!(rows::<FailureRow>(&batches).unwrap(), [failure]);
        let batches = encode(Table::Runs, &[RunRow::default()]).unwrap();
        assert_eq!(json_rows(&batches).unwrap()[0]["status"], "running");
    }

    #[test]
    fn other_types_become_json() {
        let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let columns: [(&str, ArrayRef); 6] = [
            ("view", Arc::new(StringViewArray::from(vec![Some("x"), None, Some("z")]))),
            ("dictionary", Arc::new(dictionary)),
            ("small", Arc::new(Int8Array::from(vec![1, -2, 3]))),
            ("large", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
            ("real", Arc::new(Float32Array::from(vec![0.5, f32::NAN, 2.0]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), None, Some(1)]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows = json_rows(&[batch]).unwrap();
        assert_eq!(
            rows[0],
            json!({"view": "x", "dictionary": "a", "small": 1, "large": u64::MAX, "real": 0.5, "day": "1970-01-01"})
        );
        assert_eq!(
            rows[1],
            json!({"view": null, "dictionary": "b", "small": -2, "large": 0, "real": null, "day": null})
        );
    }

    #[test]
    fn the_row_at_fault_is_named() {
        let good = serde_json::to_value(case()).unwrap();
        let mut bad = good.clone();
        bad["shape_x"] = json!("many");
        let error = encode(Table::Cases, &[good, bad]).unwrap_err();
        assert!(error.reason().contains("'cases', row 1"), "{error}");
        assert!(error.reason().contains("shape_x"), "{error}");
    }
}
