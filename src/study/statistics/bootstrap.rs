//! Confidence intervals by resampling.
//!
//! Resamples are drawn by the project's keyed generator: the same values, seed and labels give the same bytes.

use serde::Serialize;

use super::descriptive::{mean, sorted_quantile, sum};
use super::distributions::{normal_cdf, normal_quantile};
use super::outcome::{Clean, Computed, Group, Interval, Level, NotComputed, Outcome, Sample};
use crate::imaging::random::{below, keyed};

/// Fewer resamples have no tails to speak of.
const LEAST_RESAMPLES: usize = 100;

/// How an interval is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap<'a> {
    /// How the ends follow from the resampled estimates.
    pub method: Method,
    /// How many resamples, at least 100.
    pub resamples: usize,
    /// The run's seed.
    pub seed: u64,
    /// What the interval is of; another label draws other resamples.
    pub labels: &'a [&'a str],
}

impl Default for Bootstrap<'_> {
    fn default() -> Self {
        Self { method: Method::default(), resamples: 2000, seed: 0, labels: &[] }
    }
}

/// How the ends of an interval follow from the resampled estimates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The quantiles (1 ∓ level)/2 of the resampled estimates (Efron & Tibshirani 1993, chapter 13).
    Percentile,
    /// Bias-corrected and accelerated: other quantiles Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))) for z = Φ⁻¹((1 ∓ level)/2). z₀ = Φ⁻¹ of
    /// the share of resampled estimates below the estimate, with equal ones as halves, and a = Σu³/(6(Σu²)^1.5), u = mean less each of
    /// the estimates without one case (Efron 1987, doi:10.1080/01621459.1987.10478410; Efron & Tibshirani 1993, chapter 14).
    #[default]
    Bca,
}

/// An estimate with its bootstrap interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The statistic of the values themselves.
    pub value: f64,
    /// SD of the resampled estimates.
    pub se: f64,
    /// The interval; its ends are type-7 quantiles of the resampled estimates.
    pub interval: Interval,
    /// How it was made.
    pub method: Method,
    /// Number of resamples.
    pub resamples: usize,
    /// The seed they were drawn with.
    pub seed: u64,
    /// The resampled estimates, in the order in which they were drawn.
    #[serde(skip)]
    pub distribution: Vec<f64>,
}

/// Bootstrap interval of a statistic of one variable.
///
/// Needs 2 values, and a statistic that is finite on every resample and that varies between them.
///
/// ```
/// # use torcula::study::statistics::{Bootstrap, Level, bootstrap};
/// let values: Vec<_> = (0..50).map(|v| Some(f64::from(v % 11))).collect();
/// let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
/// let found = bootstrap(&values, mean, Level::P95, &Bootstrap { seed: 7, ..Bootstrap::default() });
/// let interval = found.result.unwrap().interval;
/// assert!(interval.low < 4.9 && interval.high > 4.9);
/// ```
pub fn bootstrap(
    values: &[Option<f64>],
    statistic: impl Fn(&[f64]) -> f64,
    level: Level,
    options: &Bootstrap,
) -> Outcome<Estimate> {
    let clean = Clean::of(&Group::new("", values));
    let result = clean.at_least(2).and_then(|v| estimate(v, &statistic, level, options));
    Outcome { samples: vec![clean.sample], result }
}

/// Bootstrap interval of a statistic of whole cases, such as a correlation of pairs, or a mean of patients who bring several
/// images each.
///
/// Cases are resampled as they are: what is missing in them is the caller's. Conditions are those of [`bootstrap`].
pub fn bootstrap_cases<T: Clone>(
    cases: &[T],
    statistic: impl Fn(&[T]) -> f64,
    level: Level,
    options: &Bootstrap,
) -> Outcome<Estimate> {
    let sample = Sample { name: "cases".to_owned(), n: cases.len(), missing: 0, infinite: 0 };
    Outcome { samples: vec![sample], result: estimate(cases, &statistic, level, options) }
}

fn estimate<T: Clone>(
    cases: &[T],
    statistic: &impl Fn(&[T]) -> f64,
    level: Level,
    options: &Bootstrap,
) -> Computed<Estimate> {
    let few = |of: &str, n, needs| Err(NotComputed::TooFew { of: of.to_owned(), n, needs });
    if cases.len() < 2 {
        return few("", cases.len(), 2);
    }
    if options.resamples < LEAST_RESAMPLES {
        return few("resamples", options.resamples, LEAST_RESAMPLES);
    }
    let value = statistic(cases);
    let distribution = resampled(cases, statistic, options);
    let undefined = distribution.iter().chain([&value]).filter(|v| !v.is_finite()).count();
    if undefined > 0 {
        return Err(NotComputed::Infinite { of: "resampled estimates".to_owned(), n: undefined });
    }
    let mut sorted = distribution.clone();
    sorted.sort_by(f64::total_cmp);
    if sorted[0] >= sorted[sorted.len() - 1] {
        return Err(NotComputed::no_variance("the resampled estimates"));
    }
    let tail = (1.0 - level.share()) / 2.0;
    let (low, high) = match options.method {
        Method::Percentile => (tail, 1.0 - tail),
        Method::Bca => corrected(cases, statistic, value, &distribution, tail)?,
    };
    let interval = Interval {
        low: sorted_quantile(&sorted, low),
        high: sorted_quantile(&sorted, high),
        level,
    };
    Ok(Estimate {
        value,
        se: super::descriptive::variance(&distribution).sqrt(),
        interval,
        method: options.method,
        resamples: options.resamples,
        seed: options.seed,
        distribution,
    })
}

fn resampled<T: Clone>(
    cases: &[T],
    statistic: &impl Fn(&[T]) -> f64,
    options: &Bootstrap,
) -> Vec<f64> {
    let labels: Vec<&str> = ["bootstrap"].iter().chain(options.labels).copied().collect();
    let mut rng = keyed(options.seed, &labels);
    let mut resample = cases.to_vec();
    let draw = |_| {
        for case in &mut resample {
            case.clone_from(&cases[below(&mut rng, cases.len() as u64) as usize]);
        }
        statistic(&resample)
    };
    (0..options.resamples).map(draw).collect()
}

/// The shares of the resampled estimates below BCa's ends.
fn corrected<T: Clone>(
    cases: &[T],
    statistic: &impl Fn(&[T]) -> f64,
    value: f64,
    distribution: &[f64],
    tail: f64,
) -> Computed<(f64, f64)> {
    let below = distribution.iter().filter(|v| **v < value).count();
    let up_to = distribution.iter().filter(|v| **v <= value).count();
    let share = (below + up_to) as f64 / (2 * distribution.len()) as f64;
    if share <= 0.0 || share >= 1.0 {
        // All resampled estimates lie on one side: the bias has no bound.
        return Err(NotComputed::no_variance("the resampled estimates around the estimate"));
    }
    let bias = normal_quantile(share);
    let mut without = cases[1..].to_vec();
    let mut left_out = vec![statistic(&without)];
    for i in 1..cases.len() {
        without[i - 1].clone_from(&cases[i - 1]);
        left_out.push(statistic(&without));
    }
    let undefined = left_out.iter().filter(|v| !v.is_finite()).count();
    if undefined > 0 {
        return Err(NotComputed::Infinite {
            of: "estimates without one case".to_owned(),
            n: undefined,
        });
    }
    let middle = mean(&left_out);
    let moment = |power: i32| sum(left_out.iter().map(|v| (middle - v).powi(power)));
    let second = moment(2);
    if second <= 0.0 {
        return Err(NotComputed::no_variance("the estimates without one case"));
    }
    let acceleration = moment(3) / (6.0 * second.powf(1.5));
    let z = normal_quantile(tail);
    let end = |z: f64| normal_cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z)));
    Ok((end(z), end(-z)))
}
