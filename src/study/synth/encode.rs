//! NIfTI-1 in memory: little-endian, sform only, so that broken files can be made of whole ones.

use std::io::Write;

use flate2::{Compression, GzBuilder};

use crate::error::Result;
use crate::volume::{Grid, Image, Mask};

/// Where the dimensions begin in a header: eight 16-bit integers, the number of dimensions first.
pub(super) const DIMENSIONS_AT: usize = 40;
/// Where the magic bytes lie in a header.
pub(super) const MAGIC_AT: usize = 344;
/// Bytes from the start of the file to the first voxel.
pub(super) const DATA_AT: usize = 352;

/// Data types of a header: code and bits.
const UINT8: (i16, i16) = (2, 8);
const INT16: (i16, i16) = (4, 16);
const FLOAT32: (i16, i16) = (16, 32);

/// Volumes of whole numbers as a 4-D `int16` file; values outside its range become the nearest within.
pub(super) fn int16(volumes: &[&Image]) -> Vec<u8> {
    let mut bytes = start(volumes, INT16);
    for v in volumes.iter().flat_map(|v| v.voxels()) {
        bytes.extend_from_slice(&(*v as i16).to_le_bytes());
    }
    bytes
}

/// Volumes as a 4-D `float32` file.
pub(super) fn float32(volumes: &[&Image]) -> Vec<u8> {
    let mut bytes = start(volumes, FLOAT32);
    for v in volumes.iter().flat_map(|v| v.voxels()) {
        bytes.extend_from_slice(&v.to_le_bytes());
    }
    bytes
}

/// A mask as a 3-D `uint8` file.
pub(super) fn uint8(mask: &Mask) -> Vec<u8> {
    let mut bytes = header(&mask.grid(), 1, UINT8);
    bytes.extend_from_slice(mask.voxels());
    bytes
}

/// The bytes compressed with gzip, level 1, without a time or a name.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder =
        GzBuilder::new().write(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn start(volumes: &[&Image], datatype: (i16, i16)) -> Vec<u8> {
    volumes.first().map_or_else(Vec::new, |v| header(&v.grid(), volumes.len(), datatype))
}

/// A header for `volumes` volumes on a grid, with room for the voxels behind it.
fn header(grid: &Grid, volumes: usize, (code, bits): (i16, i16)) -> Vec<u8> {
    let total = DATA_AT + grid.voxels() * volumes * bits as usize / 8;
    let mut bytes = Vec::with_capacity(total);
    bytes.resize(DATA_AT, 0);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    let rank = if volumes > 1 { 4 } else { 3 };
    let [nx, ny, nz] = grid.shape;
    for (i, n) in [rank, nx, ny, nz, volumes, 1, 1, 1].into_iter().enumerate() {
        put(DIMENSIONS_AT + 2 * i, &(n as i16).to_le_bytes());
    }
    put(70, &code.to_le_bytes());
    put(72, &bits.to_le_bytes());
    let [dx, dy, dz] = grid.affine.spacing_mm();
    for (i, d) in [1.0, dx, dy, dz, 1.0].into_iter().enumerate() {
        put(76 + 4 * i, &(d as f32).to_le_bytes());
    }
    put(108, &(DATA_AT as f32).to_le_bytes());
    put(112, &1.0_f32.to_le_bytes());
    // Units: mm and seconds.
    put(123, &[2 | 8]);
    // sform: scanner coordinates; no qform.
    put(254, &1_i16.to_le_bytes());
    for (i, v) in grid.affine.0.iter().flatten().enumerate() {
        put(280 + 4 * i, &(*v as f32).to_le_bytes());
    }
    put(MAGIC_AT, b"n+1\0");
    bytes
}
