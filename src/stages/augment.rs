//! `augment`: draws the random transforms of the training feed once and applies them, to look at them or to fix an augmented set.
//!
//! The draw depends on seed and case alone and is written into the sidecar, so that it can be replayed.

pub use crate::imaging::augment::Plan as Augment;

use serde_json::Value;

use super::{Check, parameters};
use crate::engine::parameters::ParameterProblem;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::Result;

impl Check for Augment {
    fn check(&self) -> Vec<ParameterProblem> {
        let problem = |e: crate::error::Error| ParameterProblem {
            key: None,
            message: e.reason().to_owned(),
            hint: e.advice().map(str::to_owned),
        };
        Augment::check(self).err().map(problem).into_iter().collect()
    }
}

impl Stage for Augment {
    fn name(&self) -> &'static str {
        "augment"
    }

    fn version(&self) -> u32 {
        2
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
        &[Slot::Image, Slot::Truth]
    }

    fn is_random(&self) -> bool {
        true
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The slices in work with a border, and for a slice where each pixel looks.
        let jitters = self.affine_slices.as_ref().is_some_and(|a| a.slice_jitter > 0.0);
        if jitters { 8 * voxels } else { 19 * voxels / 4 }
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let mut rng = context.rng(case, self.name());
        let mut truth = case.truth.take();
        let image = case.image_mut()?;
        let draw = self.draw(&mut rng, &image.grid());
        draw.apply(image, truth.as_mut())?;
        case.truth = truth;
        case.notes.insert("augment".to_owned(), parameters(&draw));
        Ok(())
    }
}
