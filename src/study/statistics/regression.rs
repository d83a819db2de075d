//! A straight line through points.

use serde::Serialize;

use super::descriptive::{finite, mean, squares, sum};
use super::distributions::{student_quantile, student_two_sided};
use super::outcome::{
    Computed, Interval, Level, NotComputed, Outcome, Pairs, computed, constant, largest,
};

/// A line fitted by least squares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Change of y by one x.
    pub slope: Coefficient,
    /// y where x is 0.
    pub intercept: Coefficient,
    /// Pearson's correlation.
    pub r: f64,
    /// Share of the variance of y that the line explains.
    pub r_squared: f64,
    /// SD of the residuals, with n − 2 below.
    pub residual_sd: f64,
    /// Degrees of freedom, n − 2.
    pub freedom: f64,
    /// Mean of x.
    pub mean_x: f64,
    /// Σ (x − x̄)².
    pub squares_x: f64,
}

/// A number of a line with its uncertainty.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coefficient {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub se: f64,
    /// Its confidence interval.
    pub interval: Interval,
    /// value/se; nothing where all points lie on the line.
    #[serde(serialize_with = "computed")]
    pub t: Computed,
    /// Two-sided p value for the coefficient to be 0; nothing where all points lie on the line.
    #[serde(serialize_with = "computed")]
    pub p: Computed,
}

impl Line {
    /// The line at x, and the confidence interval of the mean of y there:
    /// ŷ ± t·s√(1/n + (x − x̄)²/Σ(xᵢ − x̄)²).
    pub fn at(&self, x: f64) -> (f64, Interval) {
        let y = self.intercept.value + self.slope.value * x;
        let off = x - self.mean_x;
        let n = self.freedom + 2.0;
        let error = self.residual_sd * (1.0 / n + off * off / self.squares_x).sqrt();
        let level = self.slope.interval.level;
        (y, Interval::around(y, student_quantile(level, self.freedom) * error, level))
    }
}

/// Ordinary least squares of y on x: y = intercept + slope · x.
///
/// slope = Sxy/Sxx and intercept = ȳ − slope · x̄; with s² = Σ(y − ŷ)²/(n − 2), SE(slope) = s/√Sxx,
/// SE(intercept) = s√(1/n + x̄²/Sxx); t and intervals have n − 2 degrees of freedom; r = Sxy/√(Sxx Syy) (Draper & Smith 1998, Applied
/// Regression Analysis, chapter 1). Points with a missing value are left out and counted. Needs 3 points, and variance
/// in x and in y.
pub fn regress(x: &[Option<f64>], y: &[Option<f64>], level: Level) -> Outcome<Line> {
    let pairs = Pairs::of(x, y);
    let result = pairs.at_least(3).and_then(|()| line(&pairs.first, &pairs.second, level));
    Outcome { samples: vec![pairs.sample], result }
}

fn line(x: &[f64], y: &[f64], level: Level) -> Computed<Line> {
    for (name, values) in [("x", x), ("y", y)] {
        if constant(values, largest(values)) {
            return Err(NotComputed::no_variance(name));
        }
    }
    let n = x.len() as f64;
    let freedom = n - 2.0;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (squares_x, squares_y) = (squares(x), squares(y));
    let products = sum(x.iter().zip(y).map(|(a, b)| (a - mean_x) * (b - mean_y)));
    let slope = finite(products / squares_x)?;
    let residual = |(a, b): (&f64, &f64)| (b - mean_y) - slope * (a - mean_x);
    let left = sum(x.iter().zip(y).map(residual).map(|e| e * e));
    let residual_sd = finite((left / freedom).sqrt())?;
    let r = finite(products / (squares_x.sqrt() * squares_y.sqrt()))?.clamp(-1.0, 1.0);
    let exact = residual_sd <= 8.0 * f64::EPSILON * largest(y);
    let quantile = student_quantile(level, freedom);
    let coefficient = |value: f64, se: f64| {
        let t =
            if exact { Err(NotComputed::no_variance("the residuals")) } else { finite(value / se) };
        let p = t.clone().map(|t| student_two_sided(t, freedom));
        let interval = Interval::around(finite(value)?, finite(quantile * se)?, level);
        Ok(Coefficient { value, se, interval, t, p })
    };
    Ok(Line {
        slope: coefficient(slope, residual_sd / squares_x.sqrt())?,
        intercept: coefficient(
            mean_y - slope * mean_x,
            residual_sd * (1.0 / n + mean_x * mean_x / squares_x).sqrt(),
        )?,
        r,
        r_squared: r * r,
        residual_sd,
        freedom,
        mean_x,
        squares_x,
    })
}
