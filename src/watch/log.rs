//! The log: one JSON object a line, with the fields of all spans around an event beside its own.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, FilterFn, LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::rotate::Rotating;
use super::{Tell, refuse};
use crate::catalog::Timestamp;
use crate::error::Result;

/// Where the log goes.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The file; `-` is standard error.
    pub path: PathBuf,
    /// Largest size before it is set aside, in bytes.
    pub max_bytes: u64,
    /// How many files that were set aside are kept.
    pub keep: usize,
}

/// What every event and span of the program belongs to. Libraries beneath it are not heard: what they would say of a query or a
/// request is not theirs to tell.
const OWN: &str = "torcula";

/// What is logged: events of these levels, and, whatever they are, the spans that name their run, step and case.
///
/// # Errors
/// A configuration error where the text is neither a level nor levels of modules.
pub fn filter<S>(text: &str) -> Result<impl Filter<S> + use<S>> {
    let spans = FilterFn::new(|metadata| {
        metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with(OWN)
    });
    Ok(levels(text)?.or(spans.with_max_level_hint(LevelFilter::INFO)))
}

fn levels(text: &str) -> Result<Targets> {
    let hint = "write a level (error, warn, info, debug, trace), or levels of modules: info,torcula::engine=debug";
    let mut own = Targets::new();
    let asked: Targets = text.parse().map_err(|e| refuse("the log's level", e, hint))?;
    own = own.with_target(OWN, asked.default_level().unwrap_or(LevelFilter::INFO));
    for (target, level) in &asked {
        if !target.starts_with(OWN) {
            return Err(refuse(
                "the log's level",
                format!("`{target}` is no module of {OWN}"),
                hint,
            ));
        }
        own = own.with_target(target, level);
    }
    Ok(own)
}

enum Out {
    File(Rotating),
    StandardError,
}

/// Writes events as JSON lines.
pub struct JsonLog {
    out: Mutex<Out>,
    told: std::sync::Once,
    tell: Tell,
    path: PathBuf,
}

/// The JSON members of a span and of those around it, each with a comma before it.
struct Members(String);

impl JsonLog {
    /// Opens the log.
    ///
    /// # Errors
    /// A configuration error where the file cannot be written.
    pub fn open(options: &LogOptions, tell: Tell) -> Result<Self> {
        let path = options.path.clone();
        let out = if path.as_os_str() == "-" {
            Out::StandardError
        } else {
            let file = Rotating::open(&path, options.max_bytes, options.keep);
            Out::File(file.map_err(|e| {
                refuse(
                    "the log",
                    format!("{}: {e}", path.display()),
                    "name a file in a folder that can be written",
                )
            })?)
        };
        Ok(Self { out: Mutex::new(out), told: std::sync::Once::new(), tell, path })
    }

    fn write(&self, line: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *out {
            Out::File(file) => file.write(line),
            Out::StandardError => std::io::stderr().write_all(line),
        };
        drop(out);
        if let Err(error) = written {
            self.told.call_once(|| {
                (self.tell)(&format!("the log {} is not written: {error}", self.path.display()));
            });
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut text = span
            .parent()
            .and_then(|parent| parent.extensions().get::<Members>().map(|m| m.0.clone()))
            .unwrap_or_default();
        attributes.record(&mut Flat(&mut text));
        span.extensions_mut().insert(Members(text));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(members) = span.extensions_mut().get_mut::<Members>() {
            values.record(&mut Flat(&mut members.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut line = String::with_capacity(384);
        // Writing to a String cannot fail.
        let _ = write!(line, r#"{{"time":"{}","level":"{level}""#, Timestamp::now());
        event.record(&mut Flat(&mut line));
        if let Some(span) = context.event_span(event)
            && let Some(members) = span.extensions().get::<Members>()
        {
            line.push_str(&members.0);
        }
        let _ = writeln!(line, r#","target":"{}"}}"#, event.metadata().target());
        self.write(line.as_bytes());
    }
}

/// Appends fields as JSON members, each with a comma before it.
struct Flat<'a>(&'a mut String);

impl Flat<'_> {
    fn member(&mut self, field: &Field, value: impl fmt::Display) {
        // Fields that only mean something to OpenTelemetry.
        if !field.name().starts_with("otel.") {
            let _ = write!(self.0, r#","{}":{value}"#, field.name());
        }
    }
}

impl Visit for Flat<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.member(field, value),
            false => self.member(field, "null"),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, serde_json::Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn lines(level: &str, work: impl FnOnce()) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let options = LogOptions { path: path.clone(), max_bytes: 1 << 20, keep: 1 };
        let log = JsonLog::open(&options, Arc::new(|_: &str| ())).unwrap();
        let filtered = log.with_filter(filter(level).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filtered), work);
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_every_span_around_it() {
        let found = lines("info", || {
            let run = tracing::info_span!("run", run_id = "r\"1");
            let step = tracing::info_span!(parent: &run, "step", step = "prepared");
            let case = tracing::info_span!(parent: &step, "case", case_id = "sub-1", otel.status_code = "error", fault = tracing::field::Empty);
            case.record("fault", "data");
            let _in = case.enter();
            let _stage = tracing::debug_span!("stage", stage = "n4").entered();
            tracing::warn!(seconds = 1.5, cases = 3u64, odd = f64::NAN, "a \"quoted\"\nline");
            tracing::debug!("not heard");
            tracing::error!(target: "hyper", "not ours");
        });
        assert_eq!(found.len(), 1, "{found:?}");
        let mut line = found[0].clone();
        let time = line.as_object_mut().unwrap().shift_remove("time").unwrap();
        assert!(time.as_str().unwrap().parse::<Timestamp>().is_ok());
        let expected = json!({"level": "warn", "seconds": 1.5, "cases": 3, "odd": null, "message": "a \"quoted\"\nline",
            "run_id": "r\"1", "step": "prepared", "case_id": "sub-1", "fault": "data", "target": module_path!()});
        assert_eq!(line, expected);
    }

    #[test]
    fn a_stage_is_named_where_its_span_is_asked_for() {
        let found = lines("debug", || {
            let _stage = tracing::debug_span!("stage", stage = "n4").entered();
            tracing::info!("heard");
        });
        assert_eq!(found[0]["stage"], "n4");
    }

    #[test]
    fn a_quiet_log_still_names_the_case() {
        let found = lines("warn", || {
            let _case = tracing::info_span!("case", case_id = "sub-1").entered();
            tracing::info!("not heard");
            tracing::warn!("heard");
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["case_id"], "sub-1");
    }

    #[test]
    fn levels_are_of_our_modules_only() {
        let levels_of = |text| levels(text).map(|t| t.to_string());
        assert!(levels_of("info,torcula::engine=debug").unwrap().contains("torcula::engine=debug"));
        assert!(levels_of("torcula=trace").unwrap().contains("torcula=trace"));
        assert!(levels_of("loud").is_err());
        let error = levels_of("info,hyper=trace").unwrap_err();
        assert!(error.reason().contains("hyper"), "{error}");
    }

    #[test]
    fn a_full_disk_is_told_once_and_stops_nothing() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let options = LogOptions { path: "/dev/full".into(), max_bytes: 1 << 20, keep: 1 };
        let tell: Tell = Arc::new(move |text: &str| heard.lock().unwrap().push(text.to_owned()));
        let log = JsonLog::open(&options, tell).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            tracing::info!("one");
            tracing::info!("two");
        });
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("/dev/full"), "{told:?}");
    }
}
