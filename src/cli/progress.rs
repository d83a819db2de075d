//! What a run shows while it works: bars on a terminal, plain lines or JSON lines otherwise.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    step: Mutex<Step>,
}

impl Progress {
    /// Progress on standard error.
    pub fn new(mode: Mode) -> Self {
        let bars = mode == Mode::Auto && std::io::stderr().is_terminal();
        Self { mode, bars, step: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Step) -> T) -> T {
        change(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn event(&self, plain: impl FnOnce() -> String, event: impl FnOnce() -> Value) {
        match self.mode {
            Mode::None => {}
            Mode::Json => output::note(event().to_string()),
            Mode::Auto | Mode::Plain if self.bars => {
                let text = plain();
                match self.with(|s| s.bar.clone()) {
                    Some(bar) => bar.println(text),
                    None => output::note(text),
                }
            }
            Mode::Auto | Mode::Plain => output::note(plain()),
        }
    }
}

impl Progress {
    fn batch(&self, batch: &BatchReport) {
        let done = (batch.epoch - 1) as f64 + batch.batch as f64 / batch.batches.max(1) as f64;
        let dice = batch.val_dice.map_or(String::new(), |d| format!(", validation DSC {d:.3}"));
        let figures = format!(
            "loss {:.3}{dice}, {:.1} samples/s, feed wait {:.1} %, {:.0} s left",
            batch.train_loss,
            batch.samples_per_s,
            batch.feed_wait_share * 100.0,
            batch.left_s
        );
        if let Some(bar) = self.with(|s| s.bar.clone()) {
            bar.set_length(batch.epochs as u64);
            bar.set_position(done as u64);
            bar.set_message(figures);
            return;
        }
        // A log is told as often as in a step of stages.
        let due = self.with(|s| {
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
                        "  epoch {}/{}, batch {}/{}: {figures}",
                        batch.epoch, batch.epochs, batch.batch, batch.batches
                    )
                },
                || tagged("batch", batch),
            );
        }
    }

    fn epoch(&self, epoch: &EpochReport) {
        if let Some(bar) = self.with(|s| s.bar.clone()) {
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
                    "  epoch {}/{}: loss {:.3}, validation DSC {:.3}, {:.1} samples/s; {}",
                    epoch.epoch,
                    epoch.epochs,
                    epoch.train_loss,
                    epoch.val_dice,
                    epoch.samples_per_s,
                    epoch.waits()
                )
            },
            || tagged("epoch", epoch),
        );
    }
}

/// A report as a JSON event.
fn tagged(event: &str, report: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["event"] = json!(event);
    value
}

impl Observer for Progress {
    fn begin(&self, step: &str, todo: u64, unchanged: u64) {
        let bar = (self.bars && todo > 0).then(|| {
            let bar = ProgressBar::with_draw_target(Some(todo), ProgressDrawTarget::stderr());
            bar.set_style(style());
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        self.with(|s| {
            *s = Step {
                name: step.to_owned(),
                todo,
                started: Some(Instant::now()),
                spoken: Some(Instant::now()),
                bar,
                ..Step::default()
            };
        });
        if !self.bars {
            self.event(
                || format!("{step}: {todo} to do, {unchanged} done before"),
                || json!({"event": "begin", "step": step, "todo": todo, "unchanged": unchanged}),
            );
        }
    }

    fn case(&self, outcome: &Outcome, metrics: &Metrics) {
        let speak = self.with(|s| {
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

    fn training(&self, event: &TrainEvent) {
        match event {
            TrainEvent::Batch(batch) => self.batch(batch),
            TrainEvent::Epoch(epoch) => self.epoch(epoch),
        }
    }

    fn note(&self, text: &str) {
        self.event(|| text.to_owned(), || json!({"event": "note", "text": text}));
    }

    fn end(&self, step: &str) {
        let (bar, done, failed, elapsed) =
            self.with(|s| (s.bar.take(), s.done, s.failed, s.started.map(|t| t.elapsed())));
        if let Some(bar) = bar {
            bar.finish_and_clear();
            return;
        }
        if self.mode == Mode::Json {
            let elapsed = elapsed.unwrap_or_default().as_secs_f64();
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
