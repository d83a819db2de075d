//! The fields of a NIfTI-1 or NIfTI-2 header as they stand in the file, in one shape for both.
//!
//! Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group (<https://nifti.nimh.nih.gov>). NIfTI-1 is
//! parsed by the `nifti` crate, NIfTI-2, which it does not know, here.

use std::ops::Range;

use crate::error::{Error, Result};

/// Length in bytes of a NIfTI-1 header.
pub(super) const LENGTH_1: usize = 348;
/// Length in bytes of a NIfTI-2 header.
pub(super) const LENGTH_2: usize = 540;

/// The fields of a NIfTI-1 header that hold free text, and where.
const TEXTS_1: [(&str, Range<usize>); 4] =
    [("descrip", 148..228), ("db_name", 14..32), ("aux_file", 228..252), ("intent_name", 328..344)];
/// Those of a NIfTI-2 header.
const TEXTS_2: [(&str, Range<usize>); 3] =
    [("descrip", 240..320), ("aux_file", 320..344), ("intent_name", 508..524)];

/// Header fields before anything is checked.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub nifti2: bool,
    pub big_endian: bool,
    /// Header and voxels share a file (`.nii`), in contrast to a `.hdr` / `.img` pair.
    pub single: bool,
    pub dim: [i64; 8],
    pub pixdim: [f64; 8],
    pub datatype: i16,
    pub bitpix: i16,
    pub vox_offset: f64,
    pub slope: f64,
    pub intercept: f64,
    pub units: i32,
    /// Free text: its field, and its bytes.
    pub texts: Vec<(&'static str, Vec<u8>)>,
    pub qform_code: i32,
    pub sform_code: i32,
    pub quaternion: [f64; 3],
    pub qoffset: [f64; 3],
    pub srow: [[f64; 4]; 3],
}

/// Version and byte order of a header, told by the length that it opens with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub nifti2: bool,
    pub big_endian: bool,
}

impl Kind {
    /// Length in bytes of the header.
    pub fn length(self) -> usize {
        if self.nifti2 { LENGTH_2 } else { LENGTH_1 }
    }
}

/// The kind of header that opens with these bytes.
///
/// # Errors
/// A data error that says what the file seems to be instead.
pub(super) fn kind(start: &[u8]) -> Result<Kind> {
    let Some(&first) = start.first_chunk::<4>() else {
        return Err(Error::data(format!("{} bytes are too few for a NIfTI header", start.len())));
    };
    let of = |nifti2, big_endian| Ok(Kind { nifti2, big_endian });
    match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
        (348, _) => of(false, false),
        (_, 348) => of(false, true),
        (540, _) => of(true, false),
        (_, 540) => of(true, true),
        _ => Err(not_nifti(start)),
    }
}

fn not_nifti(start: &[u8]) -> Error {
    let known: [(&[u8], &str, &str); 6] = [
        (b"BZh", "a bzip2 archive", "decompress it with bunzip2"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive", "decompress it with unzstd"),
        (b"PK\x03\x04", "a zip archive", "unpack it first"),
        (b"NRRD", "an NRRD image", "convert it to NIfTI"),
        (b"version https://git-lfs", "a git-lfs pointer", "fetch the file with `git lfs pull`"),
        (b"<", "a web page or XML file", "download the image itself"),
    ];
    let found = known.iter().find(|(magic, ..)| start.starts_with(magic));
    if let Some((_, what, advice)) = found {
        return Error::data(format!("not a NIfTI file but {what}")).hint(*advice);
    }
    if start.get(128..132) == Some(b"DICM") {
        return Error::data("not a NIfTI file but a DICOM file").hint("convert it with dcm2niix");
    }
    Error::data(format!(
        "not a NIfTI file: it starts with the bytes {}, where the header's length, 348 or 540, is expected",
        hex(&start[..start.len().min(4)])
    ))
}

/// The fields of a header of the given kind.
///
/// # Errors
/// A data error where the magic code is wrong or the bytes are too few.
pub(super) fn parse(kind: Kind, header: &[u8]) -> Result<Raw> {
    if kind.nifti2 { parse_2(kind, header) } else { parse_1(kind, header) }
}

fn parse_1(kind: Kind, header: &[u8]) -> Result<Raw> {
    let dim0 = Fields { bytes: header, big_endian: kind.big_endian }.i16(40)?;
    if !(1..=7).contains(&dim0) {
        // The crate tells the byte order from this field, so a wrong one must not reach it.
        return Err(bad_dimensionality(i64::from(dim0)));
    }
    let h = nifti::NiftiHeader::from_reader(header).map_err(|e| match e {
        nifti::NiftiError::InvalidFormat => bad_magic(header.get(344..348).unwrap_or_default()),
        e => Error::data(format!("the NIfTI-1 header cannot be read: {e}")),
    })?;
    Ok(Raw {
        nifti2: false,
        big_endian: kind.big_endian,
        single: h.magic == *b"n+1\0",
        // The crate reads these as unsigned; the standard says signed.
        dim: h.dim.map(|d| i64::from(d.cast_signed())),
        pixdim: h.pixdim.map(f64::from),
        datatype: h.datatype,
        bitpix: h.bitpix,
        vox_offset: f64::from(h.vox_offset),
        slope: f64::from(h.scl_slope),
        intercept: f64::from(h.scl_inter),
        units: i32::from(h.xyzt_units),
        texts: TEXTS_1.iter().map(|(name, at)| (*name, header[at.clone()].to_vec())).collect(),
        qform_code: i32::from(h.qform_code),
        sform_code: i32::from(h.sform_code),
        quaternion: [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from),
        qoffset: [h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
        srow: [h.srow_x, h.srow_y, h.srow_z].map(|row| row.map(f64::from)),
    })
}

fn parse_2(kind: Kind, header: &[u8]) -> Result<Raw> {
    let f = Fields { bytes: header, big_endian: kind.big_endian };
    let magic: [u8; 8] = f.take(4)?;
    let single = match &magic {
        b"n+2\0\r\n\x1a\n" => true,
        b"ni2\0\r\n\x1a\n" => false,
        other => return Err(bad_magic(other)),
    };
    let mut dim = [0; 8];
    let mut pixdim = [0.0; 8];
    for i in 0..8 {
        dim[i] = f.i64(16 + 8 * i)?;
        pixdim[i] = f.f64(104 + 8 * i)?;
    }
    let mut srow = [[0.0; 4]; 3];
    for (r, row) in srow.iter_mut().enumerate() {
        for (c, v) in row.iter_mut().enumerate() {
            *v = f.f64(400 + 32 * r + 8 * c)?;
        }
    }
    Ok(Raw {
        nifti2: true,
        big_endian: kind.big_endian,
        single,
        dim,
        pixdim,
        datatype: f.i16(12)?,
        bitpix: f.i16(14)?,
        vox_offset: f.i64(168)? as f64,
        slope: f.f64(176)?,
        intercept: f.f64(184)?,
        units: f.i32(500)?,
        texts: TEXTS_2.iter().map(|(name, at)| (*name, header[at.clone()].to_vec())).collect(),
        qform_code: f.i32(344)?,
        sform_code: f.i32(348)?,
        quaternion: [f.f64(352)?, f.f64(360)?, f.f64(368)?],
        qoffset: [f.f64(376)?, f.f64(384)?, f.f64(392)?],
        srow,
    })
}

pub(super) fn bad_dimensionality(found: i64) -> Error {
    Error::data(format!("the header's dim[0] is {found}, where 1 to 7 dimensions are expected"))
}

fn bad_magic(found: &[u8]) -> Error {
    if found.iter().all(|&b| b == 0) {
        return Error::data("an Analyze 7.5 header, which does not say which side is left")
            .hint("convert it to NIfTI with the orientation that you know it has");
    }
    Error::data(format!(
        "the header's magic code is the bytes {}, which are not NIfTI's",
        hex(found)
    ))
}

/// Bytes as a message shows them: what is no header may be anything, also somebody's name.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// Numbers at byte offsets, in the header's byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn take<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        self.bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or_else(|| Error::data(format!("the header ends after {} bytes", self.bytes.len())))
    }

    fn number<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut bytes = self.take::<N>(at)?;
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn i16(&self, at: usize) -> Result<i16> {
        self.number(at).map(i16::from_le_bytes)
    }

    fn i32(&self, at: usize) -> Result<i32> {
        self.number(at).map(i32::from_le_bytes)
    }

    fn i64(&self, at: usize) -> Result<i64> {
        self.number(at).map(i64::from_le_bytes)
    }

    fn f64(&self, at: usize) -> Result<f64> {
        self.number(at).map(f64::from_le_bytes)
    }
}
