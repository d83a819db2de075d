//! Nyquist ghosts: a copy of the head shifted by half the field of view along the phase axis, as EPI leaves it.

use super::foreground::Head;
use super::{PhaseAxis, median};

/// Ghost-to-signal ratio (Giannelli et al. 2010, doi:10.1120/jacmp.v11i4.3237; MRIQC's `gsr`):
/// (mean where the head shifted by N/2 lies outside the head − mean where neither lies) / median of the head.
///
/// 0 where the head, its ghost or the rest has no voxel, and wherever the background was set to zero.
pub(super) fn ratio(voxels: &[f32], head: &Head, axis: PhaseAxis) -> f64 {
    let [nx, ny, _] = head.shape;
    let (mut ghost, mut rest) = ((0.0_f64, 0_usize), (0.0_f64, 0_usize));
    let mut shifted = vec![0_u8; nx];
    for (slice, mask) in voxels.chunks_exact(nx * ny).zip(head.mask.chunks_exact(nx * ny)) {
        for (y, (row, in_head)) in slice.chunks_exact(nx).zip(mask.chunks_exact(nx)).enumerate() {
            match axis {
                PhaseAxis::X => swap_halves(in_head, &mut shifted),
                PhaseAxis::Y => shifted.copy_from_slice(&mask[partner(y, ny) * nx..][..nx]),
            }
            let (mut in_ghost, mut in_rest, mut ghosts, mut rests) =
                (0.0_f32, 0.0_f32, 0_u32, 0_u32);
            for ((&v, &m), &s) in row.iter().zip(in_head).zip(&shifted) {
                let (is_ghost, is_rest) = (s & (1 - m), (1 - s) & (1 - m));
                in_ghost += f32::from(is_ghost) * v;
                in_rest += f32::from(is_rest) * v;
                ghosts += u32::from(is_ghost);
                rests += u32::from(is_rest);
            }
            ghost = (ghost.0 + f64::from(in_ghost), ghost.1 + ghosts as usize);
            rest = (rest.0 + f64::from(in_rest), rest.1 + rests as usize);
        }
    }
    let signal = median(&mut head.values.clone()).unwrap_or(0.0);
    if ghost.1 == 0 || rest.1 == 0 || signal <= 0.0 {
        return 0.0;
    }
    let ratio = (ghost.0 / ghost.1 as f64 - rest.0 / rest.1 as f64) / signal;
    if ratio.is_finite() { ratio } else { 0.0 }
}

/// The place half an axis of `n` away, around its end: where `numpy.roll` by n / 2 takes `i` from.
fn partner(i: usize, n: usize) -> usize {
    (i + n - n / 2) % n
}

fn swap_halves(row: &[u8], shifted: &mut [u8]) {
    for (i, value) in shifted.iter_mut().enumerate() {
        *value = row[partner(i, row.len())];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// import numpy as np; np.roll(np.arange(5), 2), np.roll(np.arange(4), 2)
    /// ```
    #[test]
    fn a_ghost_lies_where_numpy_rolls_the_head_to() {
        assert_eq!([0, 1, 2, 3, 4].map(|i| partner(i, 5)), [3, 4, 0, 1, 2]);
        assert_eq!([0, 1, 2, 3].map(|i| partner(i, 4)), [2, 3, 0, 1]);
    }
}
