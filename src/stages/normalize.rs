//! `normalize`: multiplies every voxel by 150 / histogram peak of the brain and clips at 255 (study §2.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Check, parameters, problem};
use crate::engine::parameters::ParameterProblem;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::Result;
use crate::imaging::normalize::{self, Scope};

/// Puts the most frequent intensity of the brain at a fixed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Normalize {
    /// Where the histogram's peak goes.
    pub peak: f32,
    /// Largest intensity afterwards.
    pub clip: f32,
    /// One coefficient a volume, or one a slice.
    pub scope: Scope,
}

impl Default for Normalize {
    fn default() -> Self {
        Self { peak: 150.0, clip: 255.0, scope: Scope::Volume }
    }
}

impl Check for Normalize {
    fn check(&self) -> Vec<ParameterProblem> {
        [("peak", self.peak), ("clip", self.clip)]
            .into_iter()
            .filter(|(_, v)| !v.is_finite() || *v <= 0.0)
            .map(|(key, v)| problem(key, format!("{v} cannot be"), "give a number above 0"))
            .collect()
    }
}

impl Stage for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn version(&self) -> u32 {
        1
    }

    fn parameters(&self) -> Value {
        parameters(self)
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn optional(&self) -> &'static [Slot] {
        &[Slot::Brain]
    }

    fn writes(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The brain's voxels once more, of the volume or of a slice; tables. An image up to 512 × 512 may be a single slice; a
        // larger one has four at least.
        let gathered = match self.scope {
            Scope::Volume => voxels,
            Scope::Slice => voxels.min(1 << 18).max(voxels / 4),
        };
        4 * gathered + (256 << 10)
    }

    fn run(&self, case: &mut Case, _: &Context) -> Result<()> {
        let brain = case.brain.take();
        let image = case.image_mut()?;
        let coefficients =
            normalize::normalize(image, brain.as_ref(), self.peak, self.clip, self.scope)?;
        case.brain = brain;
        case.notes.insert("normalize".to_owned(), json!(coefficients));
        Ok(())
    }
}
