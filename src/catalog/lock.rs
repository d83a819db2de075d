//! One writer a catalog: an advisory lock on a file in its folder, held for the length of a run. The operating system
//! drops it with the process, however that ends, so there is never a stale lock to clear by hand.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::error::{Error, Result};

const NAME: &str = ".torcula.lock";
const LONGEST_NOTE: u64 = 16 * 1024;

/// How long to try. A killed process keeps its lock until the system has written what it was writing.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Who holds a lock, as the lock file says it.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    what: String,
    started_at: Timestamp,
}

/// The lock, held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    file: File,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The note goes before the lock: whoever gets the lock next finds no earlier holder named.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// Takes the lock of the catalog in `folder`; tries for 5 s. `what` tells others what holds it, as in
/// `run 0198-…`.
///
/// # Errors
/// A resource fault that names the holder's process and start when another process, or another part of this one, holds
/// the lock.
pub fn acquire(folder: &Path, what: &str) -> Result<Guard> {
    let path = folder.join(NAME);
    let failed = |error: std::io::Error| Error::from(error).context(path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(failed(error).hint(
                    "the file system must support file locks; put the catalog on a local disk",
                ));
            }
        }
    }
    let holder =
        Holder { pid: std::process::id(), what: what.to_owned(), started_at: Timestamp::now() };
    let note = serde_json::to_string(&holder).map_err(|error| Error::bug(error.to_string()))?;
    file.set_len(0).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.write_all(note.as_bytes()).map_err(failed)?;
    Ok(Guard { file })
}

/// Whether a run holds the lock of the catalog in `folder`. Writes nothing, so a catalog that may only be read can be asked.
pub fn is_held(folder: &Path) -> bool {
    File::open(folder.join(NAME))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn held(folder: &Path, file: &mut File) -> Error {
    let mut note = String::new();
    let holder = file
        .take(LONGEST_NOTE)
        .read_to_string(&mut note)
        .ok()
        .and_then(|_| serde_json::from_str::<Holder>(&note).ok());
    let by = holder.map_or_else(
        || "another process".to_owned(),
        |Holder { pid, what, started_at }| format!("{what} (process {pid}, started {started_at})"),
    );
    Error::resource(format!("the catalog {} is being written by {by}", folder.display()))
        .hint("wait until it ends, or stop it; the lock goes with its process")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn second_writer_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let guard = acquire(folder.path(), "run one").unwrap();
        let error = acquire(folder.path(), "run two").unwrap_err();
        assert!(error.reason().contains("run one"), "{error}");
        assert!(error.reason().contains(&std::process::id().to_string()), "{error}");
        assert!(is_held(folder.path()));
        drop(guard);
        assert!(!is_held(folder.path()));
        let _guard = acquire(folder.path(), "run two").unwrap();
    }

    #[test]
    fn a_writer_that_is_ending_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let guard = acquire(folder.path(), "run one").unwrap();
        let ending = std::thread::spawn(move || {
            sleep(PAUSE * 4);
            drop(guard);
        });
        assert!(acquire(folder.path(), "run two").is_ok());
        ending.join().unwrap();
    }

    #[test]
    fn lock_left_by_a_dead_process_is_free() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), r#"{"pid":1,"what":"x","started_at":0}"#).unwrap();
        assert!(acquire(folder.path(), "run").is_ok());
    }

    #[test]
    fn missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(acquire(&folder.path().join("none"), "run").is_err());
    }
}
