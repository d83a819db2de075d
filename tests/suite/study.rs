//! Cohorts, splits and the study's counts, on registries without images.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::support::{Registry, counts, succeed, text, torcula};

/// A pipeline over a manifest of its own.
struct Study {
    folder: TempDir,
}

impl Study {
    fn new(manifest: &str, steps: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let study = Self { folder };
        std::fs::write(study.path("cases.csv"), manifest).unwrap();
        let text = format!(
            "torcula: 1\nname: study\nseed: 3\ncatalog: {0}/catalog\nvars: {{ metadata_only: true }}\nsteps:\n  \
             registry: {{ ingest: {{ manifest: \"{0}/cases.csv\", metadata_only: \"${{metadata_only}}\" }} }}\n{steps}",
            study.folder.path().display()
        );
        std::fs::write(study.path("study.yaml"), text).unwrap();
        study
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> String {
        self.path("study.yaml").to_str().unwrap().to_owned()
    }

    fn run(&self, extra: &[&str]) -> std::process::Output {
        let file = self.file();
        torcula(&[&["run", &file, "--progress", "none"], extra].concat())
    }

    /// The run must succeed; the counts of its steps.
    fn counts(&self, extra: &[&str]) -> BTreeMap<String, [u64; 3]> {
        let output = self.run(extra);
        assert!(output.status.success(), "{}", text(&output));
        counts(&output)
    }

    /// The run must be refused as a wrong pipeline; what it says.
    fn refused(&self, extra: &[&str]) -> String {
        let output = self.run(extra);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        text(&output)
    }

    fn sql(&self, query: &str) -> String {
        let file = self.file();
        let out = succeed(&["sql", query, "--pipeline", &file, "--format", "csv"]);
        out.lines().skip(1).collect::<Vec<_>>().join("\n")
    }
}

/// Cases with a hospital, an age and, every third, no known time.
fn manifest(cases: usize) -> String {
    let mut text = "case_id,subject_id,centre,age,onset_h,dwi\n".to_owned();
    for n in 0..cases {
        // The last of every ten is a second visit of the one before.
        let subject = if n % 10 == 9 { n - 1 } else { n };
        let onset = if n % 3 == 0 { String::new() } else { (n % 40).to_string() };
        let dwi = ["good", "poor", ""][usize::from(n % 7 == 1) + 2 * usize::from(n % 7 == 2)];
        let _ = writeln!(
            text,
            "c{n:04},p{subject:04},site-{},{},{onset},{dwi}",
            subject % 4,
            20 + n % 60
        );
    }
    text
}

#[test]
fn every_count_of_the_study_is_reproduced() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("noh");
    let registry = data.join("registry");
    let said =
        succeed(&["synth", registry.to_str().unwrap(), "--metadata-only", "--study", "noh2023"]);
    assert!(said.contains("15090 synthetic cases without images"), "{said}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/noh2023.yaml");
    let set = format!("data={}", data.display());
    succeed(&["run", file, "--set", &set, "--to", "learn,tuning", "--progress", "none"]);
    let sql = |query: &str| -> String {
        let out = succeed(&["sql", query, "--pipeline", file, "--set", &set, "--format", "csv"]);
        out.lines().skip(1).collect::<Vec<_>>().join(" ")
    };
    let flow = "SELECT excluded, remaining, unknown FROM internal_flow ORDER BY rule_index";
    assert_eq!(sql(flow), "258,11755,0 904,10851,0 31,10820,0");
    assert_eq!(sql("SELECT count(*), count(DISTINCT case_id) FROM internal_excluded"), "1193,1193");
    let sources = "SELECT source, count(*) FROM cases GROUP BY source ORDER BY source";
    assert_eq!(sql(sources), "ancillary_1,50 ancillary_2,250 external,2777 internal,12013");
    let parts = |split: &str| {
        sql(&format!("SELECT part, count(*) AS n FROM {split} GROUP BY part ORDER BY n"))
    };
    assert_eq!(parts("internal_split"), "test,2159 development,8661");
    assert_eq!(parts("subsample"), "n217,217 n433,433 n866,866 n1732,1732 n4330,4330 n8661,8661");
    assert_eq!(parts("single_site_split"), "test,94 development,382");
    assert_eq!(parts("external_split"), "adaptation,1000 test,1777");
    assert_eq!(parts("adaptation"), "n50,50 n100,100 n200,200 n500,500 n1000,1000");
    // 0.8 of each, to the nearest patient.
    let learn = "SELECT training, count(*) AS n FROM learn WHERE part = 'train' GROUP BY training ORDER BY n";
    let expected = "n217,174 single_site,306 n433,346 n866,693 n1732,1386 n4330,3464 n8661,6929";
    assert_eq!(sql(learn), expected);
    let tuning =
        "SELECT adapt, count(*) FROM tuning WHERE part = 'val' GROUP BY adapt ORDER BY adapt";
    assert_eq!(sql(tuning), "50,10 100,20 200,40 500,100 1000,200");
    let missing = |from: &str| sql(&format!("SELECT count(*) FROM {from} AND onset_h IS NULL"));
    assert_eq!(missing("internal_split WHERE part = 'test'"), "565");
    assert_eq!(missing("external WHERE true"), "1849");
    let field = "SELECT field_strength_t, count(*) FROM internal GROUP BY 1 ORDER BY 1 NULLS LAST";
    assert_eq!(sql(field), "1.5,6360 3.0,2882 ,1578");
    let proofs = succeed(&["split", "check", file, "--set", &set, "--format", "json"]);
    let proofs: Value = serde_json::from_str(&proofs).unwrap();
    let all: Vec<&Value> = proofs
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|split| split["report"]["proofs"].as_array().unwrap())
        .collect();
    assert_eq!(
        (all.len(), all.iter().all(|proof| proof["holds"] == true)),
        (34, true),
        "{proofs:#}"
    );
    let cohort = succeed(&["cohort", file, "internal", "--set", &set]);
    assert!(cohort.contains("10820 cases of 10820 patients"), "{cohort}");
    // What needs images says that there are none.
    let output = torcula(&["run", file, "--set", &set, "--to", "prepared", "--progress", "none"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("none of its 13897 cases has an image"), "{}", text(&output));
}

const SPLIT: &str = "  kept:\n    from: SELECT *, onset_h IS NULL AS onset_missing FROM cases\n    cohort:\n      exclude:\n        \
    - { reason: DWI poor, when: \"variable(variables, 'dwi') = 'poor'\" }\n        \
    - { reason: under age, when: age_y < 22 }\n  \
    split: { from: kept, split: { parts: { test: 20, train: rest }, stratify: [onset_missing, centre] } }\n  \
    subsample: { from: { split: train }, split: { nested: { tenth: 0.1, half: 0.5, whole: 1.0 } } }\n  \
    learn: { matrix: { set: [tenth, half] }, from: { subsample: '${set}' }, split: { parts: { train: 0.8, val: 0.2 } } }\n  \
    folds: { from: kept, split: { folds: 3 } }\n  \
    fold: { matrix: { k: [1, 3] }, from: folds, split: { leave_out: part, hold_out: 'fold_${k}' } }\n  \
    sites: { from: kept, split: { leave_out: centre } }\n";

#[test]
fn nobody_moves_when_the_registry_grows() {
    let study = Study::new(&manifest(80), SPLIT);
    study.counts(&[]);
    let tables = ["split", "subsample", "learn_tenth", "learn_half", "folds", "sites"];
    let drawn =
        |name: &str| study.sql(&format!("SELECT case_id, part FROM {name} ORDER BY case_id, part"));
    let before = tables.map(drawn);
    assert!(study.counts(&[]).values().all(|c| c[0] == 0), "nothing is drawn twice");
    std::fs::write(study.path("cases.csv"), manifest(140)).unwrap();
    let output = study.run(&[]);
    assert!(text(&output).contains("patients kept their part"), "{}", text(&output));
    for (name, before) in tables.iter().zip(before) {
        let now = drawn(name);
        let now: Vec<&str> = now.lines().collect();
        // A larger half takes in more, and what was in it is in it.
        let lost: Vec<&str> = before.lines().filter(|row| !now.contains(row)).collect();
        assert!(lost.is_empty() && now.len() > before.lines().count(), "{name}: {lost:?}");
    }
    let file = study.file();
    succeed(&["split", "check", &file]);
    // An earlier version of the registry is still there to be asked.
    let first = "SELECT count(*) FROM cases VERSION AS OF 1";
    assert_eq!(study.sql(first), "80");
    let asked = study.counts(&["--set", "steps.split.split.draw=2"]);
    assert!(asked["split"][0] > 0);
    assert_ne!(drawn("split"), {
        succeed(&[
            "sql",
            "SELECT case_id, part FROM split ORDER BY case_id, part",
            "--pipeline",
            &file,
            "--set",
            "steps.split.split.draw=2",
            "--format",
            "csv",
        ])
    });
}

#[test]
fn cohorts_and_splits_are_shown() {
    let study = Study::new(&manifest(80), SPLIT);
    study.counts(&[]);
    let file = study.file();
    let cohort = succeed(&["cohort", &file]);
    for word in ["DWI poor", "under age", "unknown", "65 cases of"] {
        assert!(cohort.contains(word), "{word}\n{cohort}");
    }
    let json: Value =
        serde_json::from_str(&succeed(&["cohort", &file, "kept", "--format", "json"])).unwrap();
    let flow = &json[0]["flow"];
    let left = |n: usize| flow[n]["remaining"].as_u64().unwrap();
    assert_eq!((left(0) + flow[0]["excluded"].as_u64().unwrap(), left(1)), (80, 65), "{json:#}");
    assert_eq!(flow[0]["unknown"], 12, "who has no quality is kept, and counted");
    let show = succeed(&["split", "show", &file, "split"]);
    for word in
        ["seed 3", "version 1 of cases", "SELECT * FROM \"kept\"", "onset_missing, centre", "test"]
    {
        assert!(show.contains(word), "{word}\n{show}");
    }
    let check = succeed(&["split", "check", &file, "--columns", "age_y,centre"]);
    for word in ["no patient is in two parts", "tenth 4 ⊂ half", "balanced", "65 cases have none"]
    {
        assert!(check.contains(word), "{word}\n{check}");
    }
    let matrix = succeed(&["split", "show", &file, "learn"]);
    assert!(matrix.contains("learn_tenth") && matrix.contains("learn_half"), "{matrix}");
    let unknown = torcula(&["split", "show", &file, "another"]);
    assert!(text(&unknown).contains("there is no step `another`"), "{}", text(&unknown));
    let union = "SELECT set, count(DISTINCT case_id) > 0 FROM learn GROUP BY set ORDER BY set";
    assert_eq!(study.sql(union), "half,true\ntenth,true");
}

#[test]
fn the_same_image_under_two_names_breaks_a_split() {
    let registry = Registry::synth(12, &[]);
    let mut rows = "case_id,image,bval,centre\n".to_owned();
    for n in 0..12 {
        let image = registry.image(n);
        let bval = image.to_str().unwrap().replace(".nii.gz", ".bval");
        let _ = writeln!(rows, "c{n},{},{bval},A", image.display());
    }
    let steps = "  other: { ingest: { manifest: \"OTHER\" } }\n  \
                 split: { from: SELECT * FROM cases, split: { parts: { a: 0.5, b: 0.5 }, by: case_id } }\n";
    let other = registry.path().join("other.csv");
    std::fs::write(&other, rows.replace("\nc", "\nx")).unwrap();
    let study = Study::new(&rows, &steps.replace("OTHER", other.to_str().unwrap()));
    // The images lie beside the other manifest.
    let root = format!("steps.registry.ingest.root={}", registry.path().display());
    let settings = ["--set", "metadata_only=false", "--set", &root];
    study.counts(&settings);
    let file = study.file();
    let check = torcula(&[&["split", "check", &file][..], &settings].concat());
    assert_eq!(check.status.code(), Some(1), "{}", text(&check));
    assert!(text(&check).contains("BROKEN  no image is in two parts"), "{}", text(&check));
}

#[test]
fn what_cannot_be_divided_is_said() {
    let steps =
        |split: &str| format!("  split: {{ from: SELECT * FROM cases, split: {{ {split} }} }}\n");
    for (split, said) in [
        ("parts: { a: 30, b: 20 }", "30 + 20 = 50 patients, and there are 36"),
        ("parts: { a: 20, b: 30 }", "the parts ask for 20 + 30 = 50 patients"),
        ("nested: { a: 0.01 }", "0.01 of 36 patients, which is none"),
        ("folds: 50", "50 folds of 36 patients"),
        ("parts: { a: 1 }, stratify: [nihss]", "`nihss` has no value in any of 40 cases"),
        ("parts: { a: 1 }, stratify: [ward]", "the input has no column `ward`"),
        ("leave_out: nihss", "40 of 40 cases have no `nihss`"),
        ("leave_out: centre, hold_out: site-9", "no case has `site-9` as its `centre`"),
        ("leave_out: age_y", "has cases of several `age_y`"),
    ] {
        let study = Study::new(&manifest(40), &steps(split));
        let found = study.refused(&[]);
        assert!(found.contains(said) && found.contains("steps.split"), "{split}: {said}\n{found}");
    }
    // One patient at a centre is a part of one, and that is said.
    let lone = manifest(40).replace("c0000,p0000,site-0", "c0000,p0000,site-7");
    let study = Study::new(&lone, &steps("leave_out: centre"));
    let output = study.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("`site-7` has one patient"), "{}", text(&output));
    let check = succeed(&["split", "check", &study.file(), "--columns", "age_y"]);
    assert!(check.contains("not computed: n = 1 in site-7, needs 2"), "{check}");
    let strata = Study::new(&lone, &steps("parts: { a: 0.5, b: 0.5 }, stratify: [centre]"));
    assert!(text(&strata.run(&[])).contains("1 of 5 strata have one patient"));
}

#[test]
fn bad_cohorts_are_refused() {
    let cohort = |from: &str, when: &str| {
        format!(
            "  kept:\n    from: {from}\n    cohort: {{ exclude: [{{ reason: young, when: \"{when}\" }}] }}\n"
        )
    };
    for (steps, said) in [
        (
            cohort("SELECT * FROM cases UNION ALL SELECT * FROM cases", "false"),
            "gives cases more than once: c0000 (2 times), c0001 (2 times)",
        ),
        (
            cohort("SELECT * FROM cases", "agey < 22"),
            "steps.kept.cohort.exclude.0 (young): there is no column 'agey'",
        ),
        (
            cohort("SELECT * FROM cases", "age_y"),
            "steps.kept.cohort.exclude.0 (young): `age_y` is Float64",
        ),
        (cohort("SELECT subject_id FROM cases", "false"), "gives no column `case_id`"),
        (cohort("SELECT * FROM cases VERSION AS OF 99", "false"), "has no version 99"),
    ] {
        let found = Study::new(&manifest(10), &steps).refused(&[]);
        assert!(found.contains(said), "{said}\n{found}");
    }
    let empty = Study::new(
        &manifest(10),
        "  split: { from: SELECT * FROM cases WHERE false, split: { folds: 2 } }\n",
    );
    assert!(empty.refused(&[]).contains("its cohort has no cases"));
    let nowhere = torcula(&["run", &empty.file(), "--to", "splid"]);
    assert!(text(&nowhere).contains("did you mean `split`?"), "{}", text(&nowhere));
    assert!(Path::new(&empty.file()).exists());
}
