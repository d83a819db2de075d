//! `torcula check` and `torcula test`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{key_value, output, run};
use crate::engine::{Case, CaseInput, CaseStop, Context};
use crate::error::Result;
use crate::pipeline::{Phantom, StageTest, evaluate};

/// A pipeline file and its variables.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The pipeline file
    file: PathBuf,
    /// Set a variable or any key of the file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
}

/// `torcula check`.
pub fn check(args: &FileArgs) -> Result<ExitCode> {
    match run::load(&args.file, &args.sets) {
        Ok(pipeline) => {
            output::line(format!(
                "{}: good, {} steps, {} tests, hash {}",
                args.file.display(),
                pipeline.steps.len(),
                pipeline.tests.len(),
                &pipeline.hash[..12]
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}

/// `torcula test`.
pub fn test(args: &FileArgs) -> Result<ExitCode> {
    let pipeline = match run::load(&args.file, &args.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let mut failed = 0;
    for test in &pipeline.tests {
        match one(test, pipeline.seed) {
            Ok(()) => output::line(format!("ok      {}", test.name)),
            Err(reason) => {
                failed += 1;
                output::line(format!("FAILED  {}: {reason}", test.name));
            }
        }
    }
    output::line(format!(
        "{} of {} tests passed",
        pipeline.tests.len() - failed,
        pipeline.tests.len()
    ));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(test: &StageTest, seed: u64) -> Result<(), String> {
    let Phantom { image, truth, brain } = test.phantom.make().map_err(|e| e.to_string())?;
    let mut case = Case::new(CaseInput { case_id: "phantom".to_owned(), ..CaseInput::default() });
    case.image = Some(image.clone());
    case.truth = Some(truth);
    case.brain = Some(brain.clone());
    test.stage
        .stage()
        .run(&mut case, &Context::new(seed, CaseStop::default()))
        .map_err(|e| e.to_string())?;
    let after = case.image.ok_or("the stage left no image")?;
    let found: Vec<String> = test
        .expect
        .iter()
        .filter_map(|e| evaluate(e, &image, &after, Some(&brain)).err())
        .collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}
