//! A checked pipeline in words: what each step takes, does and leaves behind.

use std::fmt::Write;

use super::plan::{Action, Output, Pipeline, Source, Step};
use crate::engine::Slot;

/// The pipeline as an outline of a few lines a step, for people.
pub fn outline(pipeline: &Pipeline) -> String {
    let mut out = format!("pipeline {} (seed {})\n", pipeline.name, pipeline.seed);
    let mut line = |key: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {key:<10} {text}");
    };
    line("hash", &pipeline.hash);
    line("catalog", &pipeline.catalog.display().to_string());
    line("artifacts", &pipeline.artifacts.display().to_string());
    line("time limit", &format!("{} s a case", pipeline.timeout_s));
    line("failures", &limits(pipeline));
    for (n, step) in pipeline.steps.iter().enumerate() {
        let _ = writeln!(out, "\n{}. {} — {}", n + 1, step.name, step.action.name());
        for (key, text) in details(step) {
            let _ = writeln!(out, "     {key:<6} {text}");
        }
    }
    out
}

fn limits(pipeline: &Pipeline) -> String {
    let limit = &pipeline.on_failure;
    let percent = |share: f64| format!("{} %", (share * 1000.0).round() / 10.0);
    let all = [
        limit.max_cases.map(|n| format!("at most {n} cases")),
        limit.max_share.map(|s| format!("at most {} of the cases", percent(s))),
        limit.max_share_per_centre.map(|s| format!("at most {} of a centre's cases", percent(s))),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn details(step: &Step) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    match &step.from {
        Source::None => {}
        Source::Sql { query, .. } => {
            out.push(("from", query.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        Source::Step { name, part: None } => out.push(("from", name.clone())),
        Source::Step { name, part: Some(part) } => {
            out.push(("from", format!("part `{part}` of {name}")));
        }
    }
    match &step.action {
        Action::Ingest(p) => {
            let path = p.bids.as_ref().or(p.manifest.as_ref()).map(|p| p.display().to_string());
            let kind = match (&p.bids, p.metadata_only) {
                (Some(_), _) => "BIDS folder",
                (None, false) => "manifest",
                (None, true) => "manifest (no images)",
            };
            out.push(("reads", format!("{kind} {}", path.unwrap_or_default())));
            out.push(("as", format!("source `{}` in the table cases", p.source)));
        }
        Action::Cohort(p) => {
            for (n, rule) in p.exclude.iter().enumerate() {
                out.push(("less", format!("{}. {}: {}", n + 1, rule.reason, rule.when)));
            }
        }
        Action::Stages(p) => {
            let stages: Vec<&str> = p.stages.iter().map(crate::stages::StageSpec::name).collect();
            if !stages.is_empty() {
                out.push(("fused", stages.join(" → ")));
            }
            out.push((
                "writes",
                match &p.output {
                    Output::Files if p.keep.is_empty() => "no files".to_owned(),
                    Output::Files => format!("files: {}", slots(&p.keep)),
                    Output::Shards(s) => format!("shards of {} samples", s.samples_per_shard),
                },
            ));
        }
        Action::Split(p) => {
            let label =
                if p.overfit { " (overfit: training and test see the same cases)" } else { "" };
            out.push(("by", format!("{}: {}{label}", p.by, p.describe())));
            if !p.stratify.is_empty() {
                out.push(("even in", p.stratify.join(", ")));
            }
        }
        Action::Train(p) => {
            let parts = format!("trains on `{}`, chooses on `{}`", p.train_part, p.val_part);
            out.push(("parts", parts));
            out.extend(p.fine_tune.iter().map(|parent| ("starts", format!("from {parent}"))));
        }
        Action::Infer(p) => {
            out.push((
                "model",
                format!("{}, infarct from a probability of {}", p.model, p.threshold),
            ));
            out.push(("writes", format!("files: {}", slots(&p.keep))));
        }
        Action::Score(p) if p.strata.is_empty() => {}
        Action::Score(p) => out.push(("strata", p.strata.join(", "))),
        Action::Difference(p) => {
            out.push(("writes", format!("{}, {}", p.html.display(), p.json().display())));
        }
        Action::Report(p) => {
            out.push(("writes", p.html.display().to_string()));
            for section in &p.sections {
                let shown: Vec<&str> =
                    section.show.iter().map(super::report_spec::ExhibitSpec::name).collect();
                out.push(("shows", format!("{}: {}", section.title, shown.join(", "))));
            }
        }
    }
    if step.action.tells() {
        out.push(("after", "all other steps".to_owned()));
    } else if !step.upstream.is_empty() {
        out.push(("after", step.upstream.join(", ")));
    }
    out
}

fn slots(slots: &[Slot]) -> String {
    slots.iter().map(|slot| slot.name()).collect::<Vec<_>>().join(", ")
}
