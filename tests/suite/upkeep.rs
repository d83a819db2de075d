//! `verify` and `clean`: what is damaged is made again, what nothing needs goes, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use torcula::catalog::lock::{self, Owner};

use super::support::{Registry, files, text, torcula, tree};

fn on_catalog(registry: &Registry, words: &[&str]) -> std::process::Output {
    let catalog = registry.path().join("catalog");
    let mut args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    args.extend(["--catalog".to_owned(), catalog.to_string_lossy().into_owned()]);
    torcula(&args)
}

/// Artifacts of a step's role, in the order of their cases.
fn artifacts(registry: &Registry, role: &str) -> Vec<PathBuf> {
    let query = format!("SELECT uri FROM artifacts WHERE role = '{role}' ORDER BY case_id, uri");
    registry.sql(&query).lines().map(PathBuf::from).collect()
}

#[test]
fn damaged_artifacts_are_found_and_exactly_those_are_made_again() {
    let registry = Registry::synth(12, &[]);
    registry.counts(&[]);
    let derivatives = registry.path().join("derivatives");
    let whole = tree(&derivatives);
    let output = on_catalog(&registry, &["verify"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("38 files") && text(&output).contains("0 damaged"));

    let (image, brain) = (&artifacts(&registry, "image")[0], &artifacts(&registry, "brain")[3]);
    let shard = &artifacts(&registry, "shard")[1];
    let bytes = fs::read(image).unwrap();
    fs::write(image, &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = fs::read(brain).unwrap();
    bytes[20] ^= 1;
    fs::write(brain, bytes).unwrap();
    fs::remove_file(shard).unwrap();

    let output = on_catalog(&registry, &["verify", "--json", "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told: BTreeSet<(String, PathBuf)> = told["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["damage"].as_str().unwrap().to_owned(), d["uri"].as_str().unwrap().into()))
        .collect();
    let expected = [("half", image), ("changed", brain), ("missing", shard)];
    let expected = expected.map(|(damage, path)| (damage.to_owned(), path.clone()));
    assert_eq!(told, BTreeSet::from(expected));

    let output = on_catalog(&registry, &["verify", "--repair"]);
    assert!(output.status.success(), "{}", text(&output));
    let again = registry.counts(&[]);
    assert_eq!(again["registry"], [0, 12, 0]);
    assert_eq!(again["prepared"], [2, 10, 0]);
    assert_eq!(again["shards"], [4, 8, 0], "the four cases of the second shard");
    assert_eq!(tree(&derivatives), whole);
    assert!(on_catalog(&registry, &["verify"]).status.success());
    for (table, key) in [("artifacts", "artifact_id"), ("quality", "case_id")] {
        let twice = format!("SELECT count(*) - count(DISTINCT {key}) FROM {table}");
        assert_eq!(registry.sql(&twice), "0", "{table}");
    }
}

#[test]
fn clean_removes_what_nothing_needs_and_nothing_else() {
    let registry = Registry::synth(5, &[]);
    registry.counts(&[]);
    let derivatives = registry.path().join("derivatives");
    let catalog = registry.path().join("catalog");
    let first = tree(&derivatives);
    registry.counts(&["--set", "blur_mm=3"]);
    let both = tree(&derivatives);
    let second: BTreeSet<&String> = both.keys().filter(|name| !first.contains_key(*name)).collect();
    assert_eq!(second.len(), 5 * 3 + 1);

    // What crashes leave, and what other people do.
    let image = artifacts(&registry, "image")[0].clone();
    let folder = image.parent().unwrap();
    let name = image.file_name().unwrap().to_string_lossy().into_owned();
    let print = name.split("desc-prepared").nth(1).unwrap()[..10].to_owned();
    let unnamed = folder.join(name.replace(&print, "0123456789"));
    let temporary = folder.join(format!(".{name}.999999999-7.tmp"));
    let staged = catalog.join("cases/_delta_log/00000000000000000099.json#1");
    let orphan = catalog.join("artifacts/part-00000-lost-c000.snappy.parquet");
    let mine = [
        folder.join("notes.txt"),
        folder.join(format!("sub-unknown_desc-prepared{print}_dwi.nii.gz")),
        derivatives.join("sub-x_dwi.nii.gz"),
        registry.path().join(".elsewhere.999999999-7.tmp"),
    ];
    let outside = registry.path().join("outside.nii.gz");
    for path in [&unnamed, &temporary, &staged, &orphan, &outside].into_iter().chain(&mine) {
        fs::write(path, "x").unwrap();
    }
    let link = folder.join(name.replace(&print, "9876543210"));
    std::os::unix::fs::symlink(&outside, &link).unwrap();

    // By the rules, superseded artifacts stay for 30 days, and what is younger than a day may be in use.
    let output = on_catalog(&registry, &["clean"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!temporary.exists() && unnamed.exists() && orphan.exists(), "{}", text(&output));
    fs::write(&temporary, "x").unwrap();

    let all = ["--keep-days", "0", "--keep-versions", "0", "--grace-hours", "0"];
    let before = files(registry.path());
    let output = on_catalog(&registry, &[&["clean", "--dry-run"], &all[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    for said in ["temporary", "unnamed", "superseded", "table file", "dry run"] {
        assert!(text(&output).contains(said), "no {said}: {}", text(&output));
    }
    assert_eq!(files(registry.path()), before, "a dry run removes nothing");

    let output = on_catalog(&registry, &[&["clean"], &all[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    for path in [&unnamed, &temporary, &staged, &orphan] {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in mine.iter().chain([&outside, &link]) {
        assert!(path.exists(), "{}", path.display());
    }
    let left: BTreeSet<String> = tree(&derivatives)
        .into_keys()
        .filter(|name| !mine.iter().chain([&link]).any(|path| path.ends_with(Path::new(name))))
        .collect();
    assert_eq!(left.iter().collect::<BTreeSet<_>>(), second, "the newest state is whole");
    assert!(on_catalog(&registry, &["verify"]).status.success());
    let counts = registry.counts(&["--set", "blur_mm=3"]);
    assert_eq!((counts["prepared"], counts["shards"]), ([0, 5, 0], [0, 5, 0]));
    // What was removed is made again when it is asked for.
    assert_eq!(registry.counts(&[])["prepared"], [5, 0, 0]);
    assert!(
        text(&on_catalog(&registry, &["sql", "SELECT 1 FROM cases VERSION AS OF 1"])).contains('1')
    );
}

#[test]
fn clean_and_repair_wait_for_a_run_to_end() {
    let registry = Registry::synth(2, &[]);
    registry.counts(&[]);
    let catalog = registry.path().join("catalog");
    let owner = Owner { what: "run of something".to_owned(), ..Owner::default() };
    let _lock = lock::acquire(&catalog, &owner, Arc::new(())).unwrap();
    for words in [&["clean", "--dry-run"][..], &["verify", "--repair"]] {
        let output = on_catalog(&registry, words);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("being written by run of something"), "{}", text(&output));
    }
    assert!(on_catalog(&registry, &["verify"]).status.success(), "reading needs no lock");
}

#[test]
fn what_a_power_loss_tore_is_told_and_mended_by_the_next_run() {
    let registry = Registry::synth(6, &[]);
    registry.counts(&[]);
    let whole = tree(&registry.path().join("derivatives"));
    let rows = "SELECT artifact_id, uri, blake3 FROM artifacts ORDER BY artifact_id";
    let artifacts = registry.sql(rows);
    let folder = registry.path().join("catalog/artifacts");
    let newest = || {
        let mut commits = files(&folder.join("_delta_log"));
        commits.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        commits.pop().unwrap()
    };
    let half = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    // The file that the newest commit names, then the newest commit.
    for told in ["is not the whole file of", "is not a whole commit"] {
        let commit = fs::read_to_string(newest()).unwrap();
        let file = commit.split("\"path\":\"").nth(1).unwrap().split('"').next().unwrap();
        half(&if told.contains("file") { folder.join(file) } else { newest() });
        let output = on_catalog(&registry, &["sql", "SELECT 1"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(told), "{}", text(&output));
        assert!(text(&output).contains("torcula run"), "{}", text(&output));
        let mut args = registry.run_args(&[]);
        *args.iter_mut().find(|word| *word == "none").unwrap() = "plain".to_owned();
        let output = torcula(&args);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("the catalog was repaired"), "{}", text(&output));
        assert_eq!(tree(&registry.path().join("derivatives")), whole);
        assert_eq!(registry.sql(rows), artifacts);
    }
}
