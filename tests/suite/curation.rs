//! Corrections of the registry, from the command line to the steps.

use super::support::{Registry, counts, succeed, text, torcula};

const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/study.yaml");

struct Study(Registry);

impl Study {
    fn new() -> Self {
        let study = Self(Registry::synth(20, &[]));
        study.run();
        study
    }

    fn run(&self) -> std::collections::BTreeMap<String, [u64; 3]> {
        let data = format!("data={}", self.0.path().display());
        let output = torcula(&["run", PIPELINE, "--set", &data, "--progress", "none"]);
        assert!(output.status.success(), "{}", text(&output));
        counts(&output)
    }

    fn give(&self, args: &[&str]) -> std::process::Output {
        let catalog = self.0.path().join("catalog").display().to_string();
        let mut all = vec!["curate"];
        all.extend(args);
        all.extend(["--catalog", &catalog]);
        if args[0] != "log" {
            all.extend(["--author", "Ada"]);
        }
        torcula(&all)
    }

    fn curate(&self, args: &[&str]) -> String {
        let output = self.give(args);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.give(args);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        text(&output)
    }

    fn case(&self, n: usize) -> String {
        self.0.sql(&format!("SELECT case_id FROM cases ORDER BY case_id LIMIT 1 OFFSET {n}"))
    }
}

#[test]
fn a_corrected_vendor_draws_the_split_again_and_prepares_nothing() {
    let study = Study::new();
    let case = study.case(3);
    let vendor = format!("SELECT vendor FROM cases WHERE case_id = '{case}'");
    let before = study.0.sql(&vendor);
    let dry =
        study.curate(&["set", &case, "vendor=Acme", "--reason", "typing mistake", "--dry-run"]);
    assert!(dry.contains("split") && dry.contains("drawn again"), "{dry}");
    assert!(!dry.contains("prepared") && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(study.0.sql(&vendor), before);

    study.curate(&["set", &case, "vendor=Acme", "--reason", "typing mistake"]);
    assert_eq!(study.0.sql(&vendor), "Acme");
    let counts = study.run();
    assert_eq!(counts["registry"], [0, 20, 0], "ingest leaves the correction alone");
    assert_eq!(counts["prepared"], [0, 20, 0], "a vendor is no input of a stage");
    assert_eq!(counts["split"][0], 20, "the split is stratified by vendor");
    assert_eq!(study.0.sql(&vendor), "Acme");
    // Another variable is an input of nothing.
    let said = study.curate(&["set", &case, "sex=F", "age_y=71", "--reason", "from the chart"]);
    assert!(said.contains("no step of study is affected"), "{said}");
    assert_eq!(study.run()["split"], [0, 20, 0]);

    let said = study.curate(&["undo"]);
    assert!(said.contains("sex back from F") && said.contains("age_y back from 71"), "{said}");
    let said = study.curate(&["undo"]);
    assert!(said.contains(&format!("vendor back from Acme to {before}")), "{said}");
    assert_eq!(study.0.sql(&vendor), before);
    assert_eq!(study.run()["split"], [0, 20, 0], "the first split is found again");
    let log = study.curate(&["log", "--format", "csv"]);
    assert_eq!(log.lines().count(), 1 + 3 + 3, "{log}");
    assert!(log.contains("Ada") && log.contains("typing mistake"), "{log}");
    assert!(study.refused(&["undo"]).contains("no edit to take back"));
}

#[test]
fn an_excluded_case_leaves_every_step_and_the_flow_says_why() {
    let study = Study::new();
    let (case, other) = (study.case(0), study.case(1));
    let said = study.curate(&["exclude", &case, &other, "--reason", "withdrew consent"]);
    assert!(said.contains("prepared") && said.contains("2 cases no more asked for"), "{said}");
    assert!(said.contains("2 cases out: 18 are left"), "{said}");
    assert_eq!(study.0.sql("SELECT count(*) FROM prepared"), "18");
    assert_eq!(study.0.sql("SELECT count(*) FROM cases WHERE excluded = 'withdrew consent'"), "2");
    let counts = study.run();
    assert_eq!((counts["prepared"], counts["split"][0]), ([0, 18, 0], 18));
    let page = std::fs::read_to_string(study.0.path().join("report.html")).unwrap();
    assert!(page.contains("Excluded by a curator: 2") && page.contains("2 × withdrew consent"));
    let flow = study.0.path().join("report-files/flow-of-the-adults-table.csv");
    let flow = std::fs::read_to_string(flow).unwrap();
    for row in ["Registered,,20", "withdrew consent,2,18", "younger than 18,0,18"] {
        assert!(flow.contains(row), "no {row} in\n{flow}");
    }
    let flow = "SELECT excluded FROM adults_flow WHERE rule_index = 0";
    assert_eq!(study.0.sql(flow), "2");
    let lineage =
        succeed(&["lineage", &case, "--catalog", study.0.path().join("catalog").to_str().unwrap()]);
    assert!(lineage.contains("excluded") && lineage.contains("withdrew consent"), "{lineage}");
    let log = study.curate(&["log", "--case", &case, "--format", "csv"]);
    let id = log.lines().nth(1).unwrap().split(',').next().unwrap();
    study.curate(&["undo", id]);
    assert_eq!(study.0.sql("SELECT count(*) FROM prepared"), "19");
    assert!(study.refused(&["undo", id]).contains("taken back already"));
    study.curate(&["undo"]);
    assert_eq!(study.0.sql("SELECT count(*) FROM prepared"), "20");
}

#[test]
fn a_file_of_corrections_is_taken_whole_or_not_at_all() {
    let study = Study::new();
    let (first, second) = (study.case(0), study.case(1));
    let file = study.0.path().join("corrections.csv");
    let path = file.to_str().unwrap();
    let version = study.0.sql("SELECT count(*) FROM curation");
    std::fs::write(
        &file,
        format!(
            "case_id,column,value,reason\n{first},age_y,old,chart\nsub-none,vendor,GE,chart\n{second},vendr,GE,chart\n{second},vendor,GE,\n{first},image_uri,x,chart\n"
        ),
    )
    .unwrap();
    let said = study.refused(&["import", path]);
    for part in [
        "line 2: age_y = `old`: expected a number",
        "line 3: the catalog has no case 'sub-none'",
        "line 4: the table 'cases' has no column 'vendr' (did you mean 'vendor'?",
        "line 5: the reason is empty",
        "line 6: the column 'image_uri' is read from the files",
        "nothing was changed",
    ] {
        assert!(said.contains(part), "no {part} in\n{said}");
    }
    assert_eq!(study.0.sql("SELECT count(*) FROM curation"), version);

    std::fs::write(
        &file,
        format!(
            "case_id,column,value,reason\n{first},age_y,55.5,chart\n{second},excluded,,moved\n"
        ),
    )
    .unwrap();
    study.curate(&["import", path]);
    assert_eq!(study.0.sql(&format!("SELECT age_y FROM cases WHERE case_id = '{first}'")), "55.5");
    assert_eq!(study.0.sql("SELECT count(*) FROM prepared"), "19");
    let again = study.curate(&["import", path]);
    assert!(again.contains("nothing to change"), "{again}");
    std::fs::write(&file, "id,value\nx,y\n").unwrap();
    assert!(study.refused(&["import", path]).contains("expected the columns case_id, column"));
    assert!(study.refused(&["exclude", &first]).contains("the reason is empty"));
    assert!(study.refused(&["set", "sub-none", "age_y=5", "--reason", "r"]).contains("no case"));
    assert!(study.refused(&["undo", "ffffffff"]).contains("no edit 'ffffffff'"));
}
