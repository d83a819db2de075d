//! Hole filling: background that cannot reach the border of the volume becomes foreground.

use crate::imaging::components::{Link, Runs};
use crate::volume::Mask;

/// Fills the holes of a mask in three dimensions: background that no chain of voxels sharing faces joins to any of the
/// volume's six border planes. As `scipy.ndimage.binary_fill_holes`.
pub fn fill_holes(mask: &Mask) -> Mask {
    let runs = Runs::find(mask, |v| v == 0);
    fill(mask, &runs, Link::ALL_FACES, true)
}

/// Fills the holes of every slice (constant z) on its own: background that cannot reach the slice's border.
///
/// It fills what [`fill_holes`] does and more: what is open only towards the slices above and below.
pub fn fill_holes_in_slices(mask: &Mask) -> Mask {
    let runs = Runs::find(mask, |v| v == 0);
    fill(mask, &runs, Link::WITHIN_SLICE, false)
}

/// Fills the components of these background runs that touch no border, of x and y and, if `ends_count`, of z.
fn fill(mask: &Mask, runs: &Runs, links: &[Link], ends_count: bool) -> Mask {
    let [nx, ny, nz] = runs.shape;
    let components = runs.components(links);
    let mut open = vec![false; components.sizes.len()];
    for (row, range) in runs.rows.windows(2).enumerate() {
        let (z, y) = (row / ny.max(1), row % ny.max(1));
        let border = y == 0 || y + 1 == ny || (ends_count && (z == 0 || z + 1 == nz));
        for i in range[0]..range[1] {
            let run = runs.all[i];
            if border || run.start == 0 || run.end as usize == nx {
                open[components.labels[i] as usize] = true;
            }
        }
    }
    let mut filled = Mask { data: mask.data.mapv(|v| u8::from(v != 0)), affine: mask.affine };
    for (range, label) in runs.ranges().zip(&components.labels) {
        if !open[*label as usize] {
            filled.voxels_mut()[range].fill(1);
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};
    use proptest::prelude::*;

    fn mask(shape: [usize; 3], inside: impl Fn(usize) -> bool) -> Mask {
        let grid = Grid { shape, affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut mask = Mask::filled(&grid, 0);
        for (i, v) in mask.voxels_mut().iter_mut().enumerate() {
            *v = u8::from(inside(i));
        }
        mask
    }

    fn volume(mask: &Mask) -> usize {
        mask.voxels().iter().map(|v| usize::from(*v)).sum()
    }

    /// The numbers are those of `benches/peers/smoothing.py`.
    #[test]
    fn as_many_voxels_are_filled_as_by_scipy() {
        let mask = mask([11, 9, 6], |i| (i * i * 7 + i * 104_729) % 1009 < 700);
        assert_eq!(volume(&fill_holes(&mask)) - volume(&mask), 17);
        assert_eq!(volume(&fill_holes_in_slices(&mask)) - volume(&mask), 50);
    }

    #[test]
    fn a_tunnel_along_z_is_a_hole_in_slices_only() {
        let ring = mask([3, 3, 3], |i| i % 9 != 4);
        assert_eq!(fill_holes(&ring), ring);
        assert_eq!(volume(&fill_holes_in_slices(&ring)), 27);
        let shell = mask([3, 3, 3], |i| i != 13);
        assert_eq!(volume(&fill_holes(&shell)), 27);
    }

    #[test]
    fn a_diagonal_gap_does_not_open_a_hole() {
        // The hole at (1, 1) meets the outside at (0, 0) by a corner only.
        let gap = mask([3, 3, 1], |i| i != 4 && i != 0);
        assert_eq!(fill_holes_in_slices(&gap).voxels(), [0, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn filling_only_adds_and_once_is_enough(
            shape in [1_usize..7, 1_usize..6, 1_usize..5],
            bits in prop::collection::vec(any::<bool>(), 7 * 6 * 5),
        ) {
            let mask = mask(shape, |i| bits[i]);
            for fill in [fill_holes, fill_holes_in_slices] {
                let once = fill(&mask);
                prop_assert!(mask.voxels().iter().zip(once.voxels()).all(|(a, b)| a <= b));
                prop_assert_eq!(fill(&once), once);
            }
            let (all, slices) = (fill_holes(&mask), fill_holes_in_slices(&mask));
            prop_assert!(all.voxels().iter().zip(slices.voxels()).all(|(a, b)| a <= b));
        }
    }
}
