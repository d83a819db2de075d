//! Parts of a nightly job that need no network: what a run tells, and bad declarations. `tests/training/nightly.rs` has the rest.

use std::process::Command;

use super::support::{Registry, TORCULA, text, torcula};

/// Scores the reference against itself, so that no network is needed.
const PIPELINE: &str = r#"
torcula: 1
name: night
vars: { data: null, out: null, when: always }
catalog: ${data}/catalog
artifacts: ${data}/derivatives
on_failure: { max_share: 1.0 }
notify: { when: "${when}", command: [sh, -c, "printf '%s %s\n' \"$TORCULA_STATUS\" \"$1\" >> '${out}'", sh, "{summary}"] }
steps:
  registry: { ingest: { bids: "${data}/internal", source: internal } }
  scored: { from: "SELECT *, truth_uri AS prediction_uri FROM registry WHERE truth_uri IS NOT NULL", score: {} }
  difference: { from: scored, difference: { html: "${data}/difference.html", resamples: 100 } }
"#;

fn night(registry: &Registry, more: &[&str]) -> (i32, String) {
    let file = registry.path().join("night.yaml");
    std::fs::write(&file, PIPELINE).unwrap();
    let data = format!("data={}", registry.path().display());
    let out = format!("out={}", registry.path().join("told").display());
    let mut command = Command::new(TORCULA);
    command.arg("run").arg(&file).args(["--progress", "none", "--set", &data, "--set", &out]);
    let output = command.args(more).output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn people_are_told_how_a_night_ended() {
    let registry = Registry::synth(6, &[]);
    let told = || std::fs::read_to_string(registry.path().join("told")).unwrap_or_default();
    assert_eq!(night(&registry, &[]).0, 0);
    assert!(
        told().starts_with("done night: done in ")
            && told().contains("6 scored, nothing to compare with"),
        "{}",
        told()
    );
    let (code, said) = night(&registry, &["--set", "when=news"]);
    assert_eq!((code, told().lines().count()), (0, 1), "a quiet night is no news: {said}");
    // Three of six are deleted: an alarm, told with its exit code, and the catalog keeps them.
    for subject in ["sub-0001", "sub-0002", "sub-0003"] {
        std::fs::remove_dir_all(registry.path().join("internal").join(subject)).unwrap();
    }
    let (code, said) = night(&registry, &["--set", "when=trouble"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("3 cases are removed since"), "{said}");
    let last = told().lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("alarm night: ") && last.contains("3 removed"), "{last}");
    assert_eq!(
        registry.sql("SELECT count(*) FROM cases WHERE excluded = 'its files are gone'"),
        "3"
    );
    assert_eq!(registry.sql("SELECT count(*) FROM scored"), "3");
    assert_eq!(registry.sql("SELECT count(*) FROM failures"), "0");
    // The address of a hook is in no table.
    assert_eq!(registry.sql("SELECT count(*) FROM runs WHERE resolved LIKE '%notify%'"), "0");
    // Told of a run that could not begin, too.
    let broken = registry.path().join("internal");
    std::fs::rename(&broken, registry.path().join("elsewhere")).unwrap();
    let (code, said) = night(&registry, &["--set", "when=trouble"]);
    assert_eq!(
        code, 1,
        "an unmounted registry removes nothing, and the next try may find it: {said}"
    );
    assert!(
        told().lines().last().unwrap_or_default().starts_with("failed night: FAILED"),
        "{}",
        told()
    );
    assert_eq!(registry.sql("SELECT count(*) FROM cases WHERE removed_at IS NOT NULL"), "3");
}

#[test]
fn an_earlier_night_can_be_a_version_or_a_moment_and_one_that_is_not_there_is_no_error() {
    let registry = Registry::synth(3, &[]);
    night(&registry, &[]);
    let against = |night_: &str| {
        let set = format!("steps.difference.difference.against={night_}");
        let (code, said) = night(&registry, &["--set", &set]);
        assert_eq!(code, 0, "{said}");
        let json = std::fs::read(registry.path().join("difference.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()
    };
    let version: u64 = 1;
    assert_eq!(against(&version.to_string())["against"]["catalog_version"], version);
    assert!(against("first")["against"]["run_id"].is_string());
    for missing in ["2001-01-01", "9999"] {
        let found = against(missing);
        assert!(found["against"].is_null(), "{found}");
        assert!(
            found["notes"][0].as_str().unwrap().starts_with("There is nothing to compare"),
            "{found}"
        );
    }
}

#[test]
fn a_night_that_cannot_be_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    let text_ = "torcula: 1\nname: n\ncatalog: c\nnotify: { webhook: { url: ftp://x, url_env: 1X } }\nsteps:\n  \
         r: { ingest: { bids: b } }\n  s: { from: \"SELECT *, truth_uri AS prediction_uri FROM r\", score: {} }\n  \
         d: { from: r, difference: { html: d.html, against: yesterday, dsc_moved: 2 } }\n";
    std::fs::write(&file, text_).unwrap();
    let output = torcula(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output);
    for words in ["either `url` or `url_env`", "no web address", "name of an environment variable"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let text_ = text_.replace("notify: { webhook: { url: ftp://x, url_env: 1X } }\n", "");
    std::fs::write(&file, text_.replace(", dsc_moved: 2", "")).unwrap();
    let said = text(&torcula(&["check", file.to_str().unwrap()]));
    for words in ["one step with `score`", "`yesterday` is no night"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    std::fs::write(&file, text_).unwrap();
    let said = text(&torcula(&["check", file.to_str().unwrap()]));
    assert!(said.contains("dsc_moved") || said.contains("at most 1"), "{said}");
}
