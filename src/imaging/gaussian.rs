//! Gaussian blur of a volume, with sigma in mm.
//!
//! Separable: along each axis the weights exp(−k²/2σ²), σ in voxels of that axis, for |k| ≤ ⌊4σ + ½⌋, normalised to
//! sum 1. Beyond an edge the edge's voxel repeats (zero flux). The same numbers as
//! `scipy.ndimage.gaussian_filter(image, sigma_mm / spacing, mode='nearest', truncate=4)`, within single precision.

use crate::volume::Image;

/// Voxels of a row that are handled while they stay in the innermost cache.
const STRIP: usize = 2048;

/// The image blurred by a Gaussian of standard deviation `sigma_mm`, equal in mm along all axes.
///
/// A sigma of zero, below zero or not finite gives the image itself. Along an axis of one voxel nothing happens. Voxels
/// that are not numbers spread to all voxels that the kernel reaches.
pub fn blur(image: &Image, sigma_mm: f64) -> Image {
    let mut blurred = image.clone();
    if !(sigma_mm > 0.0 && sigma_mm.is_finite()) {
        return blurred;
    }
    let shape = image.grid().shape;
    let spacing_mm = image.spacing_mm();
    let mut scratch = Vec::new();
    for axis in 0..3 {
        let weights = kernel(sigma_mm / spacing_mm[axis], shape[axis]);
        if weights.len() < 2 {
            continue;
        }
        scratch.clear();
        scratch.extend_from_slice(blurred.voxels());
        match axis {
            0 => along_rows(&scratch, shape[0], &weights, blurred.voxels_mut()),
            1 => across(&scratch, [shape[0], shape[1]], &weights, blurred.voxels_mut()),
            _ => across(&scratch, [shape[0] * shape[1], shape[2]], &weights, blurred.voxels_mut()),
        }
    }
    blurred
}

/// Weights at distances 0, 1, …; whatever reaches past the far edge of an axis of `n` voxels is put on its last distance,
/// where the edge's voxel repeats anyway.
fn kernel(sigma: f64, n: usize) -> Vec<f32> {
    if !sigma.is_finite() || n < 2 {
        return vec![1.0];
    }
    // From 100,000 voxels on, a wider Gaussian is no other on any grid.
    let sigma = sigma.min(1e5);
    let radius = (4.0 * sigma + 0.5) as usize;
    let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
    let total: f64 = 1.0 + 2.0 * (1..=radius).map(weight).sum::<f64>();
    let last = radius.min(n - 1);
    let mut weights: Vec<f64> = (0..=last).map(|k| weight(k) / total).collect();
    let beyond: f64 = (last + 1..=radius).map(weight).sum::<f64>() / total;
    weights[last] += beyond;
    weights.into_iter().map(|w| w as f32).collect()
}

/// Along x: each row is padded with its edge voxels once.
fn along_rows(from: &[f32], n: usize, weights: &[f32], to: &mut [f32]) {
    let radius = weights.len() - 1;
    let mut padded = vec![0.0; n + 2 * radius];
    for (row, out) in from.chunks_exact(n).zip(to.chunks_exact_mut(n)) {
        padded[..radius].fill(row[0]);
        padded[radius..radius + n].copy_from_slice(row);
        padded[radius + n..].fill(row[n - 1]);
        scale(out, row, weights[0]);
        for (k, &w) in weights.iter().enumerate().skip(1) {
            let before = &padded[radius - k..radius - k + n];
            add_pair(out, before, &padded[radius + k..radius + k + n], w);
        }
    }
}

/// Along y or z: rows of `len` neighbouring voxels are combined, `n` of them in each group.
fn across(from: &[f32], [len, n]: [usize; 2], weights: &[f32], to: &mut [f32]) {
    for (group, out) in from.chunks_exact(len * n).zip(to.chunks_exact_mut(len * n)) {
        for start in (0..len).step_by(STRIP) {
            let strip = start..len.min(start + STRIP);
            let row = |i: usize| &group[i * len..][strip.clone()];
            for i in 0..n {
                let out = &mut out[i * len..][strip.clone()];
                scale(out, row(i), weights[0]);
                for (k, &w) in weights.iter().enumerate().skip(1) {
                    add_pair(out, row(i.saturating_sub(k)), row((i + k).min(n - 1)), w);
                }
            }
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn scale(out: &mut [f32], from: &[f32], w: f32) {
    for (out, v) in out.iter_mut().zip(from) {
        *out = w * v;
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_pair(out: &mut [f32], before: &[f32], after: &[f32], w: f32) {
    for ((out, a), b) in out.iter_mut().zip(before).zip(after) {
        *out += w * (a + b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};

    /// Voxel `[z, y, x]` and its blurred intensity.
    const SCIPY: [([usize; 3], f32); 5] = [
        ([0, 0, 0], 374.8209),
        ([2, 4, 5], 473.9709),
        ([4, 8, 10], 343.892),
        ([1, 0, 7], 522.5822),
        ([3, 6, 1], 560.7188),
    ];

    fn image(shape: [usize; 3], spacing_mm: [f64; 3]) -> Image {
        let grid = Grid { shape, affine: Affine::from_spacing_mm(spacing_mm) };
        let mut image = Image::filled(&grid, 0.0);
        for (i, v) in image.voxels_mut().iter_mut().enumerate() {
            *v = (i * 7919 % 1009) as f32;
        }
        image
    }

    #[test]
    fn sigma_zero_is_the_identity() {
        let image = image([9, 8, 7], [1.0, 2.0, 3.0]);
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-12] {
            assert_eq!(blur(&image, sigma), image);
        }
    }

    /// The numbers are those of `benches/peers/smoothing_reference.py`.
    #[test]
    fn the_numbers_are_those_of_scipy() {
        let blurred = blur(&image([11, 9, 5], [1.0, 1.5, 4.0]), 2.0);
        for (at, expected) in SCIPY {
            let found = blurred.data[at];
            assert!((found - expected).abs() < 1e-3, "{at:?}: {found}, expected {expected}");
        }
    }
    #[test]
    fn a_constant_stays_and_huge_sigmas_are_harmless() {
        let mut flat = image([6, 1, 4], [1.0, 1.0, 5.0]);
        flat.voxels_mut().fill(7.0);
        for sigma in [0.3, 2.0, 50.0, 1e5] {
            assert!(blur(&flat, sigma).voxels().iter().all(|v| (v - 7.0).abs() < 1e-4), "{sigma}");
        }
    }

    #[test]
    fn folding_at_the_edges_changes_nothing() {
        let narrow = kernel(3.0, 4);
        let wide = kernel(3.0, 100);
        assert_eq!((narrow.len(), wide.len()), (4, 13));
        assert!((narrow[3] - wide[3..].iter().sum::<f32>()).abs() < 1e-6);
    }

    #[test]
    fn replay_gives_equal_bytes() {
        let image = image([33, 17, 9], [1.0, 1.0, 3.0]);
        let bits = |i: &Image| i.voxels().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&blur(&image, 1.7)), bits(&blur(&image, 1.7)));
    }
}
