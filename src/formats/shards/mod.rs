//! Training shards: Arrow IPC files of samples that all have one shape, read by memory-mapping without a copy.
//!
//! One row a sample, one uncompressed record batch a file, every buffer aligned to 64 bytes:
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `case_id` | `Utf8` | the case |
//! | `fingerprint` | `Utf8` | of what the sample was made from |
//! | `image` | `FixedSizeList<Float16 or Float32>`, tensor `[channels, z, y, x]` | intensities |
//! | `truth` | `FixedSizeList<UInt8>`, tensor `[z, y, x]` | 1 inside the lesion, else 0 |
//!
//! The tensors carry the canonical extension type `arrow.fixed_shape_tensor`, so that other readers see their shape.
//! The schema's metadata hold the lineage of the shard. Half precision keeps 11 bits, finer than the 255 grey values
//! of a normalised image, at half the size and bandwidth.
//!
//! Format: <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>.

mod read;
mod write;

pub use read::ShardReader;
pub use write::{write, write_as};

use crate::volume::{Image, Mask};

/// Name of the extension type of a tensor column.
const TENSOR: &str = "arrow.fixed_shape_tensor";
/// Metadata key of a field's extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
/// Metadata key of an extension type's parameters.
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// What a network learns from: an image and its truth on one grid.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The case it was made of.
    pub case_id: String,
    /// Fingerprint of what it was made from.
    pub fingerprint: String,
    /// Intensities.
    pub image: Image,
    /// 1 inside the lesion, else 0.
    pub truth: Mask,
}

/// How intensities are stored.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Half precision: 11 significant bits, finite to ±65,504.
    #[default]
    Float16,
    /// Single precision.
    Float32,
}

#[cfg(test)]
mod tests;
