//! Measures from slice to slice: sudden steps of brightness, and slices that lost their signal.

use super::foreground::Head;
use super::median;

/// A slice counts where its head has at least this share of the largest slice's.
const FULL_SLICE: f64 = 0.2;

/// Largest relative step of the head's median intensity between neighbouring slices: |a − b| / max(a, b), 0 to 1. Spikes,
/// interleaving artefacts and motion between slices raise it. Slices with little head are left out.
pub(super) fn largest_jump(voxels: &[f32], head: &Head) -> f64 {
    let in_slice = head.shape[0] * head.shape[1];
    let fewest = fewest_voxels(head);
    let slices = voxels.chunks_exact(in_slice).zip(head.mask.chunks_exact(in_slice));
    let medians: Vec<Option<f64>> = slices
        .zip(&head.slice_voxels)
        .map(|((slice, mask), &n)| {
            if n < fewest {
                return None;
            }
            let inside = mask.iter().zip(slice).filter(|(m, _)| **m != 0).map(|(_, &v)| v);
            median(&mut inside.collect::<Vec<_>>())
        })
        .collect();
    let jump = |pair: &[Option<f64>]| match pair {
        [Some(a), Some(b)] if a.max(*b) > 0.0 => (a - b).abs() / a.max(*b),
        _ => 0.0,
    };
    medians.windows(2).map(jump).fold(0.0, f64::max).min(1.0)
}

/// Number of slices whose mean falls below `ratio` times that of the slices around them, as happens where the head moves
/// during the diffusion gradient.
///
/// On each side the brighter of the two nearest slices is the reference, so that one lost neighbour does not hide
/// another. All three means are taken where both references have head. The outermost slices have no reference.
pub(super) fn dropouts(voxels: &[f32], head: &Head, ratio: f64) -> usize {
    let [nx, ny, nz] = head.shape;
    let slice = |z: usize| &voxels[z * nx * ny..][..nx * ny];
    let mask = |z: usize| &head.mask[z * nx * ny..][..nx * ny];
    let signal: Vec<f64> = (0..nz)
        .map(|z| mask(z).iter().zip(slice(z)).map(|(&m, &v)| f64::from(m) * f64::from(v)).sum())
        .collect();
    let brighter = |a: usize, b: Option<usize>| match b {
        Some(b) if signal[b] > signal[a] => b,
        _ => a,
    };
    let fewest = fewest_voxels(head);
    (1..nz.saturating_sub(1))
        .filter(|&z| {
            let below = brighter(z - 1, z.checked_sub(2));
            let above = brighter(z + 1, Some(z + 2).filter(|&b| b < nz));
            let (mut n, mut here, mut around) = (0, 0.0, 0.0);
            let masks = mask(below).iter().zip(mask(above));
            let values = slice(z).iter().zip(slice(below).iter().zip(slice(above)));
            for ((&a, &b), (&v, (&low, &high))) in masks.zip(values) {
                if a & b != 0 {
                    n += 1;
                    here += f64::from(v);
                    around += 0.5 * (f64::from(low) + f64::from(high));
                }
            }
            n >= fewest && here < ratio * around
        })
        .count()
}

fn fewest_voxels(head: &Head) -> usize {
    let largest = head.slice_voxels.iter().copied().max().unwrap_or(0);
    ((FULL_SLICE * largest as f64) as usize).max(1)
}
