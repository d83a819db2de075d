//! Tables in Parquet files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::reader::{ChunkReader, Length};

use super::quiet::quietly;
use super::table::{Row, Table};
use super::{files, limits};
use crate::error::{Error, Result};

/// Rows of a Parquet file decoded at a time: few, since a small file may say that each holds much.
const ROWS: usize = 64;

/// The table in a Parquet file, its cells as text.
///
/// # Errors
/// The file is no Parquet file, contradicts itself, or holds more text than a table may.
pub(super) fn read(path: &Path) -> Result<Table> {
    // The decoder stops at some contradictions in a file.
    quietly(|| decode(path)).unwrap_or_else(|| {
        Err(Error::data(format!("{}: not a readable Parquet file", path.display())))
    })
}

fn decode(path: &Path) -> Result<Table> {
    let damaged = |e: &dyn std::fmt::Display| {
        Error::data(format!("{}: not a readable Parquet file: {e}", path.display()))
    };
    let (file, bytes): (File, u64) = files::open_regular(path)?;
    let most = limits::TABLE_BYTES.get();
    let too_large = || {
        let found = format!("{}: more than {} of text", path.display(), files::human_bytes(most));
        Error::data(found)
            .hint(format!("divide the table, or raise {}", limits::TABLE_BYTES.variable))
    };
    if bytes > most {
        return Err(too_large());
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(Whole(file)).map_err(|e| damaged(&e))?;
    let columns: Vec<String> =
        builder.schema().fields().iter().map(|f| f.name().trim().to_owned()).collect();
    let mut table = Table { path: path.to_owned(), columns, rows: Vec::new() };
    table.check_columns()?;
    let format = FormatOptions::new().with_null("");
    let mut text_bytes = 0;
    for batch in builder.with_batch_size(ROWS).build().map_err(|e| damaged(&e))? {
        let batch = batch.map_err(|e| damaged(&e))?;
        let cells: Vec<ArrayFormatter> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c, &format).map_err(|e| damaged(&e)))
            .collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            let text = |c: &ArrayFormatter| {
                c.value(row).try_to_string().map(|t| t.trim().to_owned()).map_err(|e| damaged(&e))
            };
            let line = table.rows.len() as u64 + 1;
            let cells: csv::StringRecord = cells.iter().map(text).collect::<Result<_>>()?;
            text_bytes += cells.as_slice().len() as u64;
            if text_bytes > most {
                return Err(too_large());
            }
            table.rows.push(Row { line, cells });
        }
    }
    Ok(table)
}

/// A file whose end is an error: the decoder takes it for bytes to skip, and a page that says that it has 2³¹ of them would be
/// skipped for minutes.
struct Whole(File);

impl Length for Whole {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Whole {
    type T = UpToTheEnd;

    fn get_read(&self, start: u64) -> ParquetResult<UpToTheEnd> {
        self.0.get_read(start).map(UpToTheEnd)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.0.get_bytes(start, length)
    }
}

struct UpToTheEnd(BufReader<File>);

impl Read for UpToTheEnd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 if !into.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}
