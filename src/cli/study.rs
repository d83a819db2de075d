//! `torcula cohort` and `torcula split`: what a pipeline's cohorts and splits hold, and proofs about the splits.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{key_value, output, run, runtime};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::pipeline::{Action, Pipeline, Step};
use crate::run::cohort::{self, CohortView};
use crate::run::split::{self, SplitView};

/// A pipeline file, and which of its steps.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// The pipeline file
    file: PathBuf,
    /// One step, or the steps of one matrix [default: all of the kind]
    step: Option<String>,
    /// Set a variable or any key of the file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value = "table")]
    format: Form,
}

/// Forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For reading
    Table,
    /// One JSON list
    Json,
}

/// Arguments of `split`.
#[derive(Debug, Args)]
pub struct SplitArgs {
    #[command(subcommand)]
    command: SplitCommand,
}

#[derive(Debug, Subcommand)]
enum SplitCommand {
    /// Show what the splits were drawn from, and the sizes of their parts
    Show(StepArgs),
    /// Prove that no patient and no image is in two parts, that subsamples contain each other, and show the balance
    Check {
        #[command(flatten)]
        steps: StepArgs,
        /// Columns whose balance is shown [default: those that the split is stratified by]
        #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
        columns: Vec<String>,
    },
}

impl StepArgs {
    /// The steps of a kind, in the pipeline that is checked.
    fn steps<'p>(&self, pipeline: &'p Pipeline, kind: &str) -> Result<Vec<&'p Step>> {
        let of_kind: Vec<&Step> =
            pipeline.steps.iter().filter(|step| step.action.name() == kind).collect();
        let Some(name) = &self.step else {
            let found = format!("{} has no step with `{kind}`", self.file.display());
            return if of_kind.is_empty() { Err(Error::configuration(found)) } else { Ok(of_kind) };
        };
        let named: Vec<&Step> =
            of_kind.iter().copied().filter(|step| step.is_called(name)).collect();
        if named.is_empty() {
            let known: Vec<&str> = of_kind.iter().map(|step| step.name.as_str()).collect();
            let found = format!("there is no step `{name}` with `{kind}`");
            return Err(Error::configuration(found).hint(format!("there are {}", known.join(", "))));
        }
        Ok(named)
    }

    fn json(&self, value: &serde_json::Value) -> bool {
        if self.format == Form::Json {
            output::line(format!("{value:#}"));
        }
        self.format == Form::Json
    }
}

/// `torcula cohort`.
pub fn cohort(args: &StepArgs) -> Result<ExitCode> {
    let pipeline = match run::load(&args.file, &args.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let steps = args.steps(&pipeline, "cohort")?;
    let views: Vec<CohortView> = runtime()?.block_on(async {
        let catalog = Catalog::open(&pipeline.catalog).await?;
        cohort::views(&catalog, &pipeline, &steps).await
    })?;
    if args.json(&json!(views)) {
        return Ok(ExitCode::SUCCESS);
    }
    for (n, view) in views.iter().enumerate() {
        if n > 0 {
            output::line("");
        }
        output::line(format!("{} (version {} of cases)", view.cohort, view.catalog_version));
        output::line(format!("  {}", view.query));
        let mut rows = vec![row("", "cases", view.cases, "", "")];
        for rule in &view.flow {
            let unknown = if rule.unknown > 0 { rule.unknown.to_string() } else { String::new() };
            let excluded = rule.excluded.to_string();
            rows.push(row(
                &rule.rule_index.to_string(),
                &rule.reason,
                rule.remaining,
                &excluded,
                &unknown,
            ));
        }
        let header = ["rule", "excluded for", "excluded", "unknown", "left"];
        output::raw(output::table(&header, &rows).as_bytes());
        output::line(format!("{} cases of {} patients", view.kept, view.patients));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(index: &str, reason: &str, left: u64, excluded: &str, unknown: &str) -> Vec<String> {
    [index, reason, excluded, unknown, &left.to_string()].map(str::to_owned).to_vec()
}

/// `torcula split`.
pub fn split(args: &SplitArgs) -> Result<ExitCode> {
    let (steps, columns) = match &args.command {
        SplitCommand::Show(steps) => (steps, None),
        SplitCommand::Check { steps, columns } => (steps, Some(columns.as_slice())),
    };
    let pipeline = match run::load(&steps.file, &steps.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let wanted = steps.steps(&pipeline, "split")?;
    let views: Vec<SplitView> = runtime()?.block_on(async {
        let catalog = Catalog::open(&pipeline.catalog).await?;
        split::views(&catalog, &pipeline, &wanted, columns).await
    })?;
    let holds = views.iter().all(|view| view.report.holds());
    if !steps.json(&json!(views)) {
        for (n, view) in views.iter().enumerate() {
            if n > 0 {
                output::line("");
            }
            match columns {
                None => show(view, &pipeline),
                Some(_) => prove(view),
            }
        }
    }
    Ok(if columns.is_none() || holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(view: &SplitView, pipeline: &Pipeline) {
    output::line(&view.split);
    let how = pipeline.step(&view.split).map(|step| match &step.action {
        Action::Split(params) => format!("{}, by {}", params.describe(), params.by),
        _ => String::new(),
    });
    output::line(format!(
        "  drawn     {} from version {} of cases, seed {}",
        view.drawn_at, view.catalog_version, view.seed
    ));
    output::line(format!("  query     {}", view.query));
    output::line(format!("  divides   {}", how.unwrap_or_default()));
    if !view.stratified.is_empty() {
        output::line(format!("  even in   {}", view.stratified.join(", ")));
    }
    let total = view.report.parts.iter().map(|p| p.cases).sum::<usize>().max(1);
    let rows: Vec<Vec<String>> = view
        .report
        .parts
        .iter()
        .map(|part| {
            let share = part.cases as f64 / view.cases.unwrap_or(total).max(1) as f64 * 100.0;
            vec![
                part.part.clone(),
                part.patients.to_string(),
                part.cases.to_string(),
                format!("{share:.1}"),
            ]
        })
        .collect();
    output::raw(output::table(&["part", "patients", "cases", "% of cases"], &rows).as_bytes());
}

fn prove(view: &SplitView) {
    output::line(&view.split);
    for proof in &view.report.proofs {
        let verdict = if proof.holds { "holds " } else { "BROKEN" };
        output::line(format!("  {verdict}  {}: {}", proof.claim, proof.found));
    }
    let rows: Vec<Vec<String>> = view
        .report
        .balance
        .iter()
        .map(|balance| {
            let (value, verdict) = match (&balance.difference.result, balance.is_balanced()) {
                (Ok(value), Some(true)) => (format!("{value:.3}"), "balanced".to_owned()),
                (Ok(value), _) => (format!("{value:.3}"), "above 0.1".to_owned()),
                (Err(reason), _) => (String::new(), format!("not computed: {reason}")),
            };
            let missing = balance.difference.missing();
            let missing = if missing > 0 { missing.to_string() } else { String::new() };
            vec![
                balance.column.clone(),
                balance.part.clone(),
                balance.against.clone(),
                value,
                missing,
                verdict,
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["column", "part", "against", "difference", "missing", ""];
        output::raw(output::table(&header, &rows).as_bytes());
    }
}
