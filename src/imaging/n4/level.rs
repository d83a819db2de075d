//! The iterations of one level.
#![expect(
    clippy::inline_always,
    reason = "out of the vector loop it would be compiled for the oldest processor"
)]

use super::Parameters;
use super::basis::{Basis, Sum, add_fit};
use super::convergence::Variation;
use super::lattice::Lattice;
use super::math::{self, LANES};
use super::sharpen::{Range, Sharpener};
use super::voxels::Voxels;
use crate::error::{Error, Result};

/// Why a level ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The field moved no more, or the iterations were used up.
    Done,
    /// There is no contrast to sharpen.
    Constant,
}

/// The state that iterations share.
pub(super) struct Fit {
    voxels: Voxels,
    /// Voxels of the grid worked on, along x, y, z.
    shape: [usize; 3],
    convergence: f32,
    sharpener: Sharpener,
    /// Log field at the masked voxels, and room for a chunk.
    field: Vec<f32>,
    /// Log intensity minus log field.
    corrected: Vec<f32>,
    range: Range,
    /// A block of residuals, then of new fields.
    block: Vec<f32>,
    /// A block of exp(old field − new field).
    change: Vec<f32>,
}

impl Fit {
    /// The state before the first level: no field. Its two largest buffers have room for `all` voxels, to become the results.
    pub fn new(voxels: Voxels, shape: [usize; 3], all: usize, p: &Parameters) -> Self {
        let room = |len: usize| Vec::with_capacity(usize::max(all, len));
        let (mut field, mut corrected) = (room(voxels.len() + LANES), room(voxels.len()));
        field.resize(voxels.len() + LANES, 0.0);
        corrected.extend_from_slice(&voxels.input);
        let mut extremes = Extremes::default();
        extremes.take_all(&corrected);
        Self {
            shape,
            convergence: p.convergence as f32,
            sharpener: Sharpener::new(p.bins, p.wiener_noise, p.fwhm),
            field,
            range: extremes.range(&corrected),
            corrected,
            block: vec![0.0; voxels.block_room()],
            change: vec![0.0; voxels.block_room()],
            voxels,
        }
    }

    /// The two largest buffers.
    pub fn into_buffers(self) -> [Vec<f32>; 2] {
        [self.field, self.corrected]
    }

    /// At most `iterations` iterations on this lattice; how many, and why no more.
    ///
    /// # Errors
    /// Cancelled, where `stop` says so.
    pub fn level(
        &mut self,
        lattice: &mut Lattice,
        iterations: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<(usize, Stopped)> {
        let mut basis = Basis::new(self.shape, lattice.size);
        let omega = basis.denominator(&self.voxels);
        for done in 0..iterations {
            if stop() {
                return Err(Error::cancelled());
            }
            if self.range.is_empty() {
                return Ok((done, Stopped::Constant));
            }
            let delta = self.fit_residuals(&mut basis)?;
            let least = add_fit(lattice, &delta, &omega);
            let change = Variation::new(self.voxels.len(), self.convergence, least);
            if self.update(&mut basis, lattice, change) {
                return Ok((done + 1, Stopped::Done));
            }
        }
        Ok((iterations, Stopped::Done))
    }

    /// δ of the residuals.
    fn fit_residuals(&mut self, basis: &mut Basis) -> Result<Vec<f64>> {
        let map = self.sharpener.map(&self.corrected, self.range)?;
        let mut delta = basis.zeros();
        for slice in &self.voxels.slices {
            basis.begin_sum();
            for block in &slice.blocks {
                let span = block.start..block.end;
                let residuals = &mut self.block[..block.end - block.start];
                map.residuals(&self.corrected[span.clone()], residuals);
                if let Some(weights) = self.voxels.weights.get(span) {
                    residuals.iter_mut().zip(weights).for_each(|(r, w)| *r *= w);
                }
                basis.add(&self.voxels, block, residuals, Sum::Numerator);
            }
            basis.end_sum(slice, Sum::Numerator, &mut delta);
        }
        Ok(delta)
    }

    /// Evaluates the lattice and updates field and corrected intensities; whether the field moved no more.
    fn update(&mut self, basis: &mut Basis, lattice: &Lattice, mut variation: Variation) -> bool {
        let mut extremes = Extremes::default();
        for slice in &self.voxels.slices {
            basis.begin_slice(lattice, slice.z);
            for block in &slice.blocks {
                let span = block.start..block.end;
                let len = block.end - block.start;
                if variation.is_exceeded() {
                    // The old field is of no more use, neither here nor in the chunk past the block.
                    basis.evaluate(&self.voxels, block, &mut self.field[block.start..]);
                } else {
                    basis.evaluate(&self.voxels, block, &mut self.block);
                    let (old, new) = (&mut self.field[span.clone()], &self.block[..len]);
                    exp_difference(old, new, &mut self.change[..len]);
                    variation.push(&self.change[..len]);
                    old.copy_from_slice(new);
                }
                let corrected = &mut self.corrected[span.clone()];
                subtract(
                    &self.voxels.input[span.clone()],
                    &self.field[span],
                    corrected,
                    &mut extremes,
                );
            }
        }
        self.range = extremes.range(&self.corrected);
        variation.is_converged()
    }
}

/// Running extremes, lane by lane.
#[derive(Debug, Clone)]
struct Extremes {
    min: [f32; LANES],
    max: [f32; LANES],
}

impl Default for Extremes {
    fn default() -> Self {
        Self { min: [f32::MAX; LANES], max: [f32::MIN; LANES] }
    }
}

impl Extremes {
    #[inline(always)]
    fn take_all(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let Self { mut min, mut max } = *self;
        for chunk in chunks {
            for l in 0..LANES {
                min[l] = if chunk[l] < min[l] { chunk[l] } else { min[l] };
                max[l] = if chunk[l] > max[l] { chunk[l] } else { max[l] };
            }
        }
        for &v in rest {
            min[0] = min[0].min(v);
            max[0] = max[0].max(v);
        }
        *self = Self { min, max };
    }

    fn range(&self, values: &[f32]) -> Range {
        let min = self.min.iter().copied().fold(f32::MAX, f32::min);
        Range::new(values, min, self.max.iter().copied().fold(f32::MIN, f32::max))
    }
}

/// `out = exp(old − new)`.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn exp_difference(old: &[f32], new: &[f32], out: &mut [f32]) {
    for ((out, old), new) in out.iter_mut().zip(old).zip(new) {
        *out = math::exp(old - new);
    }
}

/// `corrected = input − field`, and its extremes.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn subtract(input: &[f32], field: &[f32], corrected: &mut [f32], extremes: &mut Extremes) {
    for ((corrected, input), field) in corrected.iter_mut().zip(input).zip(field) {
        *corrected = input - field;
    }
    extremes.take_all(corrected);
}
