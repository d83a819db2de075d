//! One writer a catalog: an advisory lock on a file in its folder, held for the length of a run.
//!
//! The operating system drops the lock with the process, however that ends, so there is never a stale lock to clear by
//! hand. The file also holds a note: who the holder is, and a heartbeat every 5 s. The note tells others whom they wait
//! for and whether that hangs. On a network drive, where the locks of one machine may not be seen by others, or where
//! there are no locks at all, the heartbeat decides: a note by another machine is watched, and counts as left by a crash
//! when its beats stop. No clock is compared for that. Two runs that start on such a drive within the same second are told
//! apart at the first heartbeat: the one whose note is gone stops.

mod note;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

pub use note::{BEAT, Holder, Owner, Progress, STALE};

use super::Timestamp;
use crate::error::{Error, Result};
use crate::units::human_duration;

const NAME: &str = ".torcula.lock";

/// How long to try. A killed process keeps its lock until the system has written what it was writing.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What the heartbeat asks of the holder, and tells it. Every part may be left out.
pub trait Vitals: Send + Sync {
    /// How far it is.
    fn progress(&self) -> Option<Progress> {
        None
    }
    /// The lock was taken by another process, because this one was taken for dead. Nothing more may be written.
    fn lost(&self) {}
    /// Something worth a line, before the lock is held.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

impl Vitals for () {}

/// Times and abilities, which tests change.
#[derive(Debug, Clone, Copy)]
struct Rules {
    beat: Duration,
    patience: Duration,
    /// Whether the file system has locks.
    locks: bool,
}

const RULES: Rules = Rules { beat: BEAT, patience: PATIENCE, locks: true };

/// The lock, held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    file: Arc<File>,
    lost: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
    left: Option<Holder>,
}

impl Guard {
    /// The holder before, where it ended without giving the lock back.
    pub fn left(&self) -> Option<&Holder> {
        self.left.as_ref()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(heart) = self.heart.take() {
            drop(heart.join());
        }
        if !self.lost.load(Ordering::SeqCst) {
            // The note goes before the lock: whoever gets the lock next finds no earlier holder named.
            let _ = self.file.set_len(0);
        }
        let _ = self.file.unlock();
    }
}

/// Takes the lock of the catalog in `folder`; tries for 5 s, and for 15 s more where another machine's note is there.
///
/// # Errors
/// A resource fault that names the holder, its start and its last heartbeat when another process, or another part of this
/// one, holds the lock.
pub fn acquire(folder: &Path, owner: &Owner, vitals: Arc<dyn Vitals>) -> Result<Guard> {
    acquire_by(folder, owner, vitals, RULES)
}

/// How the lock of a catalog stands.
#[derive(Debug, Clone)]
pub struct State {
    /// Whether a process holds it. One that does not answer still holds it.
    pub held: bool,
    /// The holder, or the one that a crash ended.
    pub holder: Option<Holder>,
}

/// How the lock of the catalog in `folder` stands. Writes nothing, so a catalog that may only be read can be asked.
pub fn state(folder: &Path) -> State {
    let path = folder.join(NAME);
    let locked = File::open(&path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    let holder = note::read(&path);
    let elsewhere = holder.as_ref().is_some_and(|h| !h.is_here() && !h.is_stale());
    State { held: locked || elsewhere, holder }
}

fn acquire_by(
    folder: &Path,
    owner: &Owner,
    vitals: Arc<dyn Vitals>,
    rules: Rules,
) -> Result<Guard> {
    let path = folder.join(NAME);
    let failed = |error: Error| error.context(path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed(error.into()))?;
    let locks = rules.locks && lock(&file, folder, rules.patience).map_err(failed)?;
    let left = note::read(&path);
    if let Some(before) = &left
        && !(locks && before.is_here())
        && is_alive(&path, before, &*vitals, rules)
    {
        return Err(held(folder, note::read(&path)));
    }
    let holder = Holder::new(owner);
    note::write(&file, &holder).map_err(failed)?;
    if !locks {
        // Another process may have found the lock free at the same moment: the later note wins.
        sleep(PAUSE * 6);
        let now = note::read(&path);
        if !now.as_ref().is_some_and(|now| now.is_same(&holder)) {
            return Err(held(folder, now));
        }
    }
    Ok(beating(path, file, holder, left, vitals, rules.beat))
}

/// Takes the file's lock; false where the file system has none.
fn lock(file: &File, folder: &Path, patience: Duration) -> Result<bool> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(held(folder, note::read(&folder.join(NAME))));
            }
            Err(TryLockError::Error(error)) => {
                let absent = [libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP];
                let code = error.raw_os_error().unwrap_or_default();
                return match error.kind() == ErrorKind::Unsupported || absent.contains(&code) {
                    true => Ok(false),
                    false => Err(error.into()),
                };
            }
        }
    }
}

/// Whether the writer of a note still beats. It is dead where three beats fail to come.
fn is_alive(path: &Path, before: &Holder, vitals: &dyn Vitals, rules: Rules) -> bool {
    let wait = rules.beat * 3;
    vitals.note(&format!(
        "the lock was left by {} on {}: watching for {:.0} s whether it lives",
        before.what,
        before.host,
        wait.as_secs_f64()
    ));
    let began = Instant::now();
    while began.elapsed() < wait {
        match note::read(path) {
            Some(now) if now.is_same(before) && now.beat == before.beat => {}
            // Given back meanwhile.
            None => return false,
            Some(_) => return true,
        }
        sleep(PAUSE.min(rules.beat / 4));
    }
    false
}

/// Starts the heartbeat.
fn beating(
    path: PathBuf,
    file: File,
    mut holder: Holder,
    left: Option<Holder>,
    vitals: Arc<dyn Vitals>,
    beat: Duration,
) -> Guard {
    let (file, lost) = (Arc::new(file), Arc::new(AtomicBool::new(false)));
    let (stop, stopped) = channel::<()>();
    let (own, gone) = (Arc::clone(&file), Arc::clone(&lost));
    let work = move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(beat) {
            if note::read(&path).is_some_and(|now| !now.is_same(&holder)) {
                gone.store(true, Ordering::SeqCst);
                tracing::error!("another process took the lock of the catalog");
                return vitals.lost();
            }
            holder.beat += 1;
            holder.beat_at = Timestamp::now();
            holder.progress = vitals.progress();
            // A beat that cannot be written is missed; the lock itself holds.
            if let Err(error) = note::write(&own, &holder) {
                tracing::warn!(fault = error.fault().name(), "the heartbeat was not written");
            }
        }
    };
    let heart = std::thread::Builder::new().name("torcula-heart".to_owned()).spawn(work).ok();
    Guard { file, lost, stop: Some(stop), heart, left }
}

fn held(folder: &Path, holder: Option<Holder>) -> Error {
    let reason = |by: String| {
        Error::resource(format!("the catalog {} is being written by {by}", folder.display()))
    };
    let Some(holder) = holder else {
        return reason("another process".to_owned())
            .hint("wait until it ends, or stop it; the lock goes with its process");
    };
    let Holder { what, user, host, pid, started_at, .. } = &holder;
    let run = holder.run_id.as_ref().map(|id| format!("run {id}, ")).unwrap_or_default();
    let silence = human_duration(holder.silence());
    let error = reason(format!(
        "{what} ({run}{user} on {host}, process {pid}, started {started_at}, last heartbeat {silence} ago)"
    ));
    let place = if holder.is_here() { String::new() } else { format!(" on {host}") };
    error.hint(match holder.is_stale() {
        true => format!(
            "it does not answer: it hangs or was suspended. `kill -CONT {pid}`{place} wakes it, `kill -9 {pid}`{place} ends it; \
             the lock goes with its process"
        ),
        false => format!(
            "wait until it ends, or stop it with `kill {pid}`{place}; `torcula status --catalog {}` shows how far it is",
            folder.display()
        ),
    })
}

#[cfg(test)]
mod tests;
