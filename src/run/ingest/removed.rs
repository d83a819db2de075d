//! Cases that the catalog knows and a scan misses: their files were deleted, or their row in the manifest was.

use std::collections::{HashMap, HashSet};

use crate::formats::bids::{CaseFiles, Finding};
use crate::stages::ingest::FileStat;

use super::Known;

/// What a scan misses.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Removed {
    /// Cases that are missed for the first time, by identifier.
    pub missed: Vec<String>,
    /// Cases that were missed before.
    pub before: usize,
}

impl Removed {
    /// What a run says of them.
    pub fn told(&self) -> Option<String> {
        match (self.missed.len(), self.before) {
            (0, 0) => None,
            (0, before) => Some(format!("{before} removed earlier")),
            (now, 0) => Some(format!("{now} removed")),
            (now, before) => Some(format!("{now} removed, {before} earlier")),
        }
    }
}

/// Known cases that are neither among the cases of a scan nor among what it could not use, and the findings that are left.
/// A finding about a case, or about all of its subject, whose image is gone is no failure: the case is removed.
pub(super) fn split(
    known: &HashMap<String, Known>,
    cases: &[CaseFiles],
    findings: Vec<Finding>,
) -> (Removed, Vec<Finding>) {
    let there: HashSet<&str> = cases.iter().map(|case| case.case_id.as_str()).collect();
    let found: HashSet<&str> = findings.iter().map(|f| f.case_id.as_str()).collect();
    let (mut removed, mut explained) = (Removed::default(), HashSet::new());
    for (id, case) in known.iter().filter(|(id, _)| !there.contains(id.as_str())) {
        let named = [id.as_str(), case.subject_id.as_str()];
        let is_found = named.iter().any(|name| found.contains(name));
        if is_found && image_is_there(case) {
            continue;
        }
        explained.extend(named);
        if case.removed {
            removed.before += 1;
        } else {
            removed.missed.push(id.clone());
        }
    }
    removed.missed.sort_unstable();
    let left = findings.iter().filter(|f| !explained.contains(f.case_id.as_str())).cloned();
    let left = left.collect();
    (removed, left)
}

/// Whether the image that the case was read from is still a file. It is the first of its files.
fn image_is_there(case: &Known) -> bool {
    case.stats().first().is_some_and(FileStat::is_there)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn known(image: &std::path::Path, removed: bool) -> Known {
        let uri = image.display().to_string();
        let files = [FileStat { uri, bytes: 1, modified_us: 0, blake3: String::new() }];
        let files = serde_json::to_string(&files).unwrap();
        Known { subject_id: "sub-1".to_owned(), files, removed }
    }

    fn finding(case_id: &str) -> Finding {
        Finding { case_id: case_id.to_owned(), reason: String::new(), hint: None, excluded: true }
    }

    #[test]
    fn a_case_is_removed_where_its_image_is_gone_and_broken_where_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("i.nii");
        let of = |removed| HashMap::from([("sub-1_ses-1".to_owned(), known(&image, removed))]);
        let missed = Removed { missed: vec!["sub-1_ses-1".to_owned()], before: 0 };
        // The folder of the subject is gone, its row in participants.tsv is not.
        assert_eq!(split(&of(false), &[], vec![finding("sub-1")]), (missed, Vec::new()));
        let (removed, left) = split(&of(true), &[], vec![finding("sub-2")]);
        assert_eq!((removed.before, left.len()), (1, 1));
        assert_eq!(removed.told().unwrap(), "1 removed earlier");
        std::fs::write(&image, "x").unwrap();
        let (removed, left) = split(&of(false), &[], vec![finding("sub-1_ses-1")]);
        assert_eq!((removed, left.len()), (Removed::default(), 1));
        // A manifest no longer names it: removed, although the file is there.
        assert_eq!(split(&of(false), &[], Vec::new()).0.missed.len(), 1);
    }
}
