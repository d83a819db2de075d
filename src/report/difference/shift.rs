//! How far apart two nights are: shifts of means with bootstrap intervals, and standardised differences of input data.

use serde::Serialize;

use crate::study::statistics::{self, Bootstrap, Group, Level, bootstrap};

/// The smallest number of cases at which an interval of a standardised difference is given.
const LEAST: usize = 2;

/// A mean on two nights, over the cases that are scored on both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// The score: a column of the scored step.
    pub measure: String,
    /// Cases with the score on both nights.
    pub n: usize,
    /// Cases whose score is another.
    pub changed: usize,
    /// Mean on the earlier night.
    pub before: Option<f64>,
    /// Mean now.
    pub now: Option<f64>,
    /// Mean of the differences, now less before.
    pub shift: Option<f64>,
    /// Its 95 % bootstrap interval (BCa).
    pub interval: Option<[f64; 2]>,
    /// Why there is no interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_computed: Option<String>,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Shift {
    /// The shift of pairs (before, now). `labels` and `seed` say which resamples are drawn.
    pub fn of(measure: &str, pairs: &[(f64, f64)], options: &Bootstrap<'_>) -> Self {
        let differences: Vec<f64> = pairs.iter().map(|(before, now)| now - before).collect();
        let some = |values: Vec<f64>| (!values.is_empty()).then(|| mean(&values));
        let mut shift = Self {
            measure: measure.to_owned(),
            n: pairs.len(),
            changed: differences.iter().filter(|d| d.abs() > 0.0).count(),
            before: some(pairs.iter().map(|p| p.0).collect()),
            now: some(pairs.iter().map(|p| p.1).collect()),
            shift: some(differences.clone()),
            interval: None,
            not_computed: None,
        };
        let Some(first) = differences.first().copied() else {
            shift.not_computed = Some("n = 0, needs 2".to_owned());
            return shift;
        };
        if differences.len() >= 2 && differences.iter().all(|d| (d - first).abs() <= 0.0) {
            // Every resample has this mean.
            shift.interval = Some([first, first]);
            return shift;
        }
        let values: Vec<Option<f64>> = differences.into_iter().map(Some).collect();
        match bootstrap(&values, mean, Level::P95, options).result {
            Ok(found) => shift.interval = Some([found.interval.low, found.interval.high]),
            Err(reason) => shift.not_computed = Some(reason.to_string()),
        }
        shift
    }

    /// Whether the interval excludes 0 and the shift is larger than this.
    pub fn exceeds(&self, limit: f64) -> bool {
        let (Some(shift), Some([low, high])) = (self.shift, self.interval) else { return false };
        shift.abs() > limit && (low > 0.0 || high < 0.0)
    }
}

/// A watched number on two nights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// The column.
    pub variable: String,
    /// On the baseline night.
    pub baseline: Values,
    /// Now.
    pub now: Values,
    /// Of the cases that are new, or whose image is, since the baseline night.
    pub arrivals: Values,
    /// Standardised mean difference of now from the baseline, or why there is none.
    pub smd_now: Distance,
    /// Standardised mean difference of the arrivals from the baseline, or why there is none.
    pub smd_arrivals: Distance,
}

/// Values of a group of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Values {
    /// Cases with a value.
    pub n: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their SD; none below two.
    pub sd: Option<f64>,
}

impl Values {
    fn of(values: &[Option<f64>]) -> Self {
        let found = statistics::describe(values);
        Self { n: found.n, mean: found.mean.ok(), sd: found.sd.ok() }
    }
}

/// A standardised mean difference: (x̄₁ − x̄₂)/√((s₁² + s₂²)/2).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distance {
    /// The difference; infinite ones, of two groups that do not vary, are none.
    pub value: Option<f64>,
    /// Its 95 % interval, ±1.96 √(1/n₁ + 1/n₂ + d²/(2(n₁ + n₂))) (Hedges & Olkin 1985, chapter 5).
    pub interval: Option<[f64; 2]>,
    /// Whether both groups are constant, and differ.
    pub apart: bool,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_computed: Option<String>,
}

impl Distance {
    fn of(baseline: &[Option<f64>], now: &[Option<f64>]) -> Self {
        let none = |reason: String| Self {
            value: None,
            interval: None,
            apart: false,
            not_computed: Some(reason),
        };
        let (from, to) = (Values::of(baseline), Values::of(now));
        if let (Some(from_sd), Some(to_sd), Some(a), Some(b)) = (from.sd, to.sd, from.mean, to.mean)
            && from_sd.max(to_sd) <= 1e-9 * a.abs().max(b.abs())
        {
            let same = (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            return match same {
                true => Self { value: Some(0.0), interval: None, apart: false, not_computed: None },
                false => Self { apart: true, ..none("neither night varies".to_owned()) },
            };
        }
        let found =
            statistics::difference(&Group::new("now", now), &Group::new("baseline", baseline));
        match found.result {
            Ok(value) => {
                let (n1, n2) = (from.n as f64, to.n as f64);
                let error = (1.0 / n1 + 1.0 / n2 + value * value / (2.0 * (n1 + n2))).sqrt();
                let half = 1.96 * error;
                let interval = (from.n.min(to.n) >= LEAST).then_some([value - half, value + half]);
                Self { value: Some(value), interval, apart: false, not_computed: None }
            }
            Err(reason) => none(reason.to_string()),
        }
    }

    /// Whether it is larger than this, by its interval too where `surely`.
    pub fn exceeds(&self, limit: f64, surely: bool) -> bool {
        let excludes_0 = self.interval.is_some_and(|[low, high]| low > 0.0 || high < 0.0);
        self.apart || self.value.is_some_and(|d| d.abs() > limit) && (!surely || excludes_0)
    }
}

impl Drift {
    /// The drift of one number.
    pub fn of(
        variable: &str,
        baseline: &[Option<f64>],
        now: &[Option<f64>],
        arrivals: &[Option<f64>],
    ) -> Self {
        Self {
            variable: variable.to_owned(),
            baseline: Values::of(baseline),
            now: Values::of(now),
            arrivals: Values::of(arrivals),
            smd_now: Distance::of(baseline, now),
            smd_arrivals: Distance::of(baseline, arrivals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Bootstrap<'static> {
        Bootstrap { seed: 1, resamples: 500, ..Bootstrap::default() }
    }

    #[test]
    fn nothing_that_changed_is_a_shift_of_zero() {
        let shift = Shift::of("dice", &[(0.5, 0.5), (0.8, 0.8)], &options());
        assert_eq!((shift.shift, shift.interval, shift.changed), (Some(0.0), Some([0.0; 2]), 0));
        assert!(!shift.exceeds(0.0));
        assert!(Shift::of("dice", &[], &options()).not_computed.is_some());
        assert!(Shift::of("dice", &[(0.1, 0.2)], &options()).interval.is_none());
    }

    #[test]
    fn a_shift_beyond_the_limit_needs_an_interval_that_excludes_zero() {
        let sure: Vec<(f64, f64)> =
            (0..30).map(|i| (0.8, 0.7 + f64::from(i % 3) * 0.001)).collect();
        let shift = Shift::of("dice", &sure, &options());
        assert!(shift.exceeds(0.05) && !shift.exceeds(0.2), "{shift:?}");
        let unsure: Vec<(f64, f64)> =
            (0..30).map(|i| (0.5, if i % 2 == 0 { 0.1 } else { 0.88 })).collect();
        assert!(!Shift::of("dice", &unsure, &options()).exceeds(0.001));
        // Each case fell by the same: resamples do not vary, and the shift is sure.
        let same = Shift::of("dice", &[(0.75, 0.5); 5], &options());
        assert!(same.exceeds(0.1), "{same:?}");
        assert_eq!(Shift::of("dice", &sure, &options()), shift, "equal bytes again");
    }

    // numpy: a = [1, 2, 3, 4, 5]; b = [2, 3, 4, 5, 6]; (b.mean() - a.mean()) / sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    // = 0.6324555320336759; error = sqrt(2/5 + 0.4/20) = 0.648074...
    #[test]
    fn drift_is_a_standardised_mean_difference() {
        let of = |from: i32, to: i32| (from..=to).map(|v| Some(f64::from(v))).collect::<Vec<_>>();
        let drift = Drift::of("snr", &of(1, 5), &of(2, 6), &[]);
        assert!(drift.smd_now.value.is_some_and(|d| (d - 0.632_455_532_033_675_9).abs() < 1e-12));
        let [low, _] = drift.smd_now.interval.unwrap_or_default();
        assert!((low - (0.632_455_532 - 1.96 * 0.42_f64.sqrt())).abs() < 1e-6, "{low}");
        assert!(drift.smd_now.exceeds(0.5, false) && !drift.smd_now.exceeds(0.5, true));
        assert!(drift.smd_arrivals.not_computed.is_some());
    }

    #[test]
    fn constants_that_differ_are_apart_and_equal_ones_are_not() {
        let (two, three) = (vec![Some(2.0); 4], vec![Some(3.0); 4]);
        assert!(Drift::of("spacing", &two, &three, &[]).smd_now.exceeds(9.0, true));
        assert!(!Drift::of("spacing", &two, &two, &[]).smd_now.exceeds(0.0, false));
    }
}
