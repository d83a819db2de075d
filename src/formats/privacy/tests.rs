//! Policies on small scans.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

fn open(policy: Policy) -> Privacy {
    let key = Some(Arc::new(Key::new(&[7; 32]).unwrap())).filter(|_| policy.needs_key());
    Privacy { policy, key }
}

fn lists(drop: &[&str], hash: &[&str], refuse: &[&str], keep: &[&str]) -> Policy {
    let [drop, hash, refuse, keep] =
        [drop, hash, refuse, keep].map(|l| l.iter().map(|s| (*s).to_owned()).collect());
    Policy { drop, hash, refuse, keep, ..Policy::default() }
}

fn own(name: &str) -> bool {
    ["age", "site", "location"].contains(&name)
}

fn cleaned(privacy: &Privacy, given: Value) -> Value {
    let given = given.as_object().unwrap().clone();
    Value::Object(privacy.variables(given, "sub-1", own, &mut Applied::default()))
}

#[test]
fn variables_are_kept_dropped_hashed_or_shifted() {
    let given = json!({
        "age": 71, "site": "north", "location": "seen by Dr A. Muster in ward 3", "name": "Anna", "mrn": 4711,
        "score": 3.5, "record": 12_345_678, "dob": "1950-01-02", "scan_date": "2019-03-04", "when": 20_190_304,
        "handed": "right", "AccessionNumber": "A1", "gone": 1, "empty": null,
    });
    let policy = lists(&["gone"], &["accession_number"], &[], &["handed"]);
    let kept = cleaned(&open(policy.clone()), given.clone());
    let hash = open(policy.clone()).key.unwrap().pseudonym("field", "A1", 16);
    let expected = json!({"age": 71, "site": "north", "score": 3.5, "handed": "right", "AccessionNumber": hash});
    assert_eq!(kept, expected);
    let shifting = open(Policy { shift_dates: true, ..policy });
    let kept = cleaned(&shifting, given);
    let days = shifting.shift_days("sub-1").unwrap();
    assert_eq!(kept["scan_date"], json!(dates::shifted("2019-03-04", days).unwrap()));
    assert_eq!(kept["when"], json!(dates::shifted("20190304", days).unwrap()));
    assert!(kept.get("dob").is_none());
}

#[test]
fn one_patient_is_one_pseudonym_and_one_shift() {
    let privacy = open(Policy { shift_dates: true, ..Policy::default() });
    let subject = privacy.id("sub-Anna");
    assert!(subject.starts_with("sub-") && subject.len() == 20 && !subject.contains("Anna"));
    let [first, second] =
        ["20190304", "20190314"].map(|date| privacy.id(&format!("sub-Anna_ses-{date}")));
    assert!(first.starts_with(&subject) && second.starts_with(&subject));
    let day = |id: &str| {
        chrono::NaiveDate::parse_from_str(id.split_once("_ses-").unwrap().1, "%Y%m%d").unwrap()
    };
    assert_eq!((day(&second) - day(&first)).num_days(), 10);
    assert_eq!(privacy.id("sub-Anna_ses-2"), format!("{subject}_ses-2"));
    assert!(!privacy.id("sub-Anna_ses-Muster").contains("Muster"));
    assert_ne!(privacy.id("sub-Berta"), subject);
    assert!(crate::formats::cases::is_id(&privacy.id("sub-Anna_ses-Muster")));
}

#[test]
fn ids_that_are_pseudonyms_already_stay_and_need_no_key() {
    let privacy = Privacy::open(&Policy { ids: Ids::Keep, ..Policy::default() }).unwrap();
    assert_eq!(privacy.id("sub-01_ses-2"), "sub-01_ses-2");
    assert_eq!(privacy.uri(Path::new("/data/sub-01.nii")), "/data/sub-01.nii");
    assert_eq!(
        cleaned(&privacy, json!({"name": "Anna", "when": "2019-03-04", "age": 3})),
        json!({"age": 3})
    );
}

#[test]
fn a_refused_field_leaves_its_case_out_without_telling_the_value() {
    let privacy = open(lists(&[], &[], &["PatientName"], &[]));
    let mut scan = Scan::default();
    for (id, name) in
        [("sub-1", json!("Anna Muster")), ("sub-2", json!("")), ("sub-3", json!(null))]
    {
        let mut case = CaseFiles::new(id, id, None);
        case.variables = [("patient_name".to_owned(), name)].into_iter().collect();
        scan.cases.push(case);
    }
    let (scan, _) = privacy.apply(scan, Path::new("nowhere"), own);
    assert_eq!((scan.cases.len(), scan.findings.len()), (2, 1));
    let finding = &scan.findings[0];
    assert!(
        finding.reason.contains("patient_name") && !finding.reason.contains("Anna"),
        "{finding:?}"
    );
    assert_eq!(finding.case_id, privacy.id("sub-1"));
}

#[test]
fn contradictions_are_problems_and_secrets_are_not_repeated() {
    let policy = lists(&["Patient_Name"], &["patientname"], &[], &[]);
    assert_eq!(policy.problems().len(), 1);
    let secret = KeySource { env: Some("0123456789abcdef0123456789abcdef".to_owned()), file: None };
    let problems = Policy { key: secret, ..Policy::default() }.problems();
    assert!(problems.len() == 1 && !problems[0].1.contains("0123"), "{problems:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_word_of_the_input_stays_in_a_message(
        words in prop::collection::vec("[a-zA-Zäöü]{4,12}", 1..6),
        frame in "[ -~]{0,30}",
        at in 0_usize..6,
    ) {
        // Words that could stand anywhere are no names.
        let names: Vec<String> = words.iter().map(|w| format!("Qz{w}")).collect();
        let mut scrub = Scrubber::new(false);
        scrub.add(&names.join(" "));
        let quoted = &names[at % names.len()];
        let message = format!("{frame} `{quoted}`: {frame}");
        prop_assert!(!scrub.clean(&message).contains(quoted.as_str()));
    }

    #[test]
    fn any_value_is_cleaned_without_a_panic(name in ".{0,20}", text in ".{0,60}") {
        let privacy = open(Policy { shift_dates: true, ..Policy::default() });
        let given = json!({ name.clone(): text.clone() });
        let kept = cleaned(&privacy, given);
        let id = privacy.id(&format!("sub-{text}_ses-{name}"));
        prop_assert!(id.is_ascii() || name.chars().count() <= 2);
        if let Some(kept) = kept.get(&name) {
            prop_assert!(kept == &json!(text) || dates::is_date(text.trim()));
        }
    }

    #[test]
    fn dates_come_back_by_the_same_days(days in 1_u64..1826, day in 0_u64..60_000) {
        let start = chrono::NaiveDate::from_ymd_opt(1900, 1, 1).unwrap();
        let date = (start + chrono::Days::new(day)).format("%Y-%m-%dT01:02:03").to_string();
        let moved = dates::shifted(&date, days).unwrap();
        let parse = |t: &str| chrono::NaiveDate::parse_from_str(&t[..10], "%Y-%m-%d").unwrap();
        prop_assert_eq!((parse(&date) - parse(&moved)).num_days().cast_unsigned(), days);
        prop_assert_eq!(&date[10..], &moved[10..]);
    }
}
