//! What a training step depends on beside its cases: the parts that it names, and the step that it goes on from.

use serde_json::Value;

use super::flow::{Parts, Relation};
use super::steps::Draft;
use crate::engine::learner::TrainParams;
use crate::engine::parameters::suggest;
use crate::pipeline::diagnostics::Problems;
use crate::pipeline::plan::Action;
use crate::pipeline::spec::{ALL, TrainStep};

/// A fine-tuning without a learning rate of its own takes this share of its parent's.
const LOWER: f64 = 0.1;

/// The parameters of the step that a training goes on from; none where there is no such step.
pub(super) fn parent(draft: &Draft<'_>, drafts: &[Draft<'_>]) -> Option<TrainParams> {
    let Some(Action::Train(train)) = &draft.action else { return None };
    let name = train.parent_step()?;
    match &drafts.iter().find(|d| d.name == name)?.action {
        Some(Action::Train(parent)) => Some(parent.params.clone()),
        _ => None,
    }
}

/// Gives a training the network of its parent, and refuses another one.
pub(super) fn start(
    draft: &Draft<'_>,
    train: &mut TrainStep,
    parent: Option<&TrainParams>,
    problems: &mut Problems,
) {
    let Some(name) = &train.fine_tune else {
        if !train.params.freeze.is_empty() {
            let message = "`freeze` keeps weights of a parent, and there is none";
            problems.add(draft.place("freeze"), message, "add `fine_tune: STEP`, or remove it");
        }
        return;
    };
    if train.parent_step().is_none() {
        return;
    }
    let Some(parent) = parent else {
        let message = format!("the step `{name}` trains no network");
        problems.add(draft.place("fine_tune"), message, "name a step with `train`");
        return;
    };
    let given = |key: &str| draft.node.entry("train").is_some_and(|e| e.value.entry(key).is_some());
    if !given("learning_rate") {
        train.params.learning_rate = parent.learning_rate * LOWER;
    }
    let of = |params: &TrainParams| serde_json::to_value(params).unwrap_or_default();
    let (mut own, theirs) = (of(&train.params), of(parent));
    for key in TrainParams::NETWORK {
        if given(key) && own[*key] != theirs[*key] {
            let message = format!("`{name}` was trained with `{key}: {}`", text(&theirs[*key]));
            let hint = "remove the key: a network that is trained further keeps its shape";
            problems.add(draft.place(key), message, hint);
        }
        own[*key] = theirs[*key].clone();
    }
    if let Ok(params) = serde_json::from_value(own) {
        train.params = params;
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Checks a part that a training names; an overfitting split replaces it.
pub(super) fn part(
    draft: &Draft<'_>,
    key: &str,
    part: &mut String,
    input: &Relation,
    problems: &mut Problems,
) {
    let span = draft.place(key);
    match &input.parts {
        Parts::Any => {}
        Parts::None => {
            let hint = "make a step with `split` and the shards from that";
            problems.add(
                draft.place(""),
                "the shards have no parts: there is no split before them",
                hint,
            );
        }
        Parts::Of { names, .. } if !names.contains(part) => {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let message = format!("the split has no part `{part}`, which `{key}` asks for");
            problems.add(span, message, format!("set `{key}`; {}", suggest(part, &known)));
        }
        Parts::Of { overfit, .. } => {
            if *overfit {
                ALL.clone_into(part);
            }
        }
    }
}
