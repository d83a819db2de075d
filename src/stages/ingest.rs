//! `ingest`: reads the header, the sidecar and the gradients of a case, hashes its files, and makes its row in `cases`.
//!
//! Voxels of the image are not decoded here; the manual mask is, for its volume.

mod variables;

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::catalog::{Table, fingerprint};
use crate::engine::{Case, Context, Slot, Stage, on_grid};
use crate::error::{Error, Result};
use crate::formats::bids::CaseFiles;
use crate::formats::nifti::Header;
use crate::formats::privacy::{self, Privacy};
use crate::formats::{files, gradients, nifti, sidecar};

pub use variables::has_column;
use variables::{IMAGE_COLUMNS, Kind, typed, variables};

/// Reads one case.
#[derive(Debug, Clone, Serialize)]
pub struct Ingest {
    /// Name of the registry.
    pub source: String,
    /// Whether a case without a manual mask is a failure.
    pub require_truth: bool,
    /// What of the files may be told.
    #[serde(skip)]
    pub privacy: Option<Privacy>,
}

/// What the scan found of a case: its files, and what is remarkable about them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// The files.
    pub case: CaseFiles,
    /// Remarks that do not exclude it.
    pub remarks: Vec<String>,
}

/// A file as it lay on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Where.
    pub uri: String,
    /// Size.
    pub bytes: u64,
    /// Time of change, microseconds since 1970.
    pub modified_us: i64,
    /// Hash of its bytes; empty until it is read.
    #[serde(default)]
    pub blake3: String,
}

/// Name under which the row of the participants table stands among the files.
const VARIABLES: &str = "participants";
/// What the name of the privacy policy begins with among the files; the key's id follows.
const PRIVACY: &str = "privacy:";

impl FileStat {
    /// Every file of a case, without reading any, its variables, and the policy under which they are read. A file that is not
    /// there has size 0.
    pub fn of_case(case: &CaseFiles, privacy: Option<&Privacy>) -> Vec<Self> {
        let paths = [case.image.as_ref(), case.b0.as_ref(), case.truth.as_ref(), case.adc.as_ref()];
        let more =
            [case.flair.as_ref(), case.sidecar.as_ref(), case.bval.as_ref(), case.bvec.as_ref()];
        let mut stats: Vec<Self> =
            paths.into_iter().chain(more).flatten().map(|p| Self::of(p, privacy)).collect();
        stats.push(Self::of_text(VARIABLES.to_owned(), case.variables.as_json()));
        stats.extend(
            privacy.map(|p| Self::of_text(format!("{PRIVACY}{}", p.key_id()), &p.identity())),
        );
        stats
    }

    /// The id of the key under whose policy the files were read; none without a policy.
    pub fn key_id(stats: &[Self]) -> Option<&str> {
        stats.iter().find_map(|stat| stat.uri.strip_prefix(PRIVACY))
    }

    /// A text that is no file: its hash stands for the time of change.
    fn of_text(uri: String, text: &str) -> Self {
        let hash = blake3::hash(text.as_bytes());
        Self {
            uri,
            bytes: text.len() as u64,
            modified_us: i64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8])),
            blake3: String::new(),
        }
    }

    fn of(path: &Path, privacy: Option<&Privacy>) -> Self {
        let meta = std::fs::metadata(path).ok();
        let modified = meta.as_ref().and_then(|m| m.modified().ok());
        let since = modified.and_then(|m| m.duration_since(UNIX_EPOCH).ok());
        Self {
            uri: uri_of(path, privacy),
            bytes: meta.map_or(0, |m| m.len()),
            modified_us: since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)),
            blake3: String::new(),
        }
    }

    /// Whether the file is there now; variables, which have no file, always are.
    pub fn is_there(&self) -> bool {
        self.uri == VARIABLES || files::resolve(&self.uri).is_ok_and(|path| path.is_file())
    }

    /// Hash of the bytes now. Variables have no file: their hash is their time of change.
    pub fn hash(&self) -> Result<String> {
        if self.uri == VARIABLES || self.uri.starts_with(PRIVACY) {
            return Ok(self.modified_us.to_string());
        }
        if privacy::is_sealed(&self.uri) {
            return privacy::open(&self.uri, |path| Ok(files::hash_file(path)?.blake3));
        }
        Ok(files::hash_file(&files::resolve(&self.uri)?)?.blake3)
    }
}

/// How a path stands in the catalog.
fn uri_of(path: &Path, privacy: Option<&Privacy>) -> String {
    privacy.map_or_else(|| path.to_string_lossy().into_owned(), |privacy| privacy.uri(path))
}

impl Stage for Ingest {
    fn name(&self) -> &'static str {
        "ingest"
    }

    fn version(&self) -> u32 {
        1
    }

    fn parameters(&self) -> Value {
        super::parameters(self)
    }

    fn reads(&self) -> &'static [Slot] {
        &[]
    }

    fn table(&self) -> Option<Table> {
        Some(Table::Cases)
    }

    fn working_bytes(&self, _: u64) -> u64 {
        // A manual mask, one byte a voxel, of a large volume.
        32 << 20
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let source = case.input.source_files.as_deref().unwrap_or_default();
        let found: Found =
            serde_json::from_str(source).map_err(|e| Error::bug(format!("source_files: {e}")))?;
        let row = match &self.privacy {
            None => self.row(&found)?,
            Some(privacy) => {
                let clean = |error| privacy.scrubber_of_case(&found.case).clean_error(error);
                silent_panics(|| self.row(&found)).map_err(clean)?
            }
        };
        context.record(Table::Cases, &row)
    }
}

/// Turns a panic into an error here already, where its message can be cleaned of what it quotes.
fn silent_panics<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::bug(format!("panic: {}", text.unwrap_or("no message"))))
    })
}

impl Ingest {
    fn row(&self, Found { case: found, remarks }: &Found) -> Result<Value> {
        let Some(image) = &found.image else { return Ok(self.metadata_row(found, remarks)) };
        let header = nifti::read_header(image)?;
        let choice = Choice::of(found, image, &header)?;
        let mut findings = remarks.clone();
        if let Some(distance) = header.sform_qform_distance_mm.filter(|d| *d > 0.1) {
            findings.push(format!(
                "sform and qform disagree by up to {distance:.2} mm; the sform is used"
            ));
        }
        let truth_volume_ml = self.truth_volume_ml(found, &header, &mut findings)?;
        let keys = sidecar::merged(&found.sidecars())?;
        let facts = sidecar::facts(&keys);
        let told = self.told(&header, &keys, &facts)?;
        let mut stats = FileStat::of_case(found, self.privacy.as_ref());
        for stat in &mut stats {
            stat.blake3 = stat.hash()?;
        }
        let hash_of = |path: Option<&std::path::PathBuf>| {
            let uri = uri_of(path?, self.privacy.as_ref());
            stats.iter().find(|s| s.uri == uri).map(|s| s.blake3.clone())
        };
        let uri =
            |path: Option<&std::path::PathBuf>| path.map(|p| uri_of(p, self.privacy.as_ref()));
        let image_blake3 = hash_of(Some(image)).unwrap_or_default();
        let (b0, truth) = (hash_of(found.b0.as_ref()), hash_of(found.truth.as_ref()));
        let print = fingerprint([
            image_blake3.as_str(),
            &choice.image_volume.to_string(),
            b0.as_deref().unwrap_or(""),
            truth.as_deref().unwrap_or(""),
        ]);
        let mut row = json!({
            "case_id": found.case_id,
            "source": self.source,
            "subject_id": found.subject_id,
            "session_id": found.session_id,
            "image_uri": uri(Some(image)),
            "image_volume": choice.image_volume,
            "b0_uri": uri(found.b0.as_ref()).or_else(|| choice.b0_volume.and(uri(Some(image)))),
            "b0_volume": choice.b0_volume.or_else(|| found.b0.as_ref().map(|_| 0)),
            "adc_uri": uri(found.adc.as_ref()),
            "flair_uri": uri(found.flair.as_ref()),
            "truth_uri": uri(found.truth.as_ref()),
            "shape_x": header.grid.shape[0],
            "shape_y": header.grid.shape[1],
            "shape_z": header.grid.shape[2],
            "volumes": header.volumes(),
            "spacing_x_mm": header.grid.affine.spacing_mm()[0],
            "spacing_y_mm": header.grid.affine.spacing_mm()[1],
            "spacing_z_mm": header.grid.affine.spacing_mm()[2],
            "datatype": header.datatype.name(),
            "affine": header.grid.affine.0.as_flattened(),
            "b_value_s_per_mm2": choice.b_value_s_per_mm2.or(facts.b_value_s_per_mm2),
            "vendor": told.vendor,
            "model": told.model,
            "field_strength_t": facts.field_strength_t,
            "repetition_time_ms": facts.repetition_time_ms,
            "echo_time_ms": facts.echo_time_ms,
            "slice_thickness_mm": facts.slice_thickness_mm,
            "slice_gap_mm": facts.slice_gap_mm,
            "truth_volume_ml": truth_volume_ml,
            "findings": findings,
            "image_bytes": stats.first().map_or(0, |s| s.bytes),
            "image_blake3": image_blake3,
            "truth_blake3": truth,
            "files": serde_json::to_string(&stats).unwrap_or_default(),
            "fingerprint": print,
            "run_id": "",
            "ingested_at": crate::catalog::Timestamp::default(),
        });
        if let Value::Object(row) = &mut row {
            let mut known = found.variables.to_map();
            known.extend(told.hashes);
            variables(known, row);
        }
        Ok(row)
    }

    /// What the policy lets through of an image's own text: vendor, model, and hashes.
    fn told(
        &self,
        header: &Header,
        keys: &Map<String, Value>,
        facts: &sidecar::Facts,
    ) -> Result<Told> {
        let (vendor, model) = (facts.vendor.clone(), facts.model.clone());
        let Some(privacy) = &self.privacy else {
            return Ok(Told { vendor, model, hashes: Map::new() });
        };
        let texts: Map<String, Value> =
            header.texts.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        if let Some(field) = privacy.refused(&texts).or_else(|| privacy.refused(keys)) {
            let found = format!("it has a value for `{field}`, which the privacy policy refuses");
            return Err(Error::data(found).hint(privacy::REFUSED_HINT));
        }
        let mut hashes = privacy.hashes(keys);
        hashes.extend(privacy.hashes(&texts));
        let (vendor, model) = (privacy.category(vendor), privacy.category(model));
        Ok(Told { vendor, model, hashes })
    }

    /// The row of a case of which no image was read: what its table says.
    fn metadata_row(&self, found: &CaseFiles, remarks: &[String]) -> Value {
        let mut findings = remarks.to_vec();
        findings.push("metadata only: no image was read".to_owned());
        let stats: Vec<FileStat> = FileStat::of_case(found, self.privacy.as_ref())
            .into_iter()
            .map(|stat| FileStat { blake3: stat.hash().unwrap_or_default(), ..stat })
            .collect();
        let mut row = json!({
            "case_id": found.case_id,
            "source": self.source,
            "subject_id": found.subject_id,
            "session_id": found.session_id,
            "image_volume": 0,
            "affine": [],
            "findings": findings,
            "files": serde_json::to_string(&stats).unwrap_or_default(),
            "fingerprint": fingerprint(["metadata only", &self.source, &found.case_id]),
            "run_id": "",
            "ingested_at": crate::catalog::Timestamp::default(),
        });
        if let Value::Object(row) = &mut row {
            let mut known = found.variables.to_map();
            for column in IMAGE_COLUMNS {
                let value = known.remove(*column).unwrap_or_default();
                row.insert((*column).to_owned(), typed(&value, Kind::Number));
            }
            let model = known.remove("model").unwrap_or_default();
            row.insert("model".to_owned(), typed(&model, Kind::Text));
            variables(known, row);
        }
        row
    }

    /// The manual mask's volume; an error where it cannot belong to the image.
    fn truth_volume_ml(
        &self,
        found: &CaseFiles,
        header: &Header,
        findings: &mut Vec<String>,
    ) -> Result<Option<f64>> {
        let Some(path) = &found.truth else {
            if self.require_truth {
                return Err(Error::data("the case has no manual infarct mask")
                    .hint("add it under derivatives/, or set require_truth: false"));
            }
            findings.push("no manual infarct mask".to_owned());
            return Ok(None);
        };
        on_grid(path, &nifti::read_header(path)?.grid, &header.grid)?;
        let mask = nifti::read_mask(path)?.0;
        let count = mask.voxels().iter().map(|v| u64::from(*v)).sum::<u64>();
        Ok(Some(count as f64 * header.grid.voxel_volume_mm3() / 1000.0))
    }
}

/// What is told of an image's own text.
struct Told {
    vendor: Option<String>,
    model: Option<String>,
    hashes: Map<String, Value>,
}

/// Which volume of the image is the diffusion-weighted one.
struct Choice {
    image_volume: i64,
    b0_volume: Option<i64>,
    b_value_s_per_mm2: Option<f64>,
}

impl Choice {
    fn of(found: &CaseFiles, image: &Path, header: &Header) -> Result<Self> {
        let volumes = header.volumes();
        let Some(path) = &found.bval else {
            if volumes > 1 {
                return Err(Error::data(format!(
                    "{}: {volumes} volumes and no .bval file beside it",
                    image.display()
                ))
                .hint("add the .bval file, so that the b = 0 and b = 1000 volumes are known"));
            }
            return Ok(Self { image_volume: 0, b0_volume: None, b_value_s_per_mm2: None });
        };
        let values = gradients::read_bvals(path, volumes)?;
        let selection = gradients::select(&values)?;
        Ok(Self {
            image_volume: selection.dwi as i64,
            b0_volume: selection.b0.first().map(|v| *v as i64),
            b_value_s_per_mm2: Some(selection.b_value_s_per_mm2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_of_metadata_alone_says_so() {
        let mut case = CaseFiles::new("s1", "s1", None);
        let table = json!({"site": "A", "age": 71, "truth_volume_ml": 1.95, "ward": "3", "model": "Avanto"});
        case.variables = table.as_object().cloned().unwrap_or_default().into();
        let ingest = Ingest { source: "registry".to_owned(), require_truth: true, privacy: None };
        let row = ingest.metadata_row(&case, &[]);
        assert_eq!(
            (&row["centre"], &row["age_y"], &row["model"]),
            (&json!("A"), &json!(71.0), &json!("Avanto"))
        );
        assert_eq!((&row["truth_volume_ml"], &row["echo_time_ms"]), (&json!(1.95), &Value::Null));
        assert_eq!(row["variables"], r#"{"ward":"3"}"#);
        assert_eq!(row["findings"], json!(["metadata only: no image was read"]));
        assert!(row.get("image_uri").is_none());
    }

    #[test]
    fn variables_find_their_columns_and_the_rest_is_kept() {
        let found = json!({"site": "A", "age": "67.5", "chronic_infarct": "yes", "nihss": "n/a", "ward": "3"});
        let mut row = Map::new();
        variables(found.as_object().cloned().unwrap_or_default(), &mut row);
        assert_eq!(row["centre"], "A");
        assert_eq!(row["age_y"], 67.5);
        assert_eq!(row["chronic_infarct"], true);
        assert_eq!(row["nihss"], Value::Null);
        assert_eq!(row["variables"], r#"{"ward":"3"}"#);
    }
}
