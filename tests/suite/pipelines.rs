//! Every shipped pipeline, and every behaviour file, is good and can be explained.

use std::path::{Path, PathBuf};

use super::support::{Registry, files, succeed, text, torcula};

fn yaml(folder: &str) -> Vec<PathBuf> {
    let mut found = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    // Other programs' files have folders of their own.
    let is_ours = |p: &PathBuf| p.parent().is_some_and(|folder| !folder.ends_with("deploy"));
    found.retain(|p| is_ours(p) && p.extension().is_some_and(|e| e == "yaml"));
    assert!(!found.is_empty(), "no pipelines in {folder}");
    found
}

#[test]
fn every_pipeline_is_good_explained_and_passes_its_own_tests() {
    for file in yaml("pipelines").into_iter().chain(yaml("tests/behaviour")) {
        let file = file.to_str().unwrap();
        let nowhere = tempfile::tempdir().unwrap();
        let set = format!("data={}", nowhere.path().display());
        succeed(&["check", file, "--set", &set]);
        let plan = succeed(&["explain", file, "--set", &set]);
        assert!(plan.contains("CaseExec"), "{file}\n{plan}");
        let output = torcula(&["test", file, "--set", &set]);
        assert!(output.status.success(), "{file}: {}", text(&output));
    }
}

#[test]
fn explain_says_what_is_left_and_what_comes_first() {
    let registry = Registry::synth(3, &[]);
    let explain = |set: &str| {
        let mut args = registry.run_args(&["--set", set]);
        args.retain(|a| a != "--progress" && a != "none");
        args[0] = "explain".to_owned();
        succeed(&args)
    };
    let line = |plan: &str, step: &str| {
        let found = plan.lines().find(|l| l.starts_with(step)).map(str::to_owned);
        found.expect("a line for each step")
    };
    let plan = explain("blur_mm=2");
    assert!(line(&plan, "prepared:").contains("registry comes first"), "{plan}");
    registry.run(&[]);
    let plan = explain("blur_mm=2");
    assert!(line(&plan, "shards:").contains("0 cases to do"), "{plan}");
    assert!(!plan.contains("comes first"), "{plan}");
    let plan = explain("blur_mm=3");
    assert!(line(&plan, "prepared:").contains("3 cases to do"), "{plan}");
    assert!(line(&plan, "split:").contains("prepared comes first"), "{plan}");
    assert!(line(&plan, "shards:").contains("split comes first"), "{plan}");
}

#[test]
fn a_bad_pipeline_is_refused_with_every_mistake_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(
        &file,
        "torcula: 1\nname: bad\ncatalog: c\nsteps:\n  a:\n    from: SELECT * FROM casez\n    stages:\n      - n5\n      - qc: { min_snrr: 4 }\n",
    )
    .unwrap();
    let output = torcula(&["run", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let said = text(&output);
    for word in ["bad.yaml", "casez", "n5", "min_snrr", "min_snr"] {
        assert!(said.contains(word), "{word} is missing in\n{said}");
    }
    assert!(!folder.path().join("c").exists(), "nothing was begun");
}
