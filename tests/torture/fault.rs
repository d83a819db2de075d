//! What can go wrong, and doing it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use torcula::formats::files::is_temporary;

use super::check::Reference;
use super::random::Random;
use super::reader;
use super::world::{Phase, World, files, text, wait};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillAtOperation,
    KillAtTime,
    Terminate,
    PowerLoss,
    FullDisk,
    FullFileSystem,
    WriteError,
    ReadError,
    ShortTransfers,
    ClockJump,
    TwoRuns,
    Reader,
    TornCommit,
    TornTableFile,
    TornCheckpoint,
    DamagedArtifacts,
}

impl Kind {
    const ALL: [Self; 16] = [
        Self::KillAtOperation,
        Self::PowerLoss,
        Self::FullDisk,
        Self::WriteError,
        Self::ReadError,
        Self::Terminate,
        Self::ShortTransfers,
        Self::ClockJump,
        Self::TornCommit,
        Self::TwoRuns,
        Self::KillAtTime,
        Self::Reader,
        Self::TornTableFile,
        Self::DamagedArtifacts,
        Self::TornCheckpoint,
        Self::FullFileSystem,
    ];
    /// Faults at random points: most of them, where there are many.
    const POINTED: [Self; 6] = [
        Self::KillAtOperation,
        Self::KillAtOperation,
        Self::PowerLoss,
        Self::FullDisk,
        Self::WriteError,
        Self::ReadError,
    ];

    /// The kind for this turn: each once, then at random; none after the last turn.
    pub fn choose(turn: usize, wanted: usize, random: &mut Random) -> Option<Self> {
        if turn >= wanted {
            return None;
        }
        let only = std::env::var("TORCULA_TORTURE_ONLY").unwrap_or_default();
        let chosen: Vec<Self> =
            Self::ALL.into_iter().filter(|kind| only.contains(&format!("{kind:?}"))).collect();
        if !chosen.is_empty() {
            return Some(*random.pick(&chosen));
        }
        Some(match Self::ALL.get(turn) {
            Some(kind) => *kind,
            None if random.coin() => *random.pick(&Self::POINTED),
            None => *random.pick(&Self::ALL),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::KillAtOperation => "kill -9 at a file operation",
            Self::KillAtTime => "kill -9 at a moment",
            Self::Terminate => "SIGTERM",
            Self::PowerLoss => "power loss, unsynced bytes gone",
            Self::FullDisk => "disk full (ENOSPC)",
            Self::FullFileSystem => "disk full (small tmpfs)",
            Self::WriteError => "I/O errors on writing",
            Self::ReadError => "I/O errors on reading",
            Self::ShortTransfers => "short reads and writes, EINTR",
            Self::ClockJump => "clock jump",
            Self::TwoRuns => "two runs at once",
            Self::Reader => "readers beside a run",
            Self::TornCommit => "torn last commit",
            Self::TornTableFile => "torn file of the last commit",
            Self::TornCheckpoint => "torn checkpoint of a log",
            Self::DamagedArtifacts => "damaged artifacts, repaired",
        }
    }
}

/// What a fault took away on purpose.
#[derive(Debug, Default, Clone)]
pub struct Damage {
    /// Tables whose last commit is gone.
    pub tables: BTreeSet<String>,
    /// Artifacts that were damaged; no row names them until they are made again.
    pub files: BTreeSet<PathBuf>,
    /// Readers may refuse the catalog, if they say that a run repairs it.
    pub told_as_torn: bool,
}

/// A fault that happened.
pub struct Injection {
    /// In words, with the numbers that repeat it.
    pub what: String,
    /// Whether it hit the program at work.
    pub struck: bool,
    /// The exit code; none where the program was killed.
    pub exit: Option<i32>,
    pub damage: Damage,
    /// Why it could not be done here.
    pub skipped: Option<String>,
}

impl Injection {
    fn new(what: impl Into<String>, struck: bool, output: &Output) -> Self {
        Self {
            what: what.into(),
            struck,
            exit: output.status.code(),
            damage: Damage::default(),
            skipped: None,
        }
    }
}

/// Runs the pipeline and lets the fault hit it.
pub fn inject(
    world: &World<'_>,
    phase: Phase,
    kind: Kind,
    reference: &Reference,
    random: &mut Random,
) -> Result<Injection, String> {
    let (writes, reads) = reference.operations(phase);
    let elapsed = reference.elapsed(phase);
    match kind {
        Kind::KillAtOperation => preloaded(world, "kill", random.up_to(writes), 1, random),
        Kind::PowerLoss => {
            let mut injection = preloaded(world, "power", random.up_to(writes), 1, random)?;
            // What was not synced may be torn; a run repairs it.
            injection.damage.told_as_torn = true;
            Ok(injection)
        }
        Kind::FullDisk | Kind::WriteError => {
            let lasts = *random.pick(&[0, 0, 1, 2, 5, 20, 100]);
            let name = if kind == Kind::FullDisk { "full" } else { "io" };
            preloaded(world, name, random.up_to(writes), lasts, random)
        }
        Kind::ReadError => {
            let lasts = *random.pick(&[1, 1, 2, 5, 50, 0]);
            preloaded(world, "read", random.up_to(reads), lasts, random)
        }
        Kind::ShortTransfers => preloaded(world, "short", random.up_to(writes / 4), 0, random),
        Kind::ClockJump => {
            let lasts = *random.pick(&[0, 10, 100]);
            preloaded(world, "clock", random.up_to(writes), lasts, random)
        }
        Kind::KillAtTime | Kind::Terminate => signalled(world, kind, elapsed, random),
        Kind::TwoRuns => two_runs(world, elapsed, random),
        Kind::Reader => reader::beside(world, elapsed, random),
        Kind::FullFileSystem => small_file_system(world, reference.bytes(phase), random),
        Kind::TornCommit | Kind::TornTableFile | Kind::TornCheckpoint => {
            torn(world, kind, writes, random)
        }
        Kind::DamagedArtifacts => damaged_artifacts(world, random),
    }
}

fn preloaded(
    world: &World<'_>,
    kind: &str,
    at: usize,
    lasts: usize,
    random: &mut Random,
) -> Result<Injection, String> {
    let seed = random.next() >> 1;
    let mark = world.path().join("mark");
    drop(fs::remove_file(&mark));
    let mut command = world.command(&[]);
    command
        .env("LD_PRELOAD", world.library())
        .env("TORTURE_ROOTS", world.path())
        .env("TORTURE_KIND", kind)
        .env("TORTURE_AT", at.to_string())
        .env("TORTURE_FOR", lasts.to_string())
        .env("TORTURE_SEED", seed.to_string())
        .env("TORTURE_MARK", &mark);
    let output = wait(command.spawn().unwrap());
    let marked = fs::read_to_string(&mark).unwrap_or_default();
    let struck = marked.lines().find(|line| line.starts_with("struck"));
    let what = format!(
        "{kind} at operation {at} for {lasts}, seed {seed}, {}, exit {:?}",
        struck.unwrap_or("missed"),
        output.status.code()
    );
    let expected = match kind {
        "kill" | "power" if struck.is_some() => output.status.signal() == Some(9),
        // What is only slow or odd is no reason to fail.
        "short" | "clock" | "kill" | "power" => output.status.code() == Some(0),
        _ => matches!(output.status.code(), Some(0 | 1)),
    };
    if !expected {
        return Err(format!("{what}: this should not end so: {}", text(&output)));
    }
    calm(&what, &output)?;
    if kind == "full" && output.status.code() == Some(1) && !says_full(&output) {
        return Err(format!("{what}: nothing says that the disk is full: {}", text(&output)));
    }
    Ok(Injection::new(what, struck.is_some(), &output))
}

fn says_full(output: &Output) -> bool {
    let text = text(output).to_lowercase();
    text.contains("disk is full") || text.contains("no space left")
}

/// No panic, and no mistake that the program calls its own.
fn calm(what: &str, output: &Output) -> Result<(), String> {
    let said = text(output);
    if said.contains("panicked at") || said.contains("a mistake in Torcula") {
        return Err(format!("{what}: a panic: {said}"));
    }
    Ok(())
}

fn signalled(
    world: &World<'_>,
    kind: Kind,
    elapsed: Duration,
    random: &mut Random,
) -> Result<Injection, String> {
    let wait_ms = random.below(elapsed.as_millis() as usize + 20);
    let child = world.command(&[]).spawn().unwrap();
    let pid = child.id().to_string();
    std::thread::sleep(Duration::from_millis(wait_ms as u64));
    let name = if kind == Kind::Terminate { "-TERM" } else { "-KILL" };
    let struck = Command::new("kill").args([name, &pid]).output().unwrap().status.success();
    let output = wait(child);
    let struck = struck && !output.status.success();
    let what = format!("{} after {wait_ms} ms, exit {:?}", kind.name(), output.status.code());
    calm(&what, &output)?;
    let politely = kind == Kind::Terminate && output.status.code() == Some(1);
    if politely && !text(&output).contains("the same command again") {
        return Err(format!("{what}: it does not say how to go on: {}", text(&output)));
    }
    Ok(Injection::new(what, struck, &output))
}

fn two_runs(
    world: &World<'_>,
    elapsed: Duration,
    random: &mut Random,
) -> Result<Injection, String> {
    let first = world.command(&[]).spawn().unwrap();
    let pid = first.id().to_string();
    std::thread::sleep(Duration::from_millis(random.below(elapsed.as_millis() as usize) as u64));
    let second = world.command(&[]).spawn().unwrap();
    let kill = random.coin();
    if kill {
        std::thread::sleep(Duration::from_millis(random.below(200) as u64));
        drop(Command::new("kill").args(["-KILL", &pid]).output());
    }
    let (first, second) = (wait(first), wait(second));
    let what = format!(
        "two runs at once{}, exit {:?} and {:?}",
        if kill { ", the first killed" } else { "" },
        first.status.code(),
        second.status.code()
    );
    for output in [&first, &second] {
        calm(&what, output)?;
        let refused = output.status.code() == Some(1) && text(output).contains("being written by");
        if !(output.status.success() || refused || (kill && output.status.code().is_none())) {
            return Err(format!("{what}: {}", text(output)));
        }
    }
    let struck = !first.status.success() || !second.status.success();
    Ok(Injection::new(what, struck, if first.status.success() { &second } else { &first }))
}

/// The world on a file system that is too small, then on one that is not.
fn small_file_system(
    world: &World<'_>,
    bytes: u64,
    random: &mut Random,
) -> Result<Injection, String> {
    let place = world.derivatives();
    let catalog = world.catalog();
    let there = disk_bytes(&catalog) + disk_bytes(&place);
    let more = (bytes.saturating_sub(there) / 1024).max(64) as usize;
    let kilobytes = there / 1024 + 32 + random.below(more) as u64;
    // Both folders on one small disk: what is there moves in, and out again.
    let mount = world.path().join("small");
    fs::create_dir_all(&mount).unwrap();
    let options = format!("size={kilobytes}k");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "torture"])
        .arg(&mount)
        .output()
        .unwrap();
    if !mounted.status.success() {
        let mut injection = Injection::new("no file system could be mounted", false, &mounted);
        injection.skipped = Some(String::from_utf8_lossy(&mounted.stderr).trim().to_owned());
        return Ok(injection);
    }
    let move_to = |from: &Path, to: &Path| -> bool {
        !from.exists() || Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success()
    };
    let fits =
        move_to(&catalog, &mount.join("catalog")) && move_to(&place, &mount.join("derivatives"));
    let unmount = || {
        let done = Command::new("umount").arg(&mount).status().unwrap();
        assert!(done.success(), "{} cannot be unmounted", mount.display());
        fs::remove_dir(&mount).unwrap();
    };
    if !fits {
        unmount();
        let output = world.run(&[]);
        return Ok(Injection::new("a disk too small for what is there", false, &output));
    }
    let bind = |folder: &Path, name: &str| {
        fs::create_dir_all(folder).unwrap();
        fs::create_dir_all(mount.join(name)).unwrap();
        let done = Command::new("mount").arg("--bind").arg(mount.join(name)).arg(folder).status();
        assert!(done.unwrap().success());
    };
    bind(&catalog, "catalog");
    bind(&place, "derivatives");
    let output = world.run(&[]);
    for folder in [&catalog, &place] {
        assert!(Command::new("umount").arg(folder).status().unwrap().success());
        fs::remove_dir_all(folder).unwrap();
    }
    assert!(move_to(&mount.join("catalog"), &catalog));
    assert!(move_to(&mount.join("derivatives"), &place));
    unmount();
    let what = format!("a disk of {kilobytes} kB, exit {:?}", output.status.code());
    calm(&what, &output)?;
    match output.status.code() {
        Some(0) => {}
        Some(1) if says_full(&output) => {}
        _ => return Err(format!("{what}: nothing says that the disk is full: {}", text(&output))),
    }
    Ok(Injection::new(what, !output.status.success(), &output))
}

/// Damages the newest commit of a table, a file that it names, or a checkpoint, as a power loss can.
fn torn(
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
        let added = text.lines().filter_map(|line| {
            let action: Value = serde_json::from_str(line).ok()?;
            Some(table.join(action.pointer("/add/path")?.as_str()?))
        });
        match added.last() {
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
fn damaged_artifacts(world: &World<'_>, random: &mut Random) -> Result<Injection, String> {
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

/// What files take on a disk, in pages.
pub fn disk_bytes(folder: &Path) -> u64 {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    files(folder).iter().map(|path| size(path).next_multiple_of(4096)).sum()
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
