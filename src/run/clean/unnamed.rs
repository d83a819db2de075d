//! Files that no row names: artifacts of a run that ended before it committed their rows, and temporary files.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::prelude::SessionContext;
use serde::Deserialize;

use super::{Artifact, Garbage, Kind, Ran, older};
use crate::catalog;
use crate::error::Result;
use crate::formats::files::{self, io_error};

/// Digits of the fingerprint at the end of a name.
const DIGITS: usize = 10;

/// What tells this catalog's artifacts from any other file.
pub(super) struct Known {
    /// Files that rows name.
    named: HashSet<PathBuf>,
    steps: HashSet<String>,
    /// What the names of a case's files begin with.
    stems: HashSet<String>,
}

impl Known {
    pub fn new(artifacts: &[Artifact], ran: &[Ran]) -> Self {
        let uris: HashSet<&str> = artifacts.iter().map(|a| a.uri.as_str()).collect();
        let path = |uri: &str| files::resolve(uri).ok()?.canonicalize().ok();
        let steps = ran.iter().flat_map(Ran::steps).map(str::to_owned);
        Self {
            named: uris.into_iter().filter_map(path).collect(),
            steps: steps.chain(artifacts.iter().map(|a| a.step.clone())).collect(),
            stems: artifacts.iter().filter_map(|a| a.case_id.as_deref()).map(stem).collect(),
        }
    }

    /// Adds the cases that have no artifact.
    pub async fn cases(&mut self, ctx: &SessionContext) -> Result<()> {
        #[derive(Deserialize)]
        struct Row {
            case_id: String,
        }
        let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, "SELECT case_id FROM cases").await?)?;
        self.stems.extend(rows.iter().map(|row| stem(&row.case_id)));
        Ok(())
    }

    /// Whether a file has the name of an artifact of one of the steps and cases.
    fn is_artifact(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        self.is_shard(path, name) || self.is_of_a_case(name)
    }

    /// `shards/STEP/STEP-00000-0123456789.arrow`
    fn is_shard(&self, path: &Path, name: &str) -> bool {
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let Some(step) = folder.filter(|step| self.steps.contains(*step)) else { return false };
        let rest = name.strip_prefix(step).and_then(|rest| rest.strip_suffix(".arrow"));
        let parts: Vec<&str> = rest.unwrap_or_default().split('-').collect();
        matches!(parts[..], ["", number, print] if
            number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()) && is_print(print))
    }

    /// `sub-X[_ses-Y][_label-L]_desc-STEP0123456789[_SUFFIX].ENDING`
    fn is_of_a_case(&self, name: &str) -> bool {
        let Some((before, after)) = name.split_once("_desc-") else { return false };
        let stem = before.split_once("_label-").map_or(before, |(stem, _)| stem);
        let tag = after.split(['_', '.']).next().unwrap_or_default();
        let Some((step, print)) = tag.split_at_checked(tag.len().saturating_sub(DIGITS)) else {
            return false;
        };
        let letters = |step: &String| step.chars().filter(char::is_ascii_alphanumeric).collect();
        let ending = [".nii.gz", ".json"].iter().any(|ending| name.ends_with(ending));
        ending
            && is_print(print)
            && self.stems.contains(stem)
            && self.steps.iter().map(letters).any(|known: String| known == step)
    }
}

/// What the names of a case's files begin with.
fn stem(case_id: &str) -> String {
    if case_id.starts_with("sub-") { case_id.to_owned() } else { format!("sub-{case_id}") }
}

fn is_print(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Finds files below `root`, an absolute path without links; links below it are not followed.
pub(super) fn find(
    root: &Path,
    grace: Duration,
    known: &Known,
    garbage: &mut Garbage,
) -> Result<()> {
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        let failed = |e: std::io::Error| io_error(&folder, "cannot be listed", &e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            if kind.is_dir() {
                open.push(path);
            } else if !kind.is_file() {
            } else if files::is_temporary(&entry.file_name().to_string_lossy()) {
                if older(&path, grace) || !writer_lives(&path) {
                    garbage.add(Kind::Temporary, path);
                }
            } else if known.is_artifact(&path)
                && !known.named.contains(&path)
                && older(&path, grace)
            {
                garbage.add(Kind::Unnamed, path);
            }
        }
    }
    Ok(())
}

/// Whether the process that a temporary file is named after runs on this machine.
fn writer_lives(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let tail = name.trim_end_matches(".tmp").rsplit('.').next().unwrap_or_default();
    let pid = tail.split('-').next().unwrap_or_default();
    // Where processes cannot be looked at, it may.
    !Path::new("/proc/self").exists() || Path::new("/proc").join(pid).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_torcula_gives_are_artifacts() {
        let known = Known {
            named: HashSet::new(),
            steps: HashSet::from(["prepared".to_owned(), "my_shards".to_owned()]),
            stems: HashSet::from(["sub-1_ses-2".to_owned()]),
        };
        for (path, is) in [
            ("/r/sub-1/ses-2/dwi/sub-1_ses-2_desc-prepared0123456789_dwi.nii.gz", true),
            (
                "/r/sub-1/ses-2/dwi/sub-1_ses-2_label-brain_desc-prepared0123456789_mask.nii.gz",
                true,
            ),
            ("/r/sub-1/ses-2/dwi/sub-1_ses-2_desc-prepared0123456789.json", true),
            ("/r/shards/my_shards/my_shards-00012-abcdef0123.arrow", true),
            ("/r/sub-1_ses-2_desc-other0123456789_dwi.nii.gz", false),
            ("/r/sub-9_desc-prepared0123456789_dwi.nii.gz", false),
            ("/r/sub-1_ses-2_desc-prepared_dwi.nii.gz", false),
            ("/r/sub-1_ses-2_desc-prepared0123456789_dwi.txt", false),
            ("/r/shards/other/my_shards-00012-abcdef0123.arrow", false),
            ("/r/shards/my_shards/my_shards-x-abcdef0123.arrow", false),
            ("/r/sub-1_ses-2_dwi.nii.gz", false),
            ("/r/desc-é_desc-é", false),
        ] {
            assert_eq!(known.is_artifact(Path::new(path)), is, "{path}");
        }
    }
}
