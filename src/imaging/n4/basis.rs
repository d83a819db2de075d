//! A level's B-spline basis on one grid: fitting a lattice to masked voxels and evaluating it there, slice by slice.
//!
//! Within a slice the fit contracts y first: each row is added, four times weighted, to the rows of the control points
//! it touches, one for all x. What is left of the slice is then contracted along x, and along z into the lattice.
//! Evaluation goes the other way: the slice's plane of control points is drawn out along x once, and each row is a
//! weighted sum of four such rows. So the work per voxel is four multiplications and additions either way, in single
//! precision and voxel by voxel, whatever the spans; all else is in double precision.

use super::lattice::{Axis, Lattice, contract, spread};
use super::math::{self, LANES};
use super::voxels::{Block, Slice, Voxels};
use crate::volume::Image;

/// ω under which a control point has no voxel to follow: a tenth of single precision's epsilon.
const UNSUPPORTED: f64 = 0.1 * f32::EPSILON as f64;

/// Which of the two sums of the fit.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sum {
    /// δ = Σ W·p·Π b³/S.
    Numerator,
    /// ω = Σ W·Π b².
    Denominator,
}

/// One-axis weights of a level, and the slice in hand.
pub(super) struct Basis {
    axes: [Axis; 3],
    /// Voxels along x, and a chunk that loops may run into.
    width: usize,
    /// For every control point along y, a row of voxels.
    rows: Vec<f32>,
    /// Control points along x and y.
    plane: Vec<f64>,
}

impl Basis {
    /// The basis of a lattice of `controls` over a grid of `shape` voxels.
    pub fn new(shape: [usize; 3], controls: [usize; 3]) -> Self {
        let width = shape[0] + LANES;
        Self {
            axes: [0, 1, 2].map(|a| Axis::new(shape[a], controls[a])),
            width,
            rows: vec![0.0; controls[1] * width],
            plane: vec![0.0; controls[0] * controls[1]],
        }
    }

    /// Zero for every control point.
    pub fn zeros(&self) -> Vec<f64> {
        vec![0.0; self.axes.iter().map(|a| a.controls).product()]
    }

    /// ω of every control point.
    pub fn denominator(&mut self, voxels: &Voxels) -> Vec<f64> {
        let mut omega = self.zeros();
        let ones = vec![1.0; voxels.block_room()];
        for slice in &voxels.slices {
            self.begin_sum();
            for block in &slice.blocks {
                let weights = voxels.weights.get(block.start..block.end).unwrap_or(&ones);
                self.add(voxels, block, weights, Sum::Denominator);
            }
            self.end_sum(slice, Sum::Denominator, &mut omega);
        }
        omega
    }

    /// Before the first block of a slice.
    pub fn begin_sum(&mut self) {
        self.rows.fill(0.0);
    }

    /// Contracts a block of a slice along y. `values` are those of its voxels, already weighted.
    pub fn add(&mut self, v: &Voxels, block: &Block, values: &[f32], sum: Sum) {
        let (y, width) = (&self.axes[1], self.width);
        let weights = if sum == Sum::Numerator { &y.fit } else { &y.square };
        let mut at = 0;
        for row in &v.rows[block.row..block.row_end] {
            let w = weights[row.y as usize].map(|w| w as f32);
            let rows = &mut self.rows[y.base[row.y as usize] * width..][..4 * width];
            for run in v.runs(row) {
                let end = at + usize::from(run.len);
                add_run(&values[at..end], w, usize::from(run.x), rows);
                at = end;
            }
        }
    }

    /// After the last block of a slice: contracts it along x and z into `to`.
    pub fn end_sum(&mut self, slice: &Slice, sum: Sum, to: &mut [f64]) {
        let Self { axes: [x, _, z], width, rows, plane } = self;
        let (along_x, along_z) = match sum {
            Sum::Numerator => (&x.fit, &z.fit),
            Sum::Denominator => (&x.square, &z.square),
        };
        plane.fill(0.0);
        for (sums, row) in plane.chunks_exact_mut(x.controls).zip(rows.chunks_exact(*width)) {
            let mut values = row.iter().zip(along_x);
            for span in x.base.chunk_by(|a, b| a == b) {
                let mut four = [0.0; 4];
                for (value, w) in values.by_ref().take(span.len()) {
                    for (sum, w) in four.iter_mut().zip(w) {
                        *sum += w * f64::from(*value);
                    }
                }
                for (sum, part) in sums[span[0]..].iter_mut().zip(four) {
                    *sum += part;
                }
            }
        }
        spread(plane, &along_z[slice.z], &mut to[z.base[slice.z] * plane.len()..]);
    }

    /// Draws the lattice out along x at slice `z`, for [`Self::evaluate`].
    pub fn begin_slice(&mut self, lattice: &Lattice, slice: usize) {
        let Self { axes: [x, _, z], width, rows, plane } = self;
        let layer = plane.len();
        contract(&lattice.data[z.base[slice] * layer..], layer, &z.value[slice], plane);
        for (controls, row) in plane.chunks_exact(x.controls).zip(rows.chunks_exact_mut(*width)) {
            for ((out, w), base) in row.iter_mut().zip(&x.value).zip(&x.base) {
                let [c0, c1, c2, c3] = [0, 1, 2, 3].map(|a| w[a] * controls[*base + a]);
                *out = ((c0 + c1) + (c2 + c3)) as f32;
            }
        }
    }

    /// The field at the voxels of a block of the slice begun, in memory order; `field` has room for a chunk more.
    pub fn evaluate(&self, v: &Voxels, block: &Block, field: &mut [f32]) {
        let y = &self.axes[1];
        let mut at = 0;
        for row in &v.rows[block.row..block.row_end] {
            let w = y.value[row.y as usize].map(|w| w as f32);
            let rows = &self.rows[y.base[row.y as usize] * self.width..][..4 * self.width];
            for run in v.runs(row) {
                let len = usize::from(run.len);
                let out = &mut field[at..at + len.next_multiple_of(LANES)];
                combine(rows, w, usize::from(run.x), out);
                at += len;
            }
        }
    }

    /// The lattice at every voxel of the grid, in `field`, and `image / exp(field)`, in `corrected`.
    pub fn render(
        &mut self,
        lattice: &Lattice,
        image: &Image,
        field: &mut Image,
        corrected: &mut Image,
    ) {
        let (nx, ny) = (self.axes[0].base.len(), self.axes[1].base.len());
        let rows = image.voxels().chunks_exact(nx);
        let outs = field
            .voxels_mut()
            .chunks_exact_mut(nx)
            .zip(corrected.voxels_mut().chunks_exact_mut(nx));
        for (i, (image, (field, corrected))) in rows.zip(outs).enumerate() {
            let (slice, row) = (i / ny, i % ny);
            if row == 0 {
                self.begin_slice(lattice, slice);
            }
            let w = self.axes[1].value[row].map(|w| w as f32);
            combine(
                &self.rows[self.axes[1].base[row] * self.width..][..4 * self.width],
                w,
                0,
                field,
            );
            divide(image, field, corrected);
        }
    }
}

/// φ = δ/ω added to the lattice; control points without voxels stay as they are. The least φ, or zero if none is below:
/// no weight of the basis is negative, so the field falls nowhere by more.
pub(super) fn add_fit(lattice: &mut Lattice, delta: &[f64], omega: &[f64]) -> f64 {
    let mut least = 0.0_f64;
    for ((c, d), w) in lattice.data.iter_mut().zip(delta).zip(omega) {
        let phi = d / w;
        if *w > UNSUPPORTED && phi.is_finite() {
            *c += phi;
            least = least.min(phi);
        }
    }
    least
}

/// Adds a run of values that starts at `x` to four rows, each with its weight.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_run(values: &[f32], w: [f32; 4], x: usize, rows: &mut [f32]) {
    let width = rows.len() / 4;
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (row, w) in rows.chunks_exact_mut(width).zip(w) {
        let (body, end) =
            row[x..x + values.len().next_multiple_of(LANES)].split_at_mut(chunks.len() * LANES);
        for (sum, value) in body.iter_mut().zip(chunks.as_flattened()) {
            *sum += w * value;
        }
        for (sum, value) in end.iter_mut().zip(&last) {
            *sum += w * value;
        }
    }
}

/// The weighted sum of four rows from `x` on.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn combine(rows: &[f32], w: [f32; 4], x: usize, out: &mut [f32]) {
    let width = rows.len() / 4;
    let [a, b, c, d] = [0, 1, 2, 3].map(|r| &rows[r * width + x..][..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = (w[0] * a[i] + w[1] * b[i]) + (w[2] * c[i] + w[3] * d[i]);
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn divide(image: &[f32], field: &[f32], corrected: &mut [f32]) {
    for ((corrected, image), field) in corrected.iter_mut().zip(image).zip(field) {
        *corrected = image / math::exp(*field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::n4::shrink::thinned;
    use crate::volume::{Affine, Grid, Mask};

    const SHAPE: [usize; 3] = [37, 11, 6];
    const CONTROLS: [usize; 3] = [7, 5, 4];

    fn voxels() -> Voxels {
        let grid = Grid { shape: SHAPE, affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut image = Image::filled(&grid, 0.0);
        let mut mask = Mask::filled(&grid, 0);
        for (i, (v, m)) in image.voxels_mut().iter_mut().zip(mask.voxels_mut()).enumerate() {
            *v = (i as f32 * 0.3).sin() - 2.0;
            *m = u8::from(i % 7 != 0 && i % 11 != 3 && i / 37 % 4 != 1);
        }
        Voxels::gather(&image, &mask, None, thinned(SHAPE, [1.0; 3], 1)).unwrap_or_default()
    }

    /// Calls `each(value, voxel)` for every masked voxel: the sums as the paper writes them.
    fn per_voxel(v: &Voxels, mut each: impl FnMut(f32, [usize; 3])) {
        let mut values = v.input.iter();
        for slice in &v.slices {
            for row in &v.rows[slice.blocks[0].row..slice.blocks[slice.blocks.len() - 1].row_end] {
                for run in v.runs(row) {
                    for x in run.x..run.x + run.len {
                        let place = [usize::from(x), row.y as usize, slice.z];
                        each(*values.next().unwrap_or(&f32::NAN), place);
                    }
                }
            }
        }
    }

    #[test]
    fn the_separable_fit_is_the_sum_over_voxels() {
        let v = voxels();
        let mut basis = Basis::new(SHAPE, CONTROLS);
        let omega = basis.denominator(&v);
        let mut delta = basis.zeros();
        for slice in &v.slices {
            basis.begin_sum();
            for block in &slice.blocks {
                basis.add(&v, block, &v.input[block.start..block.end], Sum::Numerator);
            }
            basis.end_sum(slice, Sum::Numerator, &mut delta);
        }
        let axes = basis.axes.clone();
        let (mut d, mut w) = (basis.zeros(), basis.zeros());
        per_voxel(&v, |value, p| {
            for c in 0..64 {
                let k = [c % 4, c / 4 % 4, c / 16];
                let i = [0, 1, 2].map(|a| axes[a].base[p[a]] + k[a]);
                let i = (i[2] * CONTROLS[1] + i[1]) * CONTROLS[0] + i[0];
                d[i] += f64::from(value) * (0..3).map(|a| axes[a].fit[p[a]][k[a]]).product::<f64>();
                w[i] += (0..3).map(|a| axes[a].square[p[a]][k[a]]).product::<f64>();
            }
        });
        for i in 0..d.len() {
            assert!((d[i] - delta[i]).abs() < 1e-5 * (1.0 + d[i].abs()), "δ of {i}");
            assert!((w[i] - omega[i]).abs() < 1e-5 * (1.0 + w[i].abs()), "ω of {i}");
        }
    }

    #[test]
    fn the_separable_evaluation_is_the_tensor_product() {
        let v = voxels();
        let mut basis = Basis::new(SHAPE, CONTROLS);
        let mut lattice = Lattice::zeros(CONTROLS);
        for (i, c) in lattice.data.iter_mut().enumerate() {
            *c = (i as f64 * 1.7).sin();
        }
        let mut field = vec![0.0; v.len() + LANES];
        for slice in &v.slices {
            basis.begin_slice(&lattice, slice.z);
            for block in &slice.blocks {
                basis.evaluate(&v, block, &mut field[block.start..]);
            }
        }
        let axes = basis.axes.clone();
        let mut fields = field.iter();
        per_voxel(&v, |_, p| {
            let mut sum = 0.0;
            for c in 0..64 {
                let k = [c % 4, c / 4 % 4, c / 16];
                let i = [0, 1, 2].map(|a| axes[a].base[p[a]] + k[a]);
                let w: f64 = (0..3).map(|a| axes[a].value[p[a]][k[a]]).product();
                sum += w * lattice.data[(i[2] * CONTROLS[1] + i[1]) * CONTROLS[0] + i[0]];
            }
            let found = f64::from(*fields.next().unwrap_or(&f32::NAN));
            assert!((found - sum).abs() < 1e-6, "{p:?}: {found} and {sum}");
        });
    }

    #[test]
    fn unsupported_control_points_stay() {
        let mut lattice = Lattice { size: [2, 1, 1], data: vec![1.0, 1.0] };
        let least = add_fit(&mut lattice, &[-3.0, 3.0], &[2.0, 1e-9]);
        assert_eq!((lattice.data, least), (vec![-0.5, 1.0], -1.5));
    }
}
