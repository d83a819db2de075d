//! Histograms of equal bins, as `numpy.histogram` counts them.

use crate::error::{Error, Result};

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
        let scale = bins as f64 / (high - low);
        for &v in values {
            let v = f64::from(v);
            if !(v >= low && v <= high) {
                continue;
            }
            // Rounding may miss by one bin at an edge: the edges decide.
            let bin = (((v - low) * scale) as usize).min(bins - 1);
            let bin = if v < histogram.edge(bin) { bin.saturating_sub(1) } else { bin };
            let next = bin + 1 < bins && v >= histogram.edge(bin + 1);
            histogram.counts[bin + usize::from(next)] += 1;
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

/// Smallest and largest value, or nothing where a value is not finite or there is none.
pub(crate) fn extremes(values: &[f32]) -> Option<(f32, f32)> {
    let first = *values.first()?;
    let mut finite = true;
    let (mut low, mut high) = (first, first);
    for &v in values {
        finite &= v.is_finite();
        low = if v < low { v } else { low };
        high = if v > high { v } else { high };
    }
    finite.then_some((low, high))
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
