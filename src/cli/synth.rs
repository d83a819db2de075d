//! `torcula synth`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::error::Result;
use crate::study::synth::{self, Options, Study};

/// Arguments of `synth`.
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// The folder to make: absent, empty, or a registry of the same options
    folder: PathBuf,
    /// Number of cases
    #[arg(long, default_value_t = 100)]
    cases: usize,
    /// Number of centres
    #[arg(long, default_value_t = 5)]
    sites: usize,
    /// Everything random follows from it
    #[arg(long, default_value_t = 20_230_702)]
    seed: u64,
    /// Share of cases that are broken on purpose, 0 to 1
    #[arg(long = "broken", default_value_t = 0.0)]
    broken_share: f64,
    /// Pixels a row and column [default: each scanner's own, 128 to 256]
    #[arg(long)]
    matrix: Option<usize>,
    /// Slices [default: as many as cover the head]
    #[arg(long)]
    slices: Option<usize>,
    /// Folder of real lesion masks (NIfTI, MNI space) to plant
    #[arg(long, value_name = "DIR")]
    lesions: Option<PathBuf>,
    /// Name of the registry; one that begins with `external` differs as the study's external cohort does
    #[arg(long, default_value = "internal")]
    source: String,
    /// No images: tables of cases with a study's size, counts and marginals
    #[arg(long, requires = "study")]
    metadata_only: bool,
    /// The study whose registry is made
    #[arg(long, value_enum, requires = "metadata_only")]
    study: Option<StudyName>,
}

/// Studies by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StudyName {
    /// Noh et al. 2023: 12,013 enrolled at ten centres, 2,777 external, 50 and 250 ancillary
    Noh2023,
}

/// `torcula synth`.
pub fn synth(args: &SynthArgs) -> Result<ExitCode> {
    if let Some(study) = args.study {
        let study = match study {
            StudyName::Noh2023 => Study::Noh2023,
        };
        let written = synth::write_metadata(&args.folder, study, args.seed)?;
        let tables: Vec<String> =
            written.iter().map(|table| format!("{} {}", table.file, table.cases)).collect();
        let cases: usize = written.iter().map(|table| table.cases).sum();
        output::line(format!(
            "{}: {cases} synthetic cases without images ({}); nobody's data, with the study's counts and marginals",
            args.folder.display(),
            tables.join(", ")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        cases: args.cases,
        sites: args.sites,
        seed: args.seed,
        broken_share: args.broken_share,
        matrix: args.matrix,
        slices: args.slices,
        lesions: args.lesions.clone(),
        source: args.source.clone(),
    };
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(args.cases as u64)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template(
        "synth {bar:28.cyan/dim} {pos:>5}/{len} {per_sec:>9} {eta:>4} left",
    ) {
        bar.set_style(style);
    }
    let summary = synth::write(&args.folder, &options, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    output::line(format!(
        "{}: {} cases, {} of them broken on purpose, {:.1} MB",
        args.folder.display(),
        summary.cases,
        summary.broken.len(),
        summary.bytes as f64 / 1e6
    ));
    Ok(ExitCode::SUCCESS)
}
