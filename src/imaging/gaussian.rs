//! Gaussian blur of a volume, with sigma in mm.
//!
//! Separable: along each axis the weights exp(−k²/2σ²), σ in voxels of that axis, for |k| ≤ ⌊4σ + ½⌋, normalised to
//! sum 1. Beyond an edge the edge's voxel repeats (zero flux). The same numbers as
//! `scipy.ndimage.gaussian_filter(image, sigma_mm / spacing, mode='nearest', truncate=4)`, within single precision.

use crate::volume::Image;

/// Output voxels whose sums stay in registers while all weights are gone through.
const TILE: usize = 64;

/// Neighbouring voxels of a slice that are blurred along z together: those of all slices in reach fit into the second-level
/// cache.
const STRIP: usize = 2048;

/// The image blurred by a Gaussian of standard deviation `sigma_mm`, equal in mm along all axes.
///
/// A sigma of zero, below zero or not finite gives the image itself. Along an axis of one voxel, or whose spacing is no
/// distance, nothing happens. Voxels
/// that are not numbers spread to all voxels that the kernel reaches.
pub fn blur(image: &Image, sigma_mm: f64) -> Image {
    if !(sigma_mm > 0.0 && sigma_mm.is_finite()) {
        return image.clone();
    }
    let shape @ [nx, ny, _] = image.grid().shape;
    let spacing_mm = image.spacing_mm();
    let [along_x, along_y, along_z] =
        [0, 1, 2].map(|axis| kernel(sigma_mm / spacing_mm[axis], shape[axis]));
    let mut blurred = Image::filled(&image.grid(), 0.0);
    if blurred.voxels().is_empty() {
        return blurred;
    }
    across(image.voxels(), nx * ny, &along_z, blurred.voxels_mut());
    // x and y slice by slice, while the slice is in the cache.
    let mut plane = vec![0.0; nx * ny];
    for slice in blurred.voxels_mut().chunks_exact_mut(nx * ny) {
        along_rows(slice, nx, &along_x, &mut plane);
        across(&plane, nx, &along_y, slice);
    }
    blurred
}

/// Weights at distances 0, 1, …; whatever reaches past the far edge of an axis of `n` voxels is put on its last distance,
/// where the edge's voxel repeats anyway.
fn kernel(sigma: f64, n: usize) -> Vec<f32> {
    if !(sigma > 0.0 && sigma.is_finite()) || n < 2 {
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
        weigh(&padded, weights, |k| (radius - k, radius + k), out);
    }
}

/// Along y or z: rows of `len` neighbouring voxels are combined.
fn across(from: &[f32], len: usize, weights: &[f32], to: &mut [f32]) {
    let last = from.len() / len - 1;
    for start in (0..len).step_by(STRIP) {
        let width = STRIP.min(len - start);
        for i in 0..=last {
            let at = |row: usize| row * len + start;
            let out = &mut to[at(i)..][..width];
            weigh(from, weights, |k| (at(i.saturating_sub(k)), at((i + k).min(last))), out);
        }
    }
}

/// `out[i] = w₀·from[a₀ + i] + Σ wₖ·(from[aₖ + i] + from[bₖ + i])` with (aₖ, bₖ) = `places(k)`.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn weigh(from: &[f32], weights: &[f32], places: impl Fn(usize) -> (usize, usize), out: &mut [f32]) {
    let (tiles, rest) = out.as_chunks_mut::<TILE>();
    let covered = tiles.len() * TILE;
    for (t, tile) in tiles.iter_mut().enumerate() {
        let part = |place: usize| from[place + t * TILE..].first_chunk::<TILE>();
        let Some(middle) = part(places(0).0) else { return };
        let mut sums = [0.0; TILE];
        for (sum, v) in sums.iter_mut().zip(middle) {
            *sum = weights[0] * v;
        }
        for (k, &w) in weights.iter().enumerate().skip(1) {
            let (before, after) = places(k);
            let (Some(before), Some(after)) = (part(before), part(after)) else { return };
            for ((sum, a), b) in sums.iter_mut().zip(before).zip(after) {
                *sum += w * (a + b);
            }
        }
        *tile = sums;
    }
    let part = |place: usize| &from[place + covered..];
    for (out, v) in rest.iter_mut().zip(part(places(0).0)) {
        *out = weights[0] * v;
    }
    for (k, &w) in weights.iter().enumerate().skip(1) {
        let (before, after) = places(k);
        for ((out, a), b) in rest.iter_mut().zip(part(before)).zip(part(after)) {
            *out += w * (a + b);
        }
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

    /// The numbers are those of `benches/peers/smoothing.py`.
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
    fn spacings_that_are_no_distances_are_not_blurred_along() {
        for spacing_mm in [[0.0; 3], [f64::NAN; 3], [f64::INFINITY; 3]] {
            let image = image([9, 8, 7], spacing_mm);
            assert_eq!(blur(&image, 2.0).voxels(), image.voxels());
        }
        let empty = Image {
            data: ndarray::Array3::zeros((0, 3, 3)),
            affine: Affine::from_spacing_mm([1.0; 3]),
        };
        assert!(blur(&empty, 2.0).voxels().is_empty());
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
