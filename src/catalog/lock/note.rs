//! The note in a lock file: who holds the lock, and a heartbeat with how far it is.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::Timestamp;
use crate::error::{Error, Result};

/// Time between two heartbeats.
pub const BEAT: Duration = Duration::from_secs(5);
/// A holder without a heartbeat for so long hangs, was suspended, or is dead.
pub const STALE: Duration = Duration::from_secs(60);

const LONGEST_NOTE: u64 = 64 * 1024;

/// What takes a lock.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// In words, as in `run of infarct`.
    pub what: String,
    /// The run, where it is one.
    pub run_id: Option<String>,
    /// The command line.
    pub command: String,
}

/// Who holds a lock, as the lock file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// In words, as in `run of infarct`.
    pub what: String,
    /// The run, where it is one.
    pub run_id: Option<String>,
    /// The command line.
    pub command: String,
    /// Whose process it is.
    pub user: String,
    /// The machine, by its name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When it took the lock.
    pub started_at: Timestamp,
    /// Number of the last heartbeat.
    pub beat: u64,
    /// When that was, by the holder's clock.
    pub beat_at: Timestamp,
    /// How far a run is.
    pub progress: Option<Progress>,
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step at work.
    pub step: String,
    /// When that step began.
    pub step_started_at: Timestamp,
    /// Cases (epochs, in a training) that it has to do.
    pub todo: u64,
    /// Of those, what went through.
    pub done: u64,
    /// Of those, what was quarantined.
    pub failed: u64,
    /// When a case last ended, a training went on, or a step began.
    pub progressed_at: Timestamp,
    /// Cases that went through, in all steps of the run.
    pub cases_done: u64,
    /// Cases that were quarantined, in all steps of the run.
    pub cases_failed: u64,
    /// Cases that were done before, in all steps of the run.
    pub cases_unchanged: u64,
}

impl Holder {
    pub(super) fn new(owner: &Owner) -> Self {
        let now = Timestamp::now();
        Self {
            what: owner.what.clone(),
            run_id: owner.run_id.clone(),
            command: owner.command.clone(),
            user: user(),
            host: host(),
            pid: std::process::id(),
            started_at: now,
            beat: 0,
            beat_at: now,
            progress: None,
        }
    }

    /// Time since the last heartbeat, by the clocks of two machines where they are two.
    pub fn silence(&self) -> Duration {
        self.beat_at.elapsed()
    }

    /// Whether the heartbeat stopped.
    pub fn is_stale(&self) -> bool {
        self.silence() > STALE
    }

    /// Whether it is of this machine.
    pub fn is_here(&self) -> bool {
        self.host == host()
    }

    /// Whether both notes are by the same process for the same lock.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.pid, &self.host, self.started_at) == (other.pid, &other.host, other.started_at)
    }
}

/// Writes the note. A reader at the same moment may find a mixture of two notes, which is no JSON, and reads again.
pub(super) fn write(file: &File, holder: &Holder) -> Result<()> {
    let mut note = serde_json::to_vec(holder).map_err(|error| Error::bug(error.to_string()))?;
    note.push(b'\n');
    file.write_all_at(&note, 0)?;
    file.set_len(note.len() as u64)?;
    Ok(())
}

/// The note in a lock file; none where there is none, or none that can be read.
pub(super) fn read(path: &Path) -> Option<Holder> {
    for _ in 0..5 {
        let mut text = String::new();
        File::open(path).ok()?.take(LONGEST_NOTE).read_to_string(&mut text).ok()?;
        if text.is_empty() {
            return None;
        }
        if let Some(holder) = text.lines().next().and_then(|l| serde_json::from_str(l).ok()) {
            return Some(holder);
        }
        sleep(Duration::from_millis(10));
    }
    None
}

/// This machine's name.
fn host() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

/// Whose process this is.
fn user() -> String {
    let of = |name| std::env::var(name).ok().filter(|v: &String| !v.trim().is_empty());
    let uid = || std::fs::metadata("/proc/self").map(|found| format!("uid {}", found.uid()));
    of("USER").or_else(|| of("LOGNAME")).or_else(|| uid().ok()).unwrap_or_default()
}
