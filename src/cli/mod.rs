//! The command line: clap's definitions, and one thin file a command.

mod apply;
mod catalog;
mod check;
mod curate;
mod doctor;
mod infer;
mod models;
mod output;
mod progress;
mod reveal;
mod run;
mod score;
mod status;
mod study;
mod synth;
mod upkeep;
mod volume;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::catalog::Catalog;
use crate::catalog::lock::{self, Guard, Owner};
use crate::engine::learner::Learner;
use crate::error::{Error, Fault, Result};
use crate::formats::files;

/// Declared, streaming data pipelines for brain diffusion-weighted MRI.
#[derive(Debug, Parser)]
#[command(name = "torcula", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start with `torcula synth demo-data --cases 20` and `torcula run pipelines/demo.yaml --set data=demo-data`.\n\
Exit codes: 0 all well, 1 the run failed or was stopped, 2 bad usage or pipeline, 3 more cases quarantined than on_failure allows,\n\
4 done, and a difference report raised an alarm."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline; what an earlier run did from the same bytes is not done again
    Run(run::RunArgs),
    /// Check a pipeline file: every mistake at once, nothing is run
    Check(check::FileArgs),
    /// Show the plan of a pipeline and what is left to do
    Explain(run::ExplainArgs),
    /// Run the tests inside a pipeline file, on synthetic heads
    Test(check::FileArgs),
    /// Show a pipeline's cohorts: what each rule excluded, and what is left
    Cohort(study::StepArgs),
    /// Show a pipeline's splits, or prove what must hold of them
    Split(study::SplitArgs),
    /// Query the catalog's tables and the steps of its last run
    Sql(catalog::SqlArgs),
    /// Run one stage on one image, without a catalog
    Apply(apply::ApplyArgs),
    /// Run a trained network on one image, without a catalog
    Infer(infer::InferArgs),
    /// List the catalog's models, or export one
    Models(models::ModelsArgs),
    /// Compare a predicted mask with a manual one
    Score(score::ScoreArgs),
    /// Make a synthetic multicentre registry in BIDS layout
    Synth(synth::SynthArgs),
    /// Correct the registry: exclude cases, set values, take edits back
    Curate(curate::CurateArgs),
    /// Show where an artifact, model, case or run came from, down to the input bytes
    Lineage(catalog::LineageArgs),
    /// List quarantined cases with reasons and hints
    Failures(catalog::FailuresArgs),
    /// Show what is running or stuck, and when each pipeline last went well
    Status(status::StatusArgs),
    /// List the last runs of a catalog: times, how they ended, cases, rates
    Runs(status::RunsArgs),
    /// Check every artifact against the catalog by its bytes; --repair has the next run make the damaged ones again
    Verify(upkeep::VerifyArgs),
    /// Remove what crashes left and what nothing needs any more
    Clean(upkeep::CleanArgs),
    /// Say which cases of the registry stand behind pseudonyms (needs the key)
    Reveal(reveal::RevealArgs),
    /// Check this machine: cores, memory, libtorch, CUDA
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line. `learner` is the training crate's, in the binary that links libtorch.
pub fn main(learner: Option<Arc<dyn Learner>>) -> ExitCode {
    crate::engine::memory::prepare();
    quiet_worker_panics();
    let cli = Cli::parse();
    if let Err(error) = crate::formats::limits::check() {
        output::error(&error);
        return ExitCode::from(2);
    }
    let result = match cli.command {
        Command::Run(args) => run::run(&args, learner),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => run::explain(&args, learner),
        Command::Test(args) => check::test(&args),
        Command::Cohort(args) => study::cohort(&args),
        Command::Split(args) => study::split(&args),
        Command::Sql(args) => catalog::sql(&args),
        Command::Apply(args) => apply::apply(&args),
        Command::Infer(args) => infer::infer(&args, learner),
        Command::Models(args) => models::models(&args),
        Command::Score(args) => score::score(&args),
        Command::Synth(args) => synth::synth(&args),
        Command::Curate(args) => curate::curate(&args),
        Command::Lineage(args) => catalog::lineage(&args),
        Command::Failures(args) => catalog::failures(&args),
        Command::Status(args) => status::status(&args),
        Command::Runs(args) => status::runs(&args),
        Command::Verify(args) => upkeep::verify(&args),
        Command::Clean(args) => upkeep::clean(&args),
        Command::Reveal(args) => reveal::reveal(&args),
        Command::Doctor => doctor::doctor(learner),
        Command::Completions { shell } => {
            // Into memory first: clap panics where the pipe behind it is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "torcula", &mut script);
            output::raw(&script);
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(if error.fault() == Fault::Configuration { 2 } else { 1 })
    })
}

/// A panic in a stage becomes a failure row with its message; its backtrace on the screen would only hide the progress. The
/// same goes for the buffered writer of the file store, which panics when it is aborted after a failure, which is reported.
fn quiet_worker_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let of_a_case = thread.name().is_some_and(|name| name.starts_with("torcula-case-"));
        let place = info.location().map(|place| place.file().replace('\\', "/"));
        let of_the_writer =
            place.is_some_and(|p| p.contains("/object_store-") && p.ends_with("buffered.rs"));
        if !of_a_case && !of_the_writer {
            default(info);
        }
    }));
}

/// A runtime for commands that read the catalog.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::resource(format!("no threads for the scheduler: {e}")))
}

/// Memory of this machine in bytes.
struct Memory {
    total: u64,
    available: u64,
}

/// What the machine has; 0 where it cannot be told.
fn memory() -> Memory {
    let Ok(mut system) = sysinfo::System::new() else { return Memory { total: 0, available: 0 } };
    system.refresh_memory();
    Memory { total: system.total_memory(), available: system.available_memory() }
}

/// `key=value` from the command line.
fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// `4GiB`, `500MB`, `1073741824`.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| "write it like 4GiB or 500MB")?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        other => return Err(format!("`{other}` is no unit: use KiB, MiB, GiB, kB, MB or GB")),
    };
    Ok((number * unit) as u64)
}

/// The command line, as it is written into the `runs` table.
fn command_line() -> String {
    let mut words = vec!["torcula".to_owned()];
    words.extend(std::env::args().skip(1).map(|word| without_secret(&word)));
    words.join(" ")
}

/// Takes the lock of a catalog for a command that is no run.
fn lock(catalog: &Catalog, what: &str) -> Result<Guard> {
    let owner = Owner { what: what.to_owned(), run_id: None, command: command_line() };
    lock::acquire(catalog.folder(), &owner, Arc::new(()))
}

/// An argument without the value of what is called a secret, and without passwords and tokens in addresses.
fn without_secret(word: &str) -> String {
    let secret = ["key", "token", "secret", "password", "credential"];
    match word.split_once('=') {
        Some((name, _)) if secret.iter().any(|s| name.to_ascii_lowercase().contains(s)) => {
            format!("{name}=[hidden]")
        }
        Some((name, value)) => format!("{name}={}", files::without_secrets(value)),
        None => files::without_secrets(word),
    }
}

/// Where a command finds its catalog.
#[derive(Debug, clap::Args)]
struct CatalogArgs {
    /// Folder of the catalog [default: $TORCULA_CATALOG, or ./catalog]
    #[arg(short, long, value_name = "DIR")]
    catalog: Option<PathBuf>,
    /// Take the catalog and the steps from this pipeline file
    #[arg(short, long, value_name = "FILE", conflicts_with = "catalog")]
    pipeline: Option<PathBuf>,
    /// Set a variable or key of the pipeline file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, requires = "pipeline")]
    sets: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_recorded_command_line_has_no_secrets() {
        for (word, kept) in [
            ("data=/registry", "data=/registry"),
            ("steps.a.notify.token=abc", "steps.a.notify.token=[hidden]"),
            ("hook=https://me:abc@host/x?t=abc", "hook=https://host/x"),
            ("s3://a:b@c/d", "s3://c/d"),
            ("run", "run"),
        ] {
            assert_eq!(without_secret(word), kept);
        }
    }

    #[test]
    fn memory_is_written_as_people_write_it() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5 MiB"), Ok(3 << 19));
        assert_eq!(bytes("500MB"), Ok(500_000_000));
        assert_eq!(bytes("1024"), Ok(1024));
        assert!(bytes("4 apples").is_err() && bytes("GiB").is_err());
    }
}
