//! What a scan of a folder or a manifest finds: which files belong to which case, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

/// Most characters of an identifier; file names are made of it.
const MAX_ID: usize = 128;

/// The files of one case. Paths exist and are regular files at the time of the scan.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CaseFiles {
    /// Unique within the scan and safe as part of a file name: `sub-XXX` or `sub-XXX_ses-YYY` for BIDS.
    pub case_id: String,
    /// Who was scanned: `sub-XXX`.
    pub subject_id: String,
    /// Which visit: `ses-YYY`.
    pub session_id: Option<String>,
    /// The diffusion-weighted image, 3-D or 4-D; none where a manifest was read for its metadata only.
    pub image: Option<PathBuf>,
    /// b-values of a 4-D image's volumes.
    pub bval: Option<PathBuf>,
    /// Gradient directions of a 4-D image's volumes.
    pub bvec: Option<PathBuf>,
    /// The image without diffusion weighting, where it is a file of its own.
    pub b0: Option<PathBuf>,
    /// Apparent diffusion coefficients.
    pub adc: Option<PathBuf>,
    /// FLAIR image.
    pub flair: Option<PathBuf>,
    /// The lesion mask drawn by a person.
    pub truth: Option<PathBuf>,
    /// The image's own JSON sidecar.
    pub sidecar: Option<PathBuf>,
    /// Sidecars of folders above that also count, the most general first; the image's own overrides them.
    pub inherited_sidecars: Vec<PathBuf>,
    /// What the table of participants says, by variable; what is missing there is null.
    pub variables: Variables,
}

impl CaseFiles {
    /// A case with an image, where it has one, and nothing else.
    pub fn new(
        case_id: impl Into<String>,
        subject_id: impl Into<String>,
        image: Option<PathBuf>,
    ) -> Self {
        Self {
            case_id: case_id.into(),
            subject_id: subject_id.into(),
            session_id: None,
            image,
            bval: None,
            bvec: None,
            b0: None,
            adc: None,
            flair: None,
            truth: None,
            sidecar: None,
            inherited_sidecars: Vec::new(),
            variables: Variables::default(),
        }
    }

    /// Every file of the case.
    pub fn paths(&self) -> Vec<&Path> {
        let own =
            [&self.image, &self.bval, &self.bvec, &self.b0, &self.adc, &self.flair, &self.truth];
        own.into_iter().flatten().map(PathBuf::as_path).chain(self.sidecars()).collect()
    }

    /// All sidecars that count, the most general first, as [`super::sidecar::read`] takes them.
    pub fn sidecars(&self) -> Vec<&Path> {
        self.inherited_sidecars.iter().chain(&self.sidecar).map(PathBuf::as_path).collect()
    }
}

/// Values by variable, as the row of a table gives them. Kept as JSON text: a registry has a row a case, and a map takes
/// several times the memory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Variables(Arc<str>);

impl Variables {
    /// The values.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The values as one JSON object.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// These values and `more`; of two of one name, those of `more`.
    pub(super) fn with(&self, more: &Self) -> Self {
        let mut map = self.to_map();
        map.extend(more.to_map());
        map.into()
    }
}

impl Default for Variables {
    fn default() -> Self {
        Map::new().into()
    }
}

impl From<Map<String, Value>> for Variables {
    fn from(map: Map<String, Value>) -> Self {
        Self(Value::Object(map).to_string().into())
    }
}

impl From<Variables> for Map<String, Value> {
    fn from(variables: Variables) -> Self {
        variables.to_map()
    }
}

impl FromIterator<(String, Value)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(values: I) -> Self {
        values.into_iter().collect::<Map<_, _>>().into()
    }
}

/// Something wrong or remarkable about one case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// The case, or what stands for it where its own identifier cannot be used; safe as part of a file name.
    pub case_id: String,
    /// What was found and what was expected.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether the case is left out of the scan's cases because of it.
    pub excluded: bool,
}

impl Finding {
    /// The case cannot be used.
    pub(super) fn excludes(case_id: &str, reason: impl Into<String>, hint: &str) -> Self {
        Self { excluded: true, ..Self::notes(case_id, reason, hint) }
    }

    /// The case can be used, but its reader should know.
    pub(super) fn notes(case_id: &str, reason: impl Into<String>, hint: &str) -> Self {
        Self {
            case_id: safe_id(case_id),
            reason: reason.into(),
            hint: Some(hint.to_owned()).filter(|h| !h.is_empty()),
            excluded: false,
        }
    }
}

/// What a scan found, sorted by case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// The cases that can be read, sorted by `case_id`, each identifier once.
    pub cases: Vec<CaseFiles>,
    /// What is wrong, sorted.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// Sorts, leaves out cases with an excluding finding, and notes missing truths where other cases have one.
    pub(super) fn finish(mut self) -> Self {
        if self.cases.iter().any(|c| c.truth.is_some()) {
            let without = self.cases.iter().filter(|c| c.truth.is_none());
            self.findings.extend(without.map(|c| {
                Finding::notes(&c.case_id, "no lesion mask was found, other cases have one", "")
            }));
        }
        self.sorted()
    }

    /// Sorts, and leaves out cases with an excluding finding.
    pub(super) fn sorted(mut self) -> Self {
        self.cases.sort_by(|a, b| a.case_id.cmp(&b.case_id));
        self.findings.sort();
        self.findings.dedup();
        let excluded: std::collections::BTreeSet<&str> =
            self.findings.iter().filter(|f| f.excluded).map(|f| f.case_id.as_str()).collect();
        self.cases.retain(|c| !excluded.contains(c.case_id.as_str()));
        self
    }
}

/// Whether a text can name a case or a subject, and so a file: letters, digits, `-`, `_`, `+` and single dots inside.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b))
        && !text.starts_with(['.', '-'])
        && !text.ends_with('.')
        && !text.contains("..")
}

/// An identifier for the record of something whose own cannot be used: other characters become `_`.
fn safe_id(text: &str) -> String {
    if is_id(text) {
        return text.to_owned();
    }
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let text: String = text.chars().take(MAX_ID - 1).map(safe).collect();
    if text.starts_with('-') || text.is_empty() { format!("_{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_leave_a_folder() {
        for good in ["sub-01", "sub-a+b_ses-2", "x.y"] {
            assert!(is_id(good), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "../x", "a/b", "a b", ".x", "-x", "x.", "a..b", "ü", "a\0", long.as_str()]
        {
            assert!(!is_id(bad), "{bad}");
            assert!(is_id(&safe_id(bad)), "{}", safe_id(bad));
        }
    }
}
