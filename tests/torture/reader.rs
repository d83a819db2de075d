//! Readers while a run writes: Torcula's own, the program, and other software where there is one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use torcula::error::Fault;

use super::check::{Snapshot, count_read};
use super::fault::Injection;
use super::random::Random;
use super::world::{World, text, wait};

/// Reads every table with delta-rs for Python until it is told to stop, and every file that a row names.
const PYTHON: &str = "
import os, sys
from deltalake import DeltaTable
folder, stop = sys.argv[1:]
reads = 0
while not os.path.exists(stop):
    for name in ('artifacts', 'cases', 'quality', 'failures', 'runs'):
        if not os.path.exists(f'{folder}/{name}/_delta_log/00000000000000000000.json'):
            continue
        table = DeltaTable(f'{folder}/{name}').to_pyarrow_table()
        if name == 'artifacts':
            for row in table.select(['uri', 'bytes']).to_pylist():
                assert not row['uri'] or os.path.getsize(row['uri']) == row['bytes'], row
        reads += 1
print(reads, flush=True)
# Not through the end of the interpreter, where threads of the libraries may still be at work.
os._exit(0)
";

/// A run, or one that is killed, with readers beside it.
pub fn beside(
    world: &World<'_>,
    elapsed: Duration,
    random: &mut Random,
) -> Result<Injection, String> {
    let mut run = world.command(&[]).spawn().unwrap();
    let pid = run.id().to_string();
    let kill = random.coin();
    let wait_ms = random.up_to(elapsed.as_millis() as usize) as u64;
    let stop = world.path().join("stop");
    drop(fs::remove_file(&stop));
    let python = std::env::var_os("TORCULA_PYTHON").filter(|path| Path::new(path).exists());
    let other = python.map(|python| {
        let mut command = Command::new(python);
        command.args(["-c", PYTHON]).arg(world.catalog()).arg(&stop);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let ended = AtomicBool::new(false);
    let (read, output) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(world, &ended));
        if kill {
            std::thread::sleep(Duration::from_millis(wait_ms));
            drop(run.kill());
        }
        let output = wait(run);
        ended.store(true, Ordering::SeqCst);
        (reader.join().unwrap(), output)
    });
    fs::write(&stop, "").unwrap();
    let killed = if kill { format!(", killed after {wait_ms} ms") } else { String::new() };
    let what = format!("readers beside run {pid}{killed}, exit {:?}", output.status.code());
    let reads = read.map_err(|problem| format!("{what}: {problem}"))?;
    if let Some(other) = other {
        let other = wait(other);
        if !other.status.success() {
            return Err(format!("{what}: delta-rs for Python: {}", text(&other)));
        }
    }
    if !kill && !output.status.success() {
        return Err(format!("{what}: {}", text(&output)));
    }
    Ok(Injection {
        what,
        struck: reads > 0,
        exit: output.status.code(),
        damage: super::fault::Damage::default(),
        skipped: None,
    })
}

/// Reads again and again; artifacts only become more, and each is there when its row is.
fn read_until(world: &World<'_>, ended: &AtomicBool) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut reads = 0;
    while !ended.load(Ordering::SeqCst) {
        let snapshot = match runtime.block_on(Snapshot::read(&world.catalog())) {
            Ok(snapshot) => snapshot,
            // It is being made.
            Err(error) if error.fault() == Fault::Configuration && known.is_empty() => continue,
            // A fault before tore it, and the run has not mended it yet.
            Err(error) if reads == 0 && error.to_string().contains("torcula run") => continue,
            Err(error) => return Err(format!("a reader failed: {error}")),
        };
        let mut now = BTreeSet::new();
        for row in snapshot.rows("artifacts") {
            let uri = row["uri"].as_str().unwrap_or_default();
            let bytes = fs::metadata(uri).map_or(0, |found| found.len());
            if !uri.is_empty() && row["bytes"] != bytes {
                return Err(format!("a reader sees {uri} with {bytes} bytes: {row}"));
            }
            now.insert(row["artifact_id"].as_str().unwrap_or_default().to_owned());
        }
        if let Some(lost) = known.difference(&now).next() {
            return Err(format!("a reader saw {lost}, and then did not"));
        }
        known = now;
        reads += 1;
        count_read();
    }
    Ok(reads)
}
