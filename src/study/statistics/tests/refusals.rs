//! What cannot be computed says why.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::*;
use super::group;

const GOOD: [Option<f64>; 4] = [Some(1.0), Some(2.0), Some(4.0), Some(3.0)];
const ONE: [Option<f64>; 3] = [None, Some(2.0), None];
const SAME: [Option<f64>; 4] = [Some(0.1); 4];
const ENDLESS: [Option<f64>; 4] = [Some(1.0), Some(f64::INFINITY), Some(2.0), Some(3.0)];

fn reason<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    outcome.result.unwrap_err().to_string()
}

#[test]
fn a_description_says_what_it_lacks() {
    let one = describe(&ONE);
    assert_eq!(
        (one.n, one.missing, one.mean.clone(), one.median.clone()),
        (1, 2, Ok(2.0), Ok(2.0))
    );
    assert_eq!(one.sd.unwrap_err().to_string(), "n = 1, needs 2");
    let none = describe(&[None]);
    assert_eq!(none.iqr().unwrap_err().to_string(), "n = 0, needs 1");
    let endless = describe(&ENDLESS);
    assert_eq!((endless.n, endless.infinite), (3, 1));
    assert_eq!(endless.max.unwrap_err().to_string(), "infinite values: 1");
    assert_eq!(describe(&SAME).sd, Ok(0.0));
    let huge = describe(&[Some(1e308), Some(1e308)]);
    assert_eq!((huge.mean, huge.median), (Err(NotComputed::Overflow), Ok(1e308)));
}

#[test]
fn groups_that_are_too_small_are_named() {
    let small = Group::new("external", &ONE);
    let wanted = "n = 1 in external, needs 2";
    for test in [
        anova(&[group(&GOOD), small]),
        kruskal_wallis(&[group(&GOOD), small]),
        student_t(&group(&GOOD), &small, Level::P95),
        welch_t(&small, &group(&GOOD), Level::P95),
        mann_whitney(&small, &group(&GOOD)),
    ] {
        assert_eq!((test.n(), test.missing(), test.p()), (5, 2, None));
        assert_eq!(reason(test), wanted);
    }
    assert_eq!(reason(difference(&small, &group(&GOOD))), wanted);
    assert_eq!(reason(anova(&[group(&GOOD)])), "groups: 1, needs 2");
    assert_eq!(reason(mean_interval(&ONE, Level::P95)), "n = 1, needs 2");
}

#[test]
fn what_does_not_vary_is_refused() {
    let (same, other) = (group(&SAME), group(&[Some(0.7); 5]));
    for test in [
        anova(&[same, other]),
        student_t(&same, &other, Level::P95),
        welch_t(&same, &other, Level::P95),
    ] {
        assert_eq!(reason(test), "no variance in any group");
    }
    assert_eq!(reason(kruskal_wallis(&[same, same])), "no variance in the groups");
    assert_eq!(reason(mann_whitney(&same, &same)), "no variance in the groups");
    // Tenths differ by their rounding only.
    let tenths = [Some(0.3), Some(0.4), Some(0.5), Some(1.1)];
    let less = [Some(0.1), Some(0.2), Some(0.3), Some(0.9)];
    assert_eq!(reason(paired_t(&tenths, &less, Level::P95)), "no variance in the differences");
    assert_eq!(reason(wilcoxon(&GOOD, &GOOD)), "no variance in the differences");
    assert_eq!(
        reason(bland_altman(&tenths, &less, Level::P95, Level::P95)),
        "no variance in the differences"
    );
    assert_eq!(reason(regress(&SAME, &GOOD, Level::P95)), "no variance in x");
    assert_eq!(reason(regress(&GOOD, &SAME, Level::P95)), "no variance in y");
}

#[test]
fn pairs_must_be_pairs() {
    assert_eq!(reason(wilcoxon(&GOOD, &ONE)), "4 values cannot be paired with 3");
    let test = paired_t(&GOOD, &[None, None, Some(1.0), None], Level::P95);
    assert_eq!((test.n(), test.missing()), (1, 3));
    assert_eq!(reason(test), "n = 1, needs 2");
    let two = [Some(1.0), Some(2.5), None, None];
    assert_eq!(reason(bland_altman(&GOOD, &two, Level::P95, Level::P95)), "n = 2, needs 3");
    assert_eq!(reason(regress(&GOOD, &two, Level::P95)), "n = 2, needs 3");
    assert_eq!(reason(wilcoxon(&GOOD, &ENDLESS)), "infinite values: 1 in the pairs");
}

#[test]
fn tables_without_content_are_refused() {
    let narrow = Table::from_counts(&[&[3, 0], &[4, 0]]);
    assert_eq!(reason(chi_square(&narrow, Continuity::None)), "categories: 1, needs 2");
    assert_eq!(reason(fisher(&narrow)), "categories: 1, needs 2");
    let flat = Table::from_counts(&[&[3, 1], &[0, 0]]);
    assert_eq!(reason(chi_square(&flat, Continuity::None)), "groups with values: 1, needs 2");
    assert_eq!(reason(fisher(&Table::from_counts(&[]))), "groups with values: 0, needs 2");
    let study = Table::from_counts(&[
        &[2800, 900, 1500, 700],
        &[900, 320, 410, 160],
        &[700, 650, 410, 290],
    ]);
    assert_eq!(reason(fisher(&study)), "the table is too large for an exact test");
    let notes = chi_square(&Table::from_counts(&[&[3, 0, 2], &[4, 0, 9]]), Continuity::Yates)
        .result
        .unwrap()
        .notes;
    assert_eq!(notes, ["empty columns left out: 1", "expected counts below 5: 2 of 4"]);
}

#[test]
fn categories_count_what_is_missing() {
    let first = [Some("m"), None, Some("f"), Some("m")];
    let second = [Some("f"), Some("f"), None, None];
    let groups = [Categories::new("internal", &first), Categories::new("external", &second)];
    let table = Table::of_groups(&groups);
    assert_eq!(
        (table.columns, table.counts),
        (vec!["f".into(), "m".into()], vec![vec![1, 2], vec![2, 0]])
    );
    assert_eq!(table.rows.iter().map(|r| (r.n, r.missing)).collect::<Vec<_>>(), [(3, 1), (2, 2)]);
    let none = Categories::new("empty", &[None]);
    assert_eq!(reason(difference_categorical(&groups[0], &none)), "n = 0 in empty, needs 1");
    let men = Categories::new("men", &first[3..]);
    assert_eq!(
        reason(difference_categorical(&men, &groups[1])),
        "no variance in the categories that each group has"
    );
    assert_eq!(difference_categorical(&men, &men).result, Ok(0.0));
}

#[test]
fn a_bootstrap_needs_something_to_draw() {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let options = Bootstrap::default();
    let draw = |values: &[Option<f64>], options: &Bootstrap| {
        reason(bootstrap(values, mean, Level::P95, options))
    };
    assert_eq!(draw(&ONE, &options), "n = 1, needs 2");
    assert_eq!(draw(&SAME, &options), "no variance in the resampled estimates");
    assert_eq!(
        draw(&GOOD, &Bootstrap { resamples: 9, ..options }),
        "n = 9 in resamples, needs 100"
    );
    let undefined =
        bootstrap(&GOOD, |v| if v[0] < 2.0 { f64::NAN } else { v[0] }, Level::P95, &options);
    assert!(reason(undefined).ends_with(" in resampled estimates"));
}

#[test]
fn p_values_that_are_none_are_counted() {
    let found = holm(&[Some(0.5), Some(f64::NAN), Some(1.5), None]);
    assert_eq!(
        (found.adjusted, found.tests, found.missing),
        (vec![Some(0.5), None, None, None], 1, 3)
    );
}
