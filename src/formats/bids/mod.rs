//! BIDS folders: raw data sets with sessions, and the layout of ISLES 2022 (`rawdata` beside `derivatives`).
//!
//! ```text
//! root/participants.tsv                                  variables, by participant_id
//! root/[rawdata/]sub-X/[ses-Y/][dwi/]sub-X[_ses-Y]_dwi.nii.gz (.json .bval .bvec)
//! root/derivatives/…/sub-X[_ses-Y]_msk.nii.gz            or …_desc-lesion_mask, …_label-lesion_mask
//! ```
//!
//! A scan reads names and tables only, no image. It goes in order of names, follows no link out of the folder, and
//! what is wrong with one case does not touch the others. Sidecars, b-values and directions are inherited from the
//! folders above, as BIDS says.

mod name;
mod participants;
mod roles;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use super::cases::{CaseFiles, Finding, Scan, Variables};
use super::files::io_error;
use crate::error::{Error, Result};
use name::Name;
use participants::{Participants, is_label};
use tree::{Entry, Kind, Named, Tree};

/// What a scan needs to know about a data set.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct ScanOptions {
    /// Variables under another name: name in the catalog → column of `participants.tsv`.
    pub participants: BTreeMap<String, String>,
}

/// Finds the cases of a BIDS folder, or of the folder that holds its `rawdata` and `derivatives`.
///
/// # Errors
/// A configuration error where `root` is no folder, holds no subject, or a column that `options` names is missing; a
/// data error where `participants.tsv` cannot be read or has no `participant_id`. What is wrong with one case is a
/// finding.
pub fn scan(root: &Path, options: &ScanOptions) -> Result<Scan> {
    let set = DataSet::open(root)?;
    let people = match &set.participants {
        Some(path) => Participants::read(path, options)?,
        None => Participants::default(),
    };
    let truths = set.truths();
    let shared = named_files(set.tree.list(&set.raw)?);
    let mut scan = Scan::default();
    for entry in &set.subjects {
        let subject = Subject {
            set: &set,
            people: &people,
            truths: truths.get(&entry.name).map_or(&[], Vec::as_slice),
            shared: &shared,
            options,
            id: &entry.name,
        };
        if let Err(e) = subject.scan(entry, &mut scan) {
            scan.findings.push(finding_of(&entry.name, &e));
        }
    }
    for subject in people.subjects() {
        if set.subjects.iter().all(|e| e.name != subject) {
            let reason = "it is in participants.tsv, but has no folder";
            scan.findings.push(Finding::excludes(
                subject,
                reason,
                "add its images or remove its row",
            ));
        }
    }
    scan.findings.extend(people.findings);
    Ok(scan.finish())
}

/// Where the parts of a data set are.
struct DataSet {
    tree: Tree,
    /// The folder that holds the subjects.
    raw: PathBuf,
    derivatives: Vec<PathBuf>,
    participants: Option<PathBuf>,
    /// `sub-…`, sorted.
    subjects: Vec<Entry>,
}

impl DataSet {
    fn open(root: &Path) -> Result<Self> {
        tree::check_folder(root)?;
        // A folder named rawdata has its derivatives beside it.
        let real = std::fs::canonicalize(root).map_err(|e| io_error(root, "cannot be read", &e))?;
        let is_raw = real.file_name().is_some_and(|n| n == "rawdata");
        let base = real.parent().filter(|_| is_raw).unwrap_or(&real).to_owned();
        let tree = Tree::of(&base)?;
        let below = |folder: &Path, name: &str, kind: &Kind| {
            Some(folder.join(name)).filter(|path| tree.kind(path) == *kind)
        };
        let raw = below(root, "rawdata", &Kind::Folder).unwrap_or_else(|| root.to_owned());
        let tops =
            if is_raw { vec![raw.clone(), base] } else { vec![raw.clone(), root.to_owned()] };
        let mut derivatives: Vec<PathBuf> =
            tops.iter().filter_map(|top| below(top, "derivatives", &Kind::Folder)).collect();
        derivatives.dedup();
        let participants = tops.iter().find_map(|top| below(top, "participants.tsv", &Kind::File));
        let entries = tree.list(&raw)?;
        let some: Vec<&str> = entries.iter().take(5).map(|e| e.name.as_str()).collect();
        let found = if some.is_empty() { "nothing".to_owned() } else { some.join(", ") };
        let subjects: Vec<Entry> = entries
            .into_iter()
            .filter(|e| e.name.starts_with("sub-") && e.kind != Kind::File)
            .collect();
        if subjects.is_empty() {
            return Err(Error::configuration(format!(
                "{}: no folder of a subject (sub-…); it holds {found}",
                raw.display()
            ))
            .hint("name the folder that holds the sub-… folders or rawdata; for other layouts, use a manifest"));
        }
        Ok(Self { tree, raw, derivatives, participants, subjects })
    }

    /// The lesion masks among the derivatives, by subject.
    fn truths(&self) -> BTreeMap<String, Vec<Named>> {
        let mut truths: BTreeMap<String, Vec<Named>> = BTreeMap::new();
        for entry in self.derivatives.iter().flat_map(|d| self.tree.files_below(d)) {
            let file = Named::from(entry);
            if let Some(label) = file.name.entity("sub").filter(|_| file.name.is_truth()) {
                truths.entry(format!("sub-{label}")).or_default().push(file);
            }
        }
        truths
    }
}

/// One subject of a scan.
struct Subject<'a> {
    set: &'a DataSet,
    people: &'a Participants,
    truths: &'a [Named],
    /// Files beside the subjects' folders.
    shared: &'a [Named],
    options: &'a ScanOptions,
    id: &'a str,
}

impl Subject<'_> {
    fn scan(&self, entry: &Entry, scan: &mut Scan) -> Result<()> {
        if let Kind::Unusable(why) = &entry.kind {
            return Err(Error::data(format!("{} cannot be used: {why}", entry.path.display())));
        }
        if !is_label(&self.id["sub-".len()..]) {
            return Err(Error::data(format!(
                "the folder `{}` is not sub- and letters or digits",
                self.id.escape_debug()
            ))
            .hint("rename the folder and its files"));
        }
        if let Some((reason, hint)) = self.people.refused.get(self.id) {
            return Err(Error::data(reason).hint(*hint));
        }
        let (folders, files): (Vec<Entry>, Vec<Entry>) =
            self.set.tree.list(&entry.path)?.into_iter().partition(|e| e.kind == Kind::Folder);
        let sessions: Vec<Entry> =
            folders.into_iter().filter(|e| e.name.starts_with("ses-")).collect();
        let own = named_files(files);
        let by_session = self.session_variables(&own, scan);
        let alone = sessions.len() <= 1;
        for session in &sessions {
            let case_id = format!("{}_{}", self.id, session.name);
            if !is_label(&session.name["ses-".len()..]) {
                let reason = "the session's name is not ses- and letters or digits";
                scan.findings.push(Finding::excludes(&case_id, reason, "rename the folder"));
                continue;
            }
            let visit = Visit { case_id, session: Some(&session.name), alone };
            match self.visit(&visit, &session.path, &own, scan) {
                Ok(Some(mut case)) => {
                    if let Some(own) = by_session.get(&session.name) {
                        case.variables = case.variables.with(own);
                    }
                    scan.cases.push(case);
                }
                Ok(None) => {}
                Err(e) => scan.findings.push(finding_of(&visit.case_id, &e)),
            }
        }
        if sessions.is_empty() || self.has_image(&entry.path)? {
            let visit = Visit { case_id: self.id.to_owned(), session: None, alone };
            let case = self.visit(&visit, &entry.path, &[], scan)?;
            scan.cases.extend(case);
        }
        Ok(())
    }

    /// Whether there is an image outside the sessions.
    fn has_image(&self, folder: &Path) -> Result<bool> {
        Ok(self.files_of(folder)?.iter().any(|f| f.name.is_nifti() && f.name.suffix == "dwi"))
    }

    /// The files of a visit: in its folder and in the folders of data types in it (`dwi`, `anat`).
    fn files_of(&self, folder: &Path) -> Result<Vec<Named>> {
        let mut files = Vec::new();
        for entry in self.set.tree.list(folder)? {
            match entry.kind {
                Kind::Folder if entry.name.starts_with("ses-") => {}
                Kind::Folder => files.extend(named_files(self.set.tree.list(&entry.path)?)),
                _ => files.push(entry.into()),
            }
        }
        Ok(files)
    }

    /// The case of a visit. `above` are the files of the subject's folder, where the visit has a folder in it.
    fn visit(
        &self,
        visit: &Visit,
        folder: &Path,
        above: &[Named],
        scan: &mut Scan,
    ) -> Result<Option<CaseFiles>> {
        let mut files = self.files_of(folder)?;
        files.retain(|file| {
            let own = visit.owns(self.id, &file.name);
            if !own && file.name.is_nifti() {
                let reason = format!(
                    "{} is passed over: its name is another case's",
                    file.entry.path.display()
                );
                scan.findings.push(Finding::notes(&visit.case_id, reason, "rename or move it"));
            }
            own
        });
        let Some(mut case) = roles::assign(&visit.case_id, self.id, &files, &mut scan.findings)
        else {
            return Ok(None);
        };
        case.session_id = visit.session.map(str::to_owned);
        case.truth = self.truth(visit, &files, &mut scan.findings);
        inherit(&mut case, &[self.shared, above, &files]);
        if let Some(variables) = self.people.variables(self.id, visit.session) {
            case.variables.clone_from(variables);
        } else if self.people.given {
            let reason = "it has no row in participants.tsv";
            scan.findings.push(Finding::notes(&visit.case_id, reason, "add one"));
        }
        Ok(Some(case))
    }

    /// The lesion mask of a visit, among the derivatives or beside the image.
    fn truth(
        &self,
        visit: &Visit,
        files: &[Named],
        findings: &mut Vec<Finding>,
    ) -> Option<PathBuf> {
        let of_visit = |f: &&Named| match f.name.entity("ses") {
            Some(session) => visit.session.is_some_and(|s| s["ses-".len()..] == *session),
            None => visit.session.is_none() || visit.alone,
        };
        let candidates: Vec<&Named> = self
            .truths
            .iter()
            .filter(of_visit)
            .chain(files.iter().filter(|f| f.name.is_truth()))
            .collect();
        let rank = |name: &Name| Some(name.space_rank());
        roles::best(&candidates, rank, &visit.case_id, "lesion mask", findings)
    }

    fn session_variables(&self, own: &[Named], scan: &mut Scan) -> BTreeMap<String, Variables> {
        let table = own.iter().find(|f| f.entry.name == format!("{}_sessions.tsv", self.id));
        let Some(table) = table.filter(|t| t.entry.kind == Kind::File) else {
            return BTreeMap::new();
        };
        participants::sessions(&table.entry.path, self.options).unwrap_or_else(|e| {
            scan.findings.push(Finding::notes(
                self.id,
                e.reason(),
                "correct the table of sessions",
            ));
            BTreeMap::new()
        })
    }
}

/// One visit of a subject.
struct Visit<'a> {
    case_id: String,
    session: Option<&'a str>,
    /// Whether the subject has no other.
    alone: bool,
}

impl Visit<'_> {
    /// Whether a file's name is this visit's; names without subject or session are.
    fn owns(&self, subject: &str, name: &Name) -> bool {
        let is = |key: &str, expected: Option<&str>| {
            name.entity(key).is_none_or(|found| expected.and_then(|e| e.get(4..)) == Some(found))
        };
        is("sub", Some(subject)) && is("ses", self.session)
    }
}

/// Gives a case the sidecars, b-values and directions of its image: in its folder and each one above, the file that
/// says most about it; what is nearer counts more.
fn inherit(case: &mut CaseFiles, files: &[&[Named]]) {
    let Some(path) = &case.image else { return };
    let image = Name::parse(&path.file_name().unwrap_or_default().to_string_lossy());
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    let applying = |ending: &str| -> Vec<PathBuf> {
        let most = |folder: &&Path| {
            files
                .iter()
                .copied()
                .flatten()
                .filter(|f| f.entry.path.parent() == Some(*folder))
                .filter(|f| f.name.ending == ending && f.entry.kind == Kind::File)
                .filter(|f| f.name.applies_to(&image))
                .max_by_key(|f| f.name.entities.len())
                .map(|f| f.entry.path.clone())
        };
        folders.iter().filter_map(most).collect()
    };
    let mut sidecars = applying(".json");
    let own = sidecars.pop_if(|p| p.parent() == path.parent());
    let (bval, bvec) = (applying(".bval").pop(), applying(".bvec").pop());
    (case.sidecar, case.inherited_sidecars) = (own, sidecars);
    (case.bval, case.bvec) = (bval, bvec);
}

fn finding_of(case_id: &str, error: &Error) -> Finding {
    Finding::excludes(case_id, error.reason(), error.advice().unwrap_or_default())
}

fn named_files(entries: Vec<Entry>) -> Vec<Named> {
    entries.into_iter().filter(|e| e.kind != Kind::Folder).map(Named::from).collect()
}

#[cfg(test)]
mod tests;
