//! Damage to what is on the disk: the newest commit of a table, a file that it names, a checkpoint, artifacts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;
use torcula::formats::files::is_temporary;

use super::fault::{Damage, Injection, Kind, calm, preloaded};
use super::random::Random;
use super::world::{World, files, text};

/// Damages the newest commit of a table, a file that it names, or a checkpoint, as a power loss can.
pub fn torn(
    world: &World<'_>,
    kind: Kind,
    writes: usize,
    random: &mut Random,
) -> Result<Injection, String> {
    // Only what was not acknowledged yet can be torn: commits of the run that ends with it, in the middle of its work or at
    // its end. A checkpoint holds nothing that the commits do not.
    let before = files(&world.catalog());
    let run = if random.coin() {
        preloaded(world, "kill", random.up_to(writes), 1, random)?
    } else {
        let output = world.run(&[]);
        Injection::new("a run", true, &output)
    };
    let mut logs: Vec<PathBuf> = files(&world.catalog());
    logs.retain(|path| path.parent().is_some_and(|folder| folder.ends_with("_delta_log")));
    let commits: Vec<&PathBuf> = logs
        .iter()
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            match kind {
                Kind::TornCheckpoint => name.ends_with(".checkpoint.parquet"),
                _ => is_commit(&name) && !before.contains(path),
            }
        })
        .collect();
    // The newest of each table.
    let newest: Vec<&PathBuf> = commits
        .iter()
        .filter(|path| {
            commits.iter().all(|other| other.parent() != path.parent() || other <= *path)
        })
        .copied()
        .collect();
    let newest: Vec<&PathBuf> = newest
        .into_iter()
        .filter(|commit| kind == Kind::TornCheckpoint || may_tear(commit))
        .collect();
    if newest.is_empty() {
        return Ok(Injection {
            what: format!("{}, nothing to tear", run.what),
            struck: false,
            ..run
        });
    }
    let commit = (*random.pick(&newest)).clone();
    let table = commit.parent().unwrap().parent().unwrap();
    let mut target = commit.clone();
    if kind == Kind::TornTableFile {
        let text = fs::read_to_string(&commit).unwrap_or_default();
        let mut added = text.lines().filter_map(|line| {
            let action: Value = serde_json::from_str(line).ok()?;
            Some(table.join(action.pointer("/add/path")?.as_str()?))
        });
        match added.next_back() {
            Some(file) => target = file,
            None => {
                let what = format!("{}, a commit without files", run.what);
                return Ok(Injection { what, struck: false, ..run });
            }
        }
    }
    let how = tear(&target, random);
    let name = table.file_name().unwrap().to_string_lossy().into_owned();
    let what = format!("{}, then {how} {}", run.what, target.display());
    let damage = Damage {
        tables: if kind == Kind::TornCheckpoint { BTreeSet::new() } else { BTreeSet::from([name]) },
        told_as_torn: true,
        ..Damage::default()
    };
    let asked = world.torcula(&["sql", "SELECT count(*) FROM cases"]);
    calm(&what, &asked)?;
    let told = text(&asked);
    if !asked.status.success() && !told.contains("torcula run") {
        return Err(format!("{what}: readers are not told what to do: {told}"));
    }
    Ok(Injection { what, struck: true, exit: run.exit, damage, skipped: None })
}

/// Whether a power loss can tear a commit: `quality` is on the disk before the rows of `artifacts` that say that its cases are
/// done. Of every other table, what is missing is seen to be missing.
fn may_tear(commit: &Path) -> bool {
    let log = commit.parent().unwrap();
    let table = log.parent().unwrap();
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let artifacts = files(&table.with_file_name("artifacts").join("_delta_log"));
    let later = artifacts.iter().any(|other| time(other) >= time(commit));
    !(table.ends_with("quality") && later)
}

/// Damages artifacts of a completed world; `verify` must name exactly these, and its repair leave them to the next run.
pub fn damaged_artifacts(world: &World<'_>, random: &mut Random) -> Result<Injection, String> {
    let run = world.run(&[]);
    let artifacts = files(&world.derivatives());
    let mut expected = BTreeSet::new();
    for _ in 0..random.up_to(3) {
        let path = random.pick(&artifacts);
        let name = path.file_name().unwrap().to_string_lossy();
        if is_temporary(&name) || expected.contains(path) {
            continue;
        }
        let whole = fs::read(path).unwrap();
        match random.below(3) {
            0 => fs::remove_file(path).unwrap(),
            1 => drop(tear(path, random)),
            _ => {
                let mut bytes = whole.clone();
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                fs::write(path, bytes).unwrap();
            }
        }
        // Zeros may have been there before.
        if fs::read(path).ok() != Some(whole) {
            expected.insert(path.clone());
        }
    }
    let what = format!("{} artifacts damaged: {expected:?}", expected.len());
    let output = world.torcula(&["verify", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let told: BTreeSet<PathBuf> = told["damaged"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|damaged| PathBuf::from(damaged["uri"].as_str().unwrap_or_default()))
        .collect();
    if told != expected || output.status.success() != expected.is_empty() {
        return Err(format!("{what}, but verify says {}", text(&output)));
    }
    let repaired = world.torcula(&["verify", "--repair"]);
    if !repaired.status.success() {
        return Err(format!("{what}, and its repair failed: {}", text(&repaired)));
    }
    let mut injection = Injection::new(what, !expected.is_empty(), &run);
    injection.damage = Damage {
        tables: BTreeSet::from(["artifacts".to_owned()]),
        files: expected,
        told_as_torn: false,
    };
    Ok(injection)
}

fn is_commit(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()))
}

fn tear(path: &Path, random: &mut Random) -> String {
    let length = fs::metadata(path).map_or(0, |found| found.len()) as usize;
    let keep = random.below(length.max(1));
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(keep as u64).unwrap();
    if random.coin() {
        return format!("cut to {keep} of {length} bytes:");
    }
    // The length was written, the bytes were not.
    file.set_len(length as u64).unwrap();
    format!("zeros from byte {keep} of {length}:")
}
