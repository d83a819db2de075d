//! `skull_strip`: Gaussian blur, Otsu's threshold on the blurred image, mask applied to the original (study §2.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Check, parameters, problem};
use crate::engine::parameters::ParameterProblem;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::{Error, Result};
use crate::imaging::components::{self, Connectivity};
use crate::imaging::otsu::{self, Convention};
use crate::imaging::{gaussian, morphology};
use crate::volume::{Image, Mask};

/// Keeps what is brighter than Otsu's threshold of the blurred image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SkullStrip {
    /// Standard deviation of the Gaussian blur in mm; 0 thresholds the image itself.
    pub blur_mm: f64,
    /// Bins of the histogram that Otsu's method searches.
    pub bins: usize,
    /// Which edge of the chosen bin is the threshold (ITK: right edge, scikit-image: centre).
    pub convention: Convention,
    /// Keeps only the largest connected component (26-connectivity).
    pub largest_component: bool,
    /// Fills holes that do not reach the border of the volume.
    pub fill_holes: bool,
}

impl Default for SkullStrip {
    fn default() -> Self {
        Self {
            blur_mm: 2.0,
            bins: 128,
            convention: Convention::default(),
            largest_component: false,
            fill_holes: false,
        }
    }
}

impl Check for SkullStrip {
    fn check(&self) -> Vec<ParameterProblem> {
        let mut problems = Vec::new();
        if !(0.0..=50.0).contains(&self.blur_mm) {
            let hint = "give a standard deviation from 0 to 50 mm; the default is 2";
            problems.push(problem("blur_mm", format!("{} mm cannot be", self.blur_mm), hint));
        }
        if !(2..=65_536).contains(&self.bins) {
            let hint = "give 2 to 65536; the default is 128";
            problems.push(problem("bins", format!("{} bins cannot be", self.bins), hint));
        }
        problems
    }
}

impl SkullStrip {
    /// Sets what is not brain to 0; the threshold and the mask of the brain.
    ///
    /// # Errors
    /// A data error where there is no threshold or nothing is brighter; the image is as it was.
    pub fn strip(&self, image: &mut Image) -> Result<(f32, Mask)> {
        let blurred = gaussian::blur(image, self.blur_mm);
        let threshold = otsu::threshold(blurred.voxels(), self.bins, self.convention)?;
        let mut brain =
            Mask { data: blurred.data.mapv(|v| u8::from(v > threshold)), affine: image.affine };
        drop(blurred);
        if self.largest_component {
            brain = components::largest(&brain, Connectivity::TwentySix);
        }
        if self.fill_holes {
            brain = morphology::fill_holes(&brain);
        }
        if brain.voxels().iter().all(|v| *v == 0) {
            return Err(Error::data(format!(
                "no voxel is brighter than Otsu's threshold {threshold}"
            ))
            .hint("look at the image: it may be empty or inverted"));
        }
        for (v, m) in image.voxels_mut().iter_mut().zip(brain.voxels()) {
            *v = if *m == 0 { 0.0 } else { *v };
        }
        Ok((threshold, brain))
    }
}

impl Stage for SkullStrip {
    fn name(&self) -> &'static str {
        "skull_strip"
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
        &[Slot::Image, Slot::Brain]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The blurred image; then the labels and the filled copy; tables.
        let bytes = if self.largest_component || self.fill_holes { 7 } else { 4 };
        bytes * voxels + (256 << 10)
    }

    fn run(&self, case: &mut Case, _: &Context) -> Result<()> {
        let (_, brain) = self.strip(case.image_mut()?)?;
        case.brain = Some(brain);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CaseInput, CaseStop};
    use crate::imaging::phantom;

    #[test]
    fn the_brain_stays_and_the_air_goes() -> Result<()> {
        let (image, _, brain) = phantom::simple([48, 48, 10], [4.0, 4.0, 5.0], 3);
        let mut case = Case::new(CaseInput::default());
        case.image = Some(image.clone());
        SkullStrip::default().run(&mut case, &Context::new(1, CaseStop::default()))?;
        let mask = case.mask(Slot::Brain)?;
        let both = mask.voxels().iter().zip(brain.voxels()).filter(|(a, b)| **a & **b == 1).count();
        let sum = mask.voxels().iter().chain(brain.voxels()).filter(|v| **v == 1).count();
        assert!(2.0 * both as f64 / sum as f64 > 0.8, "Dice {}", 2.0 * both as f64 / sum as f64);
        for ((v, m), before) in case.image()?.voxels().iter().zip(mask.voxels()).zip(image.voxels())
        {
            let expected = if *m == 1 { *before } else { 0.0 };
            assert_eq!(v.to_bits(), expected.to_bits());
        }
        Ok(())
    }
}
