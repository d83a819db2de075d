//! Reads one step: its source, its one action and the parameters, each key for itself, so that a problem in one hides
//! none in another.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{sql, study};
use crate::engine::Slot;
use crate::engine::parameters::{ParameterProblem, nearest, parse_strictly, suggest};
use crate::formats::privacy::Policy;
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::plan::{Action, Output, Source, StagesAction};
use crate::pipeline::spec::{
    ACTIONS, InferParams, IngestParams, OutputName, OutputSpec, ShardParams, TABLES, TrainStep,
};
use crate::pipeline::study_spec::Membership;
use crate::pipeline::tree::{Data, Entry, Node};
use crate::stages::StageSpec;

/// The keys of a step beside its action. A matrix is gone by the time that a step is read.
const KEYS: [&str; 7] = ["from", "when", "to", "keep", "matrix", "part_of", "seed"];

/// A step as read from the file; what could not be read is none.
pub struct Draft<'n> {
    /// Its name.
    pub name: &'n str,
    /// Where the name stands.
    pub key_span: Span,
    /// The step.
    pub node: &'n Node,
    /// Where its cases come from; references are not resolved yet.
    pub from: Option<From>,
    /// What it does.
    pub action: Option<Action>,
    /// The key of what it does.
    pub verb: Option<&'n Entry>,
    /// Places of the stages.
    pub stage_spans: Vec<Span>,
    /// Volumes to keep, where given.
    pub keep: Option<Vec<Slot>>,
    /// Its seed, where given.
    pub seed: Option<u64>,
    /// The relation that it is one part of.
    pub part_of: Option<Membership>,
    /// Conditions of a cohort: what they read besides their input, and where.
    pub reads: Vec<(String, Span)>,
}

/// A source with what it refers to.
pub struct From {
    /// The source.
    pub source: Source,
    /// Where it stands.
    pub span: Span,
    /// Steps and tables that it names.
    pub names: Vec<(String, Span)>,
}

impl Draft<'_> {
    /// Where a key of the action stands, or the action's own key.
    pub fn place(&self, path: &str) -> Span {
        self.verb.map_or(self.key_span, |e| e.value.locate(path, false, e.key_span))
    }
}

/// Reads a value of a known type; problems are shown where they stand.
pub fn read<T: DeserializeOwned + JsonSchema>(
    node: &Node,
    key_span: Span,
    problems: &mut Problems,
) -> Option<T> {
    let given = if node.is_null() { Value::Object(Map::new()) } else { node.to_json() };
    parse_strictly(given, &[]).map_err(|found| show(&found, node, key_span, problems)).ok()
}

/// Shows problems with the parameters under `node`.
pub fn show(found: &[ParameterProblem], node: &Node, key_span: Span, problems: &mut Problems) {
    for problem in found {
        let path = problem.key.as_deref().unwrap_or_default();
        // What a mapping lacks is shown at its key; what is no mapping is itself the problem.
        let itself = path.is_empty()
            && node.span.end > node.span.start
            && (!matches!(node.data, Data::Map(_)) || problem.message.starts_with("expected"));
        let span =
            if itself { node.span } else { node.locate(path, problem.concerns_key(), key_span) };
        problems.add(span, problem.message.as_str(), problem.hint.clone().unwrap_or_default());
    }
}

/// Reads a step. None where it is switched off.
pub fn draft<'n>(entry: &'n Entry, problems: &mut Problems) -> Option<Draft<'n>> {
    let (node, key_span) = (&entry.value, entry.key_span);
    check_name(&entry.key, key_span, problems);
    let mut draft = Draft {
        name: &entry.key,
        key_span,
        node,
        from: None,
        action: None,
        verb: None,
        stage_spans: Vec::new(),
        keep: None,
        seed: None,
        part_of: None,
        reads: Vec::new(),
    };
    if !matches!(node.data, Data::Map(_)) {
        let message = format!("the step `{}` is not a mapping", entry.key);
        problems.add(key_span, message, format!("give it `from` and one of {}", quoted(&ACTIONS)));
        return Some(draft);
    }
    for e in node.entries() {
        let keys = KEYS.into_iter().chain(ACTIONS).collect::<Vec<_>>();
        if !keys.contains(&e.key.as_str()) {
            let hint = if StageSpec::names().contains(&e.key.as_str()) {
                format!("`{0}` is a stage: write `stages: [ {0} ]`", e.key)
            } else {
                suggest(&e.key, &keys)
            };
            problems.add(e.key_span, format!("unknown key `{}`", e.key), hint);
        }
    }
    if let Some(when) = node.entry("when")
        && read::<bool>(&when.value, when.key_span, problems) == Some(false)
    {
        return None;
    }
    draft.verb = verb(node, &entry.key, key_span, problems);
    draft.from = source(node.entry("from"), draft.verb, &draft, problems);
    draft.keep = node.entry("keep").and_then(|e| read(&e.value, e.key_span, problems));
    draft.seed = node.entry("seed").and_then(|e| read(&e.value, e.key_span, problems));
    draft.part_of = node.entry("part_of").and_then(|e| study::membership(e, problems));
    draft.action = draft.verb.and_then(|verb| action(verb, &mut draft, problems));
    if draft.verb.is_some_and(|v| v.key != "stages") {
        for e in ["to", "keep"].iter().filter_map(|key| node.entry(key)) {
            let message = format!("`{}` belongs to `stages`, and this step has none", e.key);
            problems.add(e.key_span, message, "remove it, or put it into the action's parameters");
        }
    }
    Some(draft)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// A step's name is an SQL name and a folder's name.
pub fn check_name(name: &str, span: Span, problems: &mut Problems) {
    let word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.len() <= 64;
    if !word {
        let message = format!("`{name}` cannot be the name of a step");
        problems.add(span, message, "use at most 64 of a–z, 0–9 and `_`, beginning with a letter");
    } else if TABLES.contains(&name) {
        let message =
            format!("a step cannot be called `{name}`: in SQL that is a table of the catalog");
        problems.add(span, message, format!("call it `my_{name}`, or by what it is for"));
    }
}

/// The one key of a step that says what it does.
fn verb<'n>(node: &'n Node, name: &str, span: Span, problems: &mut Problems) -> Option<&'n Entry> {
    let mut verbs = node.entries().iter().filter(|e| ACTIONS.contains(&e.key.as_str()));
    let Some(first) = verbs.next() else {
        let hint = format!("give it one of {}", quoted(&ACTIONS));
        problems.add(span, format!("the step `{name}` does nothing"), hint);
        return None;
    };
    for other in verbs {
        let message = format!("a step does one thing, and `{name}` has `{}` too", first.key);
        let hint = format!("make a step of its own for `{}`, with `from: {name}`", other.key);
        problems.add(other.key_span, message, hint);
    }
    Some(first)
}

fn source(
    entry: Option<&Entry>,
    verb: Option<&Entry>,
    draft: &Draft<'_>,
    problems: &mut Problems,
) -> Option<From> {
    let is_ingest = verb.is_some_and(|v| v.key == "ingest");
    let Some(entry) = entry else {
        if !is_ingest {
            let message = format!("the step `{}` has no `from`", draft.name);
            let hint = "add `from:` with a query (`SELECT * FROM cases`) or the name of a step";
            problems.add(draft.key_span, message, hint);
        }
        return is_ingest.then(|| From {
            source: Source::None,
            span: draft.key_span,
            names: Vec::new(),
        });
    };
    let node = &entry.value;
    if is_ingest {
        problems.add(entry.key_span, "an ingest finds its cases itself", "remove `from`");
        return None;
    }
    if let [part] = node.entries()
        && let Some(wanted) = part.value.as_str()
    {
        let source = Source::Step { name: part.key.clone(), part: Some(wanted.to_owned()) };
        let names = vec![(part.key.clone(), part.key_span)];
        return Some(From { source, span: part.value.span, names });
    }
    let Some(text) = node.as_str().map(str::trim).filter(|text| !text.is_empty()) else {
        let hint = "examples: `SELECT * FROM cases`, `prepared`, `{ split: test }`";
        problems.add(
            entry.key_span,
            "`from` is a query, a step's name or one part of a step",
            hint,
        );
        return None;
    };
    if !sql::looks_like_sql(text) {
        let source = Source::Step { name: text.to_owned(), part: None };
        return Some(From { source, span: node.span, names: vec![(text.to_owned(), node.span)] });
    }
    match sql::relations(text) {
        Ok(relations) => {
            let raw = problems.text(node.span);
            let place = |name: String| (name.clone(), sql::place_of_name(&name, raw, node.span));
            let names: Vec<_> = relations.into_iter().map(place).collect();
            let source = Source::Sql { query: text.to_owned(), steps: Vec::new() };
            Some(From { source, span: node.span, names })
        }
        Err(bad) => {
            let raw = problems.text(node.span);
            let at = bad.place.map(|(line, column)| sql::place(text, raw, node.span, line, column));
            let hint = "a source is the name of a step, or a query that begins with SELECT or WITH";
            problems.add(at.unwrap_or(node.span), bad.message, hint);
            None
        }
    }
}

/// Reads the parameters of the action.
fn action<'n>(verb: &'n Entry, draft: &mut Draft<'n>, problems: &mut Problems) -> Option<Action> {
    let (node, at) = (&verb.value, verb.key_span);
    match verb.key.as_str() {
        "ingest" => {
            let mut params: IngestParams = read(node, at, problems)?;
            if params.metadata_only && params.bids.is_some() {
                let message =
                    "`metadata_only` belongs to a manifest: a BIDS folder is found by its images";
                problems.add(node.locate("metadata_only", true, at), message, "manifest: FILE.csv");
            }
            if params.bids.is_some() == params.manifest.is_some() {
                let hint = "bids: FOLDER, or manifest: FILE.csv";
                problems.add(at, "an ingest reads either `bids` or a `manifest`", hint);
                return None;
            }
            if params.root.is_some() && params.bids.is_some() {
                let message = "`root` belongs to a manifest: a BIDS folder is its own root";
                problems.add(node.locate("root", true, at), message, "remove it");
            }
            for (key, why) in params.privacy.iter().flat_map(Policy::problems) {
                problems.add(node.locate(&format!("privacy.{key}"), true, at), why, "");
            }
            if params.source.is_empty() {
                draft.name.clone_into(&mut params.source);
            }
            Some(Action::Ingest(params))
        }
        "stages" => stages(verb, draft, problems).map(Action::Stages),
        "cohort" => study::cohort(verb, draft, problems).map(Action::Cohort),
        "split" => study::split(node, at, problems).map(Action::Split),
        "train" => {
            let train: Box<TrainStep> = read(node, at, problems)?;
            if let Err(error) = train.params.validate() {
                problems.add(at, error.reason(), error.advice().unwrap_or_default());
                return None;
            }
            Some(Action::Train(train))
        }
        "infer" => {
            let infer: InferParams = read(node, at, problems)?;
            if let Err(error) = infer.options().validate() {
                problems.add(at, error.reason(), error.advice().unwrap_or_default());
                return None;
            }
            Some(Action::Infer(infer))
        }
        "score" => read(node, at, problems).map(Action::Score),
        "difference" => read(node, at, problems).map(Action::Difference),
        _ => read(node, at, problems).map(Action::Report),
    }
}

fn stages<'n>(
    verb: &'n Entry,
    draft: &mut Draft<'n>,
    problems: &mut Problems,
) -> Option<StagesAction> {
    let to = draft.node.entry("to");
    let output = match to.map(|e| read::<OutputSpec>(&e.value, e.key_span, problems)) {
        None | Some(Some(OutputSpec::Name(OutputName::Files))) => Some(Output::Files),
        Some(Some(OutputSpec::Name(OutputName::Shards))) => {
            Some(Output::Shards(ShardParams::default()))
        }
        Some(Some(OutputSpec::Shards { shards })) => Some(Output::Shards(shards)),
        Some(None) => None,
    };
    if let (Some(Output::Shards(_)), Some(keep)) = (&output, draft.node.entry("keep")) {
        let message = "shards hold the image and the truth; `keep` belongs to files";
        problems.add(keep.key_span, message, "remove `keep`, or keep the files in a step before");
    }
    let Data::List(items) = &verb.value.data else {
        let hint = "stages: [ qc, { skull_strip: { blur_mm: 2 } } ]";
        problems.add(verb.key_span, "`stages` is a list", hint);
        return None;
    };
    if items.is_empty() && output == Some(Output::Files) {
        problems.add(
            verb.key_span,
            "the list of stages is empty",
            format!("stages: {}", quoted(StageSpec::names())),
        );
    }
    let read: Vec<Option<(Span, StageSpec)>> = items.iter().map(|i| stage(i, problems)).collect();
    let read: Option<Vec<(Span, StageSpec)>> = read.into_iter().collect();
    let (spans, stages): (Vec<Span>, Vec<StageSpec>) = read?.into_iter().unzip();
    draft.stage_spans = spans;
    Some(StagesAction { stages, keep: Vec::new(), output: output? })
}

/// A stage: its name, or a mapping from its name to its parameters.
fn stage(item: &Node, problems: &mut Problems) -> Option<(Span, StageSpec)> {
    let (name, span, params) = match (item.as_str(), item.entries()) {
        (Some(name), _) => (name, item.span, None),
        (None, [entry]) => (entry.key.as_str(), entry.key_span, Some(&entry.value)),
        (None, [first, second, ..]) => {
            let message = "an item of `stages` has one stage, and here are several keys";
            let hint = format!(
                "indent the parameters of `{}` further, or begin a new item with `- `",
                first.key
            );
            problems.add(second.key_span, message, hint);
            return None;
        }
        _ => {
            let hint = "write `- qc` or `- n4: { shrink: 2 }`";
            problems.add(item.span, "this is no stage", hint);
            return None;
        }
    };
    stage_of(name, span, params, problems).map(|stage| (span, stage))
}

/// A stage by name with its parameters; used for steps and tests.
pub fn stage_of(
    name: &str,
    span: Span,
    params: Option<&Node>,
    problems: &mut Problems,
) -> Option<StageSpec> {
    if !StageSpec::names().contains(&name) {
        let hint = match nearest(name, &ACTIONS) {
            Some(action) if nearest(name, StageSpec::names()).is_none() => {
                format!("`{action}` is a step of its own, not a stage")
            }
            _ => suggest(name, StageSpec::names()),
        };
        problems.add(span, format!("unknown stage `{name}`"), hint);
        return None;
    }
    let nothing = Node { span, data: Data::Map(Vec::new()) };
    let node = params.filter(|p| !p.is_null()).unwrap_or(&nothing);
    StageSpec::from_parts(name, node.to_json())
        .map_err(|found| show(&found, node, span, problems))
        .ok()
}
