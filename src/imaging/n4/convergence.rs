//! When a level has converged: the coefficient of variation of p = exp(old field − new field) in the mask.
//!
//! The measure is the running one of Tustison's implementation, in single precision and memory order:
//! N += 1; for N > 1: σ² += (p − μ)²·(N − 1)/N; μ = μ·(1 − 1/N) + p/N; the result is √(σ²/(N − 1))/μ. Once
//! |p − μ|/N falls under half a unit in the last place of μ, the mean no longer moves, so the measure depends on the
//! order of the voxels and is *not* the exact one, which would stop up to 42 iterations earlier (measured).
//! Chunks that cannot move the mean are summed together; all others go voxel by voxel. σ² never falls, and μ stays under
//! the largest p, so as soon as σ² is large enough the level goes on, and no further voxel is looked at.

use super::math::LANES;

/// Voxels judged together.
const CHUNK: usize = 64;
/// From here on the squares of a chunk may drown in σ² one by one but not together: voxel by voxel only.
const EXACT_FROM: f32 = 4_000_000.0;

/// Running mean and squared deviations.
#[derive(Debug, Clone, Default)]
pub(super) struct Variation {
    mean: f32,
    squares: f32,
    count: f32,
    exact: bool,
    threshold: f32,
    /// σ² from which on the measure is above the threshold, whatever follows.
    limit: f64,
}

impl Variation {
    /// A measure over `voxels` values that is wanted at most `threshold`; the new field is nowhere lower than the old by
    /// more than −`least`.
    pub fn new(voxels: usize, threshold: f32, least: f64) -> Self {
        // A hair more than the largest p, for rounding.
        let largest = (-least).exp() * 1.001;
        // A count in single precision stops at 2²⁴.
        let count = (voxels as f64).min(f64::from(1 << 24)) - 1.0;
        let limit = count * (f64::from(threshold) * largest).powi(2);
        Self { exact: voxels as f32 > EXACT_FROM, threshold, limit, ..Self::default() }
    }

    /// Whether the measure is above its threshold, whatever follows.
    pub fn is_exceeded(&self) -> bool {
        f64::from(self.squares) > self.limit
    }

    /// Whether, after all values, the measure is at most its threshold, or not a number (a single value), as in ITK.
    pub fn is_converged(&self) -> bool {
        let value = self.value();
        !self.is_exceeded() && (value.is_nan() || value <= self.threshold)
    }

    /// The coefficient of variation so far; not a number before the second value.
    fn value(&self) -> f32 {
        let variance = f64::from(self.squares) / (f64::from(self.count) - 1.0);
        (variance.sqrt() as f32) / self.mean
    }

    /// Takes the next values in memory order.
    pub fn push(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<CHUNK>();
        for chunk in chunks {
            if self.is_exceeded() {
                return;
            }
            if self.exact || !self.push_still(chunk) {
                self.push_each(chunk);
            }
        }
        self.push_each(rest);
    }

    /// Takes a chunk at once if no value of it can move the mean.
    fn push_still(&mut self, chunk: &[f32; CHUNK]) -> bool {
        let (largest, squares) = deviations(chunk, self.mean);
        let unit = self.mean - self.mean.next_down();
        if self.count < 2.0 || largest >= 0.45 * unit * self.count {
            return false;
        }
        let middle = f64::from(self.count) + CHUNK as f64 / 2.0;
        let added = f64::from(squares) * (middle - 1.0) / middle;
        self.squares = (f64::from(self.squares) + added) as f32;
        self.count += CHUNK as f32;
        true
    }

    fn push_each(&mut self, values: &[f32]) {
        let Self { mut mean, mut squares, mut count, .. } = *self;
        for &p in values {
            count += 1.0;
            let n = f64::from(count);
            if count > 1.0 {
                let d = p - mean;
                squares = (f64::from(squares) + f64::from(d * d) * (n - 1.0) / n) as f32;
            }
            mean = (f64::from(mean) * (1.0 - 1.0 / n) + f64::from(p / count)) as f32;
        }
        (self.mean, self.squares, self.count) = (mean, squares, count);
    }
}

/// Largest |p − μ| and Σ(p − μ)² of a chunk.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn deviations(chunk: &[f32; CHUNK], mean: f32) -> (f32, f32) {
    let mut largest = [0.0_f32; LANES];
    let mut squares = [0.0_f32; LANES];
    for part in chunk.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            let d = part[l] - mean;
            largest[l] = if d.abs() > largest[l] { d.abs() } else { largest[l] };
            squares[l] += d * d;
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            let other = largest[l + width];
            largest[l] = if other > largest[l] { other } else { largest[l] };
            squares[l] += squares[l + width];
        }
        width /= 2;
    }
    (largest[0], squares[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around 1 whose spread drifts, as the fields of neighbouring voxels do.
    fn values(n: usize, spread: f32) -> Vec<f32> {
        (0..n)
            .map(|i| 1.0 + spread * ((i as f32 * 0.013).sin() + 0.3 * (i as f32 * 0.71).cos()))
            .collect()
    }

    #[test]
    fn chunks_and_single_voxels_agree() {
        for spread in [3e-2, 2e-3, 1e-4] {
            let values = values(200_000, spread);
            let mut fast = Variation::new(values.len(), 1.0, 0.0);
            let mut exact = Variation { exact: true, ..fast.clone() };
            fast.push(&values);
            exact.push(&values);
            assert_eq!(fast.mean.to_bits(), exact.mean.to_bits(), "spread {spread}");
            let difference = (fast.value() / exact.value() - 1.0).abs();
            assert!(difference < 2e-3, "spread {spread}: {difference}");
        }
    }

    /// ```python
    /// import numpy as np
    /// p = np.array([1, 1.5, .25, 2, .75], 'f4'); p.std(ddof=1) / p.mean()   # 0.6140571
    /// ```
    #[test]
    fn short_inputs_give_the_textbook_value() {
        let mut measure = Variation::new(5, 1.0, 0.0);
        measure.push(&[1.0, 1.5, 0.25, 2.0, 0.75]);
        assert!((measure.value() - 0.614_057_1).abs() < 1e-6, "{}", measure.value());
        assert!(Variation::new(0, 1.0, 0.0).value().is_nan());
        assert!(measure.is_converged());
    }

    #[test]
    fn stopping_early_decides_as_all_values_do() {
        let values = values(50_000, 2e-3);
        let least = f64::from(values.iter().copied().fold(0.0, f32::max).ln());
        let decide = |threshold: f32| {
            let mut measure = Variation::new(values.len(), threshold, -least);
            measure.push(&values);
            measure
        };
        let all = decide(1.0).value();
        for (factor, converged) in [(0.1, false), (0.99, false), (1.0, true), (1.01, true)] {
            assert_eq!(decide(all * factor).is_converged(), converged, "{factor}");
        }
        assert!(decide(all * 0.1).count < 50_000.0);
        assert!(!decide(0.0).is_converged());
    }
}
