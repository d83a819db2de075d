//! What a pipeline would do: the plan of every step, with what is left to do.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use datafusion::physical_plan::displayable;

use crate::catalog::Catalog;
use crate::engine::{Budget, Lineage, Silent, Stop, Workers};
use crate::error::Result;
use crate::pipeline::{Action, Pipeline, Source, Step};

use super::{Options, Runner, plan, relations, stage_step};

/// The plan of a pipeline as text; `verbose` adds DataFusion's physical plan under each operator. Runs nothing; where there is
/// no catalog yet, plans against an empty one that is thrown away.
pub async fn explain(pipeline: &Pipeline, options: &Options, verbose: bool) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let there = pipeline.catalog.join("cases").join("_delta_log").exists();
    let folder: &Path = if there { &pipeline.catalog } else { scratch.path() };
    let catalog =
        if there { Catalog::open(folder).await? } else { Catalog::create_or_open(folder).await? };
    let runner = Runner {
        pipeline,
        catalog,
        workers: Arc::new(Workers::new(options.jobs)?),
        budget: Budget::new(options.memory_bytes, options.ceiling_bytes),
        stop: Stop::default(),
        observer: Arc::new(Silent),
        learner: None,
        lineage: Lineage::default(),
    };
    let mut text = format!(
        "pipeline {} (hash {}, seed {})\ncatalog {}{}\nartifacts {}\n",
        pipeline.name,
        &pipeline.hash[..12.min(pipeline.hash.len())],
        pipeline.seed,
        pipeline.catalog.display(),
        if there { "" } else { " (not there yet: planned as empty)" },
        pipeline.artifacts.display()
    );
    for step in &pipeline.steps {
        let (what, details) = describe(&runner, step, verbose).await?;
        let _ = writeln!(text, "\n{}: {what}", step.name);
        for line in details.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(text)
}

/// Where the operator's rows come from, in a line.
fn source(step: &Step) -> String {
    match &step.from {
        Source::None => String::new(),
        Source::Sql { query, .. } => format!("from {query}"),
        Source::Step { name, part: None } => format!("from {name}"),
        Source::Step { name, part: Some(part) } => format!("from {name}, part {part}"),
    }
}

async fn describe(runner: &Runner<'_>, step: &Step, verbose: bool) -> Result<(String, String)> {
    Ok(match &step.action {
        Action::Ingest(a) => (format!("ingest into cases (source {})", a.source), String::new()),
        Action::Split(a) => {
            let parts: Vec<String> =
                a.parts.iter().map(|(name, share)| format!("{name} {share}")).collect();
            (format!("split by {} into {}", a.by, parts.join(", ")), String::new())
        }
        Action::Train(a) => (
            format!("train {} for {} epochs", a.params.model.name(), a.params.epochs),
            String::new(),
        ),
        Action::Report(a) => (format!("report to {}", a.html.display()), String::new()),
        Action::Stages(_) | Action::Infer(_) | Action::Score(_) => {
            let ctx = runner.session(Some(&step.name)).await?;
            let Some(plan) = plan::of_step(&ctx, runner.pipeline, step, None).await? else {
                return Ok(("planned once its model is trained".to_owned(), String::new()));
            };
            let salt = plan.salt.clone();
            let footprint = plan.fused.footprint(1 << 20);
            let todo = relations::todo(&ctx, step, &plan).await?;
            let left = todo.clone().count().await.map_err(relations::planning)?;
            let (exec, _) = stage_step::operator(runner, &step.name, plan, todo).await?;
            let tree = if verbose {
                displayable(exec.as_ref()).indent(false).to_string()
            } else {
                format!("{}\n  {}", displayable(exec.as_ref()).one_line(), source(step))
            };
            let what = format!(
                "{left} cases to do, {:.0} bytes of memory a voxel, parameters {}",
                footprint as f64 / f64::from(1 << 20),
                &salt[..12]
            );
            (what, tree)
        }
    })
}
