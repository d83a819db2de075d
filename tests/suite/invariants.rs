//! What a run promises: the same bytes for any number of jobs, one decode a volume, nothing lost, everything traceable.

use super::support::{Registry, files, succeed, text, tree};

#[test]
fn the_same_bytes_for_one_job_and_two() {
    let one = Registry::synth(14, &[]);
    let two = Registry::synth(14, &[]);
    assert_eq!(tree(&one.path().join("internal")), tree(&two.path().join("internal")));
    one.counts(&["--jobs", "1"]);
    two.counts(&["--jobs", "2"]);
    let (a, b) = (tree(&one.path().join("derivatives")), tree(&two.path().join("derivatives")));
    assert_eq!(a.len(), 14 * 3 + 2, "image, brain and sidecar a case, two shards: {:?}", a.keys());
    assert_eq!(a, b);
}

#[test]
fn fused_stages_decode_a_volume_once_and_leave_nothing_between() {
    let registry = Registry::synth(4, &[]);
    let mut args = registry.run_args(&[]);
    args[0] = "explain".to_owned();
    args.push("--analyze".to_owned());
    let out = succeed(&args);
    let step = out.split("prepared:").nth(1).expect("the step is analysed");
    let line = |name: &str| {
        let line = step.lines().find(|l| l.starts_with(name)).expect("a line for each stage");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for stage in ["decode", "qc", "skull_strip", "n4", "normalize", "publish"] {
        assert_eq!(line(stage), 4, "{stage}\n{step}");
    }
    assert!(step.contains("limiting stage: "), "{step}");
    let written = files(&registry.path().join("derivatives"));
    assert!(
        written.iter().all(|p| !p.file_name().unwrap().to_string_lossy().contains("tmp")),
        "{written:?}"
    );
}

#[test]
fn exactly_the_broken_cases_are_quarantined() {
    let registry = Registry::synth(60, &["--broken", "0.2"]);
    let listed =
        std::fs::read_to_string(registry.path().join("internal/sourcedata/broken.tsv")).unwrap();
    let mut broken: Vec<&str> =
        listed.lines().skip(1).filter_map(|l| l.split('\t').next()).collect();
    broken.sort_unstable();
    assert_eq!(broken.len(), 12, "{listed}");
    let output = registry.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    let failed = registry.sql("SELECT DISTINCT case_id FROM failures ORDER BY case_id");
    assert_eq!(failed.lines().collect::<Vec<_>>(), broken, "{}", text(&output));
    let twice = registry.sql("SELECT count(*) - count(DISTINCT case_id) FROM failures");
    assert_eq!(twice, "0");
    assert_eq!(registry.sql("SELECT count(*) FROM failures WHERE reason = '' OR stage = ''"), "0");
    assert_eq!(registry.sql("SELECT count(DISTINCT case_id) FROM prepared"), "48");
}

#[test]
fn over_the_limit_the_exit_code_says_so() {
    let registry = Registry::synth(10, &["--broken", "0.3"]);
    let output = registry.run(&["--set", "max_share=0.05"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("quarantined") || text(&output).contains("failed"));
    // The same again: nothing is forgotten because it is known.
    assert_eq!(registry.run(&["--set", "max_share=0.05"]).status.code(), Some(3));
}

#[test]
fn every_output_can_be_traced_to_the_input_bytes() {
    let registry = Registry::synth(3, &[]);
    registry.counts(&[]);
    let catalog = registry.path().join("catalog");
    let id = registry
        .sql("SELECT artifact_id FROM artifacts WHERE role = 'image' ORDER BY case_id LIMIT 1");
    let tree = succeed(&["lineage", &id, "--catalog", catalog.to_str().unwrap()]);
    let bytes = registry.sql(
        "SELECT c.image_blake3 FROM cases c JOIN artifacts a ON c.case_id = a.case_id \
         WHERE a.role = 'image' ORDER BY c.case_id LIMIT 1",
    );
    assert!(tree.contains(&bytes), "{tree}\n{bytes}");
    for column in ["run_id", "pipeline_hash", "software_version", "fingerprint"] {
        let missing = format!("SELECT count(*) FROM artifacts WHERE coalesce({column}, '') = ''");
        assert_eq!(registry.sql(&missing), "0", "{column}");
    }
}
