//! A log file that is set aside when it has grown: `run.log`, `run.log.1` (the one before), `run.log.2` …

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that rotates by size.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    keep: usize,
}

impl Rotating {
    /// Opens a file to go on at its end. When a line would make it larger than `max_bytes`, it is set aside, and `keep`
    /// files that were set aside are kept.
    pub(super) fn open(path: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, max_bytes, keep })
    }

    /// Writes a line in one call, so that lines of two processes do not mix.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..self.keep).rev() {
            let (from, to) = (self.aside(n), self.aside(n + 1));
            if from.exists() {
                fs::rename(from, to)?;
            }
        }
        match self.keep {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, self.aside(1))?,
        }
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn aside(&self, n: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_file_is_set_aside_before_it_grows_too_large_and_no_line_is_lost_before_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let mut log = Rotating::open(&path, 30, 2).unwrap();
        for n in 0..4 {
            log.write(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("run.log.1"), "line 0000\nline 0001\nline 0002\n");
        assert_eq!(read("run.log"), "line 0003\n");
        // Another process goes on where this one ended.
        drop(log);
        let mut log = Rotating::open(&path, 30, 2).unwrap();
        for n in 4..10 {
            log.write(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        assert_eq!(read("run.log"), "line 0009\n");
        assert_eq!(read("run.log.1"), "line 0006\nline 0007\nline 0008\n");
        assert_eq!(read("run.log.2"), "line 0003\nline 0004\nline 0005\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "older ones are gone");
    }

    #[test]
    fn a_line_larger_than_the_limit_is_written_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let mut log = Rotating::open(&path, 4, 0).unwrap();
        log.write(b"a long line\n").unwrap();
        log.write(b"another\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another\n");
    }
}
