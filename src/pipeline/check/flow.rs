//! What passes from step to step: the volumes a relation has, its parts, and whether it is made of shards.

use super::graph::Known;
use super::steps::Draft;
use super::training;
use crate::catalog::AT;
use crate::engine::Slot;
use crate::engine::parameters::suggest;
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::plan::{Action, Output, Source, StagesAction};
use crate::pipeline::spec::{ALL, InferParams};
use crate::pipeline::study_spec::PartSize;
use crate::stages::StageSpec;

/// What is known of a relation before anything runs.
#[derive(Debug, Clone, Default)]
pub struct Relation {
    slots: Vec<Slot>,
    /// Volumes that a step made but did not keep, and that step.
    lost: Vec<(Slot, String)>,
    shards: bool,
    model: bool,
    pub(super) parts: Parts,
    /// Whether the parts are subsamples of each other, so that a case comes several times.
    nested: bool,
}

/// The parts that the cases of a relation belong to.
#[derive(Debug, Clone, Default)]
pub(super) enum Parts {
    /// There was no split.
    #[default]
    None,
    /// They come from a table; which there are is not known.
    Any,
    /// Those of a split; `overfit` where one part stands for all of them.
    Of { names: Vec<String>, overfit: bool },
}

impl Relation {
    fn has(&self, slot: Slot) -> bool {
        self.slots.contains(&slot)
    }

    fn add(&mut self, slot: Slot) {
        if !self.has(slot) {
            self.slots.push(slot);
        }
        self.lost.retain(|(lost, _)| *lost != slot);
    }
}

/// Checks the step at `n` against the relations of those before and says what it makes; none where that cannot be
/// known. Defaults that depend on other steps are filled in.
pub fn flow(
    n: usize,
    drafts: &mut [Draft<'_>],
    relations: &[Option<Relation>],
    known: &Known,
    problems: &mut Problems,
) -> Option<Relation> {
    let parent = training::parent(&drafts[n], drafts);
    let of = |name: &str| {
        let mut all = Relation::default();
        for step in known.steps(name)? {
            merge(&mut all, relations[step].clone()?);
        }
        Some(all)
    };
    let draft = &mut drafts[n];
    let input = source(draft, &of, problems);
    let mut action = draft.action.take();
    let made = match (&mut action, input) {
        (Some(Action::Ingest(_)), _) => {
            Some(Relation { slots: vec![Slot::Image, Slot::Truth], ..Relation::default() })
        }
        (Some(Action::Cohort(_)), Some(input)) => Some(input),
        (Some(Action::Stages(stages)), Some(input)) => run_stages(draft, stages, input, problems),
        (Some(Action::Split(params)), Some(input)) => {
            let mut parts = Parts::Any;
            if params.overfit {
                let names = params.parts.keys().cloned().collect();
                params.parts = [(ALL.to_owned(), PartSize::Number(1.0))].into();
                parts = Parts::Of { names, overfit: true };
            } else if let Some(names) = params.part_names() {
                parts = Parts::Of { names, overfit: false };
            }
            Some(Relation { parts, nested: !params.nested.is_empty(), ..input })
        }
        (Some(Action::Train(params)), Some(input)) => {
            training::start(draft, params, parent.as_ref(), problems);
            if input.shards {
                training::part(draft, "train_part", &mut params.train_part, &input, problems);
                training::part(draft, "val_part", &mut params.val_part, &input, problems);
            } else {
                let hint = "make a step with `to: shards` from these cases, and train from that";
                problems.add(
                    draft.place(""),
                    "a network is trained on shards, and these are none",
                    hint,
                );
            }
            Some(Relation { model: true, ..Relation::default() })
        }
        (Some(Action::Infer(params)), input) => {
            infer(draft, params, input, of(&params.model), problems)
        }
        (Some(Action::Score(_)), Some(input)) => {
            need(draft.name, &[Slot::Prediction, Slot::Truth], draft.place(""), &input, problems);
            Some(input)
        }
        (Some(Action::Difference(_) | Action::Report(_)), _) => Some(Relation::default()),
        _ => None,
    };
    draft.action = action;
    made
}

/// What a network makes of its input.
fn infer(
    draft: &Draft<'_>,
    params: &InferParams,
    input: Option<Relation>,
    model: Option<Relation>,
    problems: &mut Problems,
) -> Option<Relation> {
    if model.is_some_and(|model| !model.model) {
        let message = format!("the step `{}` trains no network", params.model);
        problems.add(draft.place("model"), message, "name a step with `train`");
    }
    for (i, slot) in params.keep.iter().enumerate() {
        if !matches!(slot, Slot::Prediction | Slot::Probability) {
            let message = format!("an inference makes no `{}`", slot.name());
            let span = draft.place(&format!("keep.{i}"));
            problems.add(span, message, "known: `prediction`, `probability`");
        }
    }
    let mut input = input?;
    need(draft.name, &[Slot::Image], draft.place(""), &input, problems);
    for slot in [Slot::Probability, Slot::Prediction] {
        input.slots.retain(|s| *s != slot);
        input.lost.push((slot, draft.name.to_owned()));
    }
    for slot in &params.keep {
        input.add(*slot);
    }
    Some(input)
}

/// The relation that a step takes its cases from.
fn source(
    draft: &mut Draft<'_>,
    of: &impl Fn(&str) -> Option<Relation>,
    problems: &mut Problems,
) -> Option<Relation> {
    let from = draft.from.as_mut()?;
    match &mut from.source {
        Source::None => Some(Relation::default()),
        Source::Sql { query, .. } => {
            let mut all = Relation::default();
            for (name, _) in &from.names {
                match name.split_once(AT).map_or(name.as_str(), |(table, _)| table) {
                    "cases" => [Slot::Image, Slot::Truth].into_iter().for_each(|s| all.add(s)),
                    "splits" => all.parts = Parts::Any,
                    table if crate::pipeline::spec::TABLES.contains(&table) => {}
                    step => merge(&mut all, of(step)?),
                }
            }
            // A query may bring volumes of its own in the columns that hold them.
            let query = query.to_lowercase();
            let brought = |slot: &Slot| query.contains(&format!("{}_uri", slot.name()));
            Slot::ALL.into_iter().filter(brought).for_each(|slot| all.add(slot));
            // And it may say which part a case belongs to, and choose among subsamples.
            if query.contains("part") {
                (all.parts, all.nested) = (Parts::Any, false);
            }
            (!refused(&all, "the query", from.span, problems)).then_some(all)
        }
        Source::Step { name, part: None } => {
            let input = of(name)?;
            (!refused(&input, &format!("`{name}`"), from.span, problems)).then_some(input)
        }
        Source::Step { name, part: Some(part) } => {
            let input = of(name)?;
            match &input.parts {
                Parts::None => {
                    let message = format!("the step `{name}` has no parts");
                    let hint = "parts come from a step with `split`: take the cases from it or from a step after it";
                    problems.add(from.span, message, hint);
                    None
                }
                Parts::Any => Some(Relation { nested: false, ..input }),
                Parts::Of { names, overfit } => {
                    if !names.contains(part) {
                        let known: Vec<&str> = names.iter().map(String::as_str).collect();
                        let message = format!("the split has no part `{part}`");
                        problems.add(from.span, message, suggest(part, &known));
                        return None;
                    }
                    if *overfit {
                        ALL.clone_into(part);
                    }
                    let parts = Parts::Of { names: vec![part.clone()], overfit: *overfit };
                    Some(Relation { parts, nested: false, ..input })
                }
            }
        }
    }
}

/// Whether a relation has its cases several times, which is a problem.
fn refused(relation: &Relation, what: &str, span: Span, problems: &mut Problems) -> bool {
    if relation.nested {
        let message = format!("{what} gives a case once for each nested subsample");
        problems.add(span, message, "take one of them: `from: { SPLIT: SUBSAMPLE }`");
    }
    relation.nested
}

fn merge(all: &mut Relation, one: Relation) {
    all.shards |= one.shards;
    all.nested |= one.nested;
    all.model |= one.model;
    for lost in one.lost {
        if !all.has(lost.0) && !all.lost.contains(&lost) {
            all.lost.push(lost);
        }
    }
    one.slots.into_iter().for_each(|slot| all.add(slot));
    match (&mut all.parts, one.parts) {
        (_, Parts::None) | (Parts::Any, _) => {}
        (Parts::Of { names, overfit }, Parts::Of { names: more, overfit: also }) => {
            names.extend(more);
            *overfit |= also;
        }
        (parts, other) => *parts = other,
    }
}

/// Follows the volumes through the stages of a step.
fn run_stages(
    draft: &Draft<'_>,
    action: &mut StagesAction,
    input: Relation,
    problems: &mut Problems,
) -> Option<Relation> {
    let mut now = input.clone();
    let mut changed: Vec<Slot> = Vec::new();
    let mut fine = true;
    for (i, (stage, span)) in action.stages.iter().zip(&draft.stage_spans).enumerate() {
        for slot in stage.reads().iter().filter(|slot| !now.has(**slot)) {
            let message =
                format!("the stage `{}` needs `{}`, which is not there", stage.name(), slot.name());
            let later = action.stages[i + 1..].iter().find(|s| s.writes().contains(slot));
            let hint = match later {
                Some(later) => format!("put `{}` before it", later.name()),
                None => remedy(*slot, &now),
            };
            problems.add(*span, message, hint);
            fine = false;
        }
        let carried = stage.stage().carries().iter().filter(|slot| now.has(**slot));
        changed.extend(stage.writes().iter().chain(carried));
        stage.writes().iter().for_each(|slot| now.add(*slot));
        // One missing volume is told once.
        stage.reads().iter().for_each(|slot| now.add(*slot));
    }
    let place = |key| draft.node.entry(key).map_or(draft.key_span, |e| e.key_span);
    if let Output::Shards(_) = action.output {
        // What is stored is what the network sees: an inference repeats the resampling and nothing else.
        let mut resampled = false;
        for (stage, span) in action.stages.iter().zip(&draft.stage_spans) {
            let first = stage.name() == "resample" && !std::mem::replace(&mut resampled, true);
            if !first {
                let found = format!("and here is `{}`", stage.name());
                let message = format!("a step that writes shards may only resample, once, {found}");
                problems.add(*span, message, "put it into a step of its own before this one");
                fine = false;
            }
        }
        fine &= need("to: shards", &[Slot::Image, Slot::Truth], place("to"), &now, problems);
        return fine.then(|| Relation { shards: true, parts: input.parts, ..Relation::default() });
    }
    let default =
        || Slot::ALL.into_iter().filter(|s| changed.contains(s) && *s != Slot::Field).collect();
    let keep: Vec<Slot> = draft.keep.clone().unwrap_or_else(default);
    fine &= need("keep", &keep, place("keep"), &now, problems);
    action.keep.clone_from(&keep);
    let mut output = input;
    for slot in changed.into_iter().filter(|slot| !keep.contains(slot)) {
        output.slots.retain(|s| *s != slot);
        output.lost.push((slot, draft.name.to_owned()));
    }
    for slot in keep {
        output.add(slot);
    }
    fine.then_some(output)
}

/// Whether all of `slots` are there; those that are not are problems.
fn need(who: &str, slots: &[Slot], span: Span, input: &Relation, problems: &mut Problems) -> bool {
    let missing: Vec<Slot> = slots.iter().copied().filter(|slot| !input.has(*slot)).collect();
    for slot in &missing {
        let message = format!("`{who}` needs `{}`, which is not there", slot.name());
        problems.add(span, message, remedy(*slot, input));
    }
    missing.is_empty()
}

/// How to come by a volume.
fn remedy(slot: Slot, input: &Relation) -> String {
    let name = slot.name();
    if let Some((_, step)) = input.lost.iter().rev().find(|(lost, _)| *lost == slot) {
        return format!("the step `{step}` makes it: add `{name}` to its `keep`");
    }
    let writers: Vec<String> = StageSpec::names()
        .iter()
        .filter_map(|name| StageSpec::from_parts(name, serde_json::json!({})).ok())
        .filter(|stage| stage.writes().contains(&slot) && !stage.reads().contains(&slot))
        .map(|stage| format!("`{}`", stage.name()))
        .collect();
    match slot {
        Slot::Image | Slot::Truth => {
            "take the cases from `cases` or from a step that keeps it".to_owned()
        }
        Slot::Probability | Slot::Prediction => {
            "take the cases from a step with `infer`".to_owned()
        }
        _ if writers.is_empty() => "no stage makes it".to_owned(),
        _ => format!("put {} before it", writers.join(" or ")),
    }
}
