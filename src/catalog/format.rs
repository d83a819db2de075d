//! Query results as text or files: an aligned table for people, CSV, JSON and Parquet for programs.

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::Value;

use super::rows::{objects, values};
use crate::error::{Error, Result};

/// How query results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns for reading.
    #[default]
    Table,
    /// Comma-separated values with a header; lists as JSON text.
    Csv,
    /// One list of objects.
    Json,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Table, Self::Csv, Self::Json, Self::Parquet];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }

    /// Writes batches of one schema, of which there must be at least one, as [`super::sql`] gives them.
    ///
    /// # Errors
    /// The writer fails, or a column has a type that the format cannot hold.
    pub fn write(self, batches: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<()> {
        match self {
            Self::Table => table(batches, out),
            Self::Csv => csv(batches, out),
            Self::Json => json(batches, out),
            Self::Parquet => parquet(batches, out),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::configuration(format!("there is no format '{name}'"))
                .hint(format!("the formats are {names}"))
        })
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::io(format!("could not write the rows: {error}"))
}

/// Writes an aligned table, then the number of rows.
///
/// # Errors
/// The writer fails.
pub fn table(batches: &[RecordBatch], out: &mut dyn Write) -> Result<()> {
    let options = FormatOptions::default()
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"))
        .with_display_error(true);
    let text =
        pretty_format_batches_with_options(batches, &options).map_err(|error| failed(&error))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let noun = if rows == 1 { "row" } else { "rows" };
    Ok(writeln!(out, "{text}\n{rows} {noun}")?)
}

/// Writes comma-separated values with a header.
///
/// # Errors
/// The writer fails.
pub fn csv(batches: &[RecordBatch], out: &mut dyn Write) -> Result<()> {
    let mut writer = WriterBuilder::new().with_header(true).build(out);
    for batch in batches {
        writer.write(&flat(batch)?).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Writes one JSON list with an object a row.
///
/// # Errors
/// The writer fails.
pub fn json(batches: &[RecordBatch], out: &mut dyn Write) -> Result<()> {
    let mut separator = "[\n  ";
    for batch in batches {
        for row in objects(batch)? {
            write!(out, "{separator}{row}")?;
            separator = ",\n  ";
        }
    }
    let ending = if separator.starts_with('[') { "[]\n" } else { "\n]\n" };
    Ok(out.write_all(ending.as_bytes())?)
}

/// Writes a Parquet file.
///
/// # Errors
/// The writer fails.
pub fn parquet(batches: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<()> {
    let Some(first) = batches.first() else {
        return Err(Error::bug("a Parquet file needs a schema"));
    };
    let mut writer =
        ArrowWriter::try_new(out, first.schema(), None).map_err(|error| failed(&error))?;
    for batch in batches {
        writer.write(batch).map_err(|error| failed(&error))?;
    }
    writer.close().map_err(|error| failed(&error))?;
    Ok(())
}

/// A batch whose nested columns are JSON text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let text = |column: &ArrayRef| -> Result<ArrayRef> {
        let texts = values(column)?.into_iter().map(|value| match value {
            Value::Null => None,
            value => Some(value.to_string()),
        });
        Ok(Arc::new(texts.collect::<StringArray>()))
    };
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let nested = field.data_type().is_nested();
        columns.push(if nested { text(column)? } else { Arc::clone(column) });
        let kind = if nested { DataType::Utf8 } else { field.data_type().clone() };
        fields.push(Field::new(field.name(), kind, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::catalog::rows::encode;
    use crate::catalog::{QualityRow, Table, Timestamp};
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReader;

    fn batch() -> RecordBatch {
        let mut row =
            QualityRow { case_id: "sub-1".into(), snr: Some(4.5), ..QualityRow::default() };
        row.reasons = vec!["dim, \"odd\"".into()];
        row.lineage.created_at = Timestamp(1_769_860_800_250_000);
        let batch = encode(Table::Quality, &[row]).unwrap().remove(0);
        let names = ["case_id", "reasons", "snr", "cjv", "created_at"];
        let indices: Vec<_> =
            names.iter().map(|name| batch.schema().index_of(name).unwrap()).collect();
        batch.project(&indices).unwrap()
    }

    fn written(format: Format, batch: &RecordBatch) -> Vec<u8> {
        let mut out = Vec::new();
        format.write(std::slice::from_ref(batch), &mut out).unwrap();
        out
    }

    #[test]
    fn text_formats() {
        let text = |format| String::from_utf8(written(format, &batch())).unwrap();
        assert_eq!(
            text(Format::Csv),
            "case_id,reasons,snr,cjv,created_at\nsub-1,\"[\"\"dim, \\\"\"odd\\\"\"\"\"]\",4.5,,2026-01-31T12:00:00.250Z\n"
        );
        let json: Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(json[0]["reasons"][0], "dim, \"odd\"");
        assert_eq!(json[0]["cjv"], Value::Null);
        let table = text(Format::Table);
        assert!(table.contains("| sub-1 "), "{table}");
        assert!(table.ends_with("\n1 row\n"), "{table}");
    }

    #[test]
    fn nothing_is_still_well_formed() {
        let empty = RecordBatch::new_empty(batch().schema());
        assert_eq!(written(Format::Json, &empty), b"[]\n");
        assert_eq!(written(Format::Csv, &empty), b"case_id,reasons,snr,cjv,created_at\n");
        assert!(written(Format::Table, &empty).ends_with(b"\n0 rows\n"));
    }

    #[test]
    fn parquet_reads_back() {
        let bytes = deltalake_core::parquet::file::reader::ChunkReader::get_bytes;
        let file = tempfile::tempfile().unwrap();
        Format::Parquet.write(&[batch()], &mut file.try_clone().unwrap()).unwrap();
        assert!(bytes(&file, 0, 4).unwrap().starts_with(b"PAR1"));
        let read: Vec<_> =
            ParquetRecordBatchReader::try_new(file, 64).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(objects(&read[0]).unwrap(), objects(&batch()).unwrap());
    }
}
