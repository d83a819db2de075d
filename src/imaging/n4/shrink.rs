//! Which voxels the fit works on: every f-th along each axis.
//!
//! x and y are thinned by the factor asked for, but never below [`FEWEST`] voxels. The slice axis z is thinned only as
//! far as slices do not end up further apart than the thinned in-plane voxels (so thick slices are all kept), and
//! never below [`FEWEST`] slices: f = clamp(⌊shrink·min(Δx, Δy)/Δz⌋, 1, ⌊slices/4⌋). ⌊n/f⌋ voxels remain, the
//! thinned grid centred on the whole one: the first is at ⌊(n − 1)/2 − f·(⌊n/f⌋ − 1)/2 + ½⌋, as ITK's shrink filter has
//! it. (Where that is a tie, ITK may take the voxel below, by how origin and spacing of an oblique image round.) The field
//! is later evaluated on the whole grid, first voxel to first and last to last.

/// Voxels that remain along an axis, if it has as many.
const FEWEST: usize = 4;

/// Every `factor`-th voxel of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thinned {
    /// Distance between the voxels taken.
    pub factor: usize,
    /// The first voxel taken.
    pub first: usize,
    /// Number of voxels taken.
    pub count: usize,
}

impl Thinned {
    fn new(voxels: usize, factor: usize) -> Self {
        let factor = factor.clamp(1, (voxels / FEWEST).max(1));
        let count = voxels / factor;
        let span = factor * count.saturating_sub(1);
        Self { factor, first: voxels.saturating_sub(span) / 2, count }
    }
}

/// The thinned axes x, y, z of a grid with this shape and these distances between voxels.
pub(super) fn thinned(shape: [usize; 3], spacing_mm: [f64; 3], shrink: usize) -> [Thinned; 3] {
    let [dx, dy, dz] = spacing_mm;
    // A hair more than the ratio, so that rounding in a header does not cost a factor.
    let along_z = shrink as f64 * dx.min(dy) / dz * (1.0 + 1e-3);
    let factors = [shrink, shrink, if along_z.is_finite() { along_z as usize } else { 1 }];
    [0, 1, 2].map(|a| Thinned::new(shape[a], factors[a]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn along(n: usize, f: usize) -> (usize, usize) {
        let t = Thinned::new(n, f);
        (t.first, t.count)
    }

    #[test]
    fn one_takes_every_voxel() {
        for n in [1, 2, 3, 25] {
            assert_eq!(Thinned::new(n, 1), Thinned { factor: 1, first: 0, count: n });
        }
    }

    /// ```python
    /// import numpy as np, SimpleITK as s
    /// for n, f in ((16, 4), (17, 4), (18, 4), (19, 4), (16, 3), (17, 3), (16, 2), (17, 2)):
    ///     i = s.GetImageFromArray(np.arange(n, dtype='f4')[None].repeat(4, 0)); o = s.Shrink(i, [f, 1])
    ///     print(int(s.GetArrayFromImage(o)[0, 0]), o.GetSize()[0])
    /// ```
    #[test]
    fn the_voxels_taken_are_those_of_itk() {
        let found = [(16, 4), (17, 4), (18, 4), (19, 4), (16, 3), (17, 3), (16, 2), (17, 2)];
        let found = found.map(|(n, f)| along(n, f));
        assert_eq!(found, [(2, 4), (2, 4), (3, 4), (3, 4), (2, 5), (2, 5), (1, 8), (1, 8)]);
    }

    #[test]
    fn thick_slices_are_kept_and_thin_ones_thinned() {
        let factors = |shape, spacing| thinned(shape, spacing, 4).map(|t| t.factor);
        assert_eq!(factors([256, 256, 25], [1.0, 1.0, 5.0]), [4, 4, 1]);
        assert_eq!(factors([112, 112, 73], [2.0, 2.0, 2.0]), [4, 4, 4]);
        assert_eq!(factors([112, 112, 9], [2.0, 2.0, 2.0]), [4, 4, 2]);
        assert_eq!(factors([10, 3, 1], [1.0, 1.0, 1.0]), [2, 1, 1]);
        assert_eq!(factors([64, 64, 64], [1.0, 1.0, 0.0]), [4, 4, 1]);
    }
}
