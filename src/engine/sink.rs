//! Where cases go at the end of a step: to files, or, where a step only measures, nowhere but the catalog.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::case::{Case, CaseInput, Slot};
use super::stage::Record;
use crate::catalog::{self, Table};
use crate::error::{Error, Result};
use crate::formats::files::{self, Published};
use crate::formats::nifti::{self, WriteOptions};
use crate::formats::privacy;

/// Rows and bytes of what a sink wrote.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows for the catalog.
    pub records: Vec<Record>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// The end of a step.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Slots that must be filled when the stages are done.
    fn needs(&self) -> &[Slot];

    /// What enters the fingerprint.
    fn parameters(&self) -> Value;

    /// Memory in bytes that taking a case needs beside its slots.
    fn working_bytes(&self, voxels: u64) -> u64;

    /// Takes a case that went through every stage.
    fn accept(&self, case: Case) -> Result<Written>;

    /// Hears that a case did not get here.
    fn fail(&self, _input: &CaseInput, _error: &Error) -> Result<Written> {
        Ok(Written::default())
    }
}

/// Keeps no volume: the stages' rows are the output.
#[derive(Debug, Clone, Copy)]
pub struct RecordSink;

impl Sink for RecordSink {
    fn needs(&self) -> &[Slot] {
        &[]
    }

    fn parameters(&self) -> Value {
        Value::Null
    }

    fn working_bytes(&self, _: u64) -> u64 {
        0
    }

    fn accept(&self, _: Case) -> Result<Written> {
        Ok(Written::default())
    }
}

/// Writes the kept slots as NIfTI in a BIDS-derivatives layout, and a JSON sidecar with the lineage.
///
/// Names end in the first digits of the fingerprint, so that no file is ever written over with other content: a reader with an
/// older catalog version finds the bytes that its row speaks of.
#[derive(Debug)]
pub struct FileSink {
    root: PathBuf,
    step: String,
    keep: Vec<Slot>,
    parents: Vec<String>,
}

impl FileSink {
    /// Files of `step` under `root`.
    pub fn new(root: PathBuf, step: impl Into<String>, keep: Vec<Slot>) -> Self {
        Self { root, step: step.into(), keep, parents: Vec::new() }
    }

    /// Names something that every artifact is made from beside its case: a model.
    #[must_use]
    pub fn with_parent(mut self, parent: Option<String>) -> Self {
        self.parents.extend(parent);
        self
    }

    /// `sub-X[/ses-Y]/dwi/` and the stem that all files of the case share.
    fn place(&self, input: &CaseInput) -> Result<(PathBuf, String)> {
        let id = &input.case_id;
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.starts_with('.') || !id.chars().all(safe) {
            return Err(Error::data(format!("the case id {id:?} cannot be a file name"))
                .hint("use letters, digits, '-', '_' and '.' only"));
        }
        let stem = if id.starts_with("sub-") { id.clone() } else { format!("sub-{id}") };
        let mut folder = self.root.clone();
        match stem.split_once("_ses-") {
            Some((subject, session)) => {
                folder.push(subject);
                folder.push(format!("ses-{session}"));
            }
            None => folder.push(&stem),
        }
        folder.push("dwi");
        Ok((folder, stem))
    }

    fn write(&self, case: &Case, slot: Slot, path: &std::path::Path) -> Result<Published> {
        let options = WriteOptions {
            description: format!("torcula {} {}", env!("CARGO_PKG_VERSION"), self.step),
        };
        match slot {
            Slot::Image => nifti::write_image(path, case.image()?, &options),
            Slot::Field | Slot::Probability => {
                let image = if slot == Slot::Field { &case.field } else { &case.probability };
                let image = image.as_ref().ok_or_else(|| {
                    Error::bug(format!("no stage filled the slot {}", slot.name()))
                })?;
                nifti::write_image(path, image, &options)
            }
            mask => nifti::write_mask(path, case.mask(mask)?, &options),
        }
    }

    fn artifact(
        &self,
        input: &CaseInput,
        role: &str,
        path: &std::path::Path,
        p: &Published,
    ) -> Record {
        Record {
            table: Table::Artifacts,
            row: json!({
                "artifact_id": artifact_id(&[&self.step, &input.case_id, role, &input.fingerprint]),
                "stage": role,
                "case_id": input.case_id,
                "role": role,
                "uri": path.to_string_lossy(),
                "bytes": p.bytes,
                "blake3": p.blake3,
                "parents": self.parents_of(input),
            }),
        }
    }

    /// Where there is more than the case's own files: the artifact of the step before (or the case), and the model.
    fn parents_of(&self, input: &CaseInput) -> Vec<String> {
        let source = input.source_artifact.clone();
        if source.is_none() && self.parents.is_empty() {
            return Vec::new();
        }
        let source = source.unwrap_or_else(|| input.case_id.clone());
        std::iter::once(source).chain(self.parents.iter().cloned()).collect()
    }

    fn sidecar(&self, case: &Case, outputs: &Value) -> Value {
        let sources: Vec<Value> = Slot::ALL
            .iter()
            .filter_map(|s| {
                let uri = case.input.uri(*s)?;
                if privacy::is_sealed(uri) {
                    return Some(json!({"role": s.name()}));
                }
                let name = std::path::Path::new(uri).file_name()?;
                Some(json!({"role": s.name(), "file": name.to_string_lossy()}))
            })
            .collect();
        json!({
            "Description": format!("step {} of a Torcula pipeline", self.step),
            "GeneratedBy": [{"Name": "torcula", "Version": env!("CARGO_PKG_VERSION")}],
            "CaseId": case.input.case_id,
            "Step": self.step,
            "Fingerprint": case.input.fingerprint,
            "InputFingerprint": case.input.input_fingerprint,
            "Sources": sources,
            "Outputs": outputs,
            "Notes": case.notes,
        })
    }
}

/// A name for an artifact that says nothing but is always the same for the same content.
pub(super) fn artifact_id(parts: &[&str]) -> String {
    format!("art-{}", &catalog::fingerprint(parts)[..20])
}

impl Sink for FileSink {
    fn needs(&self) -> &[Slot] {
        &self.keep
    }

    fn parameters(&self) -> Value {
        json!({"keep": self.keep})
    }

    fn working_bytes(&self, _: u64) -> u64 {
        1 << 20
    }

    fn accept(&self, case: Case) -> Result<Written> {
        let (folder, stem) = self.place(&case.input)?;
        let letters: String = self.step.chars().filter(char::is_ascii_alphanumeric).collect();
        let print = case.input.fingerprint.get(..10).unwrap_or(&case.input.fingerprint);
        let tag = format!("desc-{letters}{print}");
        let mut written = Written::default();
        let mut outputs = serde_json::Map::new();
        for slot in &self.keep {
            let name = match slot {
                Slot::Image => format!("{stem}_{tag}_dwi.nii.gz"),
                Slot::Field => format!("{stem}_{tag}_biasfield.nii.gz"),
                Slot::Truth => format!("{stem}_label-truth_{tag}_mask.nii.gz"),
                Slot::Brain => format!("{stem}_label-brain_{tag}_mask.nii.gz"),
                Slot::Probability => format!("{stem}_label-lesion_{tag}_probseg.nii.gz"),
                Slot::Prediction => format!("{stem}_label-lesion_{tag}_mask.nii.gz"),
            };
            let path = folder.join(&name);
            let published = self.write(&case, *slot, &path)?;
            outputs
                .insert(slot.name().to_owned(), json!({"file": name, "blake3": published.blake3}));
            written.bytes += published.bytes;
            written.records.push(self.artifact(&case.input, slot.name(), &path, &published));
        }
        let sidecar = self.sidecar(&case, &Value::Object(outputs));
        let path = folder.join(format!("{stem}_{tag}.json"));
        let published = files::publish(&path, |out| {
            serde_json::to_writer_pretty(out, &sidecar).map_err(|e| std::io::Error::from(e).into())
        })?;
        written.bytes += published.bytes;
        written.records.push(self.artifact(&case.input, "sidecar", &path, &published));
        Ok(written)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Asks for slots and keeps nothing.
    #[derive(Debug)]
    pub(in crate::engine) struct KeepSink(pub Vec<Slot>);

    impl Sink for KeepSink {
        fn needs(&self) -> &[Slot] {
            &self.0
        }
        fn parameters(&self) -> Value {
            Value::Null
        }
        fn working_bytes(&self, _: u64) -> u64 {
            0
        }
        fn accept(&self, _: Case) -> Result<Written> {
            Ok(Written::default())
        }
    }

    #[test]
    fn a_case_id_that_leaves_the_folder_is_refused() {
        let sink = FileSink::new(PathBuf::from("out"), "prepared", vec![]);
        for id in ["../x", "a/b", "", ".hidden", "a\0b"] {
            let input = CaseInput { case_id: id.to_owned(), ..CaseInput::default() };
            assert!(sink.place(&input).is_err(), "{id:?}");
        }
        let input = CaseInput { case_id: "sub-1_ses-2".to_owned(), ..CaseInput::default() };
        let place = sink.place(&input);
        assert!(
            place.is_ok_and(|p| p == (PathBuf::from("out/sub-1/ses-2/dwi"), input.case_id.clone()))
        );
    }
}
