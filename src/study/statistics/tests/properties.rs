//! What must hold whatever the values.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::group;
use crate::imaging::random::{keyed, normal};

fn some(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().map(|v| Some(*v)).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9)
}

fn statistic(test: &Outcome<Test>) -> f64 {
    test.result.as_ref().unwrap().statistic.unwrap()
}

/// Values with ties now and then.
fn values(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    vec(prop_oneof![-100.0..100.0, (-5_i32..5).prop_map(f64::from)], n)
}

/// Missing, any number at all, a small one, or one that occurs again.
fn anything() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        proptest::num::f64::ANY.prop_map(Some),
        proptest::num::f64::NORMAL.prop_map(Some),
        (-1.0..1.0).prop_map(Some),
        Just(Some(1.0)),
    ]
}

proptest! {
    #[test]
    fn with_two_groups_f_is_the_square_of_t(a in values(3..20), b in values(3..20)) {
        let (a, b) = (some(&a), some(&b));
        let (f, t) = (anova(&[group(&a), group(&b)]), student_t(&group(&a), &group(&b), Level::P95));
        if let (Some(p), Some(q)) = (f.p(), t.p()) {
            prop_assert!(close(statistic(&f), statistic(&t).powi(2)) && close(p, q), "{p} {q}");
        }
    }

    #[test]
    fn groups_may_change_places(a in values(3..60), b in values(3..60)) {
        let (a, b) = (some(&a), some(&b));
        let (a, b) = (group(&a), group(&b));
        for (one, other) in [
            (welch_t(&a, &b, Level::P95), welch_t(&b, &a, Level::P95)),
            (mann_whitney(&a, &b), mann_whitney(&b, &a)),
            (kruskal_wallis(&[a, b]), kruskal_wallis(&[b, a])),
            (anova(&[a, b]), anova(&[b, a])),
        ] {
            if let (Some(p), Some(q)) = (one.p(), other.p()) {
                prop_assert!(close(p, q) && (0.0..=1.0).contains(&p), "{p} {q}");
            }
        }
    }

    #[test]
    fn missing_values_change_nothing_but_the_count(a in values(3..20), b in values(3..20)) {
        let (mut with, plain, b) = (some(&a), some(&a), some(&b));
        with.insert(1, None);
        with.push(Some(f64::NAN));
        let (one, other) = (welch_t(&group(&with), &group(&b), Level::P95), welch_t(&group(&plain), &group(&b), Level::P95));
        prop_assert_eq!(one.result, other.result);
        prop_assert_eq!((one.samples[0].missing, one.samples[0].n), (2, a.len()));
        prop_assert_eq!(describe(&with).sd, describe(&plain).sd);
    }

    #[test]
    fn nothing_is_ever_nan(a in vec(anything(), 0..6), b in vec(anything(), 0..6)) {
        let groups = [group(&a), group(&b)];
        let written = serde_json::to_string(&(
            describe(&a),
            [anova(&groups), kruskal_wallis(&groups), mann_whitney(&groups[0], &groups[1])],
            [student_t(&groups[0], &groups[1], Level::P95), welch_t(&groups[0], &groups[1], Level::P95)],
            [paired_t(&a, &b, Level::P95), wilcoxon(&a, &b)],
            (bland_altman(&a, &b, Level::P95, Level::P95), regress(&a, &b, Level::P95)),
            (difference(&groups[0], &groups[1]), mean_interval(&a, Level::P95)),
        )).unwrap();
        // Infinity and NaN are null in JSON; so is an effect without an interval.
        let nulls = written.replace("\"interval\":null", "");
        prop_assert!(!nulls.contains("null"), "{nulls}");
    }

    #[test]
    fn a_paired_test_is_one_of_its_differences(a in values(3..20)) {
        let zeros = vec![Some(0.0); a.len()];
        let doubled: Vec<f64> = a.iter().map(|v| 2.0 * v).collect();
        let (one, other) = (paired_t(&some(&doubled), &some(&a), Level::P95), paired_t(&some(&a), &zeros, Level::P95));
        prop_assert_eq!(one.result, other.result);
    }

    #[test]
    fn holm_keeps_the_order_and_never_lowers(p in vec(0.0..1.0, 1..30)) {
        let adjusted: Vec<f64> = holm(&some(&p)).adjusted.into_iter().flatten().collect();
        for (i, (a, p_i)) in adjusted.iter().zip(&p).enumerate() {
            prop_assert!(a >= p_i && *a <= 1.0);
            prop_assert!((0..p.len()).all(|j| p[j] < *p_i || adjusted[j] >= *a), "{i}");
        }
    }

    #[test]
    fn fisher_of_a_wide_table_is_that_of_it_on_its_side(a in vec(0_u64..7, 3), b in vec(0_u64..7, 3), c in vec(0_u64..7, 3)) {
        let upright = fisher(&Table::from_counts(&[&a, &b]));
        let side: Vec<Vec<u64>> = a.iter().zip(&b).map(|(x, y)| vec![*y, *x]).collect();
        let on_side = fisher(&Table::from_counts(&side.iter().map(|r| &r[..]).collect::<Vec<_>>()));
        prop_assert_eq!(upright.p().is_some(), on_side.p().is_some());
        if let (Some(p), Some(q)) = (upright.p(), on_side.p()) {
            prop_assert!(close(p, q) && p > 0.0 && p <= 1.0, "{p} {q}");
        }
        let square = fisher(&Table::from_counts(&[&a, &b, &c]));
        let turned: Vec<Vec<u64>> = (0..3).map(|i| vec![c[i], a[i], b[i]]).collect();
        let turned = fisher(&Table::from_counts(&turned.iter().map(|r| &r[..]).collect::<Vec<_>>()));
        prop_assert!(close(square.p().unwrap_or(2.0), turned.p().unwrap_or(2.0)));
    }
}

#[test]
fn large_means_do_not_hide_small_differences() {
    let shifted = |by: f64| {
        let wave = |i: i32, height: f64| Some(by + f64::from(i % 7) / 8.0 + height);
        let of = |height: f64| -> Vec<Option<f64>> { (0..500).map(|i| wave(i, height)).collect() };
        let (a, b) = (of(0.0), of(1.0 / 32.0));
        let found = [
            welch_t(&group(&a), &group(&b), Level::P95),
            anova(&[group(&a), group(&b)]),
            paired_t(&a, &b[1..].iter().chain(&b[..1]).copied().collect::<Vec<_>>(), Level::P95),
        ];
        let mut numbers: Vec<f64> = found.iter().map(|t| t.p().unwrap()).collect();
        numbers.push(difference(&group(&a), &group(&b)).result.unwrap());
        numbers.push(describe(&a).sd.unwrap());
        numbers
    };
    for (near, far) in shifted(0.0).into_iter().zip(shifted(f64::from(1 << 24))) {
        assert!(close(near, far), "{near} {far}");
    }
}

#[test]
fn a_line_goes_through_its_points() {
    let x: Vec<f64> = (0..10).map(f64::from).collect();
    let y: Vec<f64> = x.iter().map(|x| 3.0 - 0.5 * x).collect();
    let line = regress(&some(&x), &some(&y), Level::P95).result.unwrap();
    assert!(close(line.slope.value, -0.5) && close(line.intercept.value, 3.0));
    assert!(close(line.r, -1.0) && close(line.at(20.0).0, -7.0));
    assert_eq!(line.slope.p, Err(NotComputed::NoVariance { of: "the residuals".to_owned() }));
}

#[test]
fn the_bootstrap_replays_and_covers() {
    let mut rng = keyed(5, &["test"]);
    let draws: Vec<f64> = (0..80).map(|_| normal(&mut rng)).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let ends = |options: &Bootstrap| {
        let found = bootstrap(&some(&draws), mean, Level::P95, options).result.unwrap();
        assert_eq!(found.distribution.len(), options.resamples);
        (found.interval.low, found.interval.high)
    };
    let usual = Bootstrap { seed: 3, ..Bootstrap::default() };
    assert_eq!(ends(&usual), ends(&usual));
    let theory = mean_interval(&some(&draws), Level::P95).result.unwrap();
    for options in [
        Bootstrap { seed: 4, ..usual },
        Bootstrap { labels: &["dice"], ..usual },
        Bootstrap { method: Method::Percentile, ..usual },
    ] {
        let (low, high) = ends(&options);
        assert_ne!((low, high), ends(&usual));
        assert!((low - theory.low).abs() < 0.05 && (high - theory.high).abs() < 0.05);
    }
    // Cases as a whole are drawn as values are.
    let cases = bootstrap_cases(&draws, mean, Level::P95, &usual).result.unwrap();
    assert_eq!((cases.interval.low, cases.interval.high), ends(&usual));
}

// Recorded once: benches/peers/stats.py shows that SciPy makes the same of the same resamples.
#[test]
fn the_bootstrap_never_changes() {
    let values: Vec<f64> = (0..30).map(|i| f64::from(i * i % 17)).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let options = Bootstrap { seed: 11, resamples: 500, ..Bootstrap::default() };
    let found = bootstrap(&some(&values), mean, Level::P95, &options).result.unwrap();
    let ends = (found.interval.low, found.interval.high);
    assert!(close(ends.0, 35.0 / 6.0) && close(ends.1, 29.0 / 3.0), "{ends:?}");
}
