//! `torcula reveal`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{key_value, output, run};
use crate::error::{Error, Result};
use crate::run::reveal as behind;

/// Arguments of `reveal`.
#[derive(Debug, Args)]
pub struct RevealArgs {
    /// The pipeline file whose ingest has the privacy policy
    file: PathBuf,
    /// Pseudonyms [default: all]
    case_ids: Vec<String>,
    /// Set a variable or key of the pipeline file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
}

/// `torcula reveal`.
pub fn reveal(args: &RevealArgs) -> Result<ExitCode> {
    let pipeline = match run::load(&args.file, &args.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let found = behind::reveal(&pipeline, &args.case_ids)?;
    for case in &found {
        let image = case.image.as_ref().map(|path| path.display().to_string());
        let what = image.or_else(|| case.reason.clone()).unwrap_or_default();
        output::line(format!("{}  {}  {what}", case.case_id, case.own_id));
    }
    let unknown = args.case_ids.iter().find(|id| found.iter().all(|case| case.case_id != **id));
    match unknown {
        None => Ok(ExitCode::SUCCESS),
        Some(id) => Err(Error::configuration(format!(
            "no case of a registry in this file is `{id}` under its policy"
        ))
        .hint("is the key the one that it was read with, and is the case still there?")),
    }
}
