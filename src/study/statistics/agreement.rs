//! How well two methods of measurement agree.

use serde::Serialize;

use super::descriptive::{finite, mean, variance};
use super::distributions::{normal_quantile, student_quantile};
use super::outcome::{Interval, Level, Outcome, Pairs};

/// Bias and limits of agreement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlandAltman {
    /// Mean of first − second.
    pub bias: f64,
    /// Its confidence interval.
    pub bias_interval: Interval,
    /// SD of first − second.
    pub sd: f64,
    /// bias − z·SD.
    pub lower: f64,
    /// Its confidence interval.
    pub lower_interval: Interval,
    /// bias + z·SD.
    pub upper: f64,
    /// Its confidence interval.
    pub upper_interval: Interval,
    /// Share of differences between the limits, if they are normal.
    pub between: Level,
}

/// Bland–Altman: the bias of the first method against the second, and the limits between which most differences lie.
///
/// With d̄ and s of the differences first − second, bias = d̄ and limits = d̄ ± z·s, where z = 1.96 for `between` = 95 %. Intervals use
/// Student's t with n − 1 degrees of freedom, SE(d̄) = s/√n and SE(limit) = s√(1/n + z²/(2(n − 1))) (Bland & Altman 1999,
/// doi:10.1177/096228029900800204, section 2). Pairs with a missing value are left out and counted. Needs 3 pairs whose
/// differences vary.
pub fn bland_altman(
    first: &[Option<f64>],
    second: &[Option<f64>],
    between: Level,
    level: Level,
) -> Outcome<BlandAltman> {
    let pairs = Pairs::of(first, second);
    let result = pairs.varying_differences(3).and_then(|differences| {
        let n = differences.len() as f64;
        let bias = finite(mean(&differences))?;
        let sd = finite(variance(&differences).sqrt())?;
        let z = normal_quantile(f64::midpoint(1.0, between.share()));
        let t = student_quantile(level, n - 1.0);
        let half = t * sd * (1.0 / n + z * z / (2.0 * (n - 1.0))).sqrt();
        let (lower, upper) = (bias - z * sd, bias + z * sd);
        Ok(BlandAltman {
            bias,
            bias_interval: Interval::around(bias, t * sd / n.sqrt(), level),
            sd,
            lower,
            lower_interval: Interval::around(lower, half, level),
            upper,
            upper_interval: Interval::around(upper, half, level),
            between,
        })
    });
    Outcome { samples: vec![pairs.sample], result }
}
