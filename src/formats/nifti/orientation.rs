//! Where a NIfTI image lies: its sform, its qform, or its voxel sizes alone.
//!
//! - sform: the affine itself.
//! - qform: rotation from a unit quaternion (b, c, d; a = √(1 − b² − c² − d²)), its columns times the voxel sizes, the
//!   third also times qfac = ±1; then the offset.
//! - neither: voxel sizes along x (from right to left), y and z with the world's origin in the middle of the grid, as
//!   nibabel places such files.
//!
//! Source: nifti1.h, "3D image (volume) orientation and location in space"; `quatern_to_mat44` of `nifti1_io.c`.

use super::raw::Raw;
use crate::error::{Error, Result};
use crate::volume::{Affine, Grid};

/// Which part of the header said where the voxels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AffineSource {
    /// The affine given in full.
    Sform,
    /// Quaternion, offset and voxel sizes.
    Qform,
    /// Voxel sizes only: which side is which is not known.
    Spacing,
}

/// The place of an image, and how well its header agrees with itself.
pub(super) struct Placement {
    pub affine: Affine,
    pub source: AffineSource,
    pub sform_qform_distance_mm: Option<f64>,
}

/// The affine of a header whose grid has this shape: sform first, then qform, then spacing.
///
/// # Errors
/// A data error where the affine that counts is singular or not finite.
pub(super) fn place(raw: &Raw, shape: [usize; 3]) -> Result<Placement> {
    let scale = mm_per_unit(raw.units);
    let in_mm = |a: Affine| Affine(a.0.map(|row| row.map(|v| v * scale)));
    let sform = (raw.sform_code > 0).then(|| in_mm(Affine(raw.srow)));
    let qform = (raw.qform_code > 0)
        .then(|| in_mm(from_quaternion(raw.quaternion, &raw.pixdim, raw.qoffset)));
    let (affine, source, field) = match (sform, qform) {
        (Some(affine), _) => (affine, AffineSource::Sform, "sform"),
        (None, Some(affine)) => (affine, AffineSource::Qform, "qform"),
        (None, None) => {
            (in_mm(from_spacing(raw, shape)), AffineSource::Spacing, "voxel size (pixdim)")
        }
    };
    check(&affine, shape, field)?;
    let distance = match (sform, qform) {
        (Some(a), Some(b)) => {
            let [a, b] = [a, b].map(|affine| Grid { shape, affine });
            Some(a.corner_distance_mm(&b)).filter(|d| d.is_finite())
        }
        _ => None,
    };
    Ok(Placement { affine, source, sform_qform_distance_mm: distance })
}

/// Refuses an affine that gives no voxel a volume, or volumes no scanner makes.
fn check(affine: &Affine, shape: [usize; 3], field: &str) -> Result<()> {
    let spacing = affine.spacing_mm();
    let finite = affine.0.iter().flatten().all(|v| v.is_finite());
    // Smaller than an atom or larger than the solar system: the numbers are noise.
    let plausible = spacing.iter().all(|s| (1e-7..1e16).contains(s));
    let solid = affine.determinant().abs() > 1e-6 * spacing.iter().product::<f64>();
    if finite && plausible && solid {
        return Ok(());
    }
    let problem = if finite { "is singular" } else { "is not finite" };
    Err(Error::data(format!(
        "the header's {field} {problem}: spacing {} × {} × {} mm for {} × {} × {} voxels",
        spacing[0], spacing[1], spacing[2], shape[0], shape[1], shape[2]
    ))
    .hint("set a valid sform or qform, or the voxel sizes, in the image's header"))
}

/// Length in mm of the header's unit: metres, millimetres, micrometres; unknown units count as millimetres.
fn mm_per_unit(units: i32) -> f64 {
    match units & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    }
}

fn from_quaternion(bcd: [f64; 3], pixdim: &[f64; 8], offset: [f64; 3]) -> Affine {
    let [mut b, mut c, mut d] = bcd;
    let mut a = 1.0 - (b * b + c * c + d * d);
    if a < 1e-7 {
        // Rounding made the vector part longer than 1: a turn by 180°.
        let length = (b * b + c * c + d * d).sqrt();
        [b, c, d] = [b / length, c / length, d / length];
        a = 0.0;
    } else {
        a = a.sqrt();
    }
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let qfac = if pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let [x, y, z] = [pixdim[1].abs(), pixdim[2].abs(), pixdim[3].abs() * qfac];
    let mut rows = [[0.0; 4]; 3];
    for (r, row) in rows.iter_mut().enumerate() {
        let [i, j, k] = rotation[r];
        *row = [i * x, j * y, k * z, offset[r]];
    }
    Affine(rows)
}

fn from_spacing(raw: &Raw, shape: [usize; 3]) -> Affine {
    let axis = |a: usize| {
        let given = a < usize::try_from(raw.dim[0]).unwrap_or(0);
        let size = if given { raw.pixdim[a + 1].abs() } else { 1.0 };
        let size = if a == 0 { -size } else { size };
        (size, -size * (shape[a] as f64 - 1.0) / 2.0)
    };
    let [(x, ox), (y, oy), (z, oz)] = [axis(0), axis(1), axis(2)];
    Affine([[x, 0.0, 0.0, ox], [0.0, y, 0.0, oy], [0.0, 0.0, z, oz]])
}

/// The rotation of a qform: the sign of its third axis, and b, c, d of its quaternion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quaternion {
    pub qfac: f32,
    pub bcd: [f32; 3],
}

/// The quaternion of an affine, where its axes are at right angles; `None` for a sheared one.
///
/// A header's quaternion has single precision; what it says differs from the affine by at most 0.01 mm anywhere in
/// the grid, or it is not given.
pub(super) fn quaternion(grid: &Grid) -> Option<Quaternion> {
    let spacing = grid.affine.spacing_mm();
    let qfac = if grid.affine.determinant() < 0.0 { -1.0 } else { 1.0 };
    let m = grid
        .affine
        .0
        .map(|row| [row[0] / spacing[0], row[1] / spacing[1], row[2] / spacing[2] * qfac]);
    let bcd = vector_part(&m).map(|v| v as f32);
    let mut pixdim = [0.0; 8];
    pixdim[0] = qfac;
    for a in 0..3 {
        pixdim[a + 1] = f64::from(spacing[a] as f32);
    }
    let said = from_quaternion(bcd.map(f64::from), &pixdim, grid.affine.0.map(|row| row[3]));
    let distance = grid.corner_distance_mm(&Grid { affine: said, ..*grid });
    (distance <= 0.01).then_some(Quaternion { qfac: qfac as f32, bcd })
}

/// b, c, d of the unit quaternion, with a ≥ 0, of a rotation matrix (`nifti_mat44_to_quatern`).
fn vector_part(m: &[[f64; 3]; 3]) -> [f64; 3] {
    let trace = m[0][0] + m[1][1] + m[2][2] + 1.0;
    if trace > 0.5 {
        let a = 0.5 * trace.sqrt();
        return [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]].map(|v| v * 0.25 / a);
    }
    let xd = 1.0 + m[0][0] - (m[1][1] + m[2][2]);
    let yd = 1.0 + m[1][1] - (m[0][0] + m[2][2]);
    let zd = 1.0 + m[2][2] - (m[0][0] + m[1][1]);
    let (a, bcd) = if xd > 1.0 {
        let b = 0.5 * xd.sqrt();
        let part = 0.25 / b;
        let [c, d] = [m[0][1] + m[1][0], m[0][2] + m[2][0]].map(|v| v * part);
        ((m[2][1] - m[1][2]) * part, [b, c, d])
    } else if yd > 1.0 {
        let c = 0.5 * yd.sqrt();
        let part = 0.25 / c;
        let [b, d] = [m[0][1] + m[1][0], m[1][2] + m[2][1]].map(|v| v * part);
        ((m[0][2] - m[2][0]) * part, [b, c, d])
    } else {
        let d = 0.5 * zd.max(0.0).sqrt();
        let part = 0.25 / d;
        let [b, c] = [m[0][2] + m[2][0], m[1][2] + m[2][1]].map(|v| v * part);
        ((m[1][0] - m[0][1]) * part, [b, c, d])
    };
    if a < 0.0 { bcd.map(|v| -v) } else { bcd }
}
