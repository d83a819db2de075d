//! The metrics, from one list: OpenTelemetry has the names as they stand here, Prometheus has them by the standard's own
//! rule (dots become underscores, the unit and `_total` are added).

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rises from the start of the run.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The unit, as UCUM writes it; what is counted, in braces.
    pub unit: &'static str,
    /// The labels, beside `pipeline`.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// One number of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which.
    pub metric: &'static Metric,
    /// Values of the metric's labels, in their order.
    pub labels: Vec<String>,
    /// The number.
    pub value: f64,
}

impl Metric {
    /// Prometheus's name.
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match (self.unit, self.kind) {
            ("s", _) => "_seconds",
            ("By", _) => "_bytes",
            ("1", Kind::Gauge) => "_ratio",
            _ => "",
        });
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

macro_rules! metrics {
    ($($id:ident: $kind:ident, $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) static $id: Metric = Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help,
        };)*
        /// Every metric.
        pub static METRICS: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    RUN_ACTIVE: Gauge, "torcula.run.active", "{run}", ["run_id", "version"], "1 while the run is at work, 0 when it has ended";
    RUN_DURATION: Gauge, "torcula.run.duration", "s", [], "Time since the run started, or that it took";
    RUN_EXIT_CODE: Gauge, "torcula.run.exit_code", "", [], "How the run ended: 0 well, 1 failed or stopped, 2 bad pipeline, 3 too many cases quarantined";
    SUCCESS: Gauge, "torcula.last_success.timestamp", "s", [], "When the pipeline last ended well on this catalog, since 1970-01-01 UTC";
    LAG: Gauge, "torcula.last_success.lag", "s", [], "Time since then, when this was written; `time() - torcula_last_success_timestamp_seconds` stays true";
    CASES: Counter, "torcula.cases", "{case}", ["step", "outcome"], "Cases (models, in a training): `done`, `failed` (quarantined), `unchanged` (done before), `known_failed` (quarantined before), `stopped`";
    QUEUE: Gauge, "torcula.queue", "{case}", ["step"], "Cases that wait for their turn in the step at work";
    ACTIVE: Gauge, "torcula.cases.active", "{case}", ["step"], "Cases in work";
    STAGE_CASES: Counter, "torcula.stage.cases", "{case}", ["step", "stage", "outcome"], "Cases that went through a stage: `done` or `failed`; `decode` and `publish` are stages too";
    STAGE_BUSY: Counter, "torcula.stage.busy", "s", ["step", "stage"], "Time of all threads in a stage";
    READ: Counter, "torcula.read", "By", ["step"], "Input files, as they lie on disk";
    WRITTEN: Counter, "torcula.written", "By", ["step"], "Artifacts";
    WAIT: Gauge, "torcula.memory.wait", "1", ["step"], "Share of the jobs' time in which a case waited for memory";
    FEED_WAIT: Gauge, "torcula.feed.wait", "1", ["step"], "Share of a training's time in which the network waited for samples";
    EPOCH: Gauge, "torcula.training.epoch", "{epoch}", ["step"], "Epochs that a training has done";
    BUDGET: Gauge, "torcula.budget", "By", [], "Memory for cases in work (`--memory`)";
    BUDGET_USED: Gauge, "torcula.budget.used", "By", [], "Of that, what cases in work may need";
}

#[cfg(test)]
mod tests {
    use super::*;

    // https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics: dots to underscores, unit, `_total`.
    #[test]
    fn names_follow_the_standards_rule() {
        let name = |metric: &Metric| metric.prometheus();
        assert_eq!(name(&CASES), "torcula_cases_total");
        assert_eq!(name(&STAGE_BUSY), "torcula_stage_busy_seconds_total");
        assert_eq!(name(&READ), "torcula_read_bytes_total");
        assert_eq!(name(&WAIT), "torcula_memory_wait_ratio");
        assert_eq!(name(&SUCCESS), "torcula_last_success_timestamp_seconds");
    }

    /// `TORCULA_BLESS=1 cargo test --lib watch` writes the table anew.
    #[test]
    fn the_table_in_the_documentation_is_this_list() {
        let mut table =
            "| OpenTelemetry | Prometheus | kind | unit | labels | what |\n|---|---|---|---|---|---|\n".to_owned();
        for m in METRICS {
            let kind = if m.kind == Kind::Counter { "counter" } else { "gauge" };
            let labels: Vec<String> = m.labels.iter().map(|l| format!("`{l}`")).collect();
            let (name, other, labels) = (m.name, m.prometheus(), labels.join(", "));
            table.push_str(&format!(
                "| `{name}` | `{other}` | {kind} | {} | {labels} | {} |\n",
                m.unit, m.help
            ));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/watch/metrics.md");
        if std::env::var_os("TORCULA_BLESS").is_some() {
            assert!(std::fs::write(path, &table).is_ok());
        }
        assert_eq!(include_str!("metrics.md"), table, "TORCULA_BLESS=1 cargo test --lib watch");
    }
}
