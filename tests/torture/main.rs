//! The torture harness: runs a pipeline while something goes wrong, hundreds of times, and looks at what is left.
//!
//! `make torture FAULTS=500 SEED=1 WORLDS=1` runs it on the release binary; a few faults run with the other tests, on fewer
//! steps. Each world is a registry with its catalog; faults hit it one by one or in a row, at random points. After each,
//! - no row that was committed before is gone, and none is there twice,
//! - every file that a row names is there with the bytes of its row, and no other file than those of an undisturbed run,
//!   whole, has a name that can be read,
//! - the same command again completes, and everything equals the undisturbed result: artifacts and shards byte for byte, the
//!   catalog row for row but for run identifiers and times.
//!
//! `fault`, `disk`, `torn` and `reader` say what can go wrong, `preload.c` does it to a process, `world` runs the program, `check` compares.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic"
)]

mod check;
mod disk;
mod fault;
mod random;
mod reader;
mod torn;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use check::Reference;
use fault::{Injection, Kind};
use random::Random;
use world::{Bench, Phase, World};

/// Faults where nothing else is asked for: each common kind once.
const FEW: usize = 12;
/// Problems after which nothing more is learnt.
const ENOUGH: usize = 20;

/// What became of the faults of a kind.
#[derive(Debug, Default, Clone)]
struct Tally {
    injected: usize,
    /// Hit the program at work: the others came after its last operation.
    struck: usize,
    done: usize,
    error: usize,
    killed: usize,
}

/// What all worlds share.
struct Torture {
    bench: Bench,
    reference: Reference,
    wanted: usize,
    seed: u64,
    begun: AtomicUsize,
    episodes: AtomicUsize,
    tallies: Mutex<BTreeMap<Kind, Tally>>,
    problems: Mutex<Vec<String>>,
    skipped: Mutex<Vec<String>>,
}

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_doubled() {
    let began = Instant::now();
    let asked = std::env::var_os("TORCULA_TORTURE_FAULTS").is_some();
    let few = if asked { "" } else { "prepared" };
    let bench = Bench::new(std::env::var("TORCULA_TORTURE_TO").unwrap_or_else(|_| few.to_owned()));
    let reference = Reference::make(&bench);
    let torture = Torture {
        wanted: number("TORCULA_TORTURE_FAULTS", FEW),
        seed: number("TORCULA_TORTURE_SEED", 1) as u64,
        begun: AtomicUsize::new(0),
        episodes: AtomicUsize::new(0),
        tallies: Mutex::default(),
        problems: Mutex::default(),
        skipped: Mutex::default(),
        bench,
        reference,
    };
    std::thread::scope(|scope| {
        for _ in 0..number("TORCULA_TORTURE_WORLDS", if asked { 1 } else { 2 }).max(1) {
            scope.spawn(|| {
                while torture.goes_on() {
                    torture.episode();
                }
            });
        }
    });
    torture.report(began);
    let problems = torture.problems.lock().unwrap();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

impl Torture {
    fn goes_on(&self) -> bool {
        self.begun.load(Ordering::SeqCst) < self.wanted
            && self.problems.lock().unwrap().len() < ENOUGH
    }

    /// One world, from nothing to the registry's second state, with faults on the way. A problem ends it.
    fn episode(&self) {
        let number = self.episodes.fetch_add(1, Ordering::SeqCst) as u64;
        let mut random = Random::new(self.seed ^ (number << 32));
        let world = World::new(&self.bench);
        let mut log = Vec::new();
        for phase in Phase::ALL {
            world.advance(phase);
            if let Err(problem) = self.phase(&world, phase, &mut random, &mut log) {
                self.problem(world, number, &log, &problem);
                return;
            }
            if !self.goes_on() {
                break;
            }
        }
        let swept = world.clean().and_then(|()| {
            let before = check::Snapshot::take(&world, &fault::Damage::default())?;
            let output = world.run(&[]);
            let after = check::Snapshot::take(&world, &fault::Damage::default())?;
            after.consistent(&world, &self.reference, &fault::Damage::default())?;
            after.holds(&before)?;
            match after.rows("artifacts").len() == before.rows("artifacts").len() {
                true if output.status.success() => Ok(()),
                _ => Err(format!("a run after clean did work again: {}", world::text(&output))),
            }
        });
        if let Err(problem) = swept {
            self.problem(world, number, &log, &problem);
        }
    }

    fn problem(&self, world: World<'_>, episode: u64, log: &[String], problem: &str) {
        let folder = world.keep();
        let told = format!(
            "- seed {}, episode {episode}, kept in {}\n  after {}\n  {problem}",
            self.seed,
            folder.display(),
            log.join(", then ")
        );
        println!("{told}");
        self.problems.lock().unwrap().push(told);
    }

    /// Faults until the world is whole again, at least one.
    fn phase(
        &self,
        world: &World<'_>,
        phase: Phase,
        random: &mut Random,
        log: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut before = check::Snapshot::take(world, &fault::Damage::default())?;
        for _ in 0..=random.below(2) * random.below(3) {
            let turn = self.begun.fetch_add(1, Ordering::SeqCst);
            if turn > 0 && turn.is_multiple_of(50) {
                println!("{turn} faults");
            }
            let Some(mut kind) = Kind::choose(turn, self.wanted, random) else { break };
            if kind == Kind::DamagedArtifacts && phase == Phase::Second {
                // What the second state does not need would not be made again.
                kind = Kind::KillAtOperation;
            }
            log.push(format!("{} ({phase:?})", kind.name()));
            let injection = fault::inject(world, phase, kind, &self.reference, random)?;
            *log.last_mut().unwrap() = format!("{} ({phase:?})", injection.what);
            self.count(kind, &injection);
            if let Some(reason) = &injection.skipped {
                self.skipped.lock().unwrap().push(format!("{}: {reason}", kind.name()));
                continue;
            }
            before.without(&injection.damage.tables);
            let after = check::Snapshot::take(world, &injection.damage)?;
            after.consistent(world, &self.reference, &injection.damage)?;
            if after.is_told() {
                after.holds(&before)?;
                before = after;
            }
        }
        let output = world.run(&[]);
        if !output.status.success() {
            return Err(format!("the same command again failed: {}", world::text(&output)));
        }
        let after = check::Snapshot::take(world, &fault::Damage::default())?;
        after.consistent(world, &self.reference, &fault::Damage::default())?;
        after.holds(&before)?;
        self.reference.equals(world, phase, &after)?;
        world.sound()
    }

    fn count(&self, kind: Kind, injection: &Injection) {
        if injection.skipped.is_some() {
            return;
        }
        let mut tallies = self.tallies.lock().unwrap();
        let tally = tallies.entry(kind).or_default();
        tally.injected += 1;
        tally.struck += usize::from(injection.struck);
        match injection.exit {
            Some(0) => tally.done += 1,
            Some(_) => tally.error += 1,
            None => tally.killed += 1,
        }
    }

    fn report(&self, began: Instant) {
        let tallies = self.tallies.lock().unwrap();
        println!(
            "\n{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "fault", "injected", "at work", "done", "error", "killed"
        );
        let mut all = Tally::default();
        for (kind, tally) in tallies.iter() {
            let Tally { injected, struck, done, error, killed } = tally;
            println!("{:<34}{injected:>9}{struck:>9}{done:>9}{error:>9}{killed:>9}", kind.name());
            all.injected += injected;
            all.struck += struck;
        }
        println!("{:<34}{:>9}{:>9}", "all", all.injected, all.struck);
        let checked = check::counted();
        println!(
            "\nseed {}, {} worlds, {:.0} s. Checked: {} catalogs, {} rows, {} files by their bytes; {} reads beside a run; \
             {} completed worlds equal to the undisturbed one.",
            self.seed,
            self.episodes.load(Ordering::SeqCst),
            began.elapsed().as_secs_f64(),
            checked.catalogs,
            checked.rows,
            checked.files,
            checked.reads,
            checked.completed
        );
        let mut skipped = self.skipped.lock().unwrap().clone();
        skipped.sort();
        skipped.dedup();
        for reason in skipped {
            println!("skipped: {reason}");
        }
    }
}
