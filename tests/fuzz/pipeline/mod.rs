//! YAML, variables and matrices. What follows, the check of a tree against types, needs every stage, and with them
//! DataFusion: `tests/suite/hostile.rs` does that.
#[path = "../../../src/pipeline/diagnostics.rs"]
pub mod diagnostics;
#[path = "../../../src/pipeline/matrix.rs"]
mod matrix;
#[path = "../../../src/pipeline/resolve.rs"]
pub mod resolve;
#[path = "../../../src/pipeline/tree.rs"]
pub mod tree;

use diagnostics::{Diagnostics, Problems, Source};

/// Parses a file and replaces its variables.
pub fn load_text(name: &str, text: &str, sets: &[(String, String)]) -> Result<(), Diagnostics> {
    let mut sources = vec![Source { name: name.to_owned(), text: text.to_owned() }];
    sources.extend(sets.iter().map(|(key, value)| resolve::set_source(key, value)));
    let mut problems = Problems::new(sources);
    let root = tree::parse(text, 0, 0, &mut problems);
    let root = root.map(|root| resolve::resolve(root, sets, &mut problems).to_json());
    match root {
        Some(_) if problems.is_empty() => Ok(()),
        _ => Err(problems.finish()),
    }
}
