//! How a network is trained: optimizer, schedule, augmentation, as words in a pipeline.

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Result;
use crate::imaging::augment::{Plan, Transform};

/// How the weights follow their gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Adam; weight decay is part of the gradient.
    Adam,
    /// Stochastic gradient descent with Nesterov momentum; weight decay is part of the gradient.
    Sgd,
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// Half a cosine, down to 0.
    #[default]
    Cosine,
    /// (1 − share done)^0.9, down to 0.
    Poly,
}

/// How training samples are augmented: a list of transforms with their defaults, `[flip, gamma]`, or the parameters of each.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Augmentation {
    /// These transforms, with their defaults; an empty list trains on the samples as they are.
    Names(Vec<Transform>),
    /// The transforms that are given, with these parameters.
    Parameters(Box<Plan>),
}

impl Default for Augmentation {
    fn default() -> Self {
        use Transform::{AffineSlices, BiasField, Flip, Gamma};
        Self::Names(vec![AffineSlices, BiasField, Flip, Gamma])
    }
}

impl Augmentation {
    /// What is drawn for every sample; none where nothing is.
    pub fn plan(&self) -> Option<Plan> {
        let plan = match self {
            Self::Names(names) => Plan::of(names),
            Self::Parameters(plan) => plan.as_ref().clone(),
        };
        (plan != Plan::default()).then_some(plan)
    }
}

/// Written out, since a derived untagged enum would not say which key or name is wrong.
impl<'de> Deserialize<'de> for Augmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Augmentation;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of transforms or a map of their parameters")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Augmentation, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(names)).map(Augmentation::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, plan: A) -> Result<Augmentation, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(plan))
                    .map(Augmentation::Parameters)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
