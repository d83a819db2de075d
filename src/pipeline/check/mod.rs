//! From the tree of a file to a [`Pipeline`]: everything that can be known to be wrong before anything runs.
//!
//! The head is read, then each step, then their references, then what flows between them. Each part goes as far as it can, and a
//! step that cannot be understood keeps those after it from being judged by it, so that one mistake is one problem.

mod flow;
mod graph;
mod night;
mod report;
pub(super) mod sql;
mod steps;
mod study;
mod training;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::steps::Draft;
use super::diagnostics::{Problems, Span};
use super::night_spec::DifferenceParams;
use super::plan::{Action, Pipeline, Source, StageTest, Step};
use super::report_spec::ReportParams;
use super::spec::{PipelineFile, TestSpec};
use super::tree::{Data, Entry, Node};
use crate::engine::parameters::parse_strictly;

/// Checks a file whose variables are replaced. None where there are problems.
pub fn check(root: &Node, problems: &mut Problems) -> Option<Pipeline> {
    let start = Span { end: root.span.start, ..root.span };
    if !matches!(root.data, Data::Map(_)) {
        let hint = "begin with `torcula: 1`, `name`, `catalog` and `steps`";
        problems.add(start, "a pipeline file is a mapping", hint);
        return None;
    }
    let head = head(root, problems);
    let steps = read_steps(root.entry("steps"), problems);
    let tests = root.get("tests").map_or(&[][..], Node::items);
    let tests: Vec<Option<StageTest>> = tests.iter().map(|t| test(t, problems)).collect();
    if !problems.is_empty() {
        return None;
    }
    let (head, steps) = (head?, steps?);
    let seeded = |mut step: Step, seed: Option<u64>| {
        step.seed = seed.unwrap_or(head.seed);
        step
    };
    let mut steps: Vec<Step> = steps.into_iter().map(|(step, seed)| seeded(step, seed)).collect();
    for step in &mut steps {
        if let Action::Report(ReportParams { title, .. })
        | Action::Difference(DifferenceParams { title, .. }) = &mut step.action
            && title.is_empty()
        {
            title.clone_from(&head.name);
        }
    }
    let beside =
        || Path::new(&head.catalog).parent().unwrap_or(Path::new("")).join("derivatives/torcula");
    let pipeline = Pipeline {
        seed: head.seed,
        artifacts: head.artifacts.as_ref().map_or_else(beside, PathBuf::from),
        catalog: PathBuf::from(&head.catalog),
        name: head.name,
        timeout_s: head.timeout_s,
        on_failure: head.on_failure.or_default(),
        retention: head.retention,
        notify: head.notify,
        steps,
        tests: tests.into_iter().collect::<Option<_>>()?,
        hash: String::new(),
        resolved: Value::Null,
    };
    pipeline.seal().map_err(|error| problems.add(start, error.reason(), "")).ok()
}

/// Everything but steps and tests.
fn head(root: &Node, problems: &mut Problems) -> Option<PipelineFile> {
    let Value::Object(mut json) = root.to_json() else { return None };
    if let Some(steps) = json.get_mut("steps") {
        *steps = Value::Object(Map::new());
    }
    if let Some(tests) = json.get_mut("tests").filter(|tests| tests.is_array()) {
        *tests = Value::Array(Vec::new());
    }
    let start = Span { end: root.span.start, ..root.span };
    for key in ["name", "catalog", "artifacts"] {
        if root.get(key).and_then(Node::as_str).is_some_and(|text| text.trim().is_empty()) {
            problems.add(root.locate(key, false, start), format!("`{key}` is empty"), "");
        }
    }
    let read = parse_strictly::<PipelineFile>(Value::Object(json), &[]);
    let head = read.map_err(|found| steps::show(&found, root, start, problems)).ok()?;
    if let Some(spec) = &head.notify {
        night::notify(root, spec, problems);
    }
    Some(head)
}

/// The steps in their order, each with a seed of its own where it has one.
fn read_steps(entry: Option<&Entry>, problems: &mut Problems) -> Option<Vec<(Step, Option<u64>)>> {
    let entry = entry?;
    if entry.value.entries().is_empty() {
        let hint = "steps: { registry: { ingest: { bids: FOLDER } } }";
        problems.add(entry.key_span, "`steps` is a mapping with at least one step", hint);
        return None;
    }
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    let mut off: Vec<&str> = Vec::new();
    for step in entry.value.entries() {
        match steps::draft(step, problems) {
            Some(draft) => drafts.push(draft),
            None => off.push(&step.key),
        }
    }
    let known = graph::Known::of(&drafts, problems);
    let needs = graph::connect(&mut drafts, &known, &off, problems);
    report::check(&drafts, &known, &off, problems);
    night::check(&drafts, problems);
    let order = graph::order(&drafts, &needs, problems);
    let mut relations = vec![None; drafts.len()];
    for n in &order {
        relations[*n] = flow::flow(*n, &mut drafts, &relations, &known, problems);
    }
    let names: Vec<String> = drafts.iter().map(|d| d.name.to_owned()).collect();
    let mut done: Vec<Option<Draft<'_>>> = drafts.into_iter().map(Some).collect();
    let step = |n: usize| {
        let draft = done[n].take()?;
        let upstream = needs[n].iter().map(|m| names[*m].clone()).collect();
        let from = draft.from.map_or(Source::None, |from| from.source);
        let (name, part_of) = (draft.name.to_owned(), draft.part_of);
        let step = Step { name, from, action: draft.action?, seed: 0, part_of, upstream };
        Some((step, draft.seed))
    };
    order.into_iter().map(step).collect()
}

fn test(node: &Node, problems: &mut Problems) -> Option<StageTest> {
    let at = node.entries().first().map_or(node.span, |e| e.key_span);
    let spec: Option<TestSpec> = steps::read(node, at, problems);
    let stage = node.entry("stage");
    let name = stage.and_then(|e| Some((e.value.as_str()?, e.value.span)));
    let stage = name.and_then(|(name, span)| {
        let set = node.entry("set");
        let span = set.map_or(span, |_| span);
        steps::stage_of(name, span, set.map(|e| &e.value), problems)
    });
    let spec = spec?;
    if spec.expect.is_empty() {
        let hint = "expect: [{ max_at_most: 255 }]";
        problems.add(node.locate("expect", true, at), "the test expects nothing", hint);
    }
    if let Err(error) = spec.phantom.check() {
        problems.add(
            node.locate("phantom", true, at),
            error.reason(),
            error.advice().unwrap_or_default(),
        );
    }
    Some(StageTest { name: spec.name, stage: stage?, phantom: spec.phantom, expect: spec.expect })
}
