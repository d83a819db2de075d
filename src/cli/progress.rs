//! What a run shows while it works: bars on a terminal, plain lines or JSON lines otherwise.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::output;
use crate::engine::learner::{BatchReport, EpochReport, TrainEvent};
use crate::engine::{Metrics, Observer, Outcome, Status};

/// Ways to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, plain lines otherwise
    Auto,
    /// Plain lines, for logs
    Plain,
    /// One JSON object a line, for programs
    Json,
    /// Nothing
    None,
}

/// How often plain progress speaks.
const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Step {
    name: String,
    todo: u64,
    done: u64,
    failed: u64,
    started: Option<Instant>,
    spoken: Option<Instant>,
    bar: Option<ProgressBar>,
}

/// Shows a run.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    bars: bool,
    /// Those under way, in the order in which they began: one, or trainings side by side.
    steps: Mutex<Vec<Step>>,
    all_bars: MultiProgress,
}

impl Progress {
    /// Progress on standard error.
    pub fn new(mode: Mode) -> Self {
        let bars = mode == Mode::Auto && std::io::stderr().is_terminal();
        let all_bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { mode, bars, steps: Mutex::default(), all_bars }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Default>(&self, step: &str, change: impl FnOnce(&mut Step) -> T) -> T {
        self.steps().iter_mut().find(|s| s.name == step).map(change).unwrap_or_default()
    }

    /// What begins a training's line where it is not the only one.
    fn whose(&self, step: &str) -> String {
        if self.steps().len() > 1 { format!("  {step}, ") } else { "  ".to_owned() }
    }

    fn event(&self, plain: impl FnOnce() -> String, event: impl FnOnce() -> Value) {
        match self.mode {
            Mode::None => {}
            Mode::Json => output::note(event().to_string()),
            Mode::Auto | Mode::Plain if self.bars => {
                // Above the bars; where the terminal is gone there is nobody to tell.
                drop(self.all_bars.println(plain()));
            }
            Mode::Auto | Mode::Plain => output::note(plain()),
        }
    }
}

impl Progress {
    fn batch(&self, step: &str, batch: &BatchReport) {
        let done = (batch.epoch - 1) as f64 + batch.batch as f64 / batch.batches.max(1) as f64;
        let dice = batch.val_dice.map_or(String::new(), |d| format!(", validation DSC {d:.3}"));
        let figures = format!(
            "loss {:.3}{dice}, {:.1} samples/s, feed wait {:.1} %, {:.0} s left",
            batch.train_loss,
            batch.samples_per_s,
            batch.feed_wait_share * 100.0,
            batch.left_s
        );
        if let Some(bar) = self.with(step, |s| s.bar.clone()) {
            bar.set_length(batch.epochs as u64);
            bar.set_position(done as u64);
            bar.set_message(figures);
            return;
        }
        // A log is told as often as in a step of stages.
        let due = self.with(step, |s| {
            let due = s.spoken.is_none_or(|t| t.elapsed() >= EVERY);
            if due {
                s.spoken = Some(Instant::now());
            }
            due
        });
        if due {
            self.event(
                || {
                    format!(
                        "{}epoch {}/{}, batch {}/{}: {figures}",
                        self.whose(step),
                        batch.epoch,
                        batch.epochs,
                        batch.batch,
                        batch.batches
                    )
                },
                || tagged("batch", step, batch),
            );
        }
    }

    fn epoch(&self, step: &str, epoch: &EpochReport) {
        if let Some(bar) = self.with(step, |s| s.bar.clone()) {
            bar.set_length(epoch.epochs as u64);
            bar.set_position(epoch.epoch as u64);
            bar.set_message(format!(
                "loss {:.3}, validation DSC {:.3}, {:.1} samples/s",
                epoch.train_loss, epoch.val_dice, epoch.samples_per_s
            ));
            return;
        }
        self.event(
            || {
                format!(
                    "{}epoch {}/{}: loss {:.3}, validation DSC {:.3}, {:.1} samples/s; {}",
                    self.whose(step),
                    epoch.epoch,
                    epoch.epochs,
                    epoch.train_loss,
                    epoch.val_dice,
                    epoch.samples_per_s,
                    epoch.waits()
                )
            },
            || tagged("epoch", step, epoch),
        );
    }
}

/// A report as a JSON event.
fn tagged(event: &str, step: &str, report: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["event"] = json!(event);
    value["step"] = json!(step);
    value
}

impl Observer for Progress {
    fn begin(&self, step: &str, todo: u64, unchanged: u64) {
        let bar = (self.bars && todo > 0).then(|| {
            let bar = self.all_bars.add(ProgressBar::new(todo));
            bar.set_style(style());
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        self.steps().push(Step {
            name: step.to_owned(),
            todo,
            started: Some(Instant::now()),
            spoken: Some(Instant::now()),
            bar,
            ..Step::default()
        });
        if !self.bars {
            self.event(
                || format!("{step}: {todo} to do, {unchanged} done before"),
                || json!({"event": "begin", "step": step, "todo": todo, "unchanged": unchanged}),
            );
        }
    }

    fn case(&self, outcome: &Outcome, metrics: &Metrics) {
        // Cases come from one step at a time, the last that began.
        let speak = self.steps().last_mut().and_then(|s| {
            match outcome.status {
                Status::Done => s.done += 1,
                Status::Failed => s.failed += 1,
                Status::Stopped => return None,
            }
            if let Some(bar) = &s.bar {
                let limiting = metrics.limiting().map(|l| l.stage).unwrap_or_default();
                let failed =
                    if s.failed > 0 { format!(", {} failed", s.failed) } else { String::new() };
                bar.set_message(format!("{limiting}{failed}"));
                bar.inc(1);
                return None;
            }
            let due = s.spoken.is_none_or(|t| t.elapsed() >= EVERY);
            if due {
                s.spoken = Some(Instant::now());
            }
            due.then(|| (s.name.clone(), s.done, s.failed, s.todo, s.started.map(|t| t.elapsed())))
        });
        if let Some(reason) = &outcome.reason
            && outcome.status == Status::Failed
        {
            self.event(
                || format!("  quarantined {}: {reason}", outcome.case_id),
                || json!({"event": "failure", "case_id": outcome.case_id, "reason": reason}),
            );
        }
        let Some((step, done, failed, todo, elapsed)) = speak else { return };
        let rate = (done + failed) as f64 / elapsed.unwrap_or_default().as_secs_f64().max(1e-3);
        let left = (todo.saturating_sub(done + failed)) as f64 / rate.max(1e-9);
        self.event(
            || format!("{step}: {}/{todo} cases, {failed} failed, {rate:.1}/s, {left:.0} s left", done + failed),
            || {
                let stages: Vec<Value> = metrics
                    .stages()
                    .iter()
                    .map(|s| json!({"stage": s.stage, "cases": s.cases, "busy_s": s.busy.as_secs_f64()}))
                    .collect();
                json!({"event": "progress", "step": step, "done": done, "failed": failed, "todo": todo,
                    "cases_per_s": rate, "left_s": left, "stages": stages})
            },
        );
    }

    fn training(&self, step: &str, event: &TrainEvent) {
        match event {
            TrainEvent::Batch(batch) => self.batch(step, batch),
            TrainEvent::Epoch(epoch) => self.epoch(step, epoch),
        }
    }

    fn note(&self, text: &str) {
        self.event(|| text.to_owned(), || json!({"event": "note", "text": text}));
    }

    fn end(&self, step: &str) {
        let mut steps = self.steps();
        let Some(index) = steps.iter().position(|s| s.name == step) else { return };
        let Step { bar, done, failed, started, .. } = steps.remove(index);
        drop(steps);
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.all_bars.remove(&bar);
            return;
        }
        if self.mode == Mode::Json {
            let elapsed = started.map(|t| t.elapsed()).unwrap_or_default().as_secs_f64();
            output::note(
                json!({"event": "end", "step": step, "done": done, "failed": failed, "elapsed_s": elapsed})
                    .to_string(),
            );
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:12.bold} {bar:28.cyan/dim} {pos:>5}/{len} {per_sec:>9} {eta:>4} left  {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
