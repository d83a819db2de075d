//! The grid that a volume is brought to: another spacing, another shape, or both.

use crate::error::{Error, Result};
use crate::volume::{Affine, Grid};

/// The largest grid that is made: 4 GiB of intensities.
const MAX_VOXELS: usize = 1 << 30;

/// The grid of another spacing and / or shape over the same field of view.
///
/// - spacing only: as many voxels as cover the field of view best (`n × old / new`, rounded, at least 1), the centre
///   kept;
/// - shape only: the field of view stays and the spacing stretches to it;
/// - both: the grid of that spacing, then cropped or padded by whole voxels on both sides (the odd one at the end), so
///   that no second interpolation is hidden in the crop: the centre moves by at most half a voxel;
/// - neither: the grid itself.
///
/// Directions stay. `spacing_mm` and `shape` are (x, y, z).
///
/// # Errors
/// A configuration error where a spacing is not a positive number, a size is 0 or the result has more than 2³⁰
/// voxels; a data error where the grid's own affine is degenerate.
pub fn target_grid(
    grid: &Grid,
    spacing_mm: Option<[f64; 3]>,
    shape: Option<[usize; 3]>,
) -> Result<Grid> {
    grid.affine.inverse()?;
    let old_mm = grid.affine.spacing_mm();
    let resized = match (spacing_mm, shape) {
        (Some(new_mm), _) => {
            if let Some(bad) = new_mm.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
                return Err(Error::configuration(format!(
                    "spacing_mm is {new_mm:?}: {bad} is not a distance above 0"
                )));
            }
            let voxels = [0, 1, 2].map(|a| {
                let covered = grid.shape[a] as f64 * old_mm[a] / new_mm[a];
                (covered.round() as usize).max(1)
            });
            stretched(grid, voxels, [0, 1, 2].map(|a| new_mm[a] / old_mm[a]))
        }
        (None, Some(shape)) => {
            check_shape(shape)?;
            stretched(grid, shape, [0, 1, 2].map(|a| grid.shape[a] as f64 / shape[a] as f64))
        }
        (None, None) => *grid,
    };
    let result = match shape {
        Some(shape) => cropped(&resized, shape),
        None => resized,
    };
    check_shape(result.shape)?;
    Ok(result)
}

/// The grid of `shape` voxels, each `factor` times as long, around the same centre.
fn stretched(grid: &Grid, shape: [usize; 3], factor: [f64; 3]) -> Grid {
    if shape == grid.shape && factor.iter().all(|f| (f - 1.0).abs() < 1e-9) {
        return *grid;
    }
    // The first new voxel's place in the old grid: the centre, then back by half the new extent.
    let first = [0, 1, 2]
        .map(|a| 0.5 * (grid.shape[a] as f64 - 1.0) - 0.5 * factor[a] * (shape[a] as f64 - 1.0));
    let [x, y, z] = factor;
    let scale = Affine([[x, 0.0, 0.0, first[0]], [0.0, y, 0.0, first[1]], [0.0, 0.0, z, first[2]]]);
    Grid { shape, affine: grid.affine.compose(&scale) }
}

/// The grid cropped or padded to `shape` by whole voxels, as evenly as they allow.
fn cropped(grid: &Grid, shape: [usize; 3]) -> Grid {
    if shape == grid.shape {
        return *grid;
    }
    let first = [0, 1, 2].map(|a| ((grid.shape[a] as f64 - shape[a] as f64) / 2.0).floor());
    let mut affine = grid.affine;
    for (row, origin) in affine.0.iter_mut().zip(grid.affine.apply(first)) {
        row[3] = origin;
    }
    Grid { shape, affine }
}

pub(super) fn check_shape(shape: [usize; 3]) -> Result<()> {
    let voxels = shape.iter().try_fold(1_usize, |n, &v| n.checked_mul(v));
    match voxels {
        Some(0) => Err(Error::configuration(format!("a grid of {shape:?} voxels has none"))
            .hint("give at least 1 voxel along x, y and z")),
        Some(n) if n <= MAX_VOXELS => Ok(()),
        _ => Err(Error::configuration(format!(
            "a grid of {shape:?} voxels is larger than {MAX_VOXELS} voxels"
        ))
        .hint("ask for a coarser spacing or a smaller shape")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 6 × 5 × 4 voxels of 1.7 × 1.9 × 2.2 mm, turned in the slice plane.
    fn grid() -> Grid {
        let (sin, cos) = 0.3_f64.sin_cos();
        let turn = Affine([[cos, -sin, 0.0, 4.0], [sin, cos, 0.0, -1.0], [0.0, 0.0, -1.0, 2.0]]);
        Grid { shape: [6, 5, 4], affine: turn.compose(&Affine::from_spacing_mm([1.7, 1.9, 2.2])) }
    }

    #[test]
    fn target_grids_keep_the_centre_of_the_field_of_view() -> Result<()> {
        let grid = grid();
        let centre = |g: &Grid| g.affine.apply(g.shape.map(|n| 0.5 * (n as f64 - 1.0)));
        for (spacing, shape) in [(Some([1.0, 2.0, 3.1]), None), (None, Some([12, 5, 9]))] {
            let to = target_grid(&grid, spacing, shape)?;
            let distance: f64 = (0..3).map(|a| (centre(&grid)[a] - centre(&to)[a]).abs()).sum();
            assert!(distance < 1e-9, "{to:?}");
        }
        let to = target_grid(&grid, Some([0.85, 1.9, 4.4]), None)?;
        assert_eq!(to.shape, [12, 5, 2]);
        let to = target_grid(&grid, None, Some([12, 5, 2]))?;
        let spacing = to.affine.spacing_mm();
        assert!((spacing[0] - 0.85).abs() < 1e-9 && (spacing[2] - 4.4).abs() < 1e-9, "{spacing:?}");
        Ok(())
    }

    #[test]
    fn impossible_grids_are_configuration_errors() {
        let grid = grid();
        assert!(target_grid(&grid, Some([1.0, 0.0, 1.0]), None).is_err());
        assert!(target_grid(&grid, Some([1.0, f64::NAN, 1.0]), None).is_err());
        assert!(target_grid(&grid, Some([1e-300, 1.0, 1.0]), None).is_err());
        assert!(target_grid(&grid, None, Some([0, 1, 1])).is_err());
        assert!(target_grid(&grid, None, Some([usize::MAX, 2, 1])).is_err());
    }

    #[test]
    fn a_crop_moves_by_whole_voxels() -> Result<()> {
        let grid = grid();
        let to = target_grid(&grid, Some([1.7, 1.9, 2.2]), Some([3, 8, 4]))?;
        assert_eq!(to.shape, [3, 8, 4]);
        let first = grid.affine.inverse()?.apply(to.affine.apply([0.0; 3]));
        let expected = [1.0, -2.0, 0.0];
        assert!(first.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{first:?}");
        assert_eq!(target_grid(&grid, None, None)?, grid);
        Ok(())
    }
}
