//! NIfTI-1 and NIfTI-2 images: `.nii`, `.nii.gz`, and `.hdr` / `.img` pairs, of every real data type and both byte
//! orders.
//!
//! Nothing in a header is believed before it is checked against the file: memory is reserved only for voxels that
//! the file can hold. Voxels are decoded to `f32` in the order of the file, which is the order of
//! [`Volume`](crate::volume::Volume), so nothing is transposed.

mod checksum;
mod datatype;
mod gzip;
mod header;
mod huffman;
mod inflate;
mod orientation;
mod raw;
mod read;
mod stream;
mod write;

pub use datatype::DataType;
pub use header::Header;
pub use orientation::AffineSource;
pub use read::{other_half, read_header, read_image, read_mask};
pub use write::{WriteOptions, write_image, write_image_i16, write_mask, write_series};

#[cfg(test)]
mod tests;
