//! Mean, spread and quantiles of one variable.

use serde::Serialize;

use super::distributions::student_quantile;
use super::outcome::{Clean, Computed, Group, Interval, Level, NotComputed, Outcome, computed};

/// What a table says of one variable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// Finite values.
    pub n: usize,
    /// Missing values.
    pub missing: usize,
    /// Infinite values; where there is one, nothing is computed.
    pub infinite: usize,
    /// Arithmetic mean.
    #[serde(serialize_with = "computed")]
    pub mean: Computed,
    /// Standard deviation with n − 1 below; needs 2 values.
    #[serde(serialize_with = "computed")]
    pub sd: Computed,
    /// Standard error of the mean, SD/√n; needs 2 values.
    #[serde(serialize_with = "computed")]
    pub se: Computed,
    /// The middle value, or the mean of the middle two.
    #[serde(serialize_with = "computed")]
    pub median: Computed,
    /// First quartile, by `quantiles`.
    #[serde(serialize_with = "computed")]
    pub q1: Computed,
    /// Third quartile, by `quantiles`.
    #[serde(serialize_with = "computed")]
    pub q3: Computed,
    /// Least value.
    #[serde(serialize_with = "computed")]
    pub min: Computed,
    /// Greatest value.
    #[serde(serialize_with = "computed")]
    pub max: Computed,
    /// The definition of the quartiles.
    pub quantiles: Quantiles,
}

impl Description {
    /// Width of the interquartile range.
    pub fn iqr(&self) -> Computed {
        Ok(self.q3.clone()? - self.q1.clone()?)
    }
}

/// What a quantile between two values is (Hyndman & Fan 1996, doi:10.1080/00031305.1996.10473566).
///
/// The p-quantile of n sorted values lies at position h = np + m from 1, between the values at ⌊h⌋ and ⌊h⌋ + 1 in
/// proportion, and not beyond the ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantiles {
    /// Type 7, m = 1 − p: the default of NumPy, pandas, R and spreadsheets.
    #[default]
    Linear,
    /// Type 8, m = (p + 1)/3: unbiased for the median whatever the distribution; what the paper recommends.
    MedianUnbiased,
    /// Type 6, m = p: SPSS, Minitab and SAS's fifth (Weibull 1939).
    Weibull,
}

impl Quantiles {
    /// The definition's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear interpolation (Hyndman–Fan type 7)",
            Self::MedianUnbiased => "median-unbiased (Hyndman–Fan type 8)",
            Self::Weibull => "Weibull (Hyndman–Fan type 6)",
        }
    }

    /// The p-quantile of sorted values, of which there is at least one.
    fn of(self, sorted: &[f64], p: f64) -> f64 {
        let n = sorted.len() as f64;
        let shift = match self {
            Self::Linear => 1.0,
            Self::MedianUnbiased => 1.0 / 3.0,
            Self::Weibull => 0.0,
        };
        let position = n * p + (shift + p * (1.0 - 2.0 * shift)) - 1.0;
        let position = position.clamp(0.0, n - 1.0);
        let (at, share) = (position.floor() as usize, position.fract());
        let (low, high) = (sorted[at], sorted[(at + 1).min(sorted.len() - 1)]);
        // From the nearer end, so that the middle of (a, b) is that of (b, a).
        if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) }
    }
}

/// Describes a variable, with quartiles of type 7.
///
/// ```
/// # use torcula::study::statistics::describe;
/// let found = describe(&[Some(1.0), None, Some(2.0), Some(6.0)]);
/// assert_eq!((found.n, found.missing, found.mean), (3, 1, Ok(3.0)));
/// ```
pub fn describe(values: &[Option<f64>]) -> Description {
    describe_by(values, Quantiles::default())
}

/// Describes a variable, with quartiles by a definition of choice.
pub fn describe_by(values: &[Option<f64>], quantiles: Quantiles) -> Description {
    let mut clean = Clean::of(&Group::new("", values));
    clean.values.sort_by(f64::total_cmp);
    let take =
        |needs: usize, of: &dyn Fn(&[f64]) -> f64| clean.at_least(needs).map(of).and_then(finite);
    let quantile = |p: f64| take(1, &|v| quantiles.of(v, p));
    Description {
        n: clean.sample.n,
        missing: clean.sample.missing,
        infinite: clean.sample.infinite,
        mean: take(1, &mean),
        sd: take(2, &|v| variance(v).sqrt()),
        se: take(2, &|v| (variance(v) / v.len() as f64).sqrt()),
        median: quantile(0.5),
        q1: quantile(0.25),
        q3: quantile(0.75),
        min: take(1, &|v| v[0]),
        max: take(1, &|v| v[v.len() - 1]),
        quantiles,
    }
}

/// The p-quantile of a variable by a definition; p outside [0, 1] counts as the nearer end.
pub fn quantile(values: &[Option<f64>], p: f64, quantiles: Quantiles) -> Computed {
    let mut clean = Clean::of(&Group::new("", values));
    clean.values.sort_by(f64::total_cmp);
    let p = if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) };
    clean.at_least(1).and_then(|sorted| finite(quantiles.of(sorted, p)))
}

/// Confidence interval of a mean by Student's t: mean ± t·SD/√n. Needs 2 values.
pub fn mean_interval(values: &[Option<f64>], level: Level) -> Outcome<Interval> {
    let clean = Clean::of(&Group::new("", values));
    let result = clean.at_least(2).and_then(|v| {
        let n = v.len() as f64;
        let half = student_quantile(level, n - 1.0) * finite((variance(v) / n).sqrt())?;
        Ok(Interval::around(finite(mean(v))?, half, level))
    });
    Outcome { samples: vec![clean.sample], result }
}

/// Type-7 quantile of sorted values, of which there is at least one.
pub(super) fn sorted_quantile(sorted: &[f64], p: f64) -> f64 {
    Quantiles::Linear.of(sorted, p)
}

/// A number, unless it left the range.
pub(super) fn finite(value: f64) -> Computed {
    if value.is_finite() { Ok(value) } else { Err(NotComputed::Overflow) }
}

/// Sum whose error does not grow with the number of terms (Neumaier 1974, doi:10.1002/zamm.19740540106).
pub(super) fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = total + value;
        lost += if total.abs() >= value.abs() {
            (total - next) + value
        } else {
            (value - next) + total
        };
        total = next;
    }
    total + lost
}

/// Arithmetic mean; NaN without values.
pub(super) fn mean(values: &[f64]) -> f64 {
    sum(values.iter().copied()) / values.len() as f64
}

/// Groups less the mean of all their values, so that the rounding of large means does not hide small differences.
pub(super) fn centred(groups: &[&[f64]]) -> Vec<Vec<f64>> {
    let n: usize = groups.iter().map(|v| v.len()).sum();
    let middle = sum(groups.iter().flat_map(|v| v.iter().copied())) / n as f64;
    groups.iter().map(|v| v.iter().map(|x| x - middle).collect()).collect()
}

/// Σ (v − mean)², in two passes, less what the rounding of the mean adds.
pub(super) fn squares(values: &[f64]) -> f64 {
    let middle = mean(values);
    let drift = sum(values.iter().map(|v| v - middle));
    (sum(values.iter().map(|v| (v - middle) * (v - middle))) - drift * drift / values.len() as f64)
        .max(0.0)
}

/// Variance with n − 1 below.
pub(super) fn variance(values: &[f64]) -> f64 {
    squares(values) / (values.len() as f64 - 1.0)
}
