//! What can go wrong, and doing it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use super::check::Reference;
use super::random::Random;
use super::world::{Phase, World, text, wait};
use super::{disk, reader, torn};

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
    pub fn new(what: impl Into<String>, struck: bool, output: &Output) -> Self {
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
        Kind::FullFileSystem => disk::small_file_system(world, reference.bytes(phase), random),
        Kind::TornCommit | Kind::TornTableFile | Kind::TornCheckpoint => {
            torn::torn(world, kind, writes, random)
        }
        Kind::DamagedArtifacts => torn::damaged_artifacts(world, random),
    }
}

pub fn preloaded(
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

pub fn says_full(output: &Output) -> bool {
    let text = text(output).to_lowercase();
    text.contains("disk is full") || text.contains("no space left")
}

/// No panic, and no mistake that the program calls its own.
pub fn calm(what: &str, output: &Output) -> Result<(), String> {
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
