//! Volumes on grids: voxels, where they lie in the head, and nothing else.
//!
//! Voxels are indexed `[z, y, x]` with x fastest, which is the order of a NIfTI file in memory, so that decoding
//! never transposes. An [`Affine`] takes a voxel index `(x, y, z)` to world coordinates in mm, RAS+.

use ndarray::Array3;

use crate::error::{Error, Result};

/// The upper three rows of a voxel → world matrix (RAS+, mm); the last row is (0, 0, 0, 1).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Affine(pub [[f64; 4]; 3]);

impl Affine {
    /// An axis-aligned grid with its first voxel at the world's origin.
    pub fn from_spacing_mm([x, y, z]: [f64; 3]) -> Self {
        Self([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]])
    }

    /// World coordinates in mm of a (possibly fractional) voxel index `(x, y, z)`.
    pub fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        self.0.map(|row| row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3])
    }

    /// Distance in mm between neighbouring voxels along x, y and z: the lengths of the columns.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [0, 1, 2].map(|c| self.0.iter().map(|row| row[c] * row[c]).sum::<f64>().sqrt())
    }

    /// Determinant of the 3 × 3 part: signed volume of a voxel in mm³.
    pub fn determinant(&self) -> f64 {
        let m = &self.0;
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    }

    /// The world → voxel matrix.
    ///
    /// # Errors
    /// A data error where the matrix is singular or not finite.
    pub fn inverse(&self) -> Result<Self> {
        let m = &self.0;
        let det = self.determinant();
        if !det.is_finite() || det.abs() < 1e-12 {
            return Err(Error::data(format!("the affine cannot be inverted (determinant {det})"))
                .hint("set a valid sform or qform in the image's header"));
        }
        let cofactor =
            |a: usize, b: usize, c: usize, d: usize| m[a][c] * m[b][d] - m[a][d] * m[b][c];
        let r = [
            [cofactor(1, 2, 1, 2), -cofactor(0, 2, 1, 2), cofactor(0, 1, 1, 2)],
            [-cofactor(1, 2, 0, 2), cofactor(0, 2, 0, 2), -cofactor(0, 1, 0, 2)],
            [cofactor(1, 2, 0, 1), -cofactor(0, 2, 0, 1), cofactor(0, 1, 0, 1)],
        ];
        Ok(Self(r.map(|row| {
            let [a, b, c] = row.map(|v| v / det);
            [a, b, c, -(a * m[0][3] + b * m[1][3] + c * m[2][3])]
        })))
    }

    /// `self ∘ inner`: first `inner`, then `self`.
    pub fn compose(&self, inner: &Self) -> Self {
        let b = &inner.0;
        Self(self.0.map(|row| {
            let column = |c: usize| row[0] * b[0][c] + row[1] * b[1][c] + row[2] * b[2][c];
            [column(0), column(1), column(2), column(3) + row[3]]
        }))
    }
}

/// A lattice of voxels in the world: how many along x, y, z, and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Grid {
    /// Number of voxels along x, y and z.
    pub shape: [usize; 3],
    /// Voxel → world, RAS+, mm.
    pub affine: Affine,
}

impl Grid {
    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Shape of the array that holds this grid, `(z, y, x)`.
    pub fn dim(&self) -> (usize, usize, usize) {
        (self.shape[2], self.shape[1], self.shape[0])
    }

    /// Volume of one voxel in mm³.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.affine.determinant().abs()
    }

    /// Whether both have the same shape and no corner lies further apart than `tolerance_mm`.
    pub fn matches(&self, other: &Self, tolerance_mm: f64) -> bool {
        self.shape == other.shape && self.corner_distance_mm(other) <= tolerance_mm
    }

    /// Largest distance in mm between corresponding corners of two grids of one shape.
    pub fn corner_distance_mm(&self, other: &Self) -> f64 {
        let mut worst = 0.0_f64;
        for corner in 0..8 {
            let p = [0, 1, 2]
                .map(|a| if corner >> a & 1 == 1 { (self.shape[a] as f64) - 1.0 } else { 0.0 });
            let (q, r) = (self.affine.apply(p), other.affine.apply(p));
            let d2: f64 = (0..3).map(|a| (q[a] - r[a]).powi(2)).sum();
            worst = worst.max(if d2.is_nan() { f64::INFINITY } else { d2.sqrt() });
        }
        worst
    }
}

/// Voxels on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume<T> {
    /// Indexed `[z, y, x]`, in standard (row-major) layout: x is fastest.
    pub data: Array3<T>,
    /// Voxel → world, RAS+, mm.
    pub affine: Affine,
}

/// Intensities.
pub type Image = Volume<f32>;
/// A segmentation: 1 inside, 0 outside.
pub type Mask = Volume<u8>;

impl<T> Volume<T> {
    /// Number and place of the voxels.
    pub fn grid(&self) -> Grid {
        let (z, y, x) = self.data.dim();
        Grid { shape: [x, y, z], affine: self.affine }
    }

    /// Distance in mm between neighbouring voxels along x, y, z.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.affine.spacing_mm()
    }

    /// The voxels in memory order (x fastest).
    ///
    /// # Panics
    /// Never for volumes made by this crate: all of them are in standard layout.
    #[expect(clippy::expect_used, reason = "every constructor keeps the standard layout")]
    pub fn voxels(&self) -> &[T] {
        self.data.as_slice().expect("volumes are in standard layout")
    }

    /// The voxels in memory order (x fastest), to be changed.
    ///
    /// # Panics
    /// Never for volumes made by this crate: all of them are in standard layout.
    #[expect(clippy::expect_used, reason = "every constructor keeps the standard layout")]
    pub fn voxels_mut(&mut self) -> &mut [T] {
        self.data.as_slice_mut().expect("volumes are in standard layout")
    }
}

impl<T: Clone> Volume<T> {
    /// A volume filled with one value.
    pub fn filled(grid: &Grid, value: T) -> Self {
        Self { data: Array3::from_elem(grid.dim(), value), affine: grid.affine }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBLIQUE: Affine =
        Affine([[-1.9, 0.1, 0.4, 90.0], [0.1, 1.95, -0.3, -120.0], [0.2, 0.3, 4.9, -60.0]]);

    #[test]
    fn inverse_takes_world_back_to_voxel() -> Result<()> {
        let p = [3.0, 7.5, 11.0];
        let q = OBLIQUE.inverse()?.apply(OBLIQUE.apply(p));
        assert!(p.iter().zip(q).all(|(a, b)| (a - b).abs() < 1e-9), "{q:?}");
        Ok(())
    }

    #[test]
    fn compose_with_inverse_is_the_identity() -> Result<()> {
        let i = OBLIQUE.compose(&OBLIQUE.inverse()?);
        let e = Affine::from_spacing_mm([1.0; 3]);
        for (a, b) in i.0.iter().flatten().zip(e.0.iter().flatten()) {
            assert!((a - b).abs() < 1e-9, "{i:?}");
        }
        Ok(())
    }

    #[test]
    fn a_singular_affine_is_a_data_error() {
        assert!(Affine::from_spacing_mm([1.0, 0.0, 1.0]).inverse().is_err());
        assert!(Affine::from_spacing_mm([1.0, f64::NAN, 1.0]).inverse().is_err());
    }

    #[test]
    fn grids_match_within_a_tolerance() {
        let a = Grid { shape: [4, 5, 6], affine: OBLIQUE };
        let mut b = a;
        b.affine.0[0][3] += 0.05;
        assert!(a.matches(&b, 0.1));
        assert!(!a.matches(&b, 0.01));
        assert!((a.voxel_volume_mm3() - OBLIQUE.determinant().abs()).abs() < 1e-12);
    }

    proptest! {
        /// Any rotation, spacing, mirror and origin of a scanner.
        #[test]
        fn world_and_back_is_the_same_place(
            angles in prop::array::uniform3(-3.2_f64..3.2),
            spacing in prop::array::uniform3(0.05_f64..20.0),
            mirrored in any::<bool>(),
            origin in prop::array::uniform3(-500.0_f64..500.0),
            place in prop::array::uniform3(-1000.0_f64..1000.0),
        ) {
            let turn = |a: usize, angle: f64| {
                let (sin, cos) = angle.sin_cos();
                let mut rows = Affine::from_spacing_mm([1.0; 3]).0;
                let (b, c) = ((a + 1) % 3, (a + 2) % 3);
                (rows[b][b], rows[b][c], rows[c][b], rows[c][c]) = (cos, -sin, sin, cos);
                Affine(rows)
            };
            let [x, y, z] = spacing;
            let mut affine = Affine::from_spacing_mm([if mirrored { -x } else { x }, y, z]);
            affine = (0..3).fold(affine, |inner, a| turn(a, angles[a]).compose(&inner));
            affine.0.iter_mut().zip(origin).for_each(|(row, o)| row[3] = o);
            for (found, mm) in affine.spacing_mm().iter().zip(spacing) {
                prop_assert!((found - mm).abs() < 1e-9 * mm);
            }
            let back = affine.inverse().map_err(|e| TestCaseError::fail(e.to_string()))?;
            let found = back.apply(affine.apply(place));
            prop_assert!(found.iter().zip(place).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
            let again = back.inverse().map_err(|e| TestCaseError::fail(e.to_string()))?;
            for (a, b) in again.0.iter().flatten().zip(affine.0.iter().flatten()) {
                prop_assert!((a - b).abs() < 1e-6 * b.abs().max(1.0));
            }
        }
    }
}
