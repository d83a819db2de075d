//! Writing NIfTI-1: one file, little-endian, the affine as sform and, where it has no shear, as qform too.

use std::path::Path;

use super::datatype::DataType;
use super::gzip::Gzip;
use super::orientation;
use crate::error::{Error, Result};
use crate::formats::files::{self, Published, io_error};
use crate::volume::{Grid, Image, Mask, Volume};

/// Bytes from the start of the file to the first voxel.
const DATA_OFFSET: usize = 352;

/// Voxels encoded at a time.
const BLOCK: usize = 32 << 10;

/// Most bytes of a description; the 80th is the terminating zero.
const MAX_DESCRIPTION: usize = 79;

/// What is written beside voxels and affine.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// The header's free text. What does not fit 79 bytes is cut off.
    pub description: String,
}

/// Writes an image as `float32` to a `.nii` or, compressed, a `.nii.gz` file. Equal images give equal bytes.
///
/// # Errors
/// A configuration error for other endings; a data error where a side is longer than 32,767 voxels; an I/O or
/// resource error.
pub fn write_image(path: &Path, image: &Image, options: &WriteOptions) -> Result<Published> {
    write(path, &[image], &Scaling::none(DataType::Float32), options, f32::to_le_bytes)
}

/// Writes volumes on one grid as a 4-D `float32` image.
///
/// # Errors
/// As [`write_image`]; a data error where there are no volumes or their grids differ.
pub fn write_series(path: &Path, volumes: &[Image], options: &WriteOptions) -> Result<Published> {
    let images: Vec<&Image> = volumes.iter().collect();
    write(path, &images, &Scaling::none(DataType::Float32), options, f32::to_le_bytes)
}

/// Writes a mask as `uint8`.
///
/// # Errors
/// As [`write_image`].
pub fn write_mask(path: &Path, mask: &Mask, options: &WriteOptions) -> Result<Published> {
    write(path, &[mask], &Scaling::none(DataType::UInt8), options, |v| [v])
}

/// Writes an image as `int16`, as scanners do.
///
/// Whole numbers from −32,768 to 32,767 are stored as they are; other images are scaled so that their range fills the
/// type (`scl_slope`, `scl_inter`), which moves a value by half a 65,534th of the range at most.
///
/// # Errors
/// As [`write_image`]; a data error where a value is not finite.
pub fn write_image_i16(path: &Path, image: &Image, options: &WriteOptions) -> Result<Published> {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    let (mut finite, mut whole) = (true, true);
    for &v in image.voxels() {
        finite &= v.is_finite();
        // A cast saturates, so what int16 cannot hold as it is differs.
        whole &= f32::from(v as i16).to_bits() == (v + 0.0).to_bits();
        low = if v < low { v } else { low };
        high = if v > high { v } else { high };
    }
    if let Some(v) = image.voxels().iter().find(|v| !finite && !v.is_finite()) {
        return Err(Error::data(format!("{}: int16 cannot store the value {v}", path.display()))
            .hint("replace values that are not finite, or write float32"));
    }
    if whole {
        let plain = Scaling::none(DataType::Int16);
        return write(path, &[image], &plain, options, |v| (v as i16).to_le_bytes());
    }
    let range = (f64::from(high) - f64::from(low)).max(f64::MIN_POSITIVE);
    // The header has single precision; what is stored follows what the header will say.
    let slope = ((range / 65_534.0) as f32).max(f32::MIN_POSITIVE);
    let intercept = f64::midpoint(f64::from(high), f64::from(low)) as f32;
    let scaling = Scaling { datatype: DataType::Int16, slope, intercept };
    let (slope, intercept) = (f64::from(slope), f64::from(intercept));
    write(path, &[image], &scaling, options, |v| {
        (((f64::from(v) - intercept) / slope).round() as i16).to_le_bytes()
    })
}

/// How values become stored numbers.
struct Scaling {
    datatype: DataType,
    slope: f32,
    intercept: f32,
}

impl Scaling {
    fn none(datatype: DataType) -> Self {
        Self { datatype, slope: 1.0, intercept: 0.0 }
    }
}

fn write<T: Copy, const N: usize>(
    path: &Path,
    volumes: &[&Volume<T>],
    scaling: &Scaling,
    options: &WriteOptions,
    encode: impl Fn(T) -> [u8; N],
) -> Result<Published> {
    let gzip = is_gzip(path)?;
    let header = header(volumes, scaling, options).map_err(|e| e.context(path.display()))?;
    files::publish(path, |out| {
        let failed = |e: std::io::Error| io_error(path, "cannot be written", &e);
        if gzip {
            let packed = || {
                let mut packed = Gzip::new(out, N)?;
                packed.voxels(&header, |byte| [byte])?;
                volumes.iter().try_for_each(|v| packed.voxels(v.voxels(), &encode))?;
                packed.finish()
            };
            return packed().map_err(failed);
        }
        out.write_all(&header).map_err(failed)?;
        let mut block = Vec::with_capacity(BLOCK * N);
        for voxels in volumes.iter().flat_map(|v| v.voxels().chunks(BLOCK)) {
            block.resize(voxels.len() * N, 0);
            let (stored, _) = block.as_chunks_mut::<N>();
            stored.iter_mut().zip(voxels).for_each(|(bytes, v)| *bytes = encode(*v));
            out.write_all(&block).map_err(failed)?;
        }
        Ok(())
    })
}

fn is_gzip(path: &Path) -> Result<bool> {
    let ends = |p: &Path, with: &str| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(with));
    let gzip = ends(path, "gz");
    let stem = if gzip { path.file_stem().map(Path::new) } else { Some(path) };
    match stem {
        Some(stem) if ends(stem, "nii") => Ok(gzip),
        _ => Err(Error::configuration(format!(
            "{}: an image can be written as .nii or .nii.gz only",
            path.display()
        ))
        .hint("end the name with .nii.gz")),
    }
}

/// Header and the four bytes that say that no extension follows. Source: nifti1.h.
fn header<T>(
    volumes: &[&Volume<T>],
    scaling: &Scaling,
    options: &WriteOptions,
) -> Result<[u8; DATA_OFFSET]> {
    let Some(first) = volumes.first() else {
        return Err(Error::data("an image without volumes cannot be written"));
    };
    let grid = first.grid();
    if volumes.iter().any(|v| v.grid() != grid) {
        return Err(Error::data("the volumes of one image must share one grid"));
    }
    let mut dim = [3, 1, 1, 1, 1, 1, 1, 1];
    for (d, &n) in dim[1..].iter_mut().zip(&[grid.shape.as_slice(), &[volumes.len()]].concat()) {
        *d = i16::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| {
            Error::data(format!("{n} voxels along a side: NIfTI-1 stores 1 to 32767"))
        })?;
    }
    if volumes.len() > 1 {
        dim[0] = 4;
    }
    let mut h = Bytes([0; DATA_OFFSET]);
    h.put(0, &[348i32.to_le_bytes()]);
    h.put(40, &dim.map(i16::to_le_bytes));
    h.put(
        70,
        &[scaling.datatype.code(), 8 * scaling.datatype.bytes() as i16].map(i16::to_le_bytes),
    );
    h.put(108, &[DATA_OFFSET as f32, scaling.slope, scaling.intercept].map(f32::to_le_bytes));
    h.put(123, &[[2]]); // xyzt_units: mm
    let text = description(&options.description);
    h.0[148..148 + text.len()].copy_from_slice(text.as_bytes());
    put_orientation(&mut h, &grid);
    h.put(344, &[*b"n+1\0"]);
    Ok(h.0)
}

fn put_orientation(h: &mut Bytes, grid: &Grid) {
    let spacing = grid.affine.spacing_mm().map(|s| s as f32);
    let quaternion = orientation::quaternion(grid);
    let qfac = quaternion.map_or(1.0, |q| q.qfac);
    h.put(
        76,
        &[qfac, spacing[0], spacing[1], spacing[2], 1.0, 1.0, 1.0, 1.0].map(f32::to_le_bytes),
    );
    let rows = grid.affine.0.map(|row| row.map(|v| v as f32));
    // Code 1: scanner coordinates.
    h.put(252, &[i16::from(quaternion.is_some()), 1].map(i16::to_le_bytes));
    if let Some(q) = quaternion {
        h.put(256, &q.bcd.map(f32::to_le_bytes));
        h.put(268, &rows.map(|row| row[3].to_le_bytes()));
    }
    for (r, row) in rows.iter().enumerate() {
        h.put(280 + 16 * r, &row.map(f32::to_le_bytes));
    }
}

/// At most 79 bytes of text, cut between characters, without zero bytes.
fn description(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > MAX_DESCRIPTION {
            break;
        }
        short.push(c);
    }
    short
}

/// A header under construction.
struct Bytes([u8; DATA_OFFSET]);

impl Bytes {
    /// Puts little-endian numbers from byte `at` on.
    fn put<const N: usize>(&mut self, at: usize, numbers: &[[u8; N]]) {
        let flat = numbers.as_flattened();
        self.0[at..at + flat.len()].copy_from_slice(flat);
    }
}
