//! Event files that TensorBoard reads: scalars by step.
//!
//! A file is a sequence of `TFRecord`s, each one `Event` message of protocol buffers:
//!
//! ```text
//! record   length u64 │ masked crc32c of the length u32 │ message │ masked crc32c of the message u32      (little endian)
//! mask     ((crc >> 15) | (crc << 17)) + 0xa282ead8
//! Event    1: wall time, double (s) · 2: step, int64 · 3: file version, string · 5: Summary
//! Summary  1: repeated Value { 1: tag, string · 2: simple value, float }
//! ```
//!
//! Formats: <https://www.tensorflow.org/tutorials/load_data/tfrecord>,
//! <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};

use super::files::io_error;
use crate::error::Result;

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An event file that grows.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`, which is made if missing. TensorBoard shows all files of a folder as one run.
    ///
    /// # Errors
    /// An I/O or resource error that names the path.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| io_error(folder, "cannot be made", &e))?;
        let now_s = now_s();
        let process = std::process::id();
        let path =
            folder.join(format!("events.out.tfevents.{:010}.torcula.{process}", now_s as u64));
        let failed = |e: &std::io::Error| io_error(&path, "cannot be written", e);
        let mut file =
            File::options().append(true).create(true).open(&path).map_err(|e| failed(&e))?;
        let mut version = Message::default();
        version.double(1, now_s);
        version.bytes(3, b"brain.Event:2");
        file.write_all(&record(&version.0)).map_err(|e| failed(&e))?;
        Ok(Self { path, file })
    }

    /// Adds values at a step; they are in the file when this returns.
    ///
    /// # Errors
    /// An I/O or resource error that names the path.
    pub fn scalars(&mut self, step: i64, values: &[(&str, f64)]) -> Result<()> {
        let event = record(&event(now_s(), step, values).0);
        self.file.write_all(&event).map_err(|e| io_error(&self.path, "cannot be written", &e))
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn event(time_s: f64, step: i64, values: &[(&str, f64)]) -> Message {
    let mut summary = Message::default();
    for (tag, value) in values {
        let mut one = Message::default();
        one.bytes(1, tag.as_bytes());
        one.float(2, *value as f32);
        summary.bytes(1, &one.0);
    }
    let mut event = Message::default();
    event.double(1, time_s);
    event.varint_field(2, step.cast_unsigned());
    event.bytes(5, &summary.0);
    event
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length, &masked(&length)[..], message, &masked(message)].concat()
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A message of protocol buffers under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `python benches/peers/training.py` prints these bytes: TensorBoard's own Event message in its own RecordWriter.
    #[test]
    fn records_are_those_of_tensorboard() {
        let found = record(&event(1.5, 300, &[("loss/train", 0.25), ("dice", 0.75)]).0);
        let hex: String = found.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, RECORD);
    }

    const RECORD: &str = "2e00000000000000c5cb57fa09000000000000f83f10ac022a200a110a0a6c6f73732f747261696e15\
                          0000803e0a0b0a0464696365150000403f0bb8d03a";

    #[test]
    fn a_file_begins_with_its_version_and_grows() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut file = EventFile::create(&folder.path().join("run"))?;
        let size = |file: &EventFile| fs::metadata(&file.path).map_or(0, |m| m.len());
        let first = size(&file);
        file.scalars(1, &[("a", 1.0)])?;
        assert!(first > 16 && size(&file) > first);
        assert!(file.path.to_string_lossy().contains("events.out.tfevents."));
        Ok(())
    }
}
