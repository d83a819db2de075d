//! The registry on disk: BIDS with the masks as a derivative.
//!
//! ```text
//! dataset_description.json  participants.tsv  participants.json  README  sourcedata/broken.tsv
//! sub-0001/dwi/sub-0001_dwi.nii.gz .bval .bvec .json
//! derivatives/lesions/dataset_description.json
//! derivatives/lesions/sub-0001/dwi/sub-0001_label-lesion_mask.nii.gz
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::broken::{self, Broken, Plan};
use super::centres::{self, Centre, Scanner};
use super::participants::Patient;
use super::{Options, library};
use crate::error::{Error, Result};
use crate::imaging::phantom::{self, Acquisition, Anatomy, Bias, Lesion, Location, Phantom, Shape};
use crate::imaging::random::{below, keyed, normal, uniform};
use crate::volume::Mask;

/// Diffusion weighting of the second volume in s/mm².
const B_VALUE: f64 = 1000.0;

const README: &str = "Synthetic diffusion-weighted MRI of acute ischaemic stroke: nobody's images.\n\n\
    Every volume was computed, not scanned. The first volume of an image has b = 0, the second b = 1,000 s/mm2.\n\
    Masks of the acute infarcts lie in derivatives/lesions. Cases that are broken on purpose are listed in\n\
    sourcedata/broken.tsv.\n";

/// Everything from which the cases are made.
pub(super) struct Registry<'a> {
    options: &'a Options,
    centres: Vec<Centre>,
    library: Vec<Arc<Mask>>,
    plan: Plan,
}

/// A case, made but not yet written.
struct Case<'a> {
    centre: &'a Centre,
    scanner: &'a Scanner,
    patient: Patient,
    made: Phantom,
}

/// A case's line in `participants.tsv`, and the size of its images in bytes.
pub(super) struct Row {
    line: String,
    pub(super) bytes: u64,
}

impl<'a> Registry<'a> {
    /// Draws the centres, reads the library of lesions, and decides which cases are broken.
    pub(super) fn new(options: &'a Options) -> Result<Self> {
        Ok(Self {
            options,
            centres: centres::draw(options),
            library: options.lesions.as_deref().map_or(Ok(Vec::new()), library::read)?,
            plan: broken::plan(options.cases, options.broken_share, options.seed),
        })
    }

    /// The broken cases in order.
    pub(super) fn broken(&self) -> Vec<(String, Broken)> {
        self.plan.iter().map(|(&i, &(kind, _))| (self.id(i), kind)).collect()
    }

    /// `sub-0001`, or `sub-external0001` for another source than `internal`.
    fn id(&self, index: usize) -> String {
        let prefix = if self.options.source == "internal" { "" } else { &self.options.source };
        format!("sub-{prefix}{:04}", index + 1)
    }

    fn rng(&self, index: usize, purpose: &str) -> ChaCha8Rng {
        keyed(self.options.seed, &["synth", &self.options.source, &self.id(index), purpose])
    }

    /// What tells this registry from others.
    fn synthesis(&self) -> Value {
        let o = self.options;
        json!({
            "Cases": o.cases,
            "Sites": o.sites,
            "Seed": o.seed,
            "BrokenShare": o.broken_share,
            "Matrix": o.matrix,
            "Slices": o.slices,
            "Lesions": o.lesions.as_ref().map(|p| p.display().to_string()),
            "Source": o.source,
        })
    }

    /// Makes the folder and says in it what it is.
    ///
    /// # Errors
    /// A configuration error where the folder holds something else than a registry of the same options.
    pub(super) fn open(&self, root: &Path) -> Result<()> {
        std::fs::create_dir_all(root.join("sourcedata"))
            .map_err(|e| Error::from(e).context(root.display()))?;
        let description = root.join("dataset_description.json");
        let earlier: Option<Value> =
            std::fs::read(&description).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let same = earlier.is_some_and(|v| v.get("Synthesis") == Some(&self.synthesis()));
        let others = std::fs::read_dir(root)?
            .filter_map(|e| e.ok().map(|e| e.file_name()))
            .any(|name| name != "sourcedata");
        if others && !same {
            return Err(Error::configuration(format!(
                "{} is not empty and holds no registry of these options",
                root.display()
            ))
            .hint("choose another folder, or delete this one first"));
        }
        let text = |kind: &str, name: &str| {
            json!({
                "Name": name,
                "BIDSVersion": "1.9.0",
                "DatasetType": kind,
                "License": "CC0",
                "GeneratedBy": [{ "Name": "torcula synth", "Version": env!("CARGO_PKG_VERSION") }],
                "Synthesis": self.synthesis(),
            })
        };
        let name = "Synthetic acute ischaemic stroke registry";
        write_json(&description, &text("raw", name))?;
        let derivative = root.join("derivatives/lesions");
        std::fs::create_dir_all(&derivative)?;
        let name = "Masks of acute infarcts";
        write_json(&derivative.join("dataset_description.json"), &text("derivative", name))
    }

    /// Makes a case and writes its files.
    pub(super) fn write_case(&self, root: &Path, index: usize) -> Result<Row> {
        let id = self.id(index);
        let (kind, original) = self.plan.get(&index).copied().unzip();
        let case = self.make(original.flatten().unwrap_or(index));
        let (image, mask) = broken::contents(&case.made, kind)?;
        let folder = root.join(&id).join("dwi");
        let derivative = root.join("derivatives/lesions").join(&id).join("dwi");
        let here = |e: Error| e.context(folder.display());
        for f in [&folder, &derivative] {
            std::fs::create_dir_all(f).map_err(|e| here(e.into()))?;
        }
        let at = |ending: &str| folder.join(format!("{id}_dwi{ending}"));
        let mut bytes = image.put(&at(".nii.gz")).map_err(here)?;
        bytes +=
            mask.put(&derivative.join(format!("{id}_label-lesion_mask.nii.gz"))).map_err(here)?;
        std::fs::write(at(".bval"), format!("0 {B_VALUE}\n"))?;
        // The diffusion-weighted volume is a trace image: it has no direction.
        std::fs::write(at(".bvec"), "0 0\n0 0\n0 0\n")?;
        write_json(&at(".json"), &sidecar(case.scanner))?;
        Ok(Row { line: line(&id, &case), bytes })
    }

    /// Writes the lists, `participants.tsv` last.
    pub(super) fn close(&self, root: &Path, rows: &[Row]) -> Result<()> {
        let mut list = String::from("case_id\tkind\n");
        for (id, kind) in self.broken() {
            let _ = writeln!(list, "{id}\t{}", kind.name());
        }
        std::fs::write(root.join("sourcedata/broken.tsv"), list)?;
        std::fs::write(root.join("README"), README)?;
        write_json(&root.join("participants.json"), &columns())?;
        let header = COLUMNS.map(|(name, _)| name).join("\t");
        let lines: Vec<&str> = rows.iter().map(|r| r.line.as_str()).collect();
        std::fs::write(root.join("participants.tsv"), format!("{header}\n{}\n", lines.join("\n")))?;
        Ok(())
    }

    /// Draws and scans a patient.
    fn make(&self, index: usize) -> Case<'_> {
        let mut rng = self.rng(index, "scan");
        let centre = Centre::choose(&self.centres, index, &mut rng);
        let scanner = centre.scanner(&mut rng);
        let acquisition = acquisition(scanner, &mut rng);
        let tilt = [scanner.tilt, 0.0, 0.0].map(|t| t + 0.03 * normal(&mut rng).clamp(-2.0, 2.0));
        let flip = scanner.flip_x;
        let grid = phantom::axial(scanner.shape, spacing_mm(scanner), tilt, flip);
        let acquisition = Acquisition { grid, ..acquisition };
        let voxel_ml = grid.voxel_volume_mm3() / 1000.0;
        let mut patient = Patient::draw(&mut self.rng(index, "patient"), self.options, voxel_ml);
        let anatomy = Anatomy::draw(&mut self.rng(index, "anatomy"), patient.age_y, tilt);
        let mut rng = self.rng(index, "lesions");
        let mut lesions = Lesion::hyperintensities(&mut rng, patient.hyperintensity_ml);
        if patient.chronic_ml > 0.0 {
            lesions.push(Lesion::chronic(&mut rng, patient.chronic_ml));
        }
        lesions.extend(self.acute(&mut rng, &mut patient, 20.0 * voxel_ml));
        let made =
            phantom::make(&anatomy, &acquisition, &lesions, self.options.seed, &self.id(index));
        patient.hyperintensity_ml = made.hyperintensity_ml;
        patient.chronic_ml = made.chronic_ml;
        Case { centre, scanner, patient, made }
    }

    /// The patient's infarcts: drawn, or from the library, which then decides on the location.
    fn acute(&self, rng: &mut ChaCha8Rng, patient: &mut Patient, least_ml: f64) -> Vec<Lesion> {
        let onset_h = Some(patient.onset_h);
        let stored = self
            .library
            .get(below(rng, self.library.len() as u64) as usize)
            .and_then(|mask| Lesion::stored(rng, Arc::clone(mask), least_ml, onset_h));
        let Some(lesion) = stored else {
            return Lesion::acute(rng, patient.location, patient.volume_ml, onset_h);
        };
        if let Shape::Stored { centre_mm, .. } = &lesion.shape {
            patient.location = Location::nearest(*centre_mm);
        }
        vec![lesion]
    }
}

fn spacing_mm(scanner: &Scanner) -> [f64; 3] {
    [scanner.pixel_mm, scanner.pixel_mm, scanner.slice_spacing_mm]
}

/// The scanner on one day.
fn acquisition(scanner: &Scanner, rng: &mut ChaCha8Rng) -> Acquisition {
    let grid = phantom::centred(scanner.shape, spacing_mm(scanner));
    Acquisition {
        grid,
        b_value_s_per_mm2: B_VALUE,
        field_strength_t: scanner.field_strength_t,
        repetition_time_ms: scanner.repetition_time_ms,
        echo_time_ms: scanner.echo_time_ms,
        white_level: scanner.white_level * uniform(rng, 0.88..1.14),
        snr: scanner.snr * uniform(rng, 0.9..1.1),
        bias: Bias::draw(rng, scanner.bias),
        ghost_share: scanner.ghost_share,
        susceptibility: scanner.susceptibility,
        blur_mm: scanner.blur_mm,
        // Edges through a slice matter once pixels are much smaller than slices are thick.
        sub_slices: if scanner.pixel_mm < 2.0 { 3 } else { 1 },
    }
}

/// Sidecar of an image; times in seconds, lengths in mm, as BIDS has them.
fn sidecar(s: &Scanner) -> Value {
    let seconds = |ms: f64| (ms * 1000.0).round() / 1e6;
    json!({
        "Modality": "MR",
        "Manufacturer": s.manufacturer,
        "ManufacturersModelName": s.model,
        "MagneticFieldStrength": s.field_strength_t,
        "MRAcquisitionType": "2D",
        "ScanningSequence": "EP",
        "RepetitionTime": seconds(s.repetition_time_ms),
        "EchoTime": seconds(s.echo_time_ms),
        "SliceThickness": rounded(s.slice_thickness_mm),
        "SpacingBetweenSlices": rounded(s.slice_spacing_mm),
    })
}

/// Without the last digits of binary fractions.
fn rounded(v: f64) -> f64 {
    (v * 1e6).round() / 1e6
}

/// Columns of `participants.tsv` and what they mean.
const COLUMNS: [(&str, &str); 12] = [
    ("participant_id", "Identifier of the patient"),
    ("centre", "Hospital"),
    ("age", "Age in years"),
    ("sex", "M or F"),
    ("nihss", "National Institutes of Health Stroke Scale at admission, 0 to 42"),
    ("stroke_subtype", "Cause after the TOAST classification"),
    ("onset_h", "Time from last known well to imaging in hours; n/a where not recorded"),
    ("location", "Location of the acute infarct"),
    ("chronic_infarct", "Whether there is an old infarct"),
    ("wmh_volume_ml", "Volume of white-matter hyperintensities in mL"),
    ("vendor", "Manufacturer of the scanner"),
    ("field_strength_t", "Field strength of the scanner in tesla"),
];

fn columns() -> Value {
    COLUMNS
        .iter()
        .map(|(name, text)| ((*name).to_owned(), json!({ "Description": text })))
        .collect()
}

fn line(id: &str, case: &Case<'_>) -> String {
    let p = &case.patient;
    let onset = if p.onset_recorded { format!("{:.1}", p.onset_h) } else { "n/a".to_owned() };
    [
        id.to_owned(),
        case.centre.name.clone(),
        format!("{:.0}", p.age_y),
        if p.male { "M" } else { "F" }.to_owned(),
        p.nihss.to_string(),
        p.subtype.to_owned(),
        onset,
        p.location.name().to_owned(),
        if p.chronic_ml > 0.0 { "true" } else { "false" }.to_owned(),
        format!("{:.2}", p.hyperintensity_ml),
        case.scanner.vendor.to_owned(),
        format!("{:.1}", case.scanner.field_strength_t),
    ]
    .join("\t")
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::bug(e.to_string()))?;
    std::fs::write(path, text + "\n").map_err(|e| Error::from(e).context(path.display()))
}
