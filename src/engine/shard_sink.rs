//! Gathers cases into shards: files of training samples, each with the same members whatever the order of arrival.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::case::{Case, CaseInput, Slot};
use super::sink::{Sink, Written, artifact_id};
use super::stage::Record;
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::formats::files::Published;
use crate::formats::shards::{self, Precision, Sample};

/// A case that has arrived.
#[derive(Debug)]
struct Member {
    sample: Sample,
    /// The artifact that it was made from.
    source: Option<String>,
}

/// A shard whose cases have not all arrived.
#[derive(Debug, Default)]
struct Open {
    members: Vec<Member>,
    arrived: i64,
    /// A case failed in a way that may not happen again: the next run makes this shard.
    postponed: bool,
}

/// Writes a shard as soon as its last case is there, or has failed; a failed case is left out.
#[derive(Debug)]
pub struct ShardSink {
    root: PathBuf,
    step: String,
    samples_per_shard: usize,
    precision: Precision,
    sample_bytes: u64,
    open: Mutex<HashMap<i64, Open>>,
}

impl ShardSink {
    /// Shards of `step` in `root`. `sample_voxels` is the size of a sample on the step's grid, as far as it is known.
    pub fn new(
        root: PathBuf,
        step: impl Into<String>,
        samples_per_shard: usize,
        precision: Precision,
        sample_voxels: u64,
    ) -> Self {
        Self {
            root,
            step: step.into(),
            samples_per_shard,
            precision,
            sample_bytes: sample_voxels * 5,
            open: Mutex::default(),
        }
    }

    /// Memory in bytes that open shards hold: the engine takes it off the budget for the whole step.
    pub fn held_bytes(&self) -> u64 {
        self.sample_bytes * self.samples_per_shard as u64 * 2
    }

    /// Adds a case, or the reason for its absence, and takes the shard out once it is complete.
    fn arrive(
        &self,
        input: &CaseInput,
        member: Result<Member, &Error>,
    ) -> Result<Option<Vec<Member>>> {
        let index = input.shard_index.ok_or_else(|| Error::bug("a case without a shard"))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = open.entry(index).or_default();
        shard.postponed |= member.as_ref().is_err_and(|e| e.fault().is_transient());
        shard.members.extend(member.ok());
        shard.arrived += 1;
        if shard.arrived < input.shard_size.unwrap_or(1) {
            return Ok(None);
        }
        Ok(open.remove(&index).filter(|shard| !shard.postponed).map(|mut shard| {
            shard.members.sort_by(|a, b| a.sample.case_id.cmp(&b.sample.case_id));
            shard.members
        }))
    }

    fn write(&self, input: &CaseInput, members: Vec<Member>) -> Result<Written> {
        let index = input.shard_index.unwrap_or_default();
        let print = input.shard_fingerprint.clone().unwrap_or_default();
        let short = print.get(..10).unwrap_or(&print);
        let path = self.root.join(format!("{}-{index:05}-{short}.arrow", self.step));
        let lineage = BTreeMap::from([
            ("torcula.step".to_owned(), self.step.clone()),
            ("torcula.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("torcula.fingerprint".to_owned(), print.clone()),
        ]);
        // A shard that no case reached is no file, but its row says that it is done.
        let (samples, sources): (Vec<Sample>, Vec<Option<String>>) =
            members.into_iter().map(|m| (m.sample, m.source)).unzip();
        let (published, uri) = if samples.is_empty() {
            (Published { bytes: 0, blake3: String::new() }, String::new())
        } else {
            let published = shards::write_as(&path, &samples, &lineage, self.precision)?;
            (published, path.to_string_lossy().into_owned())
        };
        let row = |id: &str, fingerprint: &str| {
            json!({
                "artifact_id": id,
                "stage": "shards",
                "uri": uri,
                "bytes": published.bytes,
                "blake3": published.blake3,
                "fingerprint": fingerprint,
            })
        };
        let mut records = Vec::with_capacity(samples.len() + 1);
        let mut ids = Vec::with_capacity(samples.len());
        for (i, (sample, source)) in samples.iter().zip(&sources).enumerate() {
            let Sample { case_id, fingerprint, .. } = sample;
            let id = artifact_id(&[&self.step, case_id, "sample", fingerprint, &print]);
            let mut sample = row(&id, fingerprint);
            sample["role"] = json!("sample");
            sample["case_id"] = json!(case_id);
            sample["row_index"] = json!(i);
            sample["parents"] = json!(source.iter().collect::<Vec<_>>());
            records.push(Record { table: Table::Artifacts, row: sample });
            ids.push(id);
        }
        let mut shard = row(&artifact_id(&[&self.step, "shard", &print]), &print);
        shard["role"] = json!("shard");
        shard["case_id"] = Value::Null;
        shard["row_index"] = Value::Null;
        shard["parents"] = json!(ids);
        records.push(Record { table: Table::Artifacts, row: shard });
        Ok(Written { records, bytes: published.bytes })
    }
}

impl Sink for ShardSink {
    fn needs(&self) -> &[Slot] {
        &[Slot::Image, Slot::Truth]
    }

    fn parameters(&self) -> Value {
        json!({"shards": {"samples_per_shard": self.samples_per_shard, "precision": self.precision}})
    }

    fn working_bytes(&self, _: u64) -> u64 {
        self.sample_bytes
    }

    fn accept(&self, case: Case) -> Result<Written> {
        let input = case.input;
        let (Some(image), Some(truth)) = (case.image, case.truth) else {
            return Err(Error::bug("a sample lacks its image or its truth"));
        };
        let sample = Sample {
            case_id: input.case_id.clone(),
            fingerprint: input.fingerprint.clone(),
            image,
            truth,
        };
        let member = Member { sample, source: input.source_artifact.clone() };
        match self.arrive(&input, Ok(member))? {
            Some(members) => self.write(&input, members),
            None => Ok(Written::default()),
        }
    }

    fn fail(&self, input: &CaseInput, error: &Error) -> Result<Written> {
        match self.arrive(input, Err(error))? {
            Some(members) => self.write(input, members),
            None => Ok(Written::default()),
        }
    }
}
