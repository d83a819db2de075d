//! How much of an input is believed, however it was made.
//!
//! | limit | default | raised by |
//! |---|---|---|
//! | bytes decoded of one gzip file, up to the voxels that are read | 64 GiB, and 1,032 times the file (the most that DEFLATE can hold) | `TORCULA_MAX_DECODED_BYTES`; the ratio cannot be |
//! | voxels of one 3-D volume | 2²⁹ (2 GiB as `f32`) | `TORCULA_MAX_VOXELS` |
//! | dimensions of an image | 7, each from 1 on; all voxels must fit the file | the format's own |
//! | header extensions (bytes between header and voxels) | 64 MiB | `TORCULA_MAX_EXTENSION_BYTES` |
//! | bytes after the last voxel that are read for a checksum | 1 MiB; with more the checksum is not verified, and a note says so | |
//! | a sidecar | 8 MiB, 128 levels of JSON | `TORCULA_MAX_SIDECAR_BYTES`; the depth cannot be |
//! | a table (`participants.tsv`, a manifest) | 256 MiB, and as much text in a Parquet file | `TORCULA_MAX_TABLE_BYTES` |
//! | a `.bval` file | 1 MiB | |
//! | folders below the root of a registry | 12 levels | |
//! | an id of a case, subject or session | 128 characters: letters, digits, `-`, `_`, `+`, single dots inside | |
//! | a path in a manifest | must lie in the manifest's folder, links followed | `root` of the ingest |
//! | a link in a BIDS folder | must lie in the folder | link or mount the data inside |
//! | a pipeline file | 1 MiB, 64 levels, 100,000 parts with aliases written out | |
//! | a file with a privacy key | 4 KiB | |
//! | a shard | as large as its file: it is mapped, not copied | |
//!
//! What the variables hold is a number of bytes or voxels. Links are looked at when a registry is scanned: who can exchange
//! files while a run reads them is trusted. Temporary files lie beside what they become, are made with `O_EXCL`, and have the
//! rights that the umask leaves, as have all files; folders for passing results are made for their owner alone.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// A limit that the environment can move.
#[derive(Debug)]
pub struct Limit {
    /// The variable that moves it.
    pub variable: &'static str,
    default: u64,
    value: OnceLock<u64>,
}

/// Bytes decoded of one gzip file.
pub static DECODED_BYTES: Limit = Limit::new("TORCULA_MAX_DECODED_BYTES", 64 << 30);
/// Voxels of one 3-D volume.
pub static VOXELS: Limit = Limit::new("TORCULA_MAX_VOXELS", 1 << 29);
/// Bytes between a NIfTI header and the voxels.
pub static EXTENSION_BYTES: Limit = Limit::new("TORCULA_MAX_EXTENSION_BYTES", 64 << 20);
/// Bytes of a sidecar.
pub static SIDECAR_BYTES: Limit = Limit::new("TORCULA_MAX_SIDECAR_BYTES", 8 << 20);
/// Bytes of a table.
pub static TABLE_BYTES: Limit = Limit::new("TORCULA_MAX_TABLE_BYTES", 256 << 20);

impl Limit {
    const fn new(variable: &'static str, default: u64) -> Self {
        Self { variable, default, value: OnceLock::new() }
    }

    /// The limit that holds in this process.
    pub fn get(&self) -> u64 {
        *self.value.get_or_init(|| self.read().unwrap_or(self.default))
    }

    fn read(&self) -> Result<u64> {
        let Some(text) = std::env::var_os(self.variable) else { return Ok(self.default) };
        let number = text.to_str().and_then(|t| t.trim().parse().ok()).filter(|n| *n > 0);
        number.ok_or_else(|| {
            Error::configuration(format!(
                "the environment's {} is no whole number above 0",
                self.variable
            ))
            .hint(format!("write it without a unit; the default is {}", self.default))
        })
    }
}

/// Whether all limits in the environment are numbers.
///
/// # Errors
/// A configuration error that names the variable which is not.
pub fn check() -> Result<()> {
    [&DECODED_BYTES, &VOXELS, &EXTENSION_BYTES, &SIDECAR_BYTES, &TABLE_BYTES]
        .into_iter()
        .try_for_each(|limit| limit.read().map(drop))
}
