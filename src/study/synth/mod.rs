//! A synthetic multicentre registry of diffusion-weighted MRI in BIDS, for trying out and testing everything else.
//!
//! [`write()`] makes patients with the study's variables (`participants`), hospitals with scanners of their own
//! (`centres`), heads with infarcts ([`crate::imaging::phantom`]) and, where asked for, cases that are broken on
//! purpose ([`broken`]). Every case depends on the seed, the source and its own number only: cases are made in
//! parallel, in any order, with the same bytes for any number of threads, and at most one case a thread is in
//! memory.
//!
//! [`write_metadata`] makes the tables of a published study instead, at its full size and without images.

pub mod broken;
mod centres;
mod encode;
mod library;
pub mod metadata;
mod participants;
mod registry;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

pub use self::broken::Broken;
pub use self::metadata::{Manifest, Study, write_metadata};
use self::registry::Registry;
use crate::error::{Error, Result};

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Number of cases, from 1 to 1,000,000.
    pub cases: usize,
    /// Number of centres, from 1 to 1,000.
    pub sites: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Share of cases that are broken on purpose, from 0 to 1.
    pub broken_share: f64,
    /// Pixels a row and rows a slice, from 16 to 1,024; each scanner's own (128 to 256) where not given.
    pub matrix: Option<usize>,
    /// Slices, from 4 to 512; as many as cover the head where not given.
    pub slices: Option<usize>,
    /// Folder of infarct masks in MNI space (`.nii`, `.nii.gz`) whose outlines are planted in place of drawn ones.
    pub lesions: Option<PathBuf>,
    /// Name of the source, letters and digits. One that begins with `external` has the marginals of the study's
    /// external cohort and stronger differences between centres. Cases of other sources than `internal` carry the
    /// name in their id.
    pub source: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cases: 100,
            sites: 5,
            seed: 20_230_702,
            broken_share: 0.0,
            matrix: None,
            slices: None,
            lesions: None,
            source: "internal".to_owned(),
        }
    }
}

impl Options {
    /// Whether the source has the marginals of the study's external cohort.
    pub fn is_external(&self) -> bool {
        self.source.starts_with("external")
    }

    fn check(&self) -> Result<()> {
        let within = |name: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::configuration(format!("{name} is {value}, expected {low} to {high}")))
        };
        within("cases", self.cases, 1, 1_000_000)?;
        within("sites", self.sites, 1, 1000)?;
        within("matrix", self.matrix.unwrap_or(256), 16, 1024)?;
        within("slices", self.slices.unwrap_or(25), 4, 512)?;
        if !(0.0..=1.0).contains(&self.broken_share) {
            return Err(Error::configuration(format!(
                "the share of broken cases is {}, expected 0 to 1",
                self.broken_share
            )));
        }
        if self.source.is_empty() || !self.source.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::configuration(format!(
                "the source is named {:?}, expected letters and digits",
                self.source
            ))
            .hint("BIDS identifiers, which carry the name, allow nothing else"));
        }
        Ok(())
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of cases, the broken ones included.
    pub cases: usize,
    /// Identifier of every broken case and how it is broken, in order.
    pub broken: Vec<(String, Broken)>,
    /// Size of images and masks in bytes.
    pub bytes: u64,
}

/// Writes a registry into a folder, which must be absent, empty, or hold a registry of the same options.
///
/// `progress` is told the number of cases written so far, from any thread. `participants.tsv` comes last, so that a
/// registry without it is known to be incomplete.
///
/// # Errors
/// A configuration error where an option is out of range, the folder holds something else, or the folder of lesions
/// has no usable mask; an I/O error where something cannot be written.
pub fn write(root: &Path, options: &Options, progress: &(dyn Fn(usize) + Sync)) -> Result<Summary> {
    options.check()?;
    let registry = Registry::new(options)?;
    registry.open(root)?;
    let done = AtomicUsize::new(0);
    let rows = (0..options.cases)
        .into_par_iter()
        .map(|index| {
            let row = registry.write_case(root, index)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(row)
        })
        .collect::<Result<Vec<_>>>()?;
    registry.close(root, &rows)?;
    Ok(Summary {
        cases: options.cases,
        broken: registry.broken(),
        bytes: rows.iter().map(|r| r.bytes).sum(),
    })
}

#[cfg(test)]
mod tests;
