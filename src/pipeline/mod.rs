//! The pipeline file: read → resolve → check → [`Pipeline`]. Nothing here does I/O but [`load`], which reads the file.
//!
//! - [`tree`]: YAML with the place of every part;
//! - [`resolve`]: variables and `--set`;
//! - `matrix`: a step with `matrix:` becomes one step a combination of its parameters;
//! - [`spec`], [`study_spec`], [`report_spec`], [`night_spec`]: what may stand in a file, as types; the JSON Schema in `schemas/` is made
//!   from them by [`schema`];
//! - `check`: references, parameters, circles, and the volumes that pass from step to step;
//! - [`plan`]: the checked pipeline; [`explain`] tells it in words;
//! - [`phantom`], [`expect`]: the tests that a file brings along.
//!
//! Every problem of a file is found in one go and shown with its line, column and a hint ([`Diagnostics`]). Paths in a
//! file are taken as they are given: relative ones start at the current folder, not at the file's.

mod check;
pub mod diagnostics;
mod exhibit_spec;
pub mod expect;
pub mod explain;
mod infer_spec;
mod matrix;
pub mod night_spec;
pub mod phantom;
pub mod plan;
pub mod report_spec;
pub mod resolve;
pub mod schema;
pub mod spec;
pub mod study_spec;
pub mod tree;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

pub use self::diagnostics::{Diagnostic, Diagnostics, Place};
pub use self::expect::{Expectation, evaluate};
pub use self::night_spec::{DifferenceParams, NightAt, NotifySpec, NotifyWhen, WebhookSpec};
pub use self::phantom::{Phantom, PhantomParams};
pub use self::plan::{Action, Output, Pipeline, Source, StageTest, StagesAction, Step, Union};
pub use self::report_spec::ReportParams;
pub use self::spec::{
    FailureLimit, InferParams, IngestParams, ModelSource, Retention, ScoreParams, ShardParams,
    TrainStep,
};
pub use self::study_spec::{CohortParams, Division, Exclusion, Membership, SplitParams};

use self::diagnostics::{Problems, Source as Text};
use crate::error::{Error, Result};

/// Largest pipeline file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks a pipeline file. `sets` are the `--set KEY=VALUE` arguments in their order; a later one wins.
///
/// # Errors
/// Every problem of the file and the arguments.
pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Pipeline, Diagnostics> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| Diagnostics::unreadable(&name, &error))?;
    load_text(&name, &text, sets)
}

/// As [`load`], for a text at hand; `name` is what diagnostics call it.
///
/// # Errors
/// Every problem of the text and the arguments.
pub fn load_text(
    name: &str,
    text: &str,
    sets: &[(String, String)],
) -> Result<Pipeline, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sources = vec![Text { name: name.to_owned(), text: text.to_owned() }];
    sources.extend(sets.iter().map(|(key, value)| resolve::set_source(key, value)));
    let mut problems = Problems::new(sources);
    let pipeline = tree::parse(text, 0, 0, &mut problems)
        .map(|root| resolve::resolve(root, sets, &mut problems))
        .filter(|_| !problems.is_stopped());
    let pipeline = pipeline.and_then(|root| check::check(&root, &mut problems));
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.finish()),
    }
}

fn read(path: &Path) -> Result<String> {
    let io = |error: std::io::Error| {
        Error::configuration(format!("the pipeline file cannot be read: {error}"))
            .hint("give the path of a pipeline file, such as pipelines/demo.yaml")
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::configuration("the file is larger than 1 MiB")
            .hint("a pipeline file is a short YAML text; is this the right one?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::configuration(format!("the file is not UTF-8: byte {at} begins no character"))
            .hint("save it as UTF-8")
    })
}

/// Splits a `KEY=VALUE` argument.
///
/// # Errors
/// A configuration error where there is no `=` or no key.
pub fn parse_set(argument: &str) -> Result<(String, String)> {
    match argument.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(Error::configuration(format!("`{argument}` sets nothing"))
            .hint("write KEY=VALUE, such as data=demo-data or steps.unet.train.epochs=2")),
    }
}

/// A value as it would stand in a pipeline file: `2.5`, `true`, `[50, 50]`, `slice`.
///
/// # Errors
/// A configuration error where the text is not valid YAML.
pub fn parse_value(text: &str) -> Result<Value> {
    let mut problems =
        Problems::new(vec![Text { name: "value".to_owned(), text: text.to_owned() }]);
    let node = tree::parse(text, 0, 0, &mut problems);
    let found = problems.finish();
    match (node, found.items().first()) {
        (Some(node), None) => Ok(node.to_json()),
        (_, problem) => {
            let why = problem.map_or("it cannot be read", |p| p.message.as_str());
            Err(Error::configuration(format!("the value `{text}`: {why}"))
                .hint("write it as in YAML; quote text with special characters"))
        }
    }
}
