//! What a NIfTI header says, after every field that counts was checked.

use super::datatype::{Coding, DataType};
use super::orientation::{self, AffineSource};
use super::raw::{self, Raw};
use crate::error::{Error, Result};
use crate::formats::files::human_bytes;
use crate::formats::limits;
use crate::volume::Grid;

/// DEFLATE codes at most 258 bytes in 2 bits, so a gzip file cannot hold more than 1032 times its size.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Distance in mm between sform and qform from which they are said to disagree.
const FORMS_AGREE_MM: f64 = 0.1;

/// A checked header: the dimensions are positive and fit the file, the affine can be inverted.
#[derive(Debug, Clone)]
pub struct Header {
    /// Extents of all dimensions that the header counts, x first; 1 to 7 of them, none zero.
    pub shape: Vec<usize>,
    /// How voxels are stored.
    pub datatype: DataType,
    /// Factor of the stored numbers; 1 where the header's is 0 or not finite.
    pub slope: f64,
    /// Added after the factor; 0 where the slope is not used.
    pub intercept: f64,
    /// The 3-D grid of each volume.
    pub grid: Grid,
    /// Which part of the header the affine comes from.
    pub affine_source: AffineSource,
    /// Largest distance in mm between the grid's corners by sform and by qform, where both are given.
    pub sform_qform_distance_mm: Option<f64>,
    /// The header's free text, by field: `descrip`, `aux_file`, `intent_name`, `db_name`; only those that hold some.
    /// `extensions` where extensions follow the header.
    pub texts: Vec<(&'static str, String)>,
    /// Whether the voxels are compressed.
    pub gzip: bool,
    /// Whether the byte order is big-endian.
    pub big_endian: bool,
    /// NIfTI-2 rather than NIfTI-1.
    pub nifti2: bool,
    /// Byte at which the first voxel lies, in the (decompressed) file that holds the voxels.
    pub data_offset: u64,
    /// Things in the header that are odd but harmless, as sentences.
    pub notes: Vec<String>,
}

impl Header {
    /// Number of 3-D volumes: the product of the dimensions after the third, 1 for a 3-D image.
    pub fn volumes(&self) -> usize {
        self.shape.iter().skip(3).product()
    }

    /// The header's description; empty where it has none.
    pub fn description(&self) -> &str {
        self.texts.iter().find(|(name, _)| *name == "descrip").map_or("", |(_, text)| text)
    }

    /// Number of voxels of one volume.
    pub fn voxels(&self) -> usize {
        self.grid.voxels()
    }

    /// Size in bytes of one stored volume.
    pub(super) fn volume_bytes(&self) -> u64 {
        self.voxels() as u64 * self.datatype.bytes() as u64
    }

    pub(super) fn coding(&self) -> Coding {
        Coding {
            datatype: self.datatype,
            big_endian: self.big_endian,
            slope: self.slope,
            intercept: self.intercept,
        }
    }
}

/// The file that holds the voxels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container {
    /// Its size on the disk.
    pub bytes: u64,
    pub gzip: bool,
}

/// Checks a header against the file that holds its voxels.
///
/// # Errors
/// A data error naming the field, what it says and what was expected.
pub(super) fn check(raw: &Raw, file: Container) -> Result<Header> {
    let shape = extents(raw)?;
    let datatype = DataType::from_code(raw.datatype)?;
    let side = |a: usize| shape.get(a).copied().unwrap_or(1);
    let grid_shape = [side(0), side(1), side(2)];
    let data_offset = data_offset(raw)?;
    check_size(raw, &shape, datatype, data_offset, file)?;
    let placement = orientation::place(raw, grid_shape)?;
    let (slope, intercept) = scaling(raw)?;
    let mut notes = Vec::new();
    if i64::from(raw.bitpix) != 8 * datatype.bytes() as i64 {
        notes.push(format!("bitpix is {} although voxels are {}", raw.bitpix, datatype.name()));
    }
    if let Some(d) = placement.sform_qform_distance_mm.filter(|&d| d > FORMS_AGREE_MM) {
        notes.push(format!("sform and qform differ by up to {d:.2} mm; the sform counts"));
    }
    if placement.source == AffineSource::Spacing {
        notes.push("neither sform nor qform: orientation is assumed, not known".into());
    }
    Ok(Header {
        shape,
        datatype,
        slope,
        intercept,
        grid: Grid { shape: grid_shape, affine: placement.affine },
        affine_source: placement.source,
        sform_qform_distance_mm: placement.sform_qform_distance_mm,
        texts: raw
            .texts
            .iter()
            .map(|(name, bytes)| (*name, text(bytes)))
            .filter(|t| !t.1.is_empty())
            .collect(),
        gzip: file.gzip,
        big_endian: raw.big_endian,
        nifti2: raw.nifti2,
        data_offset,
        notes,
    })
}

fn extents(raw: &Raw) -> Result<Vec<usize>> {
    let dimensions = usize::try_from(raw.dim[0])
        .ok()
        .filter(|n| (1..=7).contains(n))
        .ok_or_else(|| raw::bad_dimensionality(raw.dim[0]))?;
    (1..=dimensions)
        .map(|i| match usize::try_from(raw.dim[i]) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(Error::data(format!(
                "the header's dim[{i}] is {}, where at least 1 is expected",
                raw.dim[i]
            ))),
        })
        .collect()
}

fn data_offset(raw: &Raw) -> Result<u64> {
    let length = if raw.nifti2 { raw::LENGTH_2 } else { raw::LENGTH_1 } as f64;
    let at = raw.vox_offset;
    // Writers that leave the offset at 0 in a single file mean the first byte allowed: header + 4.
    if raw.single && at == 0.0 {
        return Ok(length as u64 + 4);
    }
    let least = if raw.single { length } else { 0.0 };
    let most = limits::EXTENSION_BYTES.get();
    if at - least > most as f64 && at.is_finite() {
        return Err(Error::data(format!(
            "the header's vox_offset is {at}: extensions of more than {} are not passed over",
            human_bytes(most)
        ))
        .hint(format!("remove the extensions, or raise {}", limits::EXTENSION_BYTES.variable)));
    }
    if at.fract() == 0.0 && (least..2f64.powi(62)).contains(&at) {
        return Ok(at as u64);
    }
    Err(Error::data(format!(
        "the header's vox_offset is {at}, where a whole number of at least {least} is expected"
    )))
}

fn check_size(
    raw: &Raw,
    shape: &[usize],
    datatype: DataType,
    offset: u64,
    file: Container,
) -> Result<()> {
    let dims = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ");
    let product = |n: &[usize]| {
        n.iter().try_fold(1u64, |product, &n| product.checked_mul(u64::try_from(n).ok()?))
    };
    let bytes = product(shape).and_then(|v| v.checked_mul(datatype.bytes() as u64));
    let end = bytes.and_then(|b| b.checked_add(offset));
    let announced = bytes.map_or_else(|| "more than 18 EB".into(), human_bytes);
    let most = if file.gzip { file.bytes.saturating_mul(DEFLATE_MAX_RATIO) } else { file.bytes };
    if end.is_none_or(|end| end > most) {
        let holds = if file.gzip {
            format!(
                "the {} of compressed data hold {} at most",
                human_bytes(file.bytes),
                human_bytes(most)
            )
        } else {
            format!("the file has {}", human_bytes(file.bytes))
        };
        return Err(Error::data(format!(
            "the header announces {dims} voxels of {} from byte {offset}, {announced}, but {holds}",
            datatype.name()
        ))
        .hint("the file is truncated or its header is wrong: export or copy it again"));
    }
    let volume = product(&shape[..shape.len().min(3)]);
    let most = limits::VOXELS.get();
    if volume.is_none_or(|v| v > most) {
        return Err(Error::data(format!(
            "{dims} voxels ({} bits each): one volume may have {most} at most",
            raw.bitpix
        ))
        .hint(format!(
            "resample the image to a coarser grid first, or raise {}",
            limits::VOXELS.variable
        )));
    }
    let most = limits::DECODED_BYTES.get();
    if file.gzip && end.is_none_or(|end| end > most) {
        return Err(Error::data(format!(
            "the header announces {announced}, where at most {} are decoded of one gzip file",
            human_bytes(most)
        ))
        .hint(format!("decompress the file, or raise {}", limits::DECODED_BYTES.variable)));
    }
    Ok(())
}

fn scaling(raw: &Raw) -> Result<(f64, f64)> {
    if raw.slope == 0.0 || !raw.slope.is_finite() {
        return Ok((1.0, 0.0));
    }
    if !raw.intercept.is_finite() {
        return Err(Error::data(format!(
            "the header's scl_inter is {}, where a finite number is expected beside scl_slope {}",
            raw.intercept, raw.slope
        )));
    }
    Ok((raw.slope, raw.intercept))
}

/// Text up to the first zero byte, without control characters.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text: String =
        String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect();
    text.trim().to_owned()
}
