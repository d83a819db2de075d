//! What passes from stage to stage: the row a case came from, and its volumes in named slots.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::formats::{nifti, privacy};
use crate::volume::{Grid, Image, Mask};

/// The places a case holds volumes in.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The diffusion-weighted image, as the last stage left it.
    Image,
    /// The manual infarct mask.
    Truth,
    /// The brain mask.
    Brain,
    /// The natural logarithm of the bias field.
    Field,
    /// The network's infarct probability, 0 to 1.
    Probability,
    /// The predicted infarct mask.
    Prediction,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 6] =
        [Self::Image, Self::Truth, Self::Brain, Self::Field, Self::Probability, Self::Prediction];

    /// The word used in pipelines, artifact roles and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Truth => "truth",
            Self::Brain => "brain",
            Self::Field => "field",
            Self::Probability => "probability",
            Self::Prediction => "prediction",
        }
    }

    /// The column of a relation that holds where the slot's file is.
    pub fn uri_column(self) -> &'static str {
        match self {
            Self::Image => "image_uri",
            Self::Truth => "truth_uri",
            Self::Brain => "brain_uri",
            Self::Field => "field_uri",
            Self::Probability => "probability_uri",
            Self::Prediction => "prediction_uri",
        }
    }

    /// Whether it holds a mask (one byte a voxel) and not intensities (four bytes).
    pub fn is_mask(self) -> bool {
        matches!(self, Self::Truth | Self::Brain | Self::Prediction)
    }

    /// Memory of one voxel in bytes.
    pub fn bytes_per_voxel(self) -> u64 {
        if self.is_mask() { 1 } else { 4 }
    }
}

/// A row of a relation, as far as the engine and the stages use it. Columns that a relation lacks stay empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaseInput {
    /// Identifies the case in the catalog.
    pub case_id: String,
    /// The patient.
    pub subject_id: Option<String>,
    /// The visit, where the registry has several.
    pub session_id: Option<String>,
    /// The hospital.
    pub centre: Option<String>,
    /// Fingerprint of this case in this step: input bytes, stage versions, parameters, seed.
    pub fingerprint: String,
    /// Fingerprint of what the step reads.
    pub input_fingerprint: Option<String>,
    /// The artifact that the step before made of this case; none where the case's own files are read.
    pub source_artifact: Option<String>,
    /// Where the image is.
    pub image_uri: Option<String>,
    /// Which volume of a 4-D image.
    pub image_volume: Option<i64>,
    /// Where the manual mask is.
    pub truth_uri: Option<String>,
    /// Where the brain mask is.
    pub brain_uri: Option<String>,
    /// Where the log bias field is.
    pub field_uri: Option<String>,
    /// Where the predicted probability is.
    pub probability_uri: Option<String>,
    /// Where the predicted mask is.
    pub prediction_uri: Option<String>,
    /// The model behind the prediction.
    pub model_id: Option<String>,
    /// Voxels along x.
    pub shape_x: Option<i64>,
    /// Voxels along y.
    pub shape_y: Option<i64>,
    /// Voxels along z.
    pub shape_z: Option<i64>,
    /// What ingest found on disk (JSON); only in the relation that ingest reads.
    pub source_files: Option<String>,
    /// Which shard the case belongs to, in a step that writes shards.
    pub shard_index: Option<i64>,
    /// How many cases the shard has.
    pub shard_size: Option<i64>,
    /// Fingerprint of the whole shard.
    pub shard_fingerprint: Option<String>,
}

impl CaseInput {
    /// Where the file of a slot is.
    pub fn uri(&self, slot: Slot) -> Option<&str> {
        match slot {
            Slot::Image => self.image_uri.as_deref(),
            Slot::Truth => self.truth_uri.as_deref(),
            Slot::Brain => self.brain_uri.as_deref(),
            Slot::Field => self.field_uri.as_deref(),
            Slot::Probability => self.probability_uri.as_deref(),
            Slot::Prediction => self.prediction_uri.as_deref(),
        }
    }

    /// Voxels of one volume by the header that ingest read; 0 where unknown.
    pub fn voxels(&self) -> u64 {
        [self.shape_x, self.shape_y, self.shape_z]
            .into_iter()
            .map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
            .fold(1, u64::saturating_mul)
    }
}

/// One case on its way through the stages of a step.
#[derive(Debug, Default)]
pub struct Case {
    /// The row it came from.
    pub input: Arc<CaseInput>,
    /// See [`Slot::Image`].
    pub image: Option<Image>,
    /// See [`Slot::Truth`].
    pub truth: Option<Mask>,
    /// See [`Slot::Brain`].
    pub brain: Option<Mask>,
    /// See [`Slot::Field`].
    pub field: Option<Image>,
    /// See [`Slot::Probability`].
    pub probability: Option<Image>,
    /// See [`Slot::Prediction`].
    pub prediction: Option<Mask>,
    /// What stages decided for this case (a coefficient, a draw): it goes into the sidecar.
    pub notes: serde_json::Map<String, serde_json::Value>,
}

impl Case {
    /// A case with empty slots.
    pub fn new(input: CaseInput) -> Self {
        Self { input: Arc::new(input), ..Self::default() }
    }

    /// Whether the slot holds a volume.
    pub fn has(&self, slot: Slot) -> bool {
        self.grid(slot).is_some()
    }

    /// The grid of the volume in a slot.
    pub fn grid(&self, slot: Slot) -> Option<Grid> {
        match slot {
            Slot::Image => self.image.as_ref().map(Image::grid),
            Slot::Field => self.field.as_ref().map(Image::grid),
            Slot::Probability => self.probability.as_ref().map(Image::grid),
            Slot::Truth => self.truth.as_ref().map(Mask::grid),
            Slot::Brain => self.brain.as_ref().map(Mask::grid),
            Slot::Prediction => self.prediction.as_ref().map(Mask::grid),
        }
    }

    /// Frees the slot.
    pub fn clear(&mut self, slot: Slot) {
        match slot {
            Slot::Image => self.image = None,
            Slot::Field => self.field = None,
            Slot::Probability => self.probability = None,
            Slot::Truth => self.truth = None,
            Slot::Brain => self.brain = None,
            Slot::Prediction => self.prediction = None,
        }
    }

    /// The image, or an error that says what is missing.
    pub fn image(&self) -> Result<&Image> {
        self.image.as_ref().ok_or_else(|| missing(Slot::Image))
    }

    /// The image, to be changed.
    pub fn image_mut(&mut self) -> Result<&mut Image> {
        self.image.as_mut().ok_or_else(|| missing(Slot::Image))
    }

    /// A mask slot, or an error that says what is missing.
    pub fn mask(&self, slot: Slot) -> Result<&Mask> {
        let mask = match slot {
            Slot::Truth => &self.truth,
            Slot::Brain => &self.brain,
            _ => &self.prediction,
        };
        mask.as_ref().ok_or_else(|| missing(slot))
    }

    /// Reads a slot from the file that the case's row names.
    ///
    /// A mask must lie on the grid of what is loaded already, within a quarter of a voxel; it then takes over that grid exactly.
    ///
    /// # Errors
    /// A data error where the row names no file, the file is broken, or the grids differ.
    pub fn load(&mut self, slot: Slot) -> Result<()> {
        let uri = self.input.uri(slot).ok_or_else(|| missing(slot))?.to_owned();
        privacy::open(&uri, |path| self.load_from(slot, path))
    }

    fn load_from(&mut self, slot: Slot, path: &Path) -> Result<()> {
        let reference = Slot::ALL.iter().find_map(|s| self.grid(*s));
        if slot.is_mask() {
            let mut mask = nifti::read_mask(path)?.0;
            if let Some(grid) = reference {
                on_grid(path, &mask.grid(), &grid)?;
                mask.affine = grid.affine;
            }
            match slot {
                Slot::Truth => self.truth = Some(mask),
                Slot::Brain => self.brain = Some(mask),
                _ => self.prediction = Some(mask),
            }
        } else {
            let volume = if slot == Slot::Image { self.input.image_volume.unwrap_or(0) } else { 0 };
            let image = nifti::read_image(path, usize::try_from(volume).unwrap_or(0))?.0;
            if let Some(grid) = reference {
                on_grid(path, &image.grid(), &grid)?;
            }
            match slot {
                Slot::Image => self.image = Some(image),
                Slot::Field => self.field = Some(image),
                _ => self.probability = Some(image),
            }
        }
        Ok(())
    }
}

fn missing(slot: Slot) -> Error {
    Error::data(format!("the case has no {}", slot.name())).hint(match slot {
        Slot::Truth => {
            "add its manual mask under derivatives/, or leave the case out of this cohort"
        }
        Slot::Brain => "put skull_strip before this stage",
        Slot::Probability | Slot::Prediction => "put infer before this stage",
        Slot::Image => "ingest it with its image: `metadata_only` reads none",
        Slot::Field => "check the step that should have made it",
    })
}

/// Checks that two grids are the same place, to a quarter of a voxel.
///
/// # Errors
/// A data error that shows both grids.
pub fn on_grid(path: &Path, found: &Grid, expected: &Grid) -> Result<()> {
    let smallest = expected.affine.spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
    if found.shape != expected.shape {
        return Err(Error::data(format!(
            "{}: on another grid: its shape is {:?}, the image's is {:?}",
            path.display(),
            found.shape,
            expected.shape
        ))
        .hint("resample it onto the image's grid (nearest neighbour), or fix the pair"));
    }
    let distance = found.corner_distance_mm(expected);
    if distance > 0.25 * smallest {
        return Err(Error::data(format!(
            "{}: on another grid: its corners lie up to {distance:.2} mm from the image's (allowed: {:.2} mm)",
            path.display(),
            0.25 * smallest
        ))
        .hint("both files need the same sform; resample the one onto the other, or fix its header"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn grids_may_differ_by_a_quarter_of_a_voxel() {
        let a = Grid { shape: [4, 4, 4], affine: Affine::from_spacing_mm([2.0, 2.0, 5.0]) };
        let mut b = a;
        b.affine.0[0][3] = 0.4;
        assert!(on_grid(Path::new("m.nii"), &b, &a).is_ok());
        b.affine.0[0][3] = 0.6;
        let error = on_grid(Path::new("m.nii"), &b, &a).map_err(|e| e.reason().to_owned());
        assert!(error.is_err_and(|e| e.contains("m.nii") && e.contains("0.60 mm")));
    }

    #[test]
    fn a_missing_slot_says_what_to_do() {
        let error = Case::default().mask(Slot::Brain).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("skull_strip")));
    }
}
