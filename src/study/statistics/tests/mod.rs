//! Tests over all of it: stored numbers, properties, and what is refused.

mod numbers;
mod properties;
mod refusals;

use super::{Group, Level};

fn group(values: &[Option<f64>]) -> Group<'_> {
    Group::new("group", values)
}

fn level(share: f64) -> Level {
    Level::new(share).unwrap_or_default()
}
