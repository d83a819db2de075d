//! What must hold of every draw.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::json;

use super::*;

fn members(n: usize) -> Vec<Member> {
    let member = |i: usize| Member {
        case_id: format!("case-{i:05}"),
        // Every tenth patient has two cases.
        group: format!("patient-{:05}", if i % 10 == 9 { i - 1 } else { i }),
        stratum: ["GE", "Philips", "Siemens"][i * i % 7 % 3].to_owned(),
        value: Some(format!("site-{}", i % 4)),
    };
    let mut all: Vec<Member> = (0..n).map(member).collect();
    for i in 0..n {
        if i % 10 == 9 {
            all[i].value = all[i - 1].value.clone();
        }
    }
    all
}

fn params(value: serde_json::Value) -> SplitParams {
    serde_json::from_value(value).unwrap()
}

fn drawn(params: &SplitParams, members: &[Member], history: &History) -> Drawn {
    draw(params, 7, "split", members, history).unwrap()
}

fn history(drawn: &Drawn) -> History {
    let mut history = History::new();
    for (case, part) in &drawn.rows {
        history.entry(case.clone()).or_default().insert(part.clone());
    }
    history
}

fn placed(drawn: &Drawn, members: &[Member]) -> Vec<Placed> {
    let of: BTreeMap<&str, &Member> = members.iter().map(|m| (m.case_id.as_str(), m)).collect();
    let one = |(case, part): &(String, String)| Placed {
        case_id: case.clone(),
        group: of[case.as_str()].group.clone(),
        part: part.clone(),
        image: None,
        values: vec![json!(of[case.as_str()].stratum)],
    };
    drawn.rows.iter().map(one).collect()
}

fn patients(drawn: &Drawn, members: &[Member], part: &str) -> usize {
    let report = check(&placed(drawn, members), None, &[]);
    report.parts.iter().find(|p| p.part == part).map_or(0, |p| p.patients)
}

#[test]
fn parts_have_their_sizes_and_nobody_is_in_two() {
    let members = members(500);
    for (parts, sizes) in [
        (json!({"train": 0.64, "val": 0.16, "test": 0.2}), [("train", 288), ("test", 90)]),
        (json!({"test": 100, "train": "rest"}), [("test", 100), ("train", 350)]),
        (json!({"a": 10, "b": 20}), [("a", 10), ("b", 20)]),
    ] {
        let drawn = drawn(&params(json!({"parts": parts})), &members, &History::new());
        assert!(check(&placed(&drawn, &members), None, &[]).holds());
        for (part, size) in sizes {
            assert_eq!(patients(&drawn, &members, part), size, "{part}");
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_whatever_the_order_of_the_members() {
    let all = members(300);
    let spec = params(json!({"parts": {"train": 0.8, "test": 0.2}, "stratify": ["vendor"]}));
    let first = drawn(&spec, &all, &History::new());
    let mut turned = all.clone();
    turned.reverse();
    let mut second = drawn(&spec, &turned, &History::new()).rows;
    second.sort();
    assert_eq!(first.rows, second);
    assert_ne!(first.rows, draw(&spec, 8, "split", &all, &History::new()).unwrap().rows);
    assert_ne!(first.rows, draw(&spec, 7, "other", &all, &History::new()).unwrap().rows);
    let again = SplitParams { draw: 2, ..spec };
    assert_ne!(first.rows, drawn(&again, &all, &History::new()).rows);
}

#[test]
fn every_stratum_is_divided_to_within_one_patient() {
    let members = members(1000);
    let spec = params(json!({"parts": {"train": 0.7, "val": 0.1, "test": 0.2}, "stratify": ["v"]}));
    let drawn = drawn(&spec, &members, &History::new());
    let mut counts: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut totals: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let stratum: BTreeMap<&str, &str> =
        members.iter().rev().map(|m| (m.group.as_str(), m.stratum.as_str())).collect();
    for row in placed(&drawn, &members) {
        let own = stratum[row.group.as_str()].to_owned();
        totals.entry(own.clone()).or_default().insert(row.group.clone());
        counts.entry((own, row.part)).or_default().insert(row.group);
    }
    for ((stratum, part), found) in counts {
        let share = [("train", 0.7), ("val", 0.1), ("test", 0.2)].iter().find(|p| p.0 == part);
        let exact = share.unwrap().1 * totals[&stratum].len() as f64;
        assert!((found.len() as f64 - exact).abs() <= 1.5, "{stratum} {part} {exact}");
    }
}

#[test]
fn subsamples_contain_the_smaller_ones_and_are_stratified() {
    let members = members(1000);
    let spec = params(json!({
        "nested": {"tiny": 0.025, "small": 0.1, "half": 0.5, "all": 1.0}, "stratify": ["vendor"],
    }));
    let drawn = drawn(&spec, &members, &History::new());
    let order = ["tiny", "small", "half", "all"].map(str::to_owned);
    let report = check(&placed(&drawn, &members), Some(&order), &["vendor".to_owned()]);
    assert!(report.holds(), "{report:?}");
    let sizes: Vec<usize> = report.parts.iter().map(|p| p.patients).collect();
    assert_eq!(sizes, [22, 90, 450, 900], "half to even of 22.5");
    assert_eq!(report.balance[2].is_balanced(), Some(true), "{:?}", report.balance[2]);
}

#[test]
fn nobody_moves_when_cases_are_added() {
    let (few, many) = (members(400), members(700));
    for split in [
        json!({"parts": {"train": 0.64, "val": 0.16, "test": 0.2}, "stratify": ["vendor"]}),
        json!({"parts": {"test": 100, "train": "rest"}}),
        json!({"nested": {"a": 0.1, "b": 0.5, "c": 1.0}}),
        json!({"folds": 5}),
        json!({"leave_out": "centre"}),
    ] {
        let spec = params(split.clone());
        let before = drawn(&spec, &few, &History::new());
        let after = drawn(&spec, &many, &history(&before));
        let now = history(&after);
        for (case, parts) in history(&before) {
            assert!(parts.is_subset(&now[&case]), "{case} left {parts:?} in {split}");
        }
        let nested = spec.nested.keys().cloned().collect::<Vec<_>>();
        let nested = Some(nested.as_slice()).filter(|n| !n.is_empty());
        assert!(check(&placed(&after, &many), nested, &[]).holds());
        // The new ones are divided as the old.
        let fresh = drawn(&spec, &many, &History::new());
        for part in &check(&placed(&fresh, &many), nested, &[]).parts {
            assert_eq!(patients(&after, &many, &part.part), part.patients, "{split}");
        }
        assert!(after.notes.is_empty(), "{:?}", after.notes);
    }
}

#[test]
fn who_was_drawn_stays_even_where_a_count_is_then_missed() {
    let all = members(300);
    let spec = params(json!({"parts": {"test": 50, "train": "rest"}}));
    let before = drawn(&spec, &all, &History::new());
    let gone: BTreeSet<&str> = before
        .rows
        .iter()
        .filter(|(_, part)| part == "test")
        .take(3)
        .map(|(case, _)| case.as_str())
        .collect();
    let fewer: Vec<Member> =
        all.iter().filter(|m| !gone.contains(m.case_id.as_str())).cloned().collect();
    let after = drawn(&spec, &fewer, &history(&before));
    assert_eq!(after.placed, 0);
    assert!(after.notes.iter().any(|n| n.contains("`test` has 4")), "{:?}", after.notes);
    let again = SplitParams { draw: 2, ..spec };
    assert_eq!(patients(&drawn(&again, &fewer, &History::new()), &fewer, "test"), 50);
}

#[test]
fn one_patient_who_was_two_is_put_together() {
    let mut all = members(50);
    let spec = params(json!({"parts": {"a": 0.5, "b": 0.5}}));
    let before = drawn(&spec, &all, &History::new());
    let other = |part: &str| before.rows.iter().find(|r| r.1 == part).unwrap().0.clone();
    let (one, two) = (other("a"), other("b"));
    for member in &mut all {
        if member.case_id == one || member.case_id == two {
            "patient-x".clone_into(&mut member.group);
        }
    }
    let after = drawn(&spec, &all, &history(&before));
    assert!(check(&placed(&after, &all), None, &[]).holds());
    assert!(after.notes[0].contains("1 patients"), "{:?}", after.notes);
}

#[test]
fn folds_are_equal() {
    let members = members(103);
    let folds = drawn(&params(json!({"folds": 5})), &members, &History::new());
    let report = check(&placed(&folds, &members), None, &[]);
    let sizes: Vec<usize> = report.parts.iter().map(|p| p.patients).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (5, 93));
    assert!(sizes.iter().all(|n| (18..=19).contains(n)), "{sizes:?}");
}

#[test]
fn a_centre_is_left_out_whole() {
    let mut members = members(40);
    let spec = params(json!({"leave_out": "centre", "hold_out": "site-2"}));
    let out = drawn(&spec, &members, &History::new());
    for ((_, part), member) in out.rows.iter().zip(&members) {
        assert_eq!(part == "test", member.value.as_deref() == Some("site-2"));
    }
    members.push(Member { value: Some("site-9".to_owned()), ..self::members(60)[50].clone() });
    let lone = drawn(&params(json!({"leave_out": "centre"})), &members, &History::new());
    assert_eq!(lone.notes, ["`site-9` has one patient: n = 1 tells no spread"]);
    let fails = |spec: &SplitParams, members: &[Member]| {
        draw(spec, 7, "split", members, &History::new()).unwrap_err().to_string()
    };
    let absent = params(json!({"leave_out": "centre", "hold_out": "site-7"}));
    assert!(fails(&absent, &members).contains("site-0, site-1"));
    members[0].value = None;
    assert!(fails(&spec, &members).contains("1 of 41 cases have no `centre`"));
    members[0].value = Some("site-1".to_owned());
    members[8].value = Some("site-3".to_owned());
    assert!(fails(&spec, &members).contains("patient-00008 has cases of several"));
    assert!(fails(&spec, &[]).contains("no cases"));
}
