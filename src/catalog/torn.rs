//! What a power loss can tear, and setting it aside: the newest commit of a table, the data files that it names, and the
//! newest checkpoint of its log. Torcula's own writes are synced before they have a name; a disk that does not keep its word,
//! a network file system, or another program that wrote to the table can still leave half of one.
//!
//! A commit that is torn was not acknowledged, so nothing that waits for it was written, and the work behind it is done again
//! by the run that sets it aside. A checkpoint holds nothing that the commits do not.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::errors;
use super::schema::Table;
use super::store::{Catalog, LAST_CHECKPOINT};
use crate::error::{Error, Result};
use crate::formats::files::sync_folder;

/// More torn commits in a row than this are no power loss.
const MOST: usize = 3;
/// The last bytes of a Parquet file.
const PARQUET_END: &[u8; 4] = b"PAR1";

/// Something that is not whole.
#[derive(Debug)]
pub(super) enum Torn {
    /// A commit, or a data file that it names: what is wrong with it.
    Commit(PathBuf, String),
    /// A checkpoint.
    Checkpoint(PathBuf),
}

impl Torn {
    /// The error of whoever only reads.
    pub fn error(&self) -> Error {
        let reason = match self {
            Self::Commit(_, reason) => reason.clone(),
            Self::Checkpoint(path) => format!("{} is not a whole checkpoint", path.display()),
        };
        Error::io(reason).hint(
            "a power loss or a failing disk tore it; `torcula run` sets it aside and does the work behind it again",
        )
    }
}

impl Catalog {
    /// What is torn of a table.
    pub(super) fn torn(&self, table: Table) -> Result<Option<Torn>> {
        let newest = self.version(table)?;
        let commit = self.commit(table, newest);
        let text = fs::read(&commit).map_err(|error| errors::file("read", &commit, &error))?;
        let Some(actions) = actions(&text) else {
            let reason = format!("{} is not a whole commit", commit.display());
            return Ok(Some(Torn::Commit(commit, reason)));
        };
        let adds: Vec<&Value> = actions.iter().filter_map(|action| action.get("add")).collect();
        let operation = actions.iter().find_map(|a| a.pointer("/commitInfo/operation")?.as_str());
        if operation == Some("WRITE") && adds.is_empty() {
            let reason = format!("{} is an append that names no file", commit.display());
            return Ok(Some(Torn::Commit(commit, reason)));
        }
        for add in adds {
            let (Some(name), Some(bytes)) = (add["path"].as_str(), add["size"].as_u64()) else {
                continue;
            };
            let path = self.table_folder(table).join(name);
            if !whole_parquet(&path, Some(bytes))? {
                let reason = format!(
                    "{}, which the newest commit of '{table}' names, is not the whole file of {bytes} bytes",
                    path.display()
                );
                return Ok(Some(Torn::Commit(commit, reason)));
            }
        }
        for version in (self.checkpointed(table)..=newest).rev() {
            let path = self.checkpoint_file(table, version);
            if path.exists() && !whole_parquet(&path, None)? {
                return Ok(Some(Torn::Checkpoint(path)));
            }
        }
        Ok(None)
    }

    /// Data files of the newest versions of the tables that are not there whole.
    ///
    /// # Errors
    /// A log cannot be read.
    pub async fn damaged_files(&self) -> Result<Vec<(Table, PathBuf)>> {
        let mut damaged = Vec::new();
        for table in Table::ALL {
            let loaded = self.loaded(table).await?;
            let snapshot =
                loaded.snapshot().map_err(|error| errors::delta("open", table, &error))?;
            for file in snapshot.log_data().iter() {
                let path = self.table_folder(table).join(file.path().as_ref());
                if !whole_parquet(&path, Some(file.size().unsigned_abs()))? {
                    damaged.push((table, path));
                }
            }
        }
        Ok(damaged)
    }

    /// Sets aside what is torn of a table; returns what was done, for people.
    pub(super) fn set_torn_aside(&self, table: Table) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        while let Some(torn) = self.torn(table)? {
            if notes.len() == MOST {
                return Err(torn.error().hint("restore the folder from a copy"));
            }
            let reason = torn.error().reason().to_owned();
            let aside = match torn {
                Torn::Checkpoint(path) => {
                    // The note that names it goes first: without the checkpoint it would make the table unreadable.
                    let note = self.log(table).join(LAST_CHECKPOINT);
                    if note.exists() {
                        set_aside(&note)?;
                    }
                    set_aside(&path)?
                }
                Torn::Commit(path, _) => self.set_commit_aside(table, &path)?,
            };
            notes.push(format!("{reason}: it was set aside as {}", aside.display()));
            if self.version(table).is_err() {
                // It was to make the table, which held no rows yet.
                break;
            }
        }
        Ok(notes)
    }

    /// A commit goes with its checkpoint, which would bring its rows back.
    fn set_commit_aside(&self, table: Table, commit: &Path) -> Result<PathBuf> {
        let version = self.version(table)?;
        let checkpoint = self.checkpoint_file(table, version);
        if checkpoint.exists() {
            set_aside(&checkpoint)?;
        }
        if self.checkpointed(table) >= version && version > 0 {
            set_aside(&self.log(table).join(LAST_CHECKPOINT))?;
        }
        set_aside(commit)
    }

    /// The file of a checkpoint in one part, as Torcula writes them.
    pub(super) fn checkpoint_file(&self, table: Table, version: i64) -> PathBuf {
        self.log(table).join(format!("{version:020}.checkpoint.parquet"))
    }
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".torn");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)
        .and_then(|()| sync_folder(&aside))
        .map_err(|error| errors::file("set aside", path, &error))?;
    Ok(aside)
}

/// The actions of a commit; none where it is not whole.
fn actions(text: &[u8]) -> Option<Vec<Value>> {
    if !(text.ends_with(b"}") || text.ends_with(b"}\n")) {
        return None;
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Whether a Parquet file is there with its end, and with as many bytes as it should have.
fn whole_parquet(path: &Path, bytes: Option<u64>) -> Result<bool> {
    let end = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < 12 || bytes.is_some_and(|bytes| bytes != length) {
            return Ok(false);
        }
        let mut end = [0; 4];
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut end)?;
        Ok(end == *PARQUET_END)
    };
    match end() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // A disk that does not answer says nothing about the file.
        whole => whole.map_err(|error| errors::file("read", path, &error)),
    }
}
