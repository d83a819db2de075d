//! Watching a run from outside: logs, traces, metrics, and how the runs of a catalog stand.
//!
//! - [`log`]: one JSON object a line, in a file that rotates.
//! - [`otlp`]: spans and metrics to an OpenTelemetry collector.
//! - [`prometheus`]: the metrics as text, in a file for node-exporter or over HTTP.
//! - [`live`]: the numbers of the run at work, which all of these read.
//! - [`status`]: from the catalog alone: what is running, what is stuck, when each pipeline last went well.
//!
//! Everything is off unless asked for, and none of it can fail a run: what cannot be written or reached is told once.
//! No log line, span or metric holds free text of patients, a credential, or the reason of a failure, which may quote a
//! registry's cell: a failed case is told by `case_id`, `stage` and `fault`, and `torcula failures` says the rest.
//!
//! # Spans and the fields of a log line
//!
//! | span | level | fields |
//! |---|---|---|
//! | `run` | info | `run_id`, `pipeline` |
//! | `step` | info | `step`, `action` |
//! | `case` | info | `case_id`; `outcome`, and of a failed case `stage` and `fault` |
//! | `stage` | debug | `stage`, also `decode` and `publish` |
//! | `commit` | debug | `rows` |
//! | `epoch` | info | `epoch` |
//!
//! A log line has `time` (RFC 3339, UTC), `level`, `message`, the fields of all spans around it, its own fields, and
//! `target` (the module).
//!
//! # Metrics
//!
//! The first name is OpenTelemetry's, the second is Prometheus's. All carry the label `pipeline`. Counters count from
//! the start of the run.
//!
#![doc = include_str!("metrics.md")]

mod exports;
pub mod live;
pub mod log;
mod metric;
pub mod otlp;
pub mod prometheus;
mod rotate;
pub mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use exports::{Exporting, Exports};
pub use live::Live;
pub use metric::{Kind, METRICS, Metric, Sample};
pub use otlp::Collector;

use crate::error::{Error, Result};

/// Tells people something once, without disturbing what is on their screen.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What is to be watched, and where to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The log.
    pub log: Option<log::LogOptions>,
    /// Which log lines: a level, or levels of modules as in `info,torcula::engine=debug`.
    pub level: String,
    /// The most detailed spans to export.
    pub trace_level: Option<LevelFilter>,
    /// File of metrics in Prometheus's text format.
    pub metrics_file: Option<PathBuf>,
    /// Address at which metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// The OpenTelemetry collector; where there is none, the standard environment variables say.
    pub collector: Option<String>,
}

/// What watches this process, until [`finish`](Self::finish).
#[derive(Debug, Default)]
pub struct Watching {
    collector: Option<Collector>,
    exports: Exports,
}

impl Watching {
    /// Opens the log and prepares the exports. Once a process: a second call logs nothing.
    ///
    /// # Errors
    /// A configuration error where the log cannot be written, or a level or an address is none.
    pub fn start(options: &Options, tell: &Tell) -> Result<Self> {
        let collector = Collector::of(options.collector.as_deref(), tell)?;
        let log = match &options.log {
            Some(log) => {
                let layer = log::JsonLog::open(log, Arc::clone(tell))?;
                Some(layer.with_filter(log::filter(&options.level)?))
            }
            None => None,
        };
        let level = options.trace_level.unwrap_or(LevelFilter::DEBUG);
        let traces = collector.as_ref().and_then(|collector| collector.traces(level));
        if log.is_some() || traces.is_some() {
            let subscriber = tracing_subscriber::registry().with(traces).with(log);
            // Where a program that uses this library has one of its own, that one hears the events.
            let _ = subscriber.try_init();
        }
        let exports = Exports {
            file: options.metrics_file.clone(),
            listen: options.metrics_listen,
            collector: collector.clone(),
            tell: Some(Arc::clone(tell)),
        };
        exports.check()?;
        Ok(Self { collector, exports })
    }

    /// What a run is to export its numbers to.
    pub fn exports(&self) -> Exports {
        self.exports.clone()
    }

    /// Sends what is left to the collector; waits for it 2 s at most.
    pub fn finish(self) {
        if let Some(collector) = self.collector {
            collector.finish();
        }
    }
}

/// An error about an option.
fn refuse(option: &str, found: impl std::fmt::Display, hint: &str) -> Error {
    Error::configuration(format!("{option}: {found}")).hint(hint)
}
