//! The stages: one verb on a case per file. A stage's type is its parameters; [`StageSpec`] is the registry.

pub mod augment;
#[cfg(test)]
mod degenerate;
pub mod infer;
pub mod ingest;
pub mod n4;
pub mod normalize;
pub mod qc;
pub mod resample;
pub mod score;
pub mod skull_strip;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::parameters::{ParameterProblem, parse_parameters};
use crate::engine::{Slot, Stage};

/// Declares the registry: a line a stage that can stand in a `stages:` list.
macro_rules! registry {
    ($($(#[$doc:meta])* $variant:ident($stage:ty) = $name:literal,)*) => {
        /// A stage with its parameters, as a pipeline names it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub enum StageSpec {
            $($(#[$doc])* #[serde(rename = $name)] $variant($stage),)*
        }

        impl StageSpec {
            /// The names of all stages.
            pub fn names() -> &'static [&'static str] {
                &[$($name),*]
            }

            /// The stage of that name with these parameters, the defaults for the rest; or every problem at once.
            pub fn from_parts(name: &str, parameters: Value) -> Result<Self, Vec<ParameterProblem>> {
                let spec = match name {
                    $($name => parse_parameters::<$stage>(parameters).map(Self::$variant),)*
                    _ => Err(vec![ParameterProblem {
                        key: None,
                        message: format!("there is no stage `{name}`"),
                        hint: Some(format!("the stages are: {}", Self::names().join(", "))),
                    }]),
                }?;
                match spec.problems() {
                    problems if problems.is_empty() => Ok(spec),
                    problems => Err(problems),
                }
            }

            /// The stage itself.
            pub fn stage(&self) -> Arc<dyn Stage> {
                match self {
                    $(Self::$variant(stage) => Arc::new(stage.clone()),)*
                }
            }

            /// Values that have the right type and cannot be.
            fn problems(&self) -> Vec<ParameterProblem> {
                match self {
                    $(Self::$variant(stage) => Check::check(stage),)*
                }
            }
        }
    };
}

registry! {
    /// Measures image quality and gives a verdict.
    Qc(qc::Qc) = "qc",
    /// Removes what is not brain.
    SkullStrip(skull_strip::SkullStrip) = "skull_strip",
    /// Corrects the bias field.
    N4(n4::N4) = "n4",
    /// Brings intensities to a common scale.
    Normalize(normalize::Normalize) = "normalize",
    /// Brings image and masks to a spacing and shape.
    Resample(resample::Resample) = "resample",
    /// Draws and applies random transforms.
    Augment(augment::Augment) = "augment",
}

/// Checks of values that a type cannot express. The default finds nothing.
pub trait Check {
    /// Every value that cannot be, with a hint.
    fn check(&self) -> Vec<ParameterProblem> {
        Vec::new()
    }
}

/// A problem with one parameter.
pub(crate) fn problem(
    key: &str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> ParameterProblem {
    ParameterProblem { key: Some(key.to_owned()), message: message.into(), hint: Some(hint.into()) }
}

/// A stage's parameters as they enter its fingerprint.
pub(crate) fn parameters(stage: &impl Serialize) -> Value {
    serde_json::to_value(stage).unwrap_or(Value::Null)
}

impl StageSpec {
    /// The stage's name.
    pub fn name(&self) -> &'static str {
        self.stage().name()
    }

    /// Slots that must be filled before it.
    pub fn reads(&self) -> &'static [Slot] {
        self.stage().reads()
    }

    /// Slots that it fills or changes.
    pub fn writes(&self) -> &'static [Slot] {
        self.stage().writes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_defaults_and_its_own_name() {
        for name in StageSpec::names() {
            let spec = StageSpec::from_parts(name, Value::Null).map_err(|p| format!("{p:?}"));
            assert_eq!(spec.map(|s| s.name()), Ok(*name));
        }
    }

    #[test]
    fn an_unknown_stage_names_the_known_ones() {
        let problems = StageSpec::from_parts("n5", Value::Null).map(|_| ());
        assert!(problems.is_err_and(|p| p[0].hint.as_ref().is_some_and(|h| h.contains("n4"))));
    }
}
