//! How a run is watched from outside: options of `run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::progress::{Mode, Progress};
use crate::engine::Observer as _;
use crate::error::Result;
use crate::watch::{Options, Watching, log::LogOptions};

/// Options that name where logs, metrics and traces go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Watching")]
pub struct WatchArgs {
    /// Write a log of JSON lines to this file; - is standard error, without progress [default: $TORCULA_LOG]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Least level of log lines: error, warn, info, debug, trace, or levels of modules as in
    /// info,torcula::engine=debug [default: $TORCULA_LOG_LEVEL, or info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Size at which the log is set aside as FILE.1
    #[arg(long, value_name = "BYTES", value_parser = super::bytes, default_value = "16MiB")]
    log_size: u64,
    /// How many logs that were set aside are kept
    #[arg(long, value_name = "N", default_value_t = 5)]
    log_keep: usize,
    /// Write metrics for node-exporter's textfile collector to this file, every 10 s and at the end
    #[arg(long, value_name = "FILE.prom")]
    metrics: Option<PathBuf>,
    /// Serve metrics to Prometheus at this address while the run lasts, like 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Send spans and metrics to this OpenTelemetry collector (OTLP over HTTP), like http://localhost:4318
    /// [default: $OTEL_EXPORTER_OTLP_ENDPOINT, or none]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Most detailed spans that are sent: info has runs, steps and cases, debug also their stages
    #[arg(long, value_name = "LEVEL", default_value = "debug")]
    otlp_level: LevelFilter,
}

impl WatchArgs {
    fn log(&self) -> Option<PathBuf> {
        self.log.clone().or_else(|| std::env::var_os("TORCULA_LOG").map(PathBuf::from))
    }

    /// How progress is shown: a log on standard error is alone there.
    pub(super) fn progress(&self, mode: Mode) -> Mode {
        let alone = self.log().is_some_and(|log| log == Path::new("-"));
        if alone && mode == Mode::Auto { Mode::None } else { mode }
    }

    /// Starts watching. What it has to tell goes the way of progress.
    pub(super) fn start(&self, progress: &Arc<Progress>) -> Result<Watching> {
        let progress = Arc::clone(progress);
        let level = || std::env::var("TORCULA_LOG_LEVEL").ok();
        let options = Options {
            log: self.log().map(|path| LogOptions {
                path,
                max_bytes: self.log_size,
                keep: self.log_keep,
            }),
            level: self.log_level.clone().or_else(level).unwrap_or_else(|| "info".to_owned()),
            trace_level: Some(self.otlp_level),
            metrics_file: self.metrics.clone(),
            metrics_listen: self.metrics_listen,
            collector: self.otlp.clone(),
        };
        Watching::start(&options, &(Arc::new(move |text: &str| progress.note(text)) as _))
    }
}
