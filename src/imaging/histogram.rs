//! Histograms of equal bins, as `numpy.histogram` counts them.
#![expect(clippy::inline_always, reason = "a call inside a vector loop would undo the loop")]

use crate::error::{Error, Result};

/// Values whose bins are computed together before they are counted.
const BATCH: usize = 64;

/// Sets of counters, used in turn: neighbouring voxels often share a bin, and adding to it twice in a row is slow.
const SETS: usize = 4;

/// 2⁵²: above it double precision holds integers only, so adding it rounds, and leaves the integer in the low bits.
const INTEGERS: f64 = 4_503_599_627_370_496.0;

/// Counts of values in equal bins. Bin i holds edge(i) ≤ v < edge(i + 1), the last bin its upper edge too.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Lower edge of the first bin and upper edge of the last.
    pub range: [f64; 2],
}

impl Histogram {
    /// Counts `values` in `bins` bins over `range`; what lies outside it, or is not a number, is left out.
    ///
    /// # Errors
    /// A data error unless `bins` is at least 1 and the range finite and not empty.
    pub fn new(values: &[f32], bins: usize, range: [f64; 2]) -> Result<Self> {
        let [low, high] = range;
        if bins == 0 || !(high - low).is_finite() || high <= low {
            return Err(Error::data(format!(
                "a histogram of {bins} bins from {low} to {high}; expected 1 bin or more and a range above 0"
            )));
        }
        let mut histogram = Self { counts: vec![0; bins], range };
        let mut counters = vec![0_u64; SETS * (bins + 1)];
        let spread = Spread { low, high, width: histogram.width(), last: (bins - 1) as f64 };
        tally(values, spread, &mut counters);
        for set in counters.chunks_exact(bins + 1) {
            histogram.counts.iter_mut().zip(set).for_each(|(count, part)| *count += part);
        }
        Ok(histogram)
    }

    /// Lower edge of a bin; `edge(bins)` is the upper edge of the last.
    pub fn edge(&self, bin: usize) -> f64 {
        let [low, high] = self.range;
        if bin == self.counts.len() { high } else { low + bin as f64 * self.width() }
    }

    /// Centre of a bin.
    pub fn centre(&self, bin: usize) -> f64 {
        f64::midpoint(self.edge(bin), self.edge(bin + 1))
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        (self.range[1] - self.range[0]) / self.counts.len() as f64
    }

    /// The fullest bin; the first of several.
    pub fn mode(&self) -> usize {
        let most = self.counts.iter().copied().max().unwrap_or_default();
        self.counts.iter().position(|&c| c == most).unwrap_or_default()
    }

    /// Centre of the fullest bin; of the first of several.
    pub fn peak(&self) -> f64 {
        self.centre(self.mode())
    }
}

/// Where the bins lie.
#[derive(Clone, Copy)]
struct Spread {
    low: f64,
    high: f64,
    width: f64,
    /// The last bin.
    last: f64,
}

/// Adds every value to the counter of its bin; what is in no bin goes to the last counter of a set, which is nobody's.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn tally(values: &[f32], spread: Spread, counters: &mut [u64]) {
    let mut keys = [0_u32; BATCH];
    let (batches, rest) = values.as_chunks::<BATCH>();
    for batch in batches {
        bins_of(batch, spread, &mut keys);
        add(&keys, counters);
    }
    let mut last = [f32::NAN; BATCH];
    last[..rest.len()].copy_from_slice(rest);
    bins_of(&last, spread, &mut keys);
    add(&keys[..rest.len()], counters);
}

/// The bin of every value. Rounding of the quotient may miss it by one at an edge: the edges decide.
#[inline(always)]
fn bins_of(values: &[f32; BATCH], spread: Spread, keys: &mut [u32; BATCH]) {
    let Spread { low, high, width, last } = spread;
    let scale = width.recip();
    for (key, &v) in keys.iter_mut().zip(values) {
        let v = f64::from(v);
        let place = (v - low) * scale;
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < last { place } else { last };
        let bin = (place + INTEGERS) - INTEGERS;
        let bin = if v < low + bin * width { bin - 1.0 } else { bin };
        let bin = if v >= low + (bin + 1.0) * width { bin + 1.0 } else { bin };
        let bin = if bin < last { bin } else { last };
        let bin = if v >= low && v <= high { bin } else { last + 1.0 };
        *key = (bin + INTEGERS).to_bits() as u32;
    }
}

#[inline(always)]
fn add(keys: &[u32], counters: &mut [u64]) {
    let mut sets = counters.chunks_exact_mut(counters.len() / SETS);
    let [Some(a), Some(b), Some(c), Some(d)] = [(); SETS].map(|()| sets.next()) else { return };
    let (fours, rest) = keys.as_chunks::<SETS>();
    for &[i, j, k, l] in fours {
        a[i as usize] += 1;
        b[j as usize] += 1;
        c[k as usize] += 1;
        d[l as usize] += 1;
    }
    for &key in rest {
        a[key as usize] += 1;
    }
}

/// Smallest and largest value, or nothing where a value is not finite or there is none.
pub(crate) fn extremes(values: &[f32]) -> Option<(f32, f32)> {
    let first = *values.first()?;
    let (low, high, finite) = extremes_from(first, values);
    finite.then_some((low, high))
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn extremes_from(first: f32, values: &[f32]) -> (f32, f32, bool) {
    let mut low = [first; BATCH];
    let mut high = [first; BATCH];
    // Zero times a finite number is zero; anything else stays not a number.
    let mut zeros = [0.0_f32; BATCH];
    let (batches, rest) = values.as_chunks::<BATCH>();
    for batch in batches {
        for (i, &v) in batch.iter().enumerate() {
            low[i] = if v < low[i] { v } else { low[i] };
            high[i] = if v > high[i] { v } else { high[i] };
            zeros[i] += 0.0 * v;
        }
    }
    for &v in rest {
        low[0] = low[0].min(v);
        high[0] = high[0].max(v);
        zeros[0] += 0.0 * v;
    }
    let low = low.into_iter().fold(first, f32::min);
    let high = high.into_iter().fold(first, f32::max);
    (low, high, zeros.iter().all(|z| *z == 0.0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// ```python
    /// import numpy as np
    /// v = ((np.arange(1000) * 7919 % 1000).astype('f4') / np.float32(1000)) ** 2
    /// c, e = np.histogram(v.astype('f8'), 10, (0.1, 0.9)); c, (e[c.argmax()] + e[c.argmax() + 1]) / 2
    /// ```
    #[test]
    fn counts_are_those_of_numpy() {
        let values: Vec<f32> =
            (0..1000).map(|i| f32::powi((i * 7919 % 1000) as f32 / 1000.0, 2)).collect();
        let h = Histogram::new(&values, 10, [0.1, 0.9]).unwrap();
        assert_eq!(h.counts, [108, 85, 74, 65, 59, 54, 51, 48, 45, 43]);
        assert!((h.peak() - 0.14).abs() < 1e-12);
    }

    #[test]
    fn every_value_is_in_the_bin_whose_edges_hold_it() {
        let values: Vec<f32> = (0..5000).map(|i| (i * 7919 % 5003) as f32 * 0.01 - 5.0).collect();
        for (bins, range) in [(1, [0.0, 9.0]), (7, [-5.0, 45.02]), (333, [-1.1, 17.3])] {
            let h = Histogram::new(&values, bins, range).unwrap();
            let mut counts = vec![0_u64; bins];
            for v in values.iter().map(|v| f64::from(*v)) {
                let bin = (0..bins).rfind(|b| v >= h.edge(*b) && v <= range[1]);
                if let Some(b) = bin {
                    counts[b] += 1;
                }
            }
            assert_eq!(h.counts, counts, "{bins} bins");
        }
    }

    #[test]
    fn edges_belong_to_the_bin_above_and_the_last_to_the_bin_below() {
        let values: Vec<f32> = (0..=10).map(|i| i as f32 * 0.1).collect();
        let h = Histogram::new(&values, 10, [0.0, 1.0]).unwrap();
        assert_eq!(h.counts.iter().sum::<u64>(), 11);
        let h = Histogram::new(&[0.0, 1.0, 2.0, 3.0, 4.0], 4, [0.0, 4.0]).unwrap();
        assert_eq!(h.counts, [1, 1, 1, 2]);
        assert_eq!((h.mode(), h.peak()), (3, 3.5));
    }

    #[test]
    fn what_is_outside_or_not_a_number_is_left_out() {
        let h = Histogram::new(&[f32::NAN, -1.0, 9.0, f32::INFINITY, 0.5], 2, [0.0, 1.0]).unwrap();
        assert_eq!(h.counts, [0, 1]);
        assert!(Histogram::new(&[1.0], 0, [0.0, 1.0]).is_err());
        assert!(Histogram::new(&[1.0], 4, [1.0, 1.0]).is_err());
        assert!(Histogram::new(&[1.0], 4, [0.0, f64::NAN]).is_err());
    }

    #[test]
    fn extremes_of_finite_values_only() {
        assert_eq!(extremes(&[3.0, -1.0, 2.0]), Some((-1.0, 3.0)));
        assert_eq!(extremes(&[]), None);
        assert_eq!(extremes(&[1.0, f32::NAN]), None);
        assert_eq!(extremes(&[f32::INFINITY]), None);
    }
}
