//! Writing a shard.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, RecordBatch, StringArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{EXTENSION_METADATA, EXTENSION_NAME, Precision, Sample, TENSOR};
use crate::error::{Error, Result};
use crate::formats::files::{self, Published, io_error};

/// Writes a shard with half-precision intensities. Equal samples and lineage give equal bytes.
///
/// # Errors
/// A data error where there are no samples, their shapes differ, an image and its truth differ in shape, or a value
/// does not fit; an I/O or resource error.
pub fn write(
    path: &Path,
    samples: &[Sample],
    lineage: &BTreeMap<String, String>,
) -> Result<Published> {
    write_as(path, samples, lineage, Precision::Float16)
}

/// Writes a shard with intensities of the given precision.
///
/// # Errors
/// Those of [`write()`].
pub fn write_as(
    path: &Path,
    samples: &[Sample],
    lineage: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<Published> {
    let batch = batch(samples, lineage, precision)
        .map_err(|e| e.context(format!("shard {}", path.display())))?;
    files::publish(path, |out| {
        let failed = |e: ArrowError| match e {
            ArrowError::IoError(_, e) => io_error(path, "cannot be written", &e),
            e => Error::bug(format!("shard {}: {e}", path.display())),
        };
        let mut writer = FileWriter::try_new(out, &batch.schema()).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        writer.finish().map_err(failed)
    })
}

fn batch(
    samples: &[Sample],
    lineage: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<RecordBatch> {
    let Some(first) = samples.first() else {
        return Err(Error::data("a shard needs at least one sample"));
    };
    let (z, y, x) = first.image.data.dim();
    for sample in samples {
        let (image, truth) = (sample.image.data.dim(), sample.truth.data.dim());
        if image != (z, y, x) || truth != (z, y, x) {
            return Err(Error::data(format!(
                "{}: image {image:?} and truth {truth:?} (z, y, x), where {:?} of the first sample is expected",
                sample.case_id,
                (z, y, x)
            ))
            .hint("resample all cases to one shape before they become samples"));
        }
    }
    let image = match precision {
        Precision::Float16 => half_precision(samples)?,
        Precision::Float32 => single_precision(samples),
    };
    let truth: Vec<u8> = samples.iter().flat_map(|s| s.truth.voxels()).copied().collect();
    let text = |of: fn(&Sample) -> &String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(samples.iter().map(of)))
    };
    let (image_field, image) = tensor("image", &[1, z, y, x], image)?;
    let (truth_field, truth) = tensor("truth", &[z, y, x], Arc::new(UInt8Array::from(truth)))?;
    let fields = vec![
        Field::new("case_id", DataType::Utf8, false),
        Field::new("fingerprint", DataType::Utf8, false),
        image_field,
        truth_field,
    ];
    let metadata: HashMap<String, String> =
        lineage.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let columns = vec![text(|s| &s.case_id), text(|s| &s.fingerprint), image, truth];
    RecordBatch::try_new(schema, columns).map_err(|e| Error::bug(e.to_string()))
}

fn half_precision(samples: &[Sample]) -> Result<ArrayRef> {
    let voxels = samples.iter().map(|s| s.image.voxels().len()).sum();
    let mut values = vec![f16::ZERO; voxels];
    let mut rest = values.as_mut_slice();
    for sample in samples {
        let from = sample.image.voxels();
        let (row, after) = rest.split_at_mut(from.len());
        row.convert_from_f32_slice(from);
        if let Some((_, v)) = row.iter().zip(from).find(|(h, v)| h.is_infinite() && v.is_finite()) {
            return Err(Error::data(format!(
                "{}: the intensity {v} does not fit float16, which ends at 65504",
                sample.case_id
            ))
            .hint("normalise the images first, or store float32"));
        }
        rest = after;
    }
    Ok(Arc::new(Float16Array::from(values)))
}

fn single_precision(samples: &[Sample]) -> ArrayRef {
    let values: Vec<f32> = samples.iter().flat_map(|s| s.image.voxels()).copied().collect();
    Arc::new(Float32Array::from(values))
}

/// A column of tensors of one shape.
fn tensor(name: &str, shape: &[usize], values: ArrayRef) -> Result<(Field, ArrayRef)> {
    let size = i32::try_from(shape.iter().product::<usize>()).ok().filter(|&n| n > 0).ok_or_else(
        || {
            Error::data(format!(
                "{name} of shape {shape:?}: Arrow holds 1 to 2147483647 values a row"
            ))
        },
    )?;
    // The element is declared nullable because that is how pyarrow declares tensors; no value is null.
    let element = Arc::new(Field::new("item", values.data_type().clone(), true));
    let parameters = serde_json::json!({ "shape": shape });
    let field = Field::new(name, DataType::FixedSizeList(Arc::clone(&element), size), false)
        .with_metadata(HashMap::from([
            (EXTENSION_NAME.to_owned(), TENSOR.to_owned()),
            (EXTENSION_METADATA.to_owned(), parameters.to_string()),
        ]));
    let list = FixedSizeListArray::try_new(element, size, values, None)
        .map_err(|e| Error::bug(e.to_string()))?;
    Ok((field, Arc::new(list)))
}
