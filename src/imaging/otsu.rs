//! Otsu's threshold (Otsu, IEEE Trans. SMC 9, 1979): the split of a histogram with the largest variance between classes.
//!
//! With w₀, w₁ the shares and m₀, m₁ the means (of bin centres) of the bins up to b and of those after it, b maximises
//! w₀·w₁·(m₀ − m₁)²; the first of several. What "the threshold" of bin b is differs between tools, hence
//! [`Convention`]: ITK says its right edge, scikit-image its centre.

use crate::error::{Error, Result};
use crate::imaging::histogram::{Histogram, extremes};

/// Bins of `SimpleITK.OtsuThreshold`.
pub const DEFAULT_BINS: usize = 128;

/// Which intensity of the last lower bin is the threshold.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// The bin's lower edge.
    LowerEdge,
    /// The bin's centre, as `skimage.filters.threshold_otsu`.
    Centre,
    /// The bin's upper edge, as `SimpleITK.OtsuThreshold`; the range ends a hundredth of a bin above the maximum.
    #[default]
    RightEdge,
}

/// Otsu's threshold of `values` from a histogram of `bins` bins over their range; the upper class is above it.
///
/// # Errors
/// Configuration: fewer than 2 bins. Data: no values, a value that is not finite, or all values equal.
pub fn threshold(values: &[f32], bins: usize, convention: Convention) -> Result<f32> {
    if bins < 2 {
        return Err(Error::configuration(format!("otsu has {bins} bins; expected 2 or more")));
    }
    let Some((low, high)) = extremes(values) else {
        return Err(Error::data("no Otsu threshold: no values, or not all of them finite"));
    };
    if low >= high {
        return Err(Error::data(format!("no Otsu threshold: every value is {low}"))
            .hint("the image is constant; leave the case out"));
    }
    let (low, high) = (f64::from(low), f64::from(high));
    let margin = match convention {
        Convention::RightEdge => (high - low) / bins as f64 / 100.0,
        Convention::LowerEdge | Convention::Centre => 0.0,
    };
    let histogram = Histogram::new(values, bins, [low, high + margin])?;
    let bin = split(&histogram);
    Ok(match convention {
        Convention::LowerEdge => histogram.edge(bin),
        Convention::Centre => histogram.centre(bin),
        Convention::RightEdge => histogram.edge(bin + 1),
    } as f32)
}

/// The last bin of the lower class.
fn split(histogram: &Histogram) -> usize {
    let moment = |(bin, count): (usize, &u64)| *count as f64 * histogram.centre(bin);
    let total: f64 = histogram.counts.iter().map(|c| *c as f64).sum();
    let sum: f64 = histogram.counts.iter().enumerate().map(moment).sum();
    let (mut count, mut below) = (0.0, 0.0);
    let (mut best, mut bin) = (f64::NEG_INFINITY, 0);
    for (i, c) in histogram.counts.iter().enumerate().take(histogram.counts.len() - 1) {
        count += *c as f64;
        below += moment((i, c));
        let difference = below / count - (sum - below) / (total - count);
        let between = count / total * (1.0 - count / total) * difference * difference;
        if between > best {
            (best, bin) = (between, i);
        }
    }
    bin
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Two modes around 30 and 100, the second a third as large.
    fn values() -> Vec<f32> {
        (0..4000_i32)
            .map(|i| {
                let spread = (i * 7919 % 1009) as f32 / 1009.0 + (i * 104_729 % 997) as f32 / 997.0;
                if i % 4 == 0 { 80.0 + 20.0 * spread } else { 10.0 + 20.0 * spread }
            })
            .collect()
    }

    /// The numbers are those of `benches/peers/smoothing.py`.
    #[test]
    fn the_numbers_are_those_of_simpleitk_and_scikit_image() {
        let found = |bins, convention| threshold(&values(), bins, convention).unwrap();
        assert!((found(128, Convention::RightEdge) - 50.367_9).abs() < 1e-3);
        assert!((found(256, Convention::Centre) - 49.726_677).abs() < 1e-3);
    }

    #[test]
    fn the_three_conventions_are_half_a_bin_apart() {
        let values = [0.0, 0.0, 1.5, 8.5, 10.0, 10.0];
        let [low, centre] = [Convention::LowerEdge, Convention::Centre]
            .map(|convention| threshold(&values, 10, convention).unwrap());
        assert!((centre - low - 0.5).abs() < 1e-6);
        let right = threshold(&values, 10, Convention::RightEdge).unwrap();
        assert!((right - low - 1.0).abs() < 0.01, "{low} {right}");
    }

    #[test]
    fn scale_and_shift_go_along() {
        let moved: Vec<f32> = values().iter().map(|v| v * 4.0 - 64.0).collect();
        let (a, b) = (
            threshold(&values(), 128, Convention::RightEdge),
            threshold(&moved, 128, Convention::RightEdge),
        );
        assert!((a.unwrap() * 4.0 - 64.0 - b.unwrap()).abs() < 2.0);
    }

    #[test]
    fn what_has_no_threshold_says_so() {
        let constant = threshold(&[3.0; 9], 128, Convention::default()).unwrap_err();
        assert!(constant.reason().contains("every value is 3"), "{constant}");
        assert!(threshold(&[], 128, Convention::default()).is_err());
        assert!(threshold(&[1.0, f32::NAN], 128, Convention::default()).is_err());
        assert!(threshold(&[1.0, 2.0], 1, Convention::default()).is_err());
    }
}
