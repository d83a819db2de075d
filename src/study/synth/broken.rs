//! Cases broken on purpose, each in one way that reading or quality control finds with certainty.
//!
//! Which cases are broken, and how, depends on the seed and the share alone; the list goes to
//! `sourcedata/broken.tsv`, outside what ingest scans.

use std::collections::BTreeMap;
use std::path::Path;

use super::encode::{self, DATA_AT, DIMENSIONS_AT, MAGIC_AT};
use crate::error::Result;
use crate::imaging::phantom::Phantom;
use crate::imaging::random::{keyed, shuffle};
use crate::volume::{Image, Mask, Volume};

/// The way in which a case is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// The compressed image ends early.
    TruncatedGzip,
    /// The magic bytes of the header are wrong.
    WrongMagic,
    /// The image file has no bytes.
    ZeroBytes,
    /// The image holds NaN and infinities.
    NotFinite,
    /// Every voxel of the image is 0.
    EmptyImage,
    /// Every voxel of the image has one value.
    ConstantImage,
    /// There is no image beside the mask.
    MissingImage,
    /// The mask has another shape than the image.
    MaskOnAnotherGrid,
    /// The header's dimensions ask for terabytes.
    HugeDimensions,
    /// Image and mask are those of an earlier case.
    Duplicate,
    /// A folder lies where the image should be.
    Directory,
    /// The image is a link to nothing.
    DanglingLink,
}

impl Broken {
    /// Every kind, in the order in which they are dealt out.
    pub const ALL: [Self; 12] = [
        Self::TruncatedGzip,
        Self::WrongMagic,
        Self::ZeroBytes,
        Self::NotFinite,
        Self::EmptyImage,
        Self::ConstantImage,
        Self::MissingImage,
        Self::MaskOnAnotherGrid,
        Self::HugeDimensions,
        Self::Duplicate,
        Self::Directory,
        Self::DanglingLink,
    ];

    /// The word in `broken.tsv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TruncatedGzip => "truncated_gzip",
            Self::WrongMagic => "wrong_magic",
            Self::ZeroBytes => "zero_bytes",
            Self::NotFinite => "not_finite",
            Self::EmptyImage => "empty_image",
            Self::ConstantImage => "constant_image",
            Self::MissingImage => "missing_image",
            Self::MaskOnAnotherGrid => "mask_on_another_grid",
            Self::HugeDimensions => "huge_dimensions",
            Self::Duplicate => "duplicate",
            Self::Directory => "directory",
            Self::DanglingLink => "dangling_link",
        }
    }
}

/// How one case is broken, and for a duplicate, the number of the case that it repeats.
pub(super) type Plan = BTreeMap<usize, (Broken, Option<usize>)>;

/// Chooses round(cases × share) cases and deals out the kinds in the order of the cases.
///
/// A duplicate repeats the nearest whole case before it; where there is none, the case is empty instead.
pub(super) fn plan(cases: usize, share: f64, seed: u64) -> Plan {
    let wanted = (cases as f64 * share.clamp(0.0, 1.0)).round() as usize;
    let mut order: Vec<usize> = (0..cases).collect();
    shuffle(&mut keyed(seed, &["synth", "broken"]), &mut order);
    order.truncate(wanted);
    order.sort_unstable();
    let chosen = |i: usize| order.binary_search(&i).is_ok();
    order
        .iter()
        .zip(Broken::ALL.into_iter().cycle())
        .map(|(&case, kind)| {
            let original = (0..case).rev().find(|i| !chosen(*i));
            let plan = match (kind, original) {
                (Broken::Duplicate, Some(i)) => (Broken::Duplicate, Some(i)),
                (Broken::Duplicate, None) => (Broken::EmptyImage, None),
                (kind, _) => (kind, None),
            };
            (case, plan)
        })
        .collect()
}

/// What is to lie at a path.
pub(super) enum Content {
    /// A file of these bytes.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
    /// An empty folder.
    Folder,
    /// A link to a file that does not exist.
    Link,
}

impl Content {
    /// Puts it there, in place of what an earlier run left; returns the bytes written.
    pub(super) fn put(&self, path: &Path) -> Result<u64> {
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            std::fs::remove_dir(path)?;
        } else if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path)?;
        }
        match self {
            Self::Bytes(bytes) => std::fs::write(path, bytes)?,
            Self::Folder => std::fs::create_dir(path)?,
            Self::Link => link(path)?,
            Self::Nothing => {}
        }
        Ok(if let Self::Bytes(bytes) = self { bytes.len() as u64 } else { 0 })
    }
}

#[cfg(unix)]
fn link(path: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink("not-copied.nii.gz", path)?)
}

#[cfg(not(unix))]
fn link(path: &Path) -> Result<()> {
    Ok(std::fs::write(path, [])?)
}

/// Image and mask of a case, whole or broken.
pub(super) fn contents(made: &Phantom, broken: Option<Broken>) -> Result<(Content, Content)> {
    let volumes = [&made.b0, &made.dwi];
    let image = match broken {
        None | Some(Broken::MaskOnAnotherGrid | Broken::Duplicate) => {
            Content::Bytes(encode::gzip(&encode::int16(&volumes))?)
        }
        Some(Broken::TruncatedGzip) => {
            let mut bytes = encode::gzip(&encode::int16(&volumes))?;
            bytes.truncate(bytes.len() * 3 / 5);
            Content::Bytes(bytes)
        }
        Some(Broken::WrongMagic) => {
            let mut bytes = encode::int16(&volumes);
            bytes[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"dwi\0");
            Content::Bytes(encode::gzip(&bytes)?)
        }
        Some(Broken::ZeroBytes) => Content::Bytes(Vec::new()),
        Some(Broken::NotFinite) => {
            let spoilt = volumes.map(not_finite);
            Content::Bytes(encode::gzip(&encode::float32(&spoilt.each_ref()))?)
        }
        Some(Broken::EmptyImage) => flat(&made.dwi, 0.0)?,
        Some(Broken::ConstantImage) => flat(&made.dwi, 137.0)?,
        Some(Broken::HugeDimensions) => {
            let mut bytes = encode::int16(&volumes);
            for (i, n) in [4_i16, 32_767, 32_767, 1024, 2].into_iter().enumerate() {
                let at = DIMENSIONS_AT + 2 * i;
                bytes[at..at + 2].copy_from_slice(&n.to_le_bytes());
            }
            bytes.truncate(bytes.len().min(DATA_AT + 4096));
            Content::Bytes(encode::gzip(&bytes)?)
        }
        Some(Broken::MissingImage) => Content::Nothing,
        Some(Broken::Directory) => Content::Folder,
        Some(Broken::DanglingLink) => Content::Link,
    };
    let mask = if broken == Some(Broken::MaskOnAnotherGrid) {
        encode::uint8(&widened(&made.truth))
    } else {
        encode::uint8(&made.truth)
    };
    Ok((image, Content::Bytes(encode::gzip(&mask)?)))
}

/// Two volumes of one value.
fn flat(like: &Image, value: f32) -> Result<Content> {
    let volume = Image::filled(&like.grid(), value);
    Ok(Content::Bytes(encode::gzip(&encode::int16(&[&volume, &volume]))?))
}

/// The image with every 29th voxel not a number and every 997th infinite, the first voxel not a number.
fn not_finite(image: &Image) -> Image {
    let mut spoilt = image.clone();
    for (i, v) in spoilt.voxels_mut().iter_mut().enumerate() {
        if i % 29 == 0 {
            *v = f32::NAN;
        } else if i % 997 == 1 {
            *v = f32::INFINITY;
        }
    }
    spoilt
}

/// The mask with one more column of voxels.
fn widened(mask: &Mask) -> Mask {
    let mut grid = mask.grid();
    grid.shape[0] += 1;
    let mut wider = Mask::filled(&grid, 0);
    let (nz, ny, nx) = mask.data.dim();
    for ((z, y, x), v) in wider.data.indexed_iter_mut() {
        if z < nz && y < ny && x < nx {
            *v = mask.data[(z, y, x)];
        }
    }
    Volume { data: wider.data, affine: mask.affine }
}
