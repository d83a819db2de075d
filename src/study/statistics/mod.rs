//! Statistics of studies: pure functions from values to small results that serialise.
//!
//! | file | what is in it |
//! |---|---|
//! | [`outcome`] | what goes in ([`Group`], [`Categories`]) and what comes out ([`Outcome`], [`Test`], [`NotComputed`]) |
//! | [`descriptive`] | mean, SD, SE, median, quartiles by a named definition |
//! | [`groups`] | one-way ANOVA, Kruskal–Wallis, Student's and Welch's t, Mann–Whitney U |
//! | [`paired`] | paired t, Wilcoxon's signed ranks |
//! | [`categorical`], [`mod@fisher`] | chi-square and Fisher's exact test of contingency tables |
//! | [`regression`], [`agreement`] | a straight line by least squares; Bland–Altman |
//! | [`mod@bootstrap`] | percentile and BCa intervals from a keyed generator |
//! | [`balance`], [`correction`] | standardised mean differences; Holm's correction |
//!
//! Values are `Option<f64>`: `None` and NaN are missing. They are left out, and every result says how many. A test of
//! pairs leaves out the whole pair. What cannot be computed is [`NotComputed`] with its reason ("n = 2, needs 3"), never NaN:
//! too few values, no variance, or infinite values, which have no mean and are not left out either. A spread that is
//! below the rounding of the values themselves counts as none. All p values are two-sided.
//!
//! The distributions are statrs's, with an incomplete beta function of our own (`distributions`) where statrs loses
//! digits at registry size. `benches/peers/stats.py` makes the numbers stored in the tests with SciPy and statsmodels, and
//! compares again on other data.

pub mod agreement;
pub mod balance;
pub mod bootstrap;
pub mod categorical;
pub mod correction;
pub mod descriptive;
mod distributions;
pub mod fisher;
pub mod groups;
pub mod outcome;
pub mod paired;
mod ranks;
pub mod regression;

pub use self::agreement::{BlandAltman, bland_altman};
pub use self::balance::{difference, difference_categorical};
pub use self::bootstrap::{Bootstrap, Estimate, Method, bootstrap, bootstrap_cases};
pub use self::categorical::{Continuity, Table, chi_square};
pub use self::correction::{Holm, holm};
pub use self::descriptive::{
    Description, Quantiles, describe, describe_by, mean_interval, quantile,
};
pub use self::fisher::fisher;
pub use self::groups::{anova, kruskal_wallis, mann_whitney, student_t, welch_t};
pub use self::outcome::{
    Categories, Computed, Effect, Group, Interval, Level, NotComputed, Outcome, Sample, Test,
};
pub use self::paired::{paired_t, wilcoxon};
pub use self::regression::{Coefficient, Line, regress};

#[cfg(test)]
mod tests;
