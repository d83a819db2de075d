//! What a registry says of people, and what of it an ingest lets through.
//!
//! A declared [`Policy`] stands between the scan of a registry and everything else. With it
//!
//! | what | becomes |
//! |---|---|
//! | case, subject and session ids, which come from names of files and folders | keyed hashes (`ids: hash`); sessions that are dates are shifted, ordinals of up to two characters stay |
//! | paths in `cases` | sealed: only who holds the key can read them, and the files behind them (`ids: hash`) |
//! | fields of the table of participants or the manifest | dropped where they are known to identify ([`fields::KNOWN`]) or hold text that no column of `cases` is for; `keep`, `hash`, `drop` and `refuse` say otherwise |
//! | text for columns of `cases` (`vendor`, `location`, ..) | kept where it reads like a category, else dropped |
//! | dates | shifted by whole days, the same for all dates of a patient, so that intervals stay (`shift_dates`); else dropped. Dates of birth are dropped |
//! | sidecars | vendor, model and the numbers that `cases` has columns for; nothing else is ever taken |
//! | NIfTI `descrip`, `aux_file`, `intent_name`, `db_name` and header extensions | never copied: what Torcula writes has headers of its own |
//! | failures, findings, messages | words that stand in the input they are about are hidden (`scrub.rs`) |
//!
//! Hashes are HMAC-SHA-256 with a key from the environment or a file; it is in no catalog, plan, log, lineage or error. Whoever
//! holds it can find a case again (`torcula reveal`); whoever does not, cannot. That is pseudonymisation, not anonymity: images
//! show faces and ages can be rare. **Defacing is out of scope**: run a defacing tool before, where faces are in the images.
//! Hashes of whole files (blake3) are in the catalog; they tell two files apart and nothing of what is in them to somebody
//! who has not got the file.
//!
//! The policy covers what `torcula run` takes in. `apply`, `score` and `infer` work on files that a person names, and name
//! them in their messages.

pub mod dates;
pub mod fields;
mod key;
mod policy;
mod scrub;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub use self::key::{KEY_VARIABLE, Key, KeySource, hold, is_sealed, unseal};
pub use self::policy::{Ids, Policy};
pub use self::scrub::Scrubber;
use super::cases::{CaseFiles, Finding, Scan};
use super::files;
use crate::error::{Error, Result};

/// Longest shift of dates, in days: five years.
const MAX_SHIFT_DAYS: u64 = 1826;

/// A policy with its key.
#[derive(Debug, Clone)]
pub struct Privacy {
    policy: Policy,
    key: Option<Arc<Key>>,
}

/// What a policy did to the variables of a registry: names of fields.
#[derive(Debug, Default)]
pub struct Applied {
    /// Dropped.
    pub dropped: BTreeSet<String>,
    /// Hashed.
    pub hashed: BTreeSet<String>,
    /// Shifted.
    pub shifted: BTreeSet<String>,
}

impl Privacy {
    /// Reads the key, where the policy needs one, and lets this process open what it seals.
    ///
    /// # Errors
    /// As [`Key::read`].
    pub fn open(policy: &Policy) -> Result<Self> {
        let key = policy.needs_key().then(|| Key::read(&policy.key).map(Arc::new)).transpose()?;
        if let Some(key) = &key {
            hold(key);
        }
        Ok(Self { policy: policy.clone(), key })
    }

    /// Whether names of files are hidden.
    pub fn hides_names(&self) -> bool {
        self.policy.ids == Ids::Hash
    }

    /// Tells the key from others; empty without a key.
    pub fn key_id(&self) -> String {
        self.key.as_ref().map(|key| key.id()).unwrap_or_default()
    }

    /// What of the policy decides the rows of a case.
    pub fn identity(&self) -> String {
        let policy = Policy { key: KeySource::default(), ..self.policy.clone() };
        blake3::hash(json!(policy).to_string().as_bytes()).to_hex().to_string()
    }

    /// How a path is written into the catalog.
    pub fn uri(&self, path: &Path) -> String {
        match &self.key {
            Some(key) if self.hides_names() => key.seal(path),
            _ => path.to_string_lossy().into_owned(),
        }
    }

    /// The id of a case or subject, as the catalog has it.
    pub fn id(&self, id: &str) -> String {
        let Some(key) = self.key.as_ref().filter(|_| self.hides_names()) else {
            return id.to_owned();
        };
        let (subject, session) = id.split_once("_ses-").map_or((id, None), |(a, b)| (a, Some(b)));
        let hidden = key.pseudonym("subject", subject, 16);
        match session {
            Some(session) => format!("sub-{hidden}_ses-{}", self.session(subject, session)),
            None => format!("sub-{hidden}"),
        }
    }

    /// The label of a session: a shifted date, an ordinal as it is, or a hash.
    fn session(&self, subject: &str, label: &str) -> String {
        let ordinal = label.len() <= 2 && label.bytes().all(|b| b.is_ascii_alphanumeric());
        let Some(key) = self.key.as_ref().filter(|_| self.hides_names() && !ordinal) else {
            return label.to_owned();
        };
        let shifted = self.shift_days(subject).and_then(|days| dates::shifted(label, days));
        // What is left of a time would not be a label.
        let shifted = shifted.filter(|date| date.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        shifted.unwrap_or_else(|| key.pseudonym("session", &format!("{subject} {label}"), 8))
    }

    /// By how many days the dates of a patient move back.
    fn shift_days(&self, subject: &str) -> Option<u64> {
        let key = self.key.as_ref().filter(|_| self.policy.shift_dates)?;
        Some(1 + key.number("days", subject) % MAX_SHIFT_DAYS)
    }

    /// Puts the policy's names and values in the place of a scan's. `source` is the folder or manifest that was scanned; `own`
    /// tells which variables have a column of `cases`.
    pub fn apply(&self, scan: Scan, source: &Path, own: fn(&str) -> bool) -> (Scan, Applied) {
        let mut applied = Applied::default();
        let mut done = Scan::default();
        if !scan.findings.is_empty() {
            let scrub = self.scrubber_of_source(source);
            done.findings = scan.findings.into_iter().map(|f| self.finding(f, &scrub)).collect();
        }
        for case in scan.cases {
            match self.case(case, own, &mut applied) {
                Ok(case) => done.cases.push(case),
                Err(finding) => done.findings.push(finding),
            }
        }
        (done.sorted(), applied)
    }

    fn finding(&self, finding: Finding, scrub: &Scrubber) -> Finding {
        // The line of a table is no name of anybody, and the only way to find what is wrong.
        let case_id = if finding.case_id.starts_with("line-") {
            finding.case_id
        } else {
            self.id(&finding.case_id)
        };
        Finding { case_id, reason: scrub.clean(&finding.reason), ..finding }
    }

    fn case(
        &self,
        mut case: CaseFiles,
        own: fn(&str) -> bool,
        applied: &mut Applied,
    ) -> std::result::Result<CaseFiles, Finding> {
        let subject = case.subject_id.clone();
        case.case_id = self.id(&case.case_id);
        let given = case.variables.to_map();
        if let Some(field) = self.refused(&given) {
            let reason = format!("it has a value for `{field}`, which the privacy policy refuses");
            return Err(Finding::excludes(&case.case_id, reason, REFUSED_HINT));
        }
        case.variables = self.variables(given, &subject, own, applied).into();
        if self.hides_names() {
            case.subject_id = self.id(&subject);
            let label = |s: String| match s.strip_prefix("ses-") {
                Some(label) => format!("ses-{}", self.session(&subject, label)),
                None => self.session(&subject, &s),
            };
            case.session_id = case.session_id.map(label);
        }
        Ok(case)
    }

    /// The first field with a value that no case may have.
    pub fn refused<'a>(&self, found: &'a Map<String, Value>) -> Option<&'a str> {
        let has_value = |v: &Value| !v.is_null() && v.as_str().is_none_or(|t| !t.trim().is_empty());
        let refused = |name: &str| fields::is_in(&self.policy.refuse, name);
        found
            .iter()
            .find(|(name, value)| refused(name) && has_value(value))
            .map(|(name, _)| name.as_str())
    }

    /// The keyed hashes of those fields that the policy wants hashed.
    pub fn hashes(&self, found: &Map<String, Value>) -> Map<String, Value> {
        let hashed = found.iter().filter(|(name, _)| fields::is_in(&self.policy.hash, name));
        hashed.filter_map(|(name, value)| Some((name.clone(), self.hashed(value)?))).collect()
    }

    fn hashed(&self, value: &Value) -> Option<Value> {
        let text = text_of(value)?;
        Some(json!(self.key.as_ref()?.pseudonym("field", &text, 16)))
    }

    /// A text for a column of `cases`, where it reads like a category.
    pub fn category(&self, text: Option<String>) -> Option<String> {
        text.filter(|text| fields::is_category(text))
    }

    fn variables(
        &self,
        given: Map<String, Value>,
        subject: &str,
        own: fn(&str) -> bool,
        applied: &mut Applied,
    ) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in given {
            let Some(text) = text_of(&value) else {
                // An empty cell says nothing, unless the whole column is to be gone.
                if own(&name) || self.keeps(&name) {
                    kept.insert(name, value);
                }
                continue;
            };
            let kind = |set: &mut BTreeSet<String>| set.insert(name.clone());
            let days = || self.shift_days(subject).filter(|_| !fields::is_birth(&name));
            let is_date = dates::is_date(&text);
            if fields::is_in(&self.policy.hash, &name) {
                if let Some(hash) = self.hashed(&value) {
                    kind(&mut applied.hashed);
                    kept.insert(name, hash);
                }
            } else if fields::is_in(&self.policy.drop, &name) {
                kind(&mut applied.dropped);
            } else if self.keeps(&name) {
                kept.insert(name, value);
            } else if let Some(moved) =
                days().filter(|_| is_date).and_then(|d| dates::shifted(&text, d))
            {
                kind(&mut applied.shifted);
                kept.insert(name, json!(moved));
            } else if !is_date
                && !fields::is_known(&name)
                && (fields::is_quantity(&text) || (own(&name) && fields::is_category(&text)))
            {
                kept.insert(name, value);
            } else {
                kind(&mut applied.dropped);
            }
        }
        kept
    }

    fn keeps(&self, name: &str) -> bool {
        fields::is_in(&self.policy.keep, name)
    }

    /// Cleans messages about a registry as a whole.
    pub fn scrubber_of_source(&self, source: &Path) -> Scrubber {
        let mut scrub = Scrubber::new(!self.hides_names());
        let folder = if source.is_dir() { source } else { source.parent().unwrap_or(source) };
        // Masks and the folder itself may be found through a folder beside the images.
        let is_raw = folder.file_name().is_some_and(|n| n == "rawdata");
        scrub.add_tree(folder.parent().filter(|_| is_raw).unwrap_or(folder));
        if source.is_file() {
            scrub.add_text_of(source);
            scrub.call(source.display().to_string(), "the manifest");
        }
        scrub.call(format!("{}/participants.tsv", folder.display()), "participants.tsv");
        scrub
    }

    /// Cleans messages about one case.
    pub fn scrubber_of_case(&self, case: &CaseFiles) -> Scrubber {
        let mut scrub = Scrubber::new(!self.hides_names());
        case.paths().into_iter().for_each(|path| scrub.add_path(path));
        let named = [
            (&case.image, "its image"),
            (&case.b0, "its b = 0 image"),
            (&case.truth, "its mask"),
            (&case.sidecar, "its sidecar"),
            (&case.bval, "its b-values"),
        ];
        for (path, name) in
            named.into_iter().filter_map(|(path, name)| Some((path.as_ref()?, name)))
        {
            scrub.call(path.display().to_string(), name);
        }
        let texts =
            case.sidecars().into_iter().chain(case.bval.as_deref()).chain(case.bvec.as_deref());
        texts.for_each(|path| scrub.add_text_of(path));
        scrub
    }
}

/// What to do about a refused field.
pub const REFUSED_HINT: &str =
    "remove the field from the file, or put it into `drop` or `hash` of the policy";

/// A value as text; none where it says nothing.
fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Reads the file that an address of the catalog means. Where the address is sealed, an error does not tell what it hides.
///
/// # Errors
/// Those of `read`; a configuration error where the address means no local file or no key opens it.
pub fn open<T>(uri: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let path = files::resolve(uri)?;
    let hide = |error: Error| {
        if !is_sealed(uri) {
            return error;
        }
        let mut scrub = Scrubber::new(false);
        scrub.add_path(&path);
        scrub.call(path.display().to_string(), "its file");
        scrub.clean_error(error)
    };
    read(&path).map_err(hide)
}

#[cfg(test)]
mod tests;
