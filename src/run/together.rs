//! Trainings that do not need each other run side by side, where the learner has places for them: a CUDA device each, or
//! their share of the cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;

use super::{Runner, StepReport};
use crate::error::Result;
use crate::pipeline::{Action, Step};

/// How many of the steps that are left are run next: one, or trainings that follow each other and need none of each other.
pub fn next(left: &[&Step]) -> usize {
    let trains = |step: &Step| matches!(step.action, Action::Train(_));
    let mut group: Vec<&str> = Vec::new();
    for step in left.iter().take_while(|step| trains(step)) {
        if step.upstream.iter().any(|name| group.contains(&name.as_str())) {
            break;
        }
        group.push(&step.name);
    }
    group.len().max(1)
}

/// Runs them, and gives them back in their order. After an error those that have not begun do not begin.
pub async fn run<'p>(
    runner: &Runner<'_>,
    group: &[&'p Step],
) -> Vec<(&'p Step, Result<StepReport>)> {
    let places = group.iter().map(|step| places(runner, step)).min().unwrap_or(1).max(1);
    let free = Mutex::new((0..places).rev().collect::<Vec<usize>>());
    let free = || free.lock().unwrap_or_else(PoisonError::into_inner);
    let broken = AtomicBool::new(false);
    let one = async |step: &'p Step| {
        if broken.load(Ordering::Relaxed) {
            return None;
        }
        let place = free().pop().unwrap_or_default();
        let result = runner.watched(step, place).await;
        free().push(place);
        broken.fetch_or(result.is_err(), Ordering::Relaxed);
        Some((step, result))
    };
    let ended = futures::stream::iter(group).map(|step| one(step)).buffered(places);
    ended.filter_map(|ended| async { ended }).collect().await
}

/// How many trainings like this one run at once.
fn places(runner: &Runner<'_>, step: &Step) -> usize {
    match (&step.action, &runner.learner) {
        (Action::Train(train), Some(learner)) => {
            learner.places(&train.params, runner.workers.jobs())
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn trainings_that_need_each_other_follow_each_other() {
        let text = "torcula: 1\nname: t\ncatalog: c\nsteps:\n  \
            registry: { ingest: { bids: raw } }\n  \
            parts: { from: registry, split: { parts: { train: 0.8, val: 0.2 } } }\n  \
            shards: { from: parts, stages: [{ resample: { shape: [16, 16, 8] } }], to: shards }\n  \
            a: { matrix: { seed: [1, 2] }, seed: \"${seed}\", from: shards, train: { epochs: 1 } }\n  \
            b: { matrix: { seed: [1, 2] }, from: shards, train: { fine_tune: a, epochs: 1 } }\n  \
            c: { from: shards, train: { epochs: 1 } }\n";
        let pipeline = crate::pipeline::load_text("t", text, &[]).unwrap();
        let steps: Vec<&Step> = pipeline.steps.iter().collect();
        let mut left = &steps[..];
        let mut groups = Vec::new();
        while !left.is_empty() {
            let (group, rest) = left.split_at(next(left));
            groups.push(group.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" "));
            left = rest;
        }
        assert_eq!(groups, ["registry", "parts", "shards", "a_seed1 a_seed2", "b_seed1 b_seed2 c"]);
    }
}
