//! A folder of real infarct masks, to plant their outlines.

use std::path::Path;
use std::sync::Arc;

use ndarray::s;

use crate::error::{Error, Result};
use crate::formats::nifti;
use crate::volume::{Mask, Volume};

/// No infarct is as large: such files are atlases or masks of the brain.
const MOST_ML: f64 = 400.0;

/// The masks of a folder in the order of their names, cut to their extents.
///
/// Files that are not `.nii` or `.nii.gz`, that are empty, or that hold more than 400 mL are left out.
///
/// # Errors
/// A configuration error where no mask remains; what reading a mask reports.
pub(super) fn read(folder: &Path) -> Result<Vec<Arc<Mask>>> {
    let entries = std::fs::read_dir(folder).map_err(|e| {
        Error::configuration(format!("the folder of lesions {}: {e}", folder.display()))
            .hint("give a folder of infarct masks as .nii or .nii.gz files")
    })?;
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|p| {
        let name = p.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        [".nii", ".nii.gz"].iter().any(|ending| name.ends_with(ending))
    });
    paths.sort();
    let mut masks = Vec::new();
    for path in paths {
        let (mask, _) = nifti::read_mask(&path)?;
        masks.extend(cut(&mask).map(Arc::new));
    }
    if masks.is_empty() {
        return Err(Error::configuration(format!(
            "the folder of lesions {} holds no infarct mask",
            folder.display()
        ))
        .hint("give a folder of infarct masks (at most 400 mL each) as .nii or .nii.gz files"));
    }
    Ok(masks)
}

/// The part of a mask that holds voxels; `None` for an empty or an oversized mask.
fn cut(mask: &Mask) -> Option<Mask> {
    let (mut low, mut high, mut n) = ([usize::MAX; 3], [0; 3], 0_usize);
    for ((z, y, x), _) in mask.data.indexed_iter().filter(|(_, v)| **v > 0) {
        for (a, v) in [x, y, z].into_iter().enumerate() {
            low[a] = low[a].min(v);
            high[a] = high[a].max(v + 1);
        }
        n += 1;
    }
    if n == 0 || n as f64 * mask.grid().voxel_volume_mm3() / 1000.0 > MOST_ML {
        return None;
    }
    let data = mask.data.slice(s![low[2]..high[2], low[1]..high[1], low[0]..high[0]]).to_owned();
    let mut affine = mask.affine;
    let origin = affine.apply(low.map(|v| v as f64));
    for (row, o) in affine.0.iter_mut().zip(origin) {
        row[3] = o;
    }
    Some(Volume { data, affine })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};

    #[test]
    fn cutting_keeps_place_and_voxels() {
        let grid = Grid { shape: [9, 8, 7], affine: Affine::from_spacing_mm([1.0, 2.0, 3.0]) };
        let mut mask = Mask::filled(&grid, 0);
        mask.data[(3, 4, 5)] = 1;
        mask.data[(4, 4, 6)] = 1;
        let Some(small) = cut(&mask) else { panic!("the mask holds voxels") };
        assert_eq!(small.grid().shape, [2, 1, 2]);
        let grid_origin = Affine::from_spacing_mm([1.0, 2.0, 3.0]).apply([5.0, 4.0, 3.0]);
        assert!((0..3).all(|a| (small.affine.0[a][3] - grid_origin[a]).abs() < 1e-12));
        assert_eq!((small.data[(0, 0, 0)], small.data[(1, 0, 1)]), (1, 1));
        assert!(cut(&Mask::filled(&grid, 0)).is_none());
        let large = Grid { affine: Affine::from_spacing_mm([20.0; 3]), ..grid };
        assert!(cut(&Mask::filled(&large, 1)).is_none());
    }
}
