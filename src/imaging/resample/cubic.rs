//! Cubic B-spline interpolation: the smoothest curve through the voxels (Unser, Aldroubi, Eden, IEEE TSP 41, 1993).
//!
//! The value at c is Σ b(c − k)·a_k over the four k around c on each axis, b the cubic B-spline. The coefficients a are the
//! voxels filtered along each axis by 6 / (z + 4 + z⁻¹), as a recursion forwards and one backwards with the pole √3 − 2. At
//! the borders the volume is mirrored about its outer voxels, in the filter and in the sum, as in ITK's
//! `BSplineInterpolateImageFunction`. A voxel that is not a number spoils the lines through it.
#![expect(clippy::inline_always, reason = "a call inside a vector loop would undo the loop")]

use ndarray::{Array3, CowArray, Ix3};

/// √3 − 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Voxels after which the pole's powers vanish in single precision.
const HORIZON: usize = 24;
/// Rows filtered along x together.
const LANES: usize = 16;

/// The four voxels around a place on an axis, mirrored into it, with their shares.
pub(super) type Shares = [(usize, f32); 4];

/// [`Shares`] at index `c` of an axis of `n` voxels.
#[inline(always)]
pub(super) fn shares(c: f64, n: usize) -> Shares {
    let low = c.floor();
    let t = (c - low) as f32;
    let s = 1.0 - t;
    let at = low as isize;
    [
        (mirrored(at - 1, n), s * s * s / 6.0),
        (mirrored(at, n), 2.0 / 3.0 - t * t * (0.5 * s + 0.5)),
        (mirrored(at + 1, n), 2.0 / 3.0 - s * s * (0.5 * t + 0.5)),
        (mirrored(at + 2, n), t * t * t / 6.0),
    ]
}

/// The voxel that stands at `i` when an axis of `n` is mirrored about its first and last voxel.
#[inline(always)]
fn mirrored(i: isize, n: usize) -> usize {
    if (0..n as isize).contains(&i) {
        return i as usize;
    }
    let period = 2 * (n as isize - 1).max(1);
    let i = i.rem_euclid(period);
    i.min(period - i).min(n as isize - 1) as usize
}

/// The coefficients of the spline through the voxels `[z, y, x]`.
pub(super) fn coefficients(input: CowArray<f32, Ix3>) -> Array3<f32> {
    let mut data = input.into_owned();
    let (nz, ny, nx) = data.dim();
    let Some(voxels) = data.as_slice_mut() else { return data };
    if voxels.is_empty() {
        return data;
    }
    filter_rows(voxels, nx);
    for slice in voxels.chunks_exact_mut(nx * ny) {
        filter(slice, nx, ny);
    }
    filter(voxels, nx * ny, nz);
    data
}

/// Filters along x, some rows at a time, turned so that neighbours in memory are independent.
fn filter_rows(voxels: &mut [f32], n: usize) {
    let mut turned = vec![0.0; n * LANES];
    for rows in voxels.chunks_mut(n * LANES) {
        for (lane, row) in rows.chunks_exact(n).enumerate() {
            for (x, &v) in row.iter().enumerate() {
                turned[x * LANES + lane] = v;
            }
        }
        filter(&mut turned, LANES, n);
        for (lane, row) in rows.chunks_exact_mut(n).enumerate() {
            for (x, v) in row.iter_mut().enumerate() {
                *v = turned[x * LANES + lane];
            }
        }
    }
}

/// Filters `n` layers of `len` values each, across the layers.
fn filter(layers: &mut [f32], len: usize, n: usize) {
    if n < 2 {
        return;
    }
    let pole = POLE as f32;
    let first = mirrored_start(layers, len, n);
    layers[..len].copy_from_slice(&first);
    for k in 1..n {
        let (done, rest) = layers.split_at_mut(k * len);
        forwards(&done[(k - 1) * len..], pole, &mut rest[..len]);
    }
    let (before, last) = layers.split_at_mut((n - 1) * len);
    let end = (POLE / (POLE * POLE - 1.0)) as f32;
    for (v, before) in last.iter_mut().zip(&before[(n - 2) * len..]) {
        *v = end * (*v + pole * before);
    }
    for k in (0..n - 1).rev() {
        let (layer, after) = layers[k * len..].split_at_mut(len);
        backwards(&after[..len], pole, layer);
    }
}

/// What the recursion forwards begins with: Σ poleᵏ·v_k over the mirrored axis, with the filter's gain of 6.
fn mirrored_start(layers: &[f32], len: usize, n: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; len];
    let mut add = |weight: f64, k: usize| {
        for (sum, v) in sums.iter_mut().zip(&layers[k * len..]) {
            *sum += 6.0 * weight * f64::from(*v);
        }
    };
    if n > HORIZON {
        (0..HORIZON).for_each(|k| add(POLE.powi(k as i32), k));
    } else {
        let period = 2 * (n - 1) as i32;
        let whole = 1.0 / (1.0 - POLE.powi(period));
        add(whole, 0);
        for k in 1..n - 1 {
            add(whole * (POLE.powi(k as i32) + POLE.powi(period - k as i32)), k);
        }
        add(whole * POLE.powi(n as i32 - 1), n - 1);
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn forwards(before: &[f32], pole: f32, layer: &mut [f32]) {
    for (v, before) in layer.iter_mut().zip(before) {
        *v = 6.0 * *v + pole * before;
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn backwards(after: &[f32], pole: f32, layer: &mut [f32]) {
    for (v, after) in layer.iter_mut().zip(after) {
        *v = pole * (after - *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one_and_mirror_at_the_borders() {
        for i in -5..60 {
            let four = shares(f64::from(i) * 0.1, 6);
            assert!((four.iter().map(|(_, w)| w).sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(four.iter().all(|(k, w)| *k < 6 && *w >= 0.0));
        }
        assert_eq!(shares(-0.4, 6).map(|(k, _)| k), [2, 1, 0, 1]);
        assert_eq!(shares(5.4, 6).map(|(k, _)| k), [4, 5, 4, 3]);
        assert_eq!(shares(1.4, 2).map(|(k, _)| k), [0, 1, 0, 1]);
        assert_eq!(shares(0.3, 1).map(|(k, _)| k), [0; 4]);
    }

    #[test]
    fn the_spline_goes_through_the_voxels() {
        for dim in [(1, 1, 1), (2, 3, 5), (1, 40, 17), (30, 2, 33)] {
            let data =
                Array3::from_shape_fn(dim, |(z, y, x)| ((x * 7 + y * 13 + z * 29) % 31) as f32);
            let c = coefficients(data.view().into());
            for ((z, y, x), &v) in data.indexed_iter() {
                let (az, ay, ax) =
                    (shares(z as f64, dim.0), shares(y as f64, dim.1), shares(x as f64, dim.2));
                let mut sum = 0.0;
                for (k, wz) in az {
                    for (j, wy) in ay {
                        sum += ax.iter().map(|(i, wx)| wz * wy * wx * c[[k, j, *i]]).sum::<f32>();
                    }
                }
                assert!((sum - v).abs() < 1e-4, "{dim:?}: {sum} at {z}, {y}, {x}; expected {v}");
            }
        }
    }
}
