//! What goes into a test and what comes out of it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A result, or why there is none.
pub type Computed<T = f64> = Result<T, NotComputed>;

/// Named values of one variable; `None` and NaN are missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group<'a> {
    /// The name that results and reasons show.
    pub name: &'a str,
    /// One value a case.
    pub values: &'a [Option<f64>],
}

impl<'a> Group<'a> {
    /// A group of this name.
    pub fn new(name: &'a str, values: &'a [Option<f64>]) -> Self {
        Self { name, values }
    }
}

/// Named values of one categorical variable; `None` is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Categories<'a> {
    /// The name that results and reasons show.
    pub name: &'a str,
    /// One category a case.
    pub values: &'a [Option<&'a str>],
}

impl<'a> Categories<'a> {
    /// A group of this name.
    pub fn new(name: &'a str, values: &'a [Option<&'a str>]) -> Self {
        Self { name, values }
    }
}

/// How many values of a group a result rests on, and how many it could not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The group's name; `pairs` where values are taken in pairs.
    pub name: String,
    /// Finite values, or categories that are known.
    pub n: usize,
    /// Missing values.
    pub missing: usize,
    /// Infinite values; where there is one, nothing is computed.
    pub infinite: usize,
}

/// Why a number is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotComputed {
    /// Fewer values than it takes.
    TooFew {
        /// The group, or nothing where there is one only.
        of: String,
        /// How many there are.
        n: usize,
        /// How many it takes.
        needs: usize,
    },
    /// Fewer groups, or categories that occur, than it takes.
    TooFewGroups {
        /// What there are too few of.
        of: &'static str,
        /// How many there are.
        n: usize,
        /// How many it takes.
        needs: usize,
    },
    /// All values are the same.
    NoVariance {
        /// What does not vary.
        of: String,
    },
    /// Infinite values, which no sum survives.
    Infinite {
        /// The group, or nothing where there is one only.
        of: String,
        /// How many there are.
        n: usize,
    },
    /// Two lists that should be pairs have different lengths.
    Unpaired {
        /// Length of the first.
        first: usize,
        /// Length of the second.
        second: usize,
    },
    /// An exact test whose enumeration would not end.
    TooLarge {
        /// What is too large.
        of: &'static str,
    },
    /// Sums or a statistic beyond the range of `f64`.
    Overflow,
}

impl NotComputed {
    pub(super) fn no_variance(of: impl Into<String>) -> Self {
        Self::NoVariance { of: of.into() }
    }
}

impl fmt::Display for NotComputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = |of: &str| if of.is_empty() { String::new() } else { format!(" in {of}") };
        match self {
            Self::TooFew { of, n, needs } => write!(f, "n = {n}{}, needs {needs}", within(of)),
            Self::TooFewGroups { of, n, needs } => write!(f, "{of}: {n}, needs {needs}"),
            Self::NoVariance { of } => write!(f, "no variance{}", within(of)),
            Self::Infinite { of, n } => write!(f, "infinite values: {n}{}", within(of)),
            Self::Unpaired { first, second } => {
                write!(f, "{first} values cannot be paired with {second}")
            }
            Self::TooLarge { of } => write!(f, "{of} is too large for an exact test"),
            Self::Overflow => f.write_str("the numbers leave the range of f64"),
        }
    }
}

impl std::error::Error for NotComputed {}

impl Serialize for NotComputed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes a result as itself, or as `{"not_computed": "n = 2, needs 3"}`.
pub(super) fn computed<T: Serialize, S: Serializer>(
    result: &Computed<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reason<'a> {
        not_computed: &'a NotComputed,
    }
    match result {
        Ok(value) => value.serialize(serializer),
        Err(not_computed) => Reason { not_computed }.serialize(serializer),
    }
}

/// A result together with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(bound(serialize = "T: Serialize"))]
pub struct Outcome<T> {
    /// One entry a group.
    pub samples: Vec<Sample>,
    /// The result, or why there is none.
    #[serde(serialize_with = "computed")]
    pub result: Computed<T>,
}

impl<T> Outcome<T> {
    /// Values used, over all groups.
    pub fn n(&self) -> usize {
        self.samples.iter().map(|s| s.n).sum()
    }

    /// Values missing, over all groups.
    pub fn missing(&self) -> usize {
        self.samples.iter().map(|s| s.missing).sum()
    }
}

impl Outcome<Test> {
    /// The p value, where there is one.
    pub fn p(&self) -> Option<f64> {
        self.result.as_ref().ok().map(|test| test.p)
    }
}

/// A test of a hypothesis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Test {
    /// The test's name.
    pub name: &'static str,
    /// The statistic's usual letter.
    pub symbol: &'static str,
    /// The statistic; none for Fisher's exact test.
    pub statistic: Option<f64>,
    /// Degrees of freedom, in the usual order; empty where the distribution has none.
    pub freedom: Vec<f64>,
    /// Two-sided p value.
    pub p: f64,
    /// The distribution behind p, with the corrections that were made.
    pub method: &'static str,
    /// How large the effect is.
    pub effects: Vec<Effect>,
    /// What a reader should know: zeros left out, expected counts that are small.
    pub notes: Vec<String>,
}

impl Test {
    /// Refuses what left the range of numbers.
    pub(super) fn checked(self) -> Computed<Self> {
        let effects = self
            .effects
            .iter()
            .flat_map(|e| [Some(e.value), e.interval.map(|i| i.low), e.interval.map(|i| i.high)]);
        let mut numbers = effects.flatten().chain(self.statistic).chain([self.p]);
        if numbers.all(f64::is_finite) { Ok(self) } else { Err(NotComputed::Overflow) }
    }
}

/// The size of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Effect {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Its confidence interval, where one is made.
    pub interval: Option<Interval>,
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of repetitions that it would cover.
    pub level: Level,
}

impl Interval {
    pub(super) fn around(middle: f64, half: f64, level: Level) -> Self {
        Self { low: middle - half, high: middle + half, level }
    }
}

/// A level of confidence, above 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Level(f64);

impl Level {
    /// 95 %.
    pub const P95: Self = Self(0.95);

    /// A level; nothing unless above 0 and below 1.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// The level as a share.
    pub fn share(self) -> f64 {
        self.0
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::P95
    }
}

/// A group without what is missing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clean {
    pub sample: Sample,
    pub values: Vec<f64>,
}

impl Clean {
    pub(super) fn of(group: &Group) -> Self {
        let known = group.values.iter().flatten().copied().filter(|v| !v.is_nan());
        let values: Vec<f64> = known.clone().filter(|v| v.is_finite()).collect();
        let known = known.count();
        let sample = Sample {
            name: group.name.to_owned(),
            n: values.len(),
            missing: group.values.len() - known,
            infinite: known - values.len(),
        };
        Self { sample, values }
    }

    /// The values, if they are all finite and at least so many.
    pub(super) fn at_least(&self, needs: usize) -> Computed<&[f64]> {
        let Sample { name, n, infinite, .. } = &self.sample;
        if *infinite > 0 {
            return Err(NotComputed::Infinite { of: name.clone(), n: *infinite });
        }
        if *n < needs {
            return Err(NotComputed::TooFew { of: name.clone(), n: *n, needs });
        }
        Ok(&self.values)
    }
}

/// Pairs without those in which a value is missing: first and second values of the rest.
pub(super) struct Pairs {
    pub sample: Sample,
    pub first: Vec<f64>,
    pub second: Vec<f64>,
    unpaired: Option<NotComputed>,
}

impl Pairs {
    pub(super) fn of(first: &[Option<f64>], second: &[Option<f64>]) -> Self {
        let unpaired = (first.len() != second.len())
            .then_some(NotComputed::Unpaired { first: first.len(), second: second.len() });
        let known: Vec<(f64, f64)> = first
            .iter()
            .zip(second)
            .filter_map(|(a, b)| a.zip(*b))
            .filter(|(a, b)| !a.is_nan() && !b.is_nan())
            .collect();
        let (first_values, second_values): (Vec<f64>, Vec<f64>) =
            known.iter().filter(|(a, b)| a.is_finite() && b.is_finite()).copied().unzip();
        let sample = Sample {
            name: "pairs".to_owned(),
            n: first_values.len(),
            missing: first.len().max(second.len()) - known.len(),
            infinite: known.len() - first_values.len(),
        };
        Self { sample, first: first_values, second: second_values, unpaired }
    }

    /// Refuses fewer pairs than it takes, infinite values, and lists of different lengths.
    pub(super) fn at_least(&self, needs: usize) -> Computed<()> {
        if let Some(reason) = &self.unpaired {
            return Err(reason.clone());
        }
        let Sample { n, infinite, .. } = self.sample;
        if infinite > 0 {
            return Err(NotComputed::Infinite { of: "the pairs".to_owned(), n: infinite });
        }
        if n < needs {
            return Err(NotComputed::TooFew { of: String::new(), n, needs });
        }
        Ok(())
    }

    pub(super) fn differences(&self) -> Vec<f64> {
        self.first.iter().zip(&self.second).map(|(a, b)| a - b).collect()
    }

    /// The differences of at least so many pairs; refuses those that do not vary.
    pub(super) fn varying_differences(&self, needs: usize) -> Computed<Vec<f64>> {
        self.at_least(needs)?;
        let differences = self.differences();
        if constant(&differences, largest(&self.first).max(largest(&self.second))) {
            return Err(NotComputed::no_variance("the differences"));
        }
        Ok(differences)
    }
}

/// The largest magnitude; 0 without values.
pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, v| v.abs().max(most))
}

/// Whether values that were made from numbers of this magnitude differ by no more than their rounding.
pub(super) fn constant(values: &[f64], scale: f64) -> bool {
    let range = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    range.1 - range.0 <= 8.0 * f64::EPSILON * scale
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn reasons_read_as_sentences() {
        let said = |reason: NotComputed| reason.to_string();
        let few = |of: &str| NotComputed::TooFew { of: of.to_owned(), n: 2, needs: 3 };
        assert_eq!(said(few("")), "n = 2, needs 3");
        assert_eq!(said(few("external")), "n = 2 in external, needs 3");
        assert_eq!(said(NotComputed::no_variance("age")), "no variance in age");
        assert_eq!(
            said(NotComputed::TooFewGroups { of: "groups", n: 1, needs: 2 }),
            "groups: 1, needs 2"
        );
        assert_eq!(
            said(NotComputed::Unpaired { first: 3, second: 2 }),
            "3 values cannot be paired with 2"
        );
    }

    #[test]
    fn missing_and_infinite_values_are_counted() {
        let values = [Some(1.0), None, Some(f64::NAN), Some(f64::INFINITY), Some(2.0)];
        let clean = Clean::of(&Group::new("a", &values));
        let wanted = Sample { name: "a".to_owned(), n: 2, missing: 2, infinite: 1 };
        assert_eq!((clean.sample.clone(), &clean.values[..]), (wanted, &[1.0, 2.0][..]));
        assert_eq!(clean.at_least(1), Err(NotComputed::Infinite { of: "a".to_owned(), n: 1 }));
        let pairs = Pairs::of(&values, &[Some(5.0); 5]);
        assert_eq!((pairs.sample.n, pairs.sample.missing, pairs.sample.infinite), (2, 2, 1));
        let pairs = Pairs::of(&values[..2], &[Some(5.0)]);
        assert_eq!(pairs.at_least(1), Err(NotComputed::Unpaired { first: 2, second: 1 }));
        assert_eq!(pairs.sample.missing, 1);
    }

    #[test]
    fn a_result_is_written_as_itself_or_as_its_reason() {
        let outcome = |result| Outcome { samples: Vec::new(), result };
        let text = |o: &Outcome<f64>| serde_json::to_string(o).unwrap();
        assert_eq!(text(&outcome(Ok(0.5))), r#"{"samples":[],"result":0.5}"#);
        let reason = NotComputed::TooFew { of: String::new(), n: 2, needs: 3 };
        assert_eq!(
            text(&outcome(Err(reason))),
            r#"{"samples":[],"result":{"not_computed":"n = 2, needs 3"}}"#
        );
    }

    #[test]
    fn levels_are_shares() {
        assert_eq!(Level::new(0.95), Some(Level::P95));
        assert!([0.0, 1.0, f64::NAN, 95.0].iter().all(|&v| Level::new(v).is_none()));
    }
}
