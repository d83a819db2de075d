//! Voxels looked up one by one, where two grids are oblique to each other; a batch of neighbours at a time, so that
//! places and weights are vector code and only the voxels themselves are gathered.
#![expect(clippy::inline_always, reason = "a call inside a vector loop would undo the loop")]

use ndarray::Array3;

use super::{ROUNDING_VOXELS, cubic, fill_slices, inside};
use crate::volume::{Affine, Grid, Volume};

/// Output voxels whose places are computed together.
const BATCH: usize = 32;

/// A row of output voxels: where the first lies in the input, and the step from each to the next.
#[derive(Clone, Copy)]
pub(super) struct Line {
    start: [f64; 3],
    step: [f64; 3],
}

/// Fills the part of every output row that lies in the input's field of view by `sample(voxels of the input, line, out)`.
pub(super) fn resample<T: Copy + Send + Sync>(
    pull: &Affine,
    input: &Volume<T>,
    to: &Grid,
    fill: T,
    sample: impl Fn(Input<T>, Line, &mut [T]) + Sync,
) -> Array3<T> {
    let shape = input.grid().shape;
    let voxels = Input { voxels: input.voxels(), shape };
    let step = [0, 1, 2].map(|a| pull.0[a][0]);
    fill_slices(to, fill, |z, mut slice| {
        for (y, mut row) in slice.rows_mut().into_iter().enumerate() {
            let start = pull.apply([0.0, y as f64, z as f64]);
            let range = (0..3).fold(0..to.shape[0], |range, a| {
                let on_axis = inside(start[a], step[a], shape[a], to.shape[0]);
                range.start.max(on_axis.start)..range.end.min(on_axis.end)
            });
            let Some(row) = row.as_slice_mut().and_then(|row| row.get_mut(range.clone())) else {
                continue;
            };
            for (i, out) in row.chunks_mut(BATCH).enumerate() {
                let first = (range.start + i * BATCH) as f64;
                let start = [0, 1, 2].map(|a| start[a] + step[a] * first);
                sample(voxels, Line { start, step }, out);
            }
        }
    })
}

/// The voxels of the input.
#[derive(Clone, Copy)]
pub(super) struct Input<'a, T> {
    voxels: &'a [T],
    shape: [usize; 3],
}

/// Along one axis, for each output of a batch: the lower neighbour and the weight of the upper one.
struct Places {
    low: [i32; BATCH],
    weight: [f32; BATCH],
}

impl Places {
    #[inline(always)]
    fn new(start: f64, step: f64, n: usize) -> Self {
        let last = n as f64 - 1.0;
        let mut places = Self { low: [0; BATCH], weight: [0.0; BATCH] };
        for i in 0..BATCH {
            let c = start + step * i as f64;
            let c = if c > 0.0 { c } else { 0.0 };
            let c = if c < last { c } else { last };
            places.low[i] = truncated(c);
            places.weight[i] = (c - f64::from(places.low[i])) as f32;
        }
        places
    }
}

/// ⌊c⌋ of 0 ≤ c < 2³¹, without the checks of a cast.
#[inline(always)]
fn truncated(c: f64) -> i32 {
    const INTEGERS: f64 = 4_503_599_627_370_496.0;
    let near = (c + INTEGERS) - INTEGERS;
    let low = if near > c { near - 1.0 } else { near };
    (low + INTEGERS).to_bits() as i32
}

/// Trilinear.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
pub(super) fn linear(input: Input<f32>, line: Line, out: &mut [f32]) {
    let [nx, ny, nz] = input.shape;
    let Line { start, step } = line;
    let px = Places::new(start[0], step[0], nx);
    let py = Places::new(start[1], step[1], ny);
    let pz = Places::new(start[2], step[2], nz);
    let mut corners = [[0.0_f32; BATCH]; 8];
    let lows = px.low.iter().zip(&py.low).zip(&pz.low).take(out.len());
    for (i, ((&x, &y), &z)) in lows.enumerate() {
        let [x, y, z] = [x as usize, y as usize, z as usize];
        let (y0, y1) = (y * nx, (y + 1).min(ny - 1) * nx);
        let (z0, z1) = (z * nx * ny, (z + 1).min(nz - 1) * nx * ny);
        let up = (x + 1).min(nx - 1);
        for (k, row) in [y0 + z0, y1 + z0, y0 + z1, y1 + z1].into_iter().enumerate() {
            let row = &input.voxels[row..][..nx];
            corners[2 * k][i] = row[x];
            corners[2 * k + 1][i] = row[up];
        }
    }
    let [a, b, c, d, e, f, g, h] = &corners;
    let mut values = [0.0; BATCH];
    for i in 0..BATCH {
        let (wx, wy, wz) = (px.weight[i], py.weight[i], pz.weight[i]);
        let mix = |w: f32, low: f32, high: f32| (1.0 - w) * low + w * high;
        let lower = mix(wy, mix(wx, a[i], b[i]), mix(wx, c[i], d[i]));
        let upper = mix(wy, mix(wx, e[i], f[i]), mix(wx, g[i], h[i]));
        values[i] = mix(wz, lower, upper);
    }
    out.copy_from_slice(&values[..out.len()]);
}

/// The closest voxel; halves go up.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
pub(super) fn nearest<T: Copy>(input: Input<T>, line: Line, out: &mut [T]) {
    let half = 0.5 + ROUNDING_VOXELS;
    let Line { start, step } = line;
    let [nx, ny, nz] = input.shape;
    let px = Places::new(start[0] + half, step[0], nx);
    let py = Places::new(start[1] + half, step[1], ny);
    let pz = Places::new(start[2] + half, step[2], nz);
    for (i, out) in out.iter_mut().enumerate() {
        let [x, y, z] = [px.low[i] as usize, py.low[i] as usize, pz.low[i] as usize];
        *out = input.voxels[(z * ny + y) * nx + x];
    }
}

/// The cubic spline whose coefficients the voxels are.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
pub(super) fn spline(input: Input<f32>, line: Line, out: &mut [f32]) {
    let [nx, ny, nz] = input.shape;
    let Line { start, step } = line;
    for (i, out) in out.iter_mut().enumerate() {
        let i = i as f64;
        let along_x = cubic::shares(start[0] + step[0] * i, nx);
        let along_y = cubic::shares(start[1] + step[1] * i, ny);
        let along_z = cubic::shares(start[2] + step[2] * i, nz);
        let [(x0, w0), (x1, w1), (x2, w2), (x3, w3)] = along_x;
        // Where nothing is mirrored the four lie side by side.
        let in_a_row = x1 == x0 + 1 && x3 == x0 + 3;
        let mut sums = [0.0_f32; 4];
        for (z, wz) in along_z {
            for (y, wy) in along_y {
                let row = &input.voxels[(z * ny + y) * nx..][..nx];
                let four = match row[x0..].first_chunk::<4>() {
                    Some(four) if in_a_row => *four,
                    _ => [row[x0], row[x1], row[x2], row[x3]],
                };
                for k in 0..4 {
                    sums[k] += wz * wy * four[k];
                }
            }
        }
        *out = (w0 * sums[0] + w1 * sums[1]) + (w2 * sums[2] + w3 * sums[3]);
    }
}
