//! `n4`: corrects the bias field inside the brain mask (Tustison 2010, as ITK does it; see [`crate::imaging::n4`]).

pub use crate::imaging::n4::Parameters as N4;

use serde_json::{Value, json};

use super::{Check, parameters, problem};
use crate::engine::parameters::ParameterProblem;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::Result;
use crate::imaging::n4;

impl Check for N4 {
    fn check(&self) -> Vec<ParameterProblem> {
        let mut problems = Vec::new();
        if self.iterations.is_empty() || self.iterations.len() > 8 {
            let found = format!("{} levels", self.iterations.len());
            problems.push(problem(
                "iterations",
                found,
                "give 1 to 8 levels, for example [10, 10, 10, 10]",
            ));
        }
        if self.shrink == 0 || self.shrink > 16 {
            let found = format!("{} cannot be", self.shrink);
            problems.push(problem("shrink", found, "give 1 (full resolution) to 16"));
        }
        if self.bins < 4 {
            problems.push(problem(
                "bins",
                format!("{} is too few", self.bins),
                "the default is 200",
            ));
        }
        if self.control_points.iter().any(|n| !(4..=64).contains(n)) {
            let found = format!("{:?} cannot be", self.control_points);
            problems.push(problem(
                "control_points",
                found,
                "give 4 to 64 an axis; the default is [4, 4, 4]",
            ));
        }
        for (key, value) in [
            ("convergence", self.convergence),
            ("wiener_noise", self.wiener_noise),
            ("fwhm", self.fwhm),
        ] {
            if !value.is_finite() || value < 0.0 {
                problems.push(problem(
                    key,
                    format!("{value} cannot be"),
                    "give a number of 0 or more",
                ));
            }
        }
        problems
    }
}

impl Stage for N4 {
    fn name(&self) -> &'static str {
        "n4"
    }

    fn version(&self) -> u32 {
        2
    }

    fn parameters(&self) -> Value {
        parameters(self)
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Image, Slot::Brain]
    }

    fn writes(&self) -> &'static [Slot] {
        &[Slot::Image, Slot::Field]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The field is a slot.
        n4::footprint_bytes(voxels, self).saturating_sub(voxels.saturating_mul(4))
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let brain = case.mask(Slot::Brain)?;
        let corrected = n4::correct(case.image()?, brain, None, self, &|| context.is_stopped())?;
        case.notes.insert(
            "n4".to_owned(),
            json!({"iterations": corrected.iterations, "warnings": corrected.warnings}),
        );
        case.image = Some(corrected.image);
        case.field = Some(corrected.log_field);
        Ok(())
    }
}
