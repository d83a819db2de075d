//! `resample`: brings the image (linear) and its masks (nearest) to a spacing, a shape, or both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Check, parameters, problem};
use crate::engine::parameters::ParameterProblem;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::Result;
use crate::imaging::resample::{Interpolation, resample_image, resample_mask, target_grid};

/// The grid to bring a case to. The centre of the field of view stays where it is. With a spacing and a shape the volume is
/// cropped or padded about its centre; with a shape alone the spacing is stretched to fit; with neither nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Resample {
    /// Distance between voxels along x, y, z in mm.
    pub spacing_mm: Option<[f64; 3]>,
    /// Number of voxels along x, y, z.
    pub shape: Option<[usize; 3]>,
    /// How image intensities between voxels are found; masks always take the nearest voxel.
    pub interpolation: Interpolation,
}

impl Check for Resample {
    fn check(&self) -> Vec<ParameterProblem> {
        let mut problems = Vec::new();
        if self.spacing_mm.is_some_and(|s| s.iter().any(|v| !v.is_finite() || *v <= 0.0)) {
            let found = format!("{:?} cannot be", self.spacing_mm.unwrap_or_default());
            problems.push(problem("spacing_mm", found, "give three numbers above 0, in mm"));
        }
        if self.shape.is_some_and(|s| s.iter().any(|n| !(1..=4096).contains(n))) {
            let found = format!("{:?} cannot be", self.shape.unwrap_or_default());
            problems.push(problem("shape", found, "give three counts from 1 to 4096"));
        }
        problems
    }
}

impl Stage for Resample {
    fn name(&self) -> &'static str {
        "resample"
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

    fn writes(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn carries(&self) -> &'static [Slot] {
        &[Slot::Image, Slot::Truth, Slot::Brain]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The new volumes beside the old ones. A spacing alone may enlarge them, and by how much only the header tells: eightfold is
        // the bound that a halved spacing gives.
        match self.shape {
            Some(shape) => {
                let target = shape.iter().map(|n| *n as u64).product::<u64>();
                let coefficients =
                    if self.interpolation == Interpolation::Cubic { 4 * voxels } else { 0 };
                // Masks follow when the old image is gone.
                4 * target + coefficients + (2 * target).saturating_sub(4 * voxels) + (256 << 10)
            }
            None => 48 * voxels,
        }
    }

    fn run(&self, case: &mut Case, _: &Context) -> Result<()> {
        let grid = target_grid(&case.image()?.grid(), self.spacing_mm, self.shape)?;
        case.image = Some(resample_image(case.image()?, &grid, self.interpolation, 0.0)?);
        for mask in [&mut case.truth, &mut case.brain] {
            if let Some(old) = mask.take() {
                *mask = Some(resample_mask(&old, &grid)?);
            }
        }
        Ok(())
    }
}
