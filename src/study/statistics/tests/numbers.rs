//! Literal numbers of SciPy 1.17.1 and statsmodels 0.15.0, as `python benches/peers/stats.py` prints them.
#![expect(clippy::unreadable_literal, reason = "the numbers stand as they are printed")]

use serde::Serialize;
use serde_json::{Value, json};

use super::super::*;
use super::{group, level};

const A: [Option<f64>; 9] = [
    Some(1.2),
    Some(0.4),
    Some(14.8),
    None,
    Some(3.3),
    Some(7.9),
    Some(2.2),
    Some(30.5),
    Some(0.9),
];
const B: [Option<f64>; 9] = [
    Some(2.1),
    Some(5.6),
    Some(0.7),
    Some(18.2),
    Some(9.4),
    None,
    Some(44.0),
    Some(6.3),
    Some(3.7),
];
const C: [Option<f64>; 9] = [
    Some(12.5),
    Some(3.8),
    Some(21.4),
    Some(8.8),
    Some(16.1),
    Some(2.9),
    Some(51.3),
    None,
    Some(10.2),
];
const D: [Option<f64>; 10] = [
    Some(4.0),
    Some(2.0),
    Some(9.0),
    Some(4.0),
    None,
    Some(1.0),
    Some(17.0),
    Some(4.0),
    Some(6.0),
    Some(2.0),
];
const E: [Option<f64>; 10] = [
    Some(3.0),
    Some(2.0),
    Some(11.0),
    Some(6.0),
    Some(5.0),
    Some(1.0),
    None,
    Some(7.0),
    Some(12.0),
    Some(4.0),
];

// Job satisfaction by income (Agresti 2002, Categorical Data Analysis, p. 57); R's fisher.test gives 0.7827.
const JOBS: [&[u64]; 4] = [&[1, 2, 1, 0], &[3, 3, 6, 1], &[10, 10, 14, 9], &[6, 7, 12, 11]];

type Names<const N: usize> = [Option<&'static str>; N];
const VENDORS: (Names<10>, Names<8>) = (
    [
        Some("a"),
        Some("a"),
        Some("b"),
        Some("b"),
        Some("b"),
        Some("c"),
        Some("a"),
        Some("a"),
        Some("b"),
        None,
    ],
    [Some("a"), Some("b"), Some("c"), Some("c"), Some("b"), Some("c"), Some("c"), Some("a")],
);

/// Compares numbers by their paths in what is written, relatively.
fn agree(found: &impl Serialize, stored: &[(&str, f64)]) {
    let found = json!(found);
    for &(path, wanted) in stored {
        let number = path.split('.').fold(&found, |value, key| match key.parse::<usize>() {
            Ok(i) => &value[i],
            Err(_) => &value[key],
        });
        let number = number.as_f64().unwrap_or(f64::NAN);
        assert!(
            (number - wanted).abs() <= 1e-9 * wanted.abs(),
            "{path}: {number}, not {wanted}: {found}"
        );
    }
}

#[test]
fn descriptions() {
    agree(
        &describe(&A),
        &[
            ("n", 8.0),
            ("missing", 1.0),
            ("mean", 7.65),
            ("sd", 10.431134714333405),
            ("se", 3.6879630459877752),
            ("median", 2.75),
            ("q1", 1.125),
            ("q3", 9.625),
            ("min", 0.4),
            ("max", 30.5),
        ],
    );
    agree(
        &describe_by(&A, Quantiles::MedianUnbiased),
        &[
            ("n", 8.0),
            ("missing", 1.0),
            ("mean", 7.65),
            ("sd", 10.431134714333405),
            ("se", 3.6879630459877752),
            ("median", 2.75),
            ("q1", 1.025),
            ("q3", 11.924999999999999),
            ("min", 0.4),
            ("max", 30.5),
        ],
    );
    agree(
        &describe_by(&A, Quantiles::Weibull),
        &[
            ("n", 8.0),
            ("missing", 1.0),
            ("mean", 7.65),
            ("sd", 10.431134714333405),
            ("se", 3.6879630459877752),
            ("median", 2.75),
            ("q1", 0.975),
            ("q3", 13.075000000000001),
            ("min", 0.4),
            ("max", 30.5),
        ],
    );
    agree(
        &mean_interval(&A, Level::P95),
        &[("result.low", -1.0706468575206864), ("result.high", 16.370646857520686)],
    );
}

#[test]
fn tests_of_groups() {
    agree(
        &anova(&[group(&A), group(&B), group(&C)]),
        &[
            ("result.statistic", 0.7346307535403188),
            ("result.p", 0.49160943297785337),
            ("result.effects.0.value", 0.0653898441040277),
            ("result.freedom.0", 2.0),
            ("result.freedom.1", 21.0),
        ],
    );
    agree(
        &kruskal_wallis(&[group(&A), group(&B), group(&C)]),
        &[("result.statistic", 3.5450000000000017), ("result.p", 0.16990768820063748)],
    );
    agree(
        &kruskal_wallis(&[group(&D), group(&E)]),
        &[("result.statistic", 0.1982045004080665), ("result.p", 0.6561740415472224)],
    );
}

#[test]
fn tests_of_two_groups() {
    agree(
        &student_t(&group(&A), &group(&C), Level::P95),
        &[
            ("result.statistic", -1.2422424994165568),
            ("result.p", 0.2345540208367076),
            ("result.freedom.0", 14.0),
            ("result.effects.0.value", -8.225),
            ("result.effects.0.interval.low", -22.425826743900096),
            ("result.effects.0.interval.high", 5.975826743900091),
        ],
    );
    agree(
        &welch_t(&group(&A), &group(&C), level(0.9)),
        &[
            ("result.statistic", -1.2422424994165568),
            ("result.p", 0.23742630547196633),
            ("result.freedom.0", 12.237572118937662),
            ("result.effects.0.value", -8.225),
            ("result.effects.0.interval.low", -20.006628487925013),
            ("result.effects.0.interval.high", 3.5566284879250123),
        ],
    );
    agree(
        &mann_whitney(&group(&A), &group(&C)),
        &[
            ("result.statistic", 15.0),
            ("result.p", 0.08298368298368297),
            ("result.effects.0.value", 0.234375),
        ],
    );
    agree(
        &mann_whitney(&group(&D), &group(&E)),
        &[
            ("result.statistic", 35.5),
            ("result.p", 0.6886546505877995),
            ("result.effects.0.value", 0.4382716049382716),
        ],
    );
    agree(&difference(&group(&A), &group(&C)), &[("result", -0.6211212497082784)]);
}

#[test]
fn tests_of_pairs() {
    agree(
        &paired_t(&A, &C, Level::P95),
        &[
            ("result.statistic", -1.92269773014746),
            ("result.p", 0.10288058661923175),
            ("result.freedom.0", 6.0),
            ("result.effects.0.interval.low", -28.408063789603798),
            ("result.effects.0.interval.high", 3.4080637896038013),
        ],
    );
    agree(&wilcoxon(&A, &C), &[("result.statistic", 2.0), ("result.p", 0.046875)]);
    agree(&wilcoxon(&D, &E), &[("result.statistic", 1.0), ("result.p", 0.05639170948707064)]);
    agree(
        &bland_altman(&A, &C, Level::P95, Level::P95),
        &[
            ("result.bias", -12.499999999999998),
            ("result.sd", 17.200775176330474),
            ("result.bias_interval.low", -28.408063789603798),
            ("result.bias_interval.high", 3.4080637896038013),
            ("result.lower", -46.212899851778324),
            ("result.lower_interval.low", -74.85117482175258),
            ("result.lower_interval.high", -17.574624881804066),
            ("result.upper", 21.212899851778324),
            ("result.upper_interval.low", -7.425375118195934),
            ("result.upper_interval.high", 49.85117482175258),
        ],
    );
}

#[test]
fn lines() {
    let found = regress(&A, &C, Level::P95);
    let at = found.result.as_ref().map(|line| line.at(10.0)).ok();
    let mut found: Value = json!(found);
    found["at"] = json!(at);
    agree(
        &found,
        &[
            ("result.r", 0.024886865458547347),
            ("result.r_squared", 0.000619356072351751),
            ("result.residual_sd", 18.08366797776286),
            ("result.freedom", 5.0),
            ("at.0", 17.325758678029516),
            ("at.1.low", -9.53742866514019),
            ("at.1.high", 44.18894602119922),
            ("result.intercept.value", 16.541964595025288),
            ("result.intercept.se", 9.211426302798653),
            ("result.intercept.t", 1.7958092537742434),
            ("result.intercept.p", 0.13247039800991364),
            ("result.intercept.interval.low", -7.1367605392515046),
            ("result.intercept.interval.high", 40.22068972930208),
            ("result.slope.value", 0.07837940830042267),
            ("result.slope.se", 1.408031093244095),
            ("result.slope.t", 0.05566596410867391),
            ("result.slope.p", 0.9577638274556084),
            ("result.slope.interval.low", -3.5410797440039894),
            ("result.slope.interval.high", 3.697838560604835),
        ],
    );
}

#[test]
fn tables() {
    agree(
        &chi_square(&Table::from_counts(&[&[30, 14, 6], &[22, 25, 11]]), Continuity::None),
        &[
            ("result.statistic", 5.240081135902639),
            ("result.p", 0.07279990942434764),
            ("result.freedom.0", 2.0),
            ("result.effects.0.value", 0.220270900885424),
        ],
    );
    agree(
        &chi_square(&Table::from_counts(&[&[12, 5], &[7, 14]]), Continuity::Yates),
        &[
            ("result.statistic", 3.831932773109244),
            ("result.p", 0.05028491606049412),
            ("result.freedom.0", 1.0),
            ("result.effects.0.value", 0.3704792868174742),
        ],
    );
    agree(
        &fisher(&Table::from_counts(&[&[8, 2], &[1, 5]])),
        &[("result.p", 0.034965034965034975), ("result.effects.0.value", 20.0)],
    );
    agree(
        &fisher(&Table::from_counts(&[&[5, 1, 0], &[2, 3, 4]])),
        &[("result.p", 0.06013986013986014)],
    );
    agree(&fisher(&Table::from_counts(&JOBS)), &[("result.p", 0.7826849389663948)]);
    agree(
        &difference_categorical(
            &Categories::new("a", &VENDORS.0),
            &Categories::new("b", &VENDORS.1),
        ),
        &[("result", 0.9312661473328351)],
    );
}

#[test]
fn corrections() {
    agree(
        &holm(&[Some(0.01), Some(0.04), None, Some(0.03), Some(0.005), Some(0.9), Some(0.03)]),
        &[
            ("adjusted.0", 0.05),
            ("adjusted.1", 0.12),
            ("adjusted.3", 0.12),
            ("adjusted.4", 0.03),
            ("adjusted.5", 0.9),
            ("adjusted.6", 0.12),
        ],
    );
}
