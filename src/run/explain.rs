//! What a pipeline would do: the plan of every step, with what is left to do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use datafusion::physical_plan::displayable;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;

use crate::catalog::Catalog;
use crate::engine::{Budget, Lineage, Silent, Stop, Workers};
use crate::error::Result;
use crate::pipeline::{Action, Pipeline, Source, Step};
use crate::watch::Live;
use crate::watch::live::Identity;

use super::memo::Memo;
use super::{Options, Runner, plan, relations, session, stage_step};

/// The plan of a pipeline as text; `verbose` adds DataFusion's physical plan under each operator. Runs nothing; where there is
/// no catalog yet, plans against an empty one that is thrown away.
pub async fn explain(pipeline: &Pipeline, options: &Options, verbose: bool) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let there = pipeline.catalog.join("cases").join("_delta_log").exists();
    let folder: &Path = if there { &pipeline.catalog } else { scratch.path() };
    let catalog =
        if there { Catalog::open(folder).await? } else { Catalog::create_or_open(folder).await? };
    let budget = Budget::new(options.memory_bytes, options.ceiling_bytes);
    let (stop, observer) = (Stop::default(), Arc::new(Silent));
    let runner = Runner {
        pipeline,
        catalog,
        workers: Arc::new(Workers::new(options.jobs)?),
        budget: budget.clone(),
        stop: stop.clone(),
        observer: observer.clone(),
        live: Arc::new(Live::new(Identity::default(), options.jobs, budget, stop, observer)),
        learner: None,
        lineage: Lineage::default(),
        memo: Memo::of_a_reader(),
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
    let mut open = BTreeSet::new();
    let steps = options.steps(pipeline)?;
    let ctx = session::of_steps(&runner.catalog, pipeline, &steps, &runner.memo).await?;
    for step in steps {
        let before = step.upstream.iter().find(|name| open.contains(name.as_str()));
        let Described { mut what, details, is_open } =
            describe(&runner, &ctx, step, before.is_some(), verbose).await?;
        if let Some(before) = before {
            let _ = write!(what, " ({before} comes first)");
        }
        if is_open || before.is_some() {
            open.insert(step.name.as_str());
        }
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

/// What a step would do.
struct Described {
    what: String,
    /// The operator, or nothing.
    details: String,
    /// Whether something is known to be left to do.
    is_open: bool,
}

async fn describe(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    waits: bool,
    verbose: bool,
) -> Result<Described> {
    let mut is_open = false;
    let mut details = String::new();
    let what = match &step.action {
        Action::Ingest(a) => {
            let source = a.source.replace('\'', "''");
            let count = format!("SELECT count(*) FROM cases WHERE source = '{source}'");
            is_open = relations::one_text(ctx, &count).await?.as_deref() == Some("0");
            format!("ingest into cases (source {})", a.source)
        }
        Action::Cohort(a) => {
            let rules = a.exclude.iter().enumerate();
            details =
                rules.map(|(n, r)| format!("{}. {}: {}\n", n + 1, r.reason, r.when)).collect();
            format!("cohort {}", source(step))
        }
        Action::Split(a) => {
            format!("split by {} {}: {}", a.by, source(step), a.describe())
        }
        Action::Train(a) => {
            format!("train {} for {} epochs", a.params.model.name(), a.params.epochs)
        }
        Action::Difference(a) => format!("difference to {}", a.html.display()),
        Action::Report(a) => format!("report to {}", a.html.display()),
        Action::Stages(_) | Action::Infer(_) | Action::Score(_) => {
            let Some(plan) = plan::of_step(ctx, runner.pipeline, step, None).await? else {
                let what = "planned once its model is trained".to_owned();
                return Ok(Described { what, details, is_open: true });
            };
            let salt = plan.salt.clone();
            let footprint = plan.fused.footprint(1 << 20);
            let todo = relations::todo(ctx, step, &plan).await?;
            // What an earlier step has not done yet cannot be counted.
            let left = match waits {
                true => "cases to do".to_owned(),
                false => {
                    let left = todo.clone().count().await.map_err(relations::planning)?;
                    is_open = left > 0;
                    format!("{left} cases to do")
                }
            };
            details = if verbose {
                let (exec, _) = stage_step::operator(runner, &step.name, plan, todo).await?;
                displayable(exec.as_ref()).indent(false).to_string()
            } else {
                let rows = Arc::new(EmptyExec::new(Arc::clone(todo.schema().inner())));
                let (exec, _) = stage_step::over(runner, &step.name, plan, rows);
                let operator = displayable(exec.as_ref()).one_line().to_string();
                format!("{}\n  {}", operator.trim_end(), source(step))
            };
            format!(
                "{left}, {:.0} bytes of memory a voxel, parameters {}",
                footprint as f64 / f64::from(1 << 20),
                &salt[..12]
            )
        }
    };
    Ok(Described { what, details, is_open })
}
