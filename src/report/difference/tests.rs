//! Two small nights, compared and drawn.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::compare::{Groups, compare};
use super::night::{Case, Night, Scored};
use super::{DifferenceJob, LineageFacts, NightFacts, Shown, Side, page};
use crate::report::data::{FailedCase, Picture};
use crate::report::exhibits::files::Written;
use crate::report::html;

fn job(params: &str) -> DifferenceJob {
    DifferenceJob {
        step: "scored".to_owned(),
        steps: Vec::new(),
        sources: vec!["external".to_owned()],
        params: serde_json::from_str(params).unwrap(),
        lineage: LineageFacts { pipeline: "nightly".to_owned(), ..LineageFacts::default() },
    }
}

fn case(image: &str, sidecar: &str) -> Case {
    let own = |text: &str| Some(text.to_owned());
    Case {
        centre: own("a"),
        image: own(image),
        truth: own("t"),
        others: sidecar.to_owned(),
        excluded: None,
    }
}

fn scored(dice: f64, model: &str) -> Scored {
    Scored {
        values: [Some(dice), Some(dice), Some(dice), Some(10.0 * dice), Some(1.0)],
        volume_truth_ml: Some(10.0),
        fingerprint: format!("{dice} {model}"),
        model_id: Some(model.to_owned()),
        ..Scored::default()
    }
}

/// Twenty cases, all scored by one model.
fn night(model: &str, fall: f64) -> Night {
    let mut night = Night::default();
    for i in 0..20 {
        let id = format!("sub-{i:02}");
        let dice = 0.6 + f64::from(i) * 0.01;
        night.cases.insert(id.clone(), case(&id, "s"));
        night.scored.insert(id.clone(), scored(dice - fall * (1.0 + f64::from(i % 3)), model));
        night.watched.insert(id, vec![Some(10.0 + f64::from(i % 4))]);
    }
    night
}

fn groups(night: &Night) -> Vec<Groups> {
    let ids: Vec<String> = night.scored.keys().cloned().collect();
    let (a, b) = ids.split_at(ids.len().min(12));
    let named = vec![("a".to_owned(), a.to_vec()), ("b".to_owned(), b.to_vec())];
    vec![
        ("centre".to_owned(), Ok(("Centre".to_owned(), named))),
        ("shoe".to_owned(), Err("there is no column shoe".to_owned())),
    ]
}

const PARAMS: &str = r#"{"html": "d.html", "title": "Night", "drift": ["snr"], "resamples": 200}"#;

#[test]
fn equal_nights_have_no_difference() {
    let (before, now) = (night("m", 0.0), night("m", 0.0));
    let found = compare(&job(PARAMS), Some(&before), Some(&before), &now, &groups(&now));
    let counts = found.counts;
    assert_eq!(
        (counts.scored, counts.new + counts.changed + counts.removed + counts.failed),
        (20, 0)
    );
    assert!(found.alarms.is_empty() && !page::is_news(&NightFacts::told(found.clone())));
    assert_eq!(found.shifts[0].groups[0].measures[0].interval, Some([0.0, 0.0]));
    assert!(found.drift[0].smd_now.value.is_some_and(|d| d.abs() < 1e-12));
    assert_eq!(found.shifts[2].not_computed.as_deref(), Some("there is no column shoe"));
}

#[test]
fn each_kind_of_change_is_found_once() {
    let before = night("m", 0.0);
    let mut now = before.clone();
    now.cases.insert("sub-50".to_owned(), case("new", "s"));
    now.cases.insert("sub-00".to_owned(), case("other", "other"));
    now.cases.get_mut("sub-01").unwrap().excluded = Some("its files are gone".to_owned());
    now.cases.remove("sub-02");
    now.cases.remove("sub-03");
    let failure = FailedCase {
        case_id: "sub-03".to_owned(),
        reason: "torn".to_owned(),
        ..FailedCase::default()
    };
    now.failed.insert("sub-03".to_owned(), failure);
    for id in ["sub-01", "sub-02", "sub-03"] {
        now.scored.remove(id);
    }
    now.scored.insert("sub-04".to_owned(), scored(0.2, "m"));
    let found = compare(&job(PARAMS), Some(&before), Some(&before), &now, &[]);
    let ids = |of: &[super::compare::Listed]| -> Vec<String> {
        of.iter().map(|case| format!("{}: {}", case.case_id, case.what)).collect()
    };
    assert_eq!(ids(&found.new), ["sub-50: new"]);
    assert_eq!(ids(&found.changed), ["sub-00: image, sidecar or variables"]);
    assert_eq!(
        ids(&found.removed),
        ["sub-01: its files are gone", "sub-02: no longer in the catalog"]
    );
    assert_eq!(found.failed.len(), 1);
    assert_eq!(
        (found.moved.len(), found.moved[0].why.as_slice()),
        (1, ["parameters".to_owned()].as_slice())
    );
    // 2 of 20 are more than 5 %, 1 of 20 is not.
    let kinds: Vec<&str> = found.alarms.iter().map(|alarm| alarm.kind).collect();
    assert_eq!(kinds, ["removed"], "{:?}", found.alarms);
}

#[test]
fn a_worse_model_is_an_alarm_in_all_cases_and_in_groups_that_are_large_enough() {
    let (before, now) = (night("one", 0.0), night("two", 0.04));
    let found = compare(&job(PARAMS), Some(&before), Some(&before), &now, &groups(&now));
    assert_eq!(found.counts.rescored, 20);
    assert_eq!(found.moved[0].why, ["model"]);
    let texts: Vec<&str> = found.alarms.iter().map(|alarm| alarm.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "b has 8 cases, fewer than 10: {texts:?}");
    assert!(texts[0].starts_with("the mean DSC fell by 0.0"), "{texts:?}");
    assert!(texts[1].contains("of a (centre)"), "{texts:?}");
    let quiet = PARAMS.replace("200", r#"200, "alarms": {"dsc_shift": 0.2}"#);
    assert!(compare(&job(&quiet), Some(&before), None, &now, &[]).alarms.is_empty());
}

#[test]
fn drift_of_arrivals_is_seen_although_they_are_few() {
    let before = night("m", 0.0);
    let mut now = before.clone();
    for i in 0..10 {
        let id = format!("sub-9{i}");
        now.cases.insert(id.clone(), case(&id, "s"));
        now.watched.insert(id, vec![Some(13.0 + f64::from(i % 3))]);
    }
    let found = compare(&job(PARAMS), Some(&before), Some(&before), &now, &[]);
    assert_eq!(found.drift[0].arrivals.n, 10);
    assert!(
        found.alarms.iter().any(|a| a.kind == "data" && a.text.starts_with("snr of ")),
        "{:?}",
        found.alarms
    );
}

impl NightFacts {
    /// The difference with an earlier night in it.
    fn told(mut found: super::compare::Difference) -> super::compare::Difference {
        found.against =
            Some(Self { run_id: "run".to_owned(), moment: "m".to_owned(), catalog_version: 3 });
        found
    }
}

/// The page of a night with everything on it.
fn full() -> String {
    let (before, mut now) = (night("one", 0.0), night("two", 0.04));
    now.cases.insert("sub-50".to_owned(), case("new", "s"));
    now.cases.get_mut("sub-01").unwrap().excluded = Some("<gone> & away".to_owned());
    let job = job(PARAMS);
    let mut found =
        NightFacts::told(compare(&job, Some(&before), Some(&before), &now, &groups(&now)));
    found.baseline.clone_from(&found.against);
    let side = |dice| Side {
        dice,
        volume_truth_ml: 1.0,
        volume_predicted_ml: 2.0,
        slices: Ok(vec![Picture { alt: "Axial slice".to_owned(), ..Picture::default() }]),
    };
    let gone = Side { slices: Err("the file is gone".to_owned()), ..side(0.5) };
    let shown = vec![Shown { case_id: "sub-05".to_owned(), before: side(0.9), now: gone }];
    html::page(&page::report(&job, &found, shown), &Written::default())
}

#[test]
fn the_page_tells_all_of_it_and_stands_alone() {
    let page = full();
    for text in [
        "Alarm (model): the mean DSC fell by",
        "New cases",
        "&lt;gone&gt; &amp; away",
        "Shift of the mean DSC",
        "not computed: there is no column shoe",
        "Earlier: sub-05",
        "Tonight: sub-05",
        "no picture: the file is gone",
        "Drift of the input",
        "Predicted by two, then by one",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for outside in ["http:", "https:", "url(", "<script", "<link", "NaN", "inf<"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page, full(), "equal nights give equal bytes");
}

#[test]
fn the_first_night_says_that_it_is_the_first() {
    let now = night("m", 0.0);
    let mut found = compare(&job(PARAMS), None, None, &now, &groups(&now));
    found.notes.push("There is nothing to compare with: the first run.".to_owned());
    assert_eq!(page::line(&found), "20 scored, nothing to compare with");
    let page = html::page(&page::report(&job(PARAMS), &found, Vec::new()), &Written::default());
    assert!(
        page.contains("There is nothing to compare with")
            && page.contains("The next run is compared")
    );
}
