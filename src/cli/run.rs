//! `torcula run` and `torcula explain`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::progress::{Mode, Progress};
use super::watch::WatchArgs;
use super::{bytes, command_line, key_value, output, runtime};
use crate::engine::Stop;
use crate::engine::learner::Learner;
use crate::error::{Error, Result};
use crate::pipeline::{self, Action, Pipeline};
use crate::run::notify::{self, Message};
use crate::run::{self, Ending, Options, RunSummary, StepReport};
use crate::watch::Exports;

/// Arguments that `run` and `explain` share.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline file
    file: PathBuf,
    /// Set a variable (`data=/registry`) or any key (`steps.unet.train.epochs=5`) of the file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
    /// Cases in work at once [default: all cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Memory for cases in work, like 4GiB [default: half of what is free]
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Only these steps (or the steps of a matrix), and what they need
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    to: Vec<String>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: Mode,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Run the pipeline, and show rows, bytes, busy and wait time of every stage
    #[arg(long)]
    analyze: bool,
    /// Show DataFusion's physical plan under each operator
    #[arg(short, long)]
    verbose: bool,
}

impl RunArgs {
    fn options(&self) -> Options {
        let free = super::memory().available;
        Options {
            jobs: self.jobs.unwrap_or_else(cores).max(1),
            memory_bytes: self.memory.unwrap_or(free / 2),
            ceiling_bytes: self.memory.unwrap_or(0).max(free / 10 * 8),
            command: command_line(),
            to: self.to.clone(),
            exports: Exports::default(),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Reads and checks a pipeline file; its diagnostics go to standard error.
pub(super) fn load(
    file: &std::path::Path,
    sets: &[(String, String)],
) -> Result<Pipeline, ExitCode> {
    pipeline::load(file, sets).map_err(|diagnostics| {
        use std::io::IsTerminal;
        output::note(diagnostics.render(std::io::stderr().is_terminal()));
        ExitCode::from(2)
    })
}

/// `torcula run`.
pub fn run(args: &RunArgs, learner: Option<Arc<dyn Learner>>) -> Result<ExitCode> {
    let pipeline = match load(&args.file, &args.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let summary = execute(&pipeline, args, learner);
    let message = match &summary {
        Ok(summary) => Message::of(&pipeline, summary),
        Err(error) => Message::of_error(&pipeline, error),
    };
    let code = summary.map(|summary| {
        for line in steps_text(&summary.steps).lines() {
            output::line(line);
        }
        finish(&summary)
    });
    // Last, when all is committed and printed: nobody waits for it.
    for warning in pipeline.notify.iter().flat_map(|spec| notify::tell(spec, &message)) {
        output::note(format!("warning: {warning}"));
    }
    code
}

/// `torcula explain`.
pub fn explain(args: &ExplainArgs, learner: Option<Arc<dyn Learner>>) -> Result<ExitCode> {
    let pipeline = match load(&args.run.file, &args.run.sets) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    if !args.analyze {
        let text =
            runtime()?.block_on(run::explain(&pipeline, &args.run.options(), args.verbose))?;
        output::raw(text.as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let summary = execute(&pipeline, &args.run, learner)?;
    for step in &summary.steps {
        output::line(analysis(step));
    }
    Ok(finish(&summary))
}

fn execute(
    pipeline: &Pipeline,
    args: &RunArgs,
    learner: Option<Arc<dyn Learner>>,
) -> Result<RunSummary> {
    let mut options = args.options();
    let steps = options.steps(pipeline)?;
    let needs_learner =
        steps.iter().any(|s| matches!(s.action, Action::Train(_) | Action::Infer(_)));
    if learner.is_none() && needs_learner {
        return Err(exec_training());
    }
    let observer = Arc::new(Progress::new(args.watch.progress(args.progress)));
    let watching = args.watch.start(&observer)?;
    options.exports = watching.exports();
    let stop = Stop::default();
    let runtime = runtime()?;
    runtime.spawn(watch_signals(stop.clone()));
    let summary = runtime.block_on(run::run(pipeline, &options, learner, stop, observer));
    watching.finish();
    // A case that will not end must not keep the process from ending.
    runtime.shutdown_background();
    summary
}

/// The first Ctrl-C (or SIGTERM) lets the run commit what is done, the second ends the process.
async fn watch_signals(stop: Stop) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return };
    for press in 0.. {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
        if press > 0 {
            output::note("stopped at once; what was committed is safe");
            std::process::exit(130);
        }
        output::note(
            "stopping: the cases in hand are given up, what is done is being committed (again to stop at once)",
        );
        stop.set();
    }
}

/// Replaces this process by the binary that links libtorch.
pub(super) fn exec_training() -> Error {
    use std::os::unix::process::CommandExt;
    let beside = std::env::current_exe().map(|exe| exe.with_file_name("torcula-training"));
    let Ok(binary) = beside else { return Error::io("the path of this program is unknown") };
    if !binary.exists() {
        return Error::configuration(format!(
            "networks need {}, which is not there",
            binary.display()
        ))
        .hint("build it beside torcula: `make build`");
    }
    let mut command = std::process::Command::new(&binary);
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        // libgomp reads it once, before `main`; set here, that program need not start itself again.
        command.env("OMP_WAIT_POLICY", "passive");
    }
    let error = command.args(std::env::args_os().skip(1)).exec();
    Error::io(format!("{}: {error}", binary.display()))
}

fn steps_text(steps: &[StepReport]) -> String {
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|s| {
            let parts: Vec<String> = s.parts.iter().map(|(p, n)| format!("{p} {n}")).collect();
            vec![
                s.step.clone(),
                s.done.to_string(),
                s.unchanged.to_string(),
                (s.failed + s.known_failed).to_string(),
                format!("{:.1}", s.elapsed.as_secs_f64()),
                s.note.clone().unwrap_or_else(|| parts.join(", ")),
            ]
        })
        .collect();
    output::table(&["step", "done", "unchanged", "quarantined", "seconds", ""], &rows)
}

/// What `explain --analyze` shows of a step.
fn analysis(step: &StepReport) -> String {
    let mut text = format!(
        "{}: {} done, {} unchanged, {} quarantined, {:.2} s",
        step.step,
        step.done,
        step.unchanged,
        step.failed + step.known_failed,
        step.elapsed.as_secs_f64()
    );
    if let Some(waits) = &step.waits {
        text.push_str(&format!("\n{waits}"));
    }
    let Some(metrics) = &step.metrics else { return text };
    let busy: f64 = metrics.stages().iter().map(|s| s.busy.as_secs_f64()).sum();
    let rows: Vec<Vec<String>> = metrics
        .stages()
        .iter()
        .map(|s| {
            let seconds = s.busy.as_secs_f64();
            vec![
                s.stage.clone(),
                s.cases.to_string(),
                s.failed.to_string(),
                format!("{seconds:.3}"),
                format!("{:.2}", seconds * 1e3 / s.cases.max(1) as f64),
                format!("{:.1}", seconds / busy.max(1e-9) * 100.0),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&output::table(
        &["stage", "cases", "failed", "busy s", "ms/case", "% busy"],
        &rows,
    ));
    text.push_str(&format!(
        "read {:.1} MB, wrote {:.1} MB, waited for memory {:.3} s, in flight at most {:.1} MB",
        metrics.read_bytes() as f64 / 1e6,
        metrics.written_bytes() as f64 / 1e6,
        metrics.admission_wait().as_secs_f64(),
        metrics.peak_in_flight_bytes() as f64 / 1e6
    ));
    if let Some(limiting) = metrics.limiting() {
        text.push_str(&format!("\nlimiting stage: {}", limiting.stage));
    }
    text
}

/// The end of a run: scores, how it ended, what to do next.
fn finish(summary: &RunSummary) -> ExitCode {
    if let Some(scores) = &summary.scores {
        output::line("");
        output::raw(scores.as_bytes());
        output::line("");
    }
    match &summary.ending {
        Ending::Done => output::note(format!("run {} is done", summary.run_id)),
        Ending::Stopped => output::note(format!(
            "run {} was stopped; what was done is committed: give the same command again to continue",
            summary.run_id
        )),
        Ending::Failed(error) => {
            output::error(error);
            output::note(
                "what was done before is committed: mend it and give the same command again",
            );
        }
        Ending::Alarm(reason) => output::error(
            &Error::data(format!("the run is done, with an alarm: {reason}"))
                .hint("see the difference report; `difference.alarms` in the pipeline says what raises one"),
        ),
        Ending::OverLimit(reason) => {
            output::error(&Error::data(reason.clone()).hint(
                "see `torcula failures`; mend the cases, or raise on_failure in the pipeline",
            ));
        }
    }
    ExitCode::from(summary.ending.exit_code())
}
