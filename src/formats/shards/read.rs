//! Reading a shard: the file is mapped, its footer is checked against its length, and the tensors are views of it.
//!
//! Arrow's own decoder stops the program at some contradictions in a file (an offset that is not aligned, an unknown
//! type). A shard has four columns of known types, so they are taken here straight from the buffers that the message
//! describes, each checked to lie in the file, to be aligned and to be long enough.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use arrow::ipc;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{EXTENSION_METADATA, Precision};
use crate::error::{Error, Result};
use crate::formats::mapped;

/// What an IPC file begins and ends with.
const MAGIC: &[u8; 6] = b"ARROW1";
/// Length of the footer's length and the closing magic.
const TRAILER: usize = 10;

/// A shard, mapped into memory. Cheap to keep open; samples are read when they are asked for.
#[derive(Debug, Clone)]
pub struct ShardReader {
    case_id: Vec<String>,
    fingerprint: Vec<String>,
    image: Intensities,
    truth: ScalarBuffer<u8>,
    shape: [usize; 4],
    lineage: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
enum Intensities {
    Half(ScalarBuffer<f16>),
    Single(ScalarBuffer<f32>),
}

impl ShardReader {
    /// Opens a shard.
    ///
    /// # Errors
    /// A data error where the file is no whole shard of one record batch; an I/O error where it cannot be mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let file = mapped::map(path)?;
        Self::of(&file).map_err(|e| {
            e.context(format!("shard {}", path.display()))
                .hint("write the shard again: run the step that makes shards")
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.case_id.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of an image: channels, z, y, x.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// How the file stores intensities.
    pub fn precision(&self) -> Precision {
        match self.image {
            Intensities::Half(_) => Precision::Float16,
            Intensities::Single(_) => Precision::Float32,
        }
    }

    /// Where the samples come from, as given to [`super::write`].
    pub fn lineage(&self) -> &BTreeMap<String, String> {
        &self.lineage
    }

    /// The case of sample `i`.
    ///
    /// # Panics
    /// Where `i` is not below [`Self::len`].
    pub fn case_id(&self, i: usize) -> &str {
        &self.case_id[i]
    }

    /// The fingerprint of sample `i`.
    ///
    /// # Panics
    /// Where `i` is not below [`Self::len`].
    pub fn fingerprint(&self, i: usize) -> &str {
        &self.fingerprint[i]
    }

    /// Puts the image of sample `i` into `out`, in the order `[channels, z, y, x]`, x fastest.
    ///
    /// # Panics
    /// Where `i` is not below [`Self::len`] or `out` has not as many values as an image.
    pub fn image_f32(&self, i: usize, out: &mut [f32]) {
        let size: usize = self.shape.iter().product();
        let row = i * size..(i + 1) * size;
        match &self.image {
            Intensities::Half(values) => values[row].convert_to_f32_slice(out),
            Intensities::Single(values) => out.copy_from_slice(&values[row]),
        }
    }

    /// The truth of sample `i`, in the order `[z, y, x]`, x fastest: a view of the file.
    ///
    /// # Panics
    /// Where `i` is not below [`Self::len`].
    pub fn truth(&self, i: usize) -> &[u8] {
        let size: usize = self.shape[1..].iter().product();
        &self.truth[i * size..(i + 1) * size]
    }

    fn of(file: &Buffer) -> Result<Self> {
        let footer = footer(file)?;
        let layout = Layout::of(&footer)?;
        let batch = Batch::of(file, &footer)?;
        let damaged =
            || Error::data("the record batch is damaged: its lengths contradict each other");
        let [c, z, y, x] = layout.shape;
        let sizes = [1, 1, 1, c * z * y * x, 1, z * y * x];
        if !batch.has_rows_of(&sizes) {
            return Err(damaged());
        }
        let (images, truths) = (batch.rows * sizes[3], batch.rows * sizes[5]);
        let image = match layout.precision {
            Precision::Float16 => batch.values(8, images).map(Intensities::Half),
            Precision::Float32 => batch.values(8, images).map(Intensities::Single),
        };
        Ok(Self {
            case_id: batch.texts(1).ok_or_else(damaged)?,
            fingerprint: batch.texts(4).ok_or_else(damaged)?,
            image: image.ok_or_else(damaged)?,
            truth: batch.values(11, truths).ok_or_else(damaged)?,
            shape: layout.shape,
            lineage: layout.lineage,
        })
    }
}

/// The parts of a shard's schema that vary.
struct Layout {
    shape: [usize; 4],
    precision: Precision,
    lineage: BTreeMap<String, String>,
}

impl Layout {
    fn of(footer: &ipc::Footer) -> Result<Self> {
        let schema = footer.schema().ok_or_else(|| Error::data("the footer has no schema"))?;
        let fields: Vec<ipc::Field> = schema.fields().into_iter().flatten().collect();
        let names: Vec<&str> = fields.iter().filter_map(ipc::Field::name).collect();
        let [case_id, fingerprint, image, truth] = fields[..] else {
            return Err(wrong_columns(&names));
        };
        if names != ["case_id", "fingerprint", "image", "truth"]
            || [case_id, fingerprint].iter().any(|f| f.type_type() != ipc::Type::Utf8)
            || schema.endianness() != ipc::Endianness::Little
        {
            return Err(wrong_columns(&names));
        }
        let (element, size) = list(&image).ok_or_else(|| wrong_type("image"))?;
        let precision = match element.type_as_floating_point().map(|t| t.precision()) {
            Some(ipc::Precision::HALF) => Precision::Float16,
            Some(ipc::Precision::SINGLE) => Precision::Float32,
            _ => return Err(wrong_type("image")),
        };
        let (element, truth_size) = list(&truth).ok_or_else(|| wrong_type("truth"))?;
        let is_u8 = element.type_as_int().is_some_and(|t| t.bitWidth() == 8 && !t.is_signed());
        let shape = tensor_shape(&image).filter(|s| product(s) == Some(size));
        match shape.as_deref() {
            Some(&[c, z, y, x]) if is_u8 && product(&[z, y, x]) == Some(truth_size) => {
                let lineage = key_values(schema.custom_metadata()).collect();
                Ok(Self { shape: [c, z, y, x], precision, lineage })
            }
            _ => Err(wrong_type("image` or `truth")),
        }
    }
}

fn wrong_columns(found: &[&str]) -> Error {
    Error::data(format!(
        "the columns are [{}], where case_id, fingerprint, image, truth are expected",
        found.join(", ")
    ))
}

fn wrong_type(column: &str) -> Error {
    Error::data(format!("the column `{column}` is not the tensor that a shard has"))
}

/// Element and size of a fixed-size list.
fn list<'a>(field: &ipc::Field<'a>) -> Option<(ipc::Field<'a>, usize)> {
    let size = field.type_as_fixed_size_list()?.listSize();
    let children = field.children().filter(|c| c.len() == 1)?;
    Some((children.get(0), usize::try_from(size).ok().filter(|&n| n > 0)?))
}

fn tensor_shape(field: &ipc::Field) -> Option<Vec<usize>> {
    let (_, parameters) =
        key_values(field.custom_metadata()).find(|(key, _)| key == EXTENSION_METADATA)?;
    let parameters: serde_json::Value = serde_json::from_str(&parameters).ok()?;
    parameters.get("shape")?.as_array()?.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect()
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n))
}

fn key_values<'a>(
    pairs: impl IntoIterator<Item: IntoIterator<Item = ipc::KeyValue<'a>>>,
) -> impl Iterator<Item = (String, String)> {
    pairs.into_iter().flatten().filter_map(|p| Some((p.key()?.to_owned(), p.value()?.to_owned())))
}

fn footer(file: &Buffer) -> Result<ipc::Footer<'_>> {
    let bytes = file.as_slice();
    if !bytes.starts_with(MAGIC) {
        return Err(Error::data("not an Arrow IPC file"));
    }
    let truncated = || Error::data("the file is truncated: its footer is not where it should be");
    let (rest, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or_else(truncated)?;
    let [a, b, c, d, magic @ ..] = trailer;
    let length = usize::try_from(i32::from_le_bytes([*a, *b, *c, *d])).map_err(|_| truncated())?;
    let start = rest.len().checked_sub(length).filter(|_| magic == MAGIC).ok_or_else(truncated)?;
    ipc::root_as_footer(&rest[start..])
        .map_err(|e| Error::data(format!("the footer is damaged: {e}")))
}

/// The only record batch of a file.
///
/// Its buffers, in the order of the format (each column's validity first): 0 to 2 `case_id`, 3 to 5 `fingerprint`,
/// each with validity, offsets, text; 6 to 8 `image`, 9 to 11 `truth`, each with validity, validity of the elements,
/// elements.
struct Batch {
    rows: usize,
    buffers: Vec<Buffer>,
    /// Length of each column, and of the elements after their list.
    lengths: Vec<i64>,
}

impl Batch {
    fn of(file: &Buffer, footer: &ipc::Footer) -> Result<Self> {
        let damaged = |what: &str| Error::data(format!("the record batch is damaged: {what}"));
        let Some(block) = footer.recordBatches().filter(|b| b.len() == 1).map(|b| *b.get(0)) else {
            return Err(Error::data("a shard has exactly one record batch, this file has not"));
        };
        let size = |n: i64| usize::try_from(n).ok();
        let parts = size(block.offset())
            .zip(size(block.metaDataLength().into()))
            .zip(size(block.bodyLength()))
            .and_then(|((start, head), body)| {
                let middle = start.checked_add(head)?;
                let end = middle.checked_add(body).filter(|&end| end <= file.len())?;
                Some((file.get(start..middle)?, file.slice_with_length(middle, end - middle)))
            });
        let (head, body) = parts.ok_or_else(|| damaged("it lies outside the file"))?;
        Self::within(head, &body).ok_or_else(|| damaged("its message is no message of a shard"))
    }

    /// The batch that a message describes, where all its buffers lie aligned in the body and nothing is missing.
    fn within(head: &[u8], body: &Buffer) -> Option<Self> {
        // A continuation marker, the length of the message, the message.
        let message = head.get(8..).filter(|_| head.starts_with(&[0xff; 4]))?;
        let message = ipc::root_as_message(message).ok()?;
        let batch = message.header_as_record_batch().filter(|b| b.compression().is_none())?;
        let buffer = |place: &ipc::Buffer| {
            let [start, length] = [place.offset(), place.length()].map(usize::try_from);
            let (start, length) = (start.ok()?, length.ok()?);
            let inside = start.checked_add(length)? <= body.len();
            let aligned = (body.as_ptr().addr() + start).is_multiple_of(8);
            (inside && (aligned || length == 0)).then(|| body.slice_with_length(start, length))
        };
        let buffers: Vec<Buffer> = batch.buffers()?.iter().map(buffer).collect::<Option<_>>()?;
        let nodes = batch.nodes()?;
        let complete = nodes.iter().all(|n| n.null_count() == 0) && buffers.len() == 12;
        let lengths = nodes.iter().map(ipc::FieldNode::length).collect();
        complete.then_some(Self { rows: usize::try_from(batch.length()).ok()?, buffers, lengths })
    }

    /// Whether each column has as many values as there are rows of these sizes.
    fn has_rows_of(&self, sizes: &[usize]) -> bool {
        let expected = |size: &usize| i64::try_from(self.rows.checked_mul(*size)?).ok();
        self.lengths.len() == sizes.len()
            && sizes.iter().zip(&self.lengths).all(|(size, n)| expected(size) == Some(*n))
    }

    /// The first `count` numbers of a buffer, without a copy.
    fn values<T: ArrowNativeType>(&self, buffer: usize, count: usize) -> Option<ScalarBuffer<T>> {
        let buffer = &self.buffers[buffer];
        let enough = count.checked_mul(size_of::<T>())? <= buffer.len();
        enough.then(|| ScalarBuffer::new(buffer.clone(), 0, count))
    }

    /// The texts whose offsets are in a buffer and whose bytes are in the next.
    fn texts(&self, offsets: usize) -> Option<Vec<String>> {
        let text = &self.buffers[offsets + 1];
        let ends: ScalarBuffer<i32> = self.values(offsets, self.rows.checked_add(1)?)?;
        ends.windows(2)
            .map(|pair| {
                let range = usize::try_from(pair[0]).ok()?..usize::try_from(pair[1]).ok()?;
                std::str::from_utf8(text.get(range)?).ok().map(str::to_owned)
            })
            .collect()
    }
}
