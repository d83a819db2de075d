//! A run as people and machines watch it from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use serde_json::Value;

use super::support::{Registry, TORCULA, files, text, torcula};

/// Runs the test pipeline with variables set, in plain lines.
fn run_with(registry: &Registry, variables: &[(&str, &str)]) -> Output {
    let mut args = registry.run_args(&[]);
    for arg in args.iter_mut().filter(|arg| *arg == "none") {
        "plain".clone_into(arg);
    }
    Command::new(TORCULA).args(args).envs(variables.iter().copied()).output().unwrap()
}

fn catalog(registry: &Registry) -> String {
    registry.path().join("catalog").to_str().unwrap().to_owned()
}

fn status(registry: &Registry) -> Value {
    let output = torcula(&["status", "--catalog", &catalog(registry), "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn runs(registry: &Registry) -> Vec<Value> {
    let output = torcula(&["runs", "--catalog", &catalog(registry), "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    match text.trim().starts_with('[') {
        true => serde_json::from_str(&text).unwrap(),
        false => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    }
}

/// A run in the background, ended with the test.
struct Running(Child);

impl Running {
    fn start(registry: &Registry, args: &[&str]) -> Self {
        let child = Command::new(TORCULA)
            .args(registry.run_args(args))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits until `found` gives something, while the run lasts.
    fn until<T>(&mut self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(self.0.try_wait().unwrap().is_none(), "the run ended before {what}");
            assert!(began.elapsed() < Duration::from_secs(120), "no {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn log_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_log_tells_run_step_case_and_stage_but_no_reason() {
    let registry = Registry::synth(10, &["--broken", "0.3"]);
    let log = registry.path().join("run.log");
    let path = log.to_str().unwrap();
    registry.run(&["--log", path, "--log-level", "debug"]);
    let lines = log_lines(&log);
    let run = registry.sql("SELECT run_id FROM runs");
    assert!(lines.iter().all(|line| line["run_id"] == run.as_str()), "every line is of the run");
    assert!(lines.iter().all(|line| line["pipeline"] == "prepare" && line["time"].is_string()));
    let said = |message: &str| lines.iter().filter(|l| l["message"] == message).collect::<Vec<_>>();
    assert_eq!((said("the run begins").len(), said("the run ended").len()), (1, 1));
    let ended: BTreeMap<&str, &Value> =
        said("the step ended").iter().map(|l| (l["step"].as_str().unwrap(), &l["done"])).collect();
    assert_eq!(
        ended.keys().copied().collect::<Vec<_>>(),
        ["prepared", "registry", "shards", "split"]
    );
    let prepared = registry.sql("SELECT count(*) FROM prepared");
    assert_eq!(ended["prepared"].to_string(), prepared);
    assert_eq!(
        said("the case is done").iter().filter(|l| l["step"] == "prepared").count().to_string(),
        prepared
    );

    // Every quarantined case is there, with its stage and fault; why, only `failures` knows.
    let failures = registry.sql(
        "SELECT case_id, step, stage, fault FROM failures WHERE stage <> 'scan' ORDER BY 1, 2",
    );
    let mut logged: Vec<String> = said("the case is quarantined")
        .iter()
        .map(|l| {
            ["case_id", "step", "stage", "fault"].map(|key| l[key].as_str().unwrap()).join(",")
        })
        .collect();
    logged.sort();
    assert!(!logged.is_empty(), "nothing was quarantined");
    for line in &logged {
        assert!(failures.contains(line.as_str()), "{line} is not among\n{failures}");
    }
    let whole = std::fs::read_to_string(&log).unwrap();
    for reason in registry.sql("SELECT reason FROM failures").lines() {
        assert!(!whole.contains(reason.trim_matches('"')), "{reason}");
    }

    // The next run goes on in the same file.
    registry.run(&["--log", path]);
    assert!(log_lines(&log).len() > lines.len());
}

#[test]
fn a_log_on_standard_error_is_alone_there_and_a_bad_one_is_refused() {
    let registry = Registry::synth(2, &[]);
    let mut args = registry.run_args(&["--log", "-"]);
    args.retain(|arg| arg != "--progress" && arg != "none");
    let output = torcula(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    let (json, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|l| l.starts_with('{'));
    assert!(
        json.len() > 5 && json.iter().all(|l| serde_json::from_str::<Value>(l).is_ok()),
        "{said}"
    );
    assert_eq!(rest.len(), 1, "only how it ended: {said}");
    for (wrong, named) in [
        (["--log", "/nowhere/run.log"], "/nowhere/run.log"),
        (["--metrics", "/nowhere/x.prom"], "/nowhere"),
        (["--otlp", "not an address"], "OpenTelemetry"),
    ] {
        let output = registry.run(&wrong);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(
            text(&output).contains(named) && text(&output).contains("hint"),
            "{}",
            text(&output)
        );
    }
    let output = registry.run(&["--log", "-", "--log-level", "hyper=trace"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn a_log_rotates() {
    let registry = Registry::synth(20, &[]);
    let log = registry.path().join("logs/run.log");
    std::fs::create_dir(log.parent().unwrap()).unwrap();
    let path = log.to_str().unwrap();
    registry.run(&["--log", path, "--log-level", "debug", "--log-size", "3kB", "--log-keep", "2"]);
    let found = files(log.parent().unwrap());
    assert_eq!(found.len(), 3, "{found:?}");
    for file in &found {
        assert!(std::fs::metadata(file).unwrap().len() <= 3000);
        log_lines(file);
    }
    assert_eq!(log_lines(&log).last().unwrap()["message"], "the run ended");
}

/// Requests that a small HTTP server received: path, content type, body.
type Received = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// A collector that takes everything.
fn collector() -> (String, Received) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", server.local_addr().unwrap());
    let received = Received::default();
    let store = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let store = Arc::clone(&store);
            std::thread::spawn(move || take(stream.unwrap(), &store));
        }
    });
    (address, received)
}

fn take(mut stream: TcpStream, store: &Received) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let of = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
            head.iter().find(of).map(|l| l[name.len() + 1..].trim().to_owned()).unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap()];
        input.read_exact(&mut body).unwrap();
        let path = head[0].split(' ').nth(1).unwrap().to_owned();
        store.lock().unwrap().push((path, header("content-type"), body));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|a| a.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn a_collector_receives_the_spans_and_the_metrics() {
    let registry = Registry::synth(10, &["--broken", "0.3"]);
    let (address, received) = collector();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str())];
    let output = run_with(&registry, &variables);
    assert!(output.status.success(), "{}", text(&output));
    let received = received.lock().unwrap();
    assert!(received.iter().all(|(_, kind, _)| kind == "application/x-protobuf"));
    let of = |wanted: &'static str| received.iter().filter(move |(path, ..)| path == wanted);

    let mut spans = Vec::new();
    for (_, _, body) in of("/v1/traces") {
        for group in ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans {
            let resource = group.resource.unwrap();
            assert_eq!(attribute(&resource.attributes, "service.name").unwrap(), "torcula");
            spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let named = |name: &'static str| spans.iter().filter(move |s| s.name == name);
    let run = named("run").next().expect("a span of the run");
    assert_eq!(
        attribute(&run.attributes, "run_id").unwrap(),
        registry.sql("SELECT run_id FROM runs")
    );
    assert!(run.parent_span_id.is_empty(), "the run is the root");
    assert!(spans.iter().all(|s| s.trace_id == run.trace_id), "one trace");
    let parent = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
        spans
            .iter()
            .find(|s| s.span_id == span.parent_span_id)
            .map_or("", |s| s.name.as_str())
            .to_owned()
    };
    assert!(named("step").count() == 4 && named("step").all(|s| parent(s) == "run"));
    assert!(named("case").all(|s| parent(s) == "step"));
    let cases: u64 = ["registry", "prepared"]
        .iter()
        .map(|step| registry.sql(&format!("SELECT count(*) FROM {step}")).parse::<u64>().unwrap())
        .sum();
    assert!(named("case").count() as u64 >= cases, "every case has a span");
    assert!(named("stage").all(|s| parent(s) == "case"));
    let stages: BTreeSet<String> =
        named("stage").filter_map(|s| attribute(&s.attributes, "stage")).collect();
    for stage in ["decode", "qc", "skull_strip", "n4", "normalize", "publish"] {
        assert!(stages.contains(stage), "{stage} is not in {stages:?}");
    }
    assert!(named("case").all(|s| s.end_time_unix_nano >= s.start_time_unix_nano));
    let failed: Vec<_> =
        named("case").filter(|s| attribute(&s.attributes, "fault").is_some()).collect();
    assert!(!failed.is_empty());
    assert!(failed.iter().all(|s| s.status.as_ref().is_some_and(|status| status.code == 2)));

    let mut metrics = BTreeSet::new();
    for (_, _, body) in of("/v1/metrics") {
        for group in ExportMetricsServiceRequest::decode(body.as_slice()).unwrap().resource_metrics
        {
            metrics.extend(group.scope_metrics.into_iter().flat_map(|s| s.metrics).map(|m| m.name));
        }
    }
    for name in [
        "torcula.cases",
        "torcula.stage.busy",
        "torcula.read",
        "torcula.budget.used",
        "torcula.memory.wait",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics:?}");
    }
    let bodies: Vec<u8> = received.iter().flat_map(|(_, _, body)| body.clone()).collect();
    for reason in registry.sql("SELECT reason FROM failures").lines() {
        let reason = reason.trim_matches('"').as_bytes();
        assert!(!bodies.windows(reason.len()).any(|w| w == reason), "a reason left the house");
    }
}

#[test]
fn a_collector_that_cannot_be_reached_is_told_once_and_changes_nothing() {
    // One that refuses, and one that accepts and never answers.
    let closed = {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://user:hush@{}", server.local_addr().unwrap())
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let never = format!("http://{}", silent.local_addr().unwrap());
    for address in [closed, never] {
        let registry = Registry::synth(4, &[]);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
            // Were the end of the run to wait for it, the test would never end.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        let output = run_with(&registry, &variables);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let said = text(&output);
        assert_eq!(said.matches("OpenTelemetry collector").count(), 1, "{said}");
        assert!(!said.contains("hush"), "{said}");
        assert_eq!(registry.sql("SELECT count(*) FROM prepared"), "4");
    }
}

/// A strict reader of the text format: every sample follows the description of its metric, once a set of labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut described: BTreeMap<String, String> = BTreeMap::new();
    let name_ok = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(name_ok(name) && !words.is_empty(), "{line}");
            assert!(described.insert(name.to_owned(), String::new()).is_none(), "twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let described = described.get_mut(name).expect("a description first");
            kind.clone_into(described);
        } else {
            let (name, rest) = line.split_once('{').expect("labels");
            assert!(!described[name].is_empty(), "a type first: {line}");
            assert_eq!(described.keys().filter(|k| *k == name).count(), 1);
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            for label in labels.split("\",") {
                let (label, quoted) = label.split_once("=\"").unwrap();
                assert!(name_ok(label) && !quoted.is_empty(), "{line}");
            }
            let number: f64 = value.parse().unwrap();
            assert!(number.is_finite() && number >= 0.0, "{line}");
            assert!(samples.insert(line.rsplit_once(' ').unwrap().0.to_owned(), number).is_none());
        }
    }
    samples
}

#[test]
fn the_textfile_counts_what_the_catalog_counts() {
    let registry = Registry::synth(10, &["--broken", "0.3"]);
    let file: PathBuf = registry.path().join("torcula.prom");
    let args = ["--metrics", file.to_str().unwrap()];
    registry.run(&args);
    let prom = std::fs::read_to_string(&file).unwrap();
    let found = parse(&prom);
    let of = |name: &str, labels: &str| found[&format!("{name}{{pipeline=\"prepare\"{labels}}}")];
    let count = |query: &str| registry.sql(query).parse::<f64>().unwrap();
    let done = of("torcula_cases_total", ",step=\"prepared\",outcome=\"done\"");
    assert!((done - count("SELECT count(*) FROM prepared")).abs() < 0.5, "{done}");
    let failed = of("torcula_cases_total", ",step=\"prepared\",outcome=\"failed\"");
    let failures = count("SELECT count(DISTINCT case_id) FROM failures WHERE step = 'prepared'");
    assert!((failed - failures).abs() < 0.5, "{failed} of {failures}");
    let n4 = of("torcula_stage_cases_total", ",step=\"prepared\",stage=\"n4\",outcome=\"done\"");
    assert!((n4 - done).abs() < 0.5, "what passed QC passed N4");
    assert!(of("torcula_stage_busy_seconds_total", ",step=\"prepared\",stage=\"n4\"") > 0.0);
    assert!(of("torcula_written_bytes_total", ",step=\"prepared\"") > 0.0);
    assert!(of("torcula_read_bytes_total", ",step=\"prepared\"") > 0.0);
    assert!(of("torcula_budget_bytes", "") > 0.0 && of("torcula_budget_used_bytes", "") < 0.5);
    assert!(of("torcula_queue", ",step=\"prepared\"") < 0.5);
    assert!(of("torcula_run_exit_code", "") < 0.5);
    assert!(of("torcula_last_success_lag_seconds", "") < 600.0);
    let table = include_str!("../../src/watch/metrics.md");
    for line in prom.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(table.contains(&format!("| `{name}` |")), "{name} is not documented");
    }

    // Prometheus's own parser agrees.
    if let Some(python) = std::env::var_os("TORCULA_PYTHON") {
        let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as p\n\
            print(sum(len(f.samples) for f in p(open(sys.argv[1]).read())))";
        let output = Command::new(python).args(["-c", script]).arg(&file).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            found.len().to_string(),
            "{}",
            text(&output)
        );
    } else {
        println!("skipped Prometheus's parser: TORCULA_PYTHON is not set");
    }

    // The next run finds everything done.
    registry.run(&args);
    let found = parse(&std::fs::read_to_string(&file).unwrap());
    let unchanged =
        "torcula_cases_total{pipeline=\"prepare\",step=\"prepared\",outcome=\"unchanged\"}";
    assert!((found[unchanged] - done).abs() < 0.5);
}

#[test]
fn a_run_at_work_is_seen_by_status_and_served_to_prometheus() {
    // More than a machine does between two heartbeats.
    let registry = Registry::synth(1500, &[]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut run = Running::start(&registry, &["--jobs", "1", "--metrics-listen", &address]);
    let scraped = run.until("its metrics", || {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");
        let at_work = "outcome=\"done\"} 1\n";
        body.contains(at_work)
            .then(|| body.to_owned())
            .or_else(|| body.contains("torcula_queue").then(|| body.to_owned()))
    });
    let found = parse(&scraped);
    assert!(
        found.iter().any(|(name, value)| name.starts_with("torcula_run_active{") && *value > 0.5)
    );
    let seen = run.until("a status", || {
        let found = status(&registry);
        (found["activity"] == "running").then_some(found)
    });
    assert_eq!(seen["holder"]["pid"], run.0.id());
    assert_eq!(seen["holder"]["what"], "run of prepare");
    assert!(seen["holder"]["command"].as_str().unwrap().contains("--jobs 1"), "{seen}");
    let id = seen["holder"]["run_id"].as_str().unwrap();
    run.until("the run among runs", || {
        runs(&registry).iter().any(|r| r["run_id"] == id && r["status"] == "running").then_some(())
    });
    // The heartbeat tells the step.
    run.until("a heartbeat", || {
        let found = status(&registry);
        let progress = &found["holder"]["progress"];
        (progress["todo"].as_u64()? > 0 && progress["step"].is_string()).then_some(())
    });
}

#[test]
fn a_killed_run_does_not_run_for_ever() {
    let registry = Registry::synth(300, &[]);
    let mut run = Running::start(&registry, &["--jobs", "1"]);
    let id = run.until("the lock", || {
        let found = status_if_there(&registry)?;
        found["holder"]["run_id"].as_str().map(str::to_owned)
    });
    run.until("its row", || {
        runs(&registry).iter().any(|r| r["run_id"] == id.as_str()).then_some(())
    });
    run.signal("-KILL");
    run.0.wait().unwrap();
    let seen = status(&registry);
    assert_eq!((&seen["activity"], &seen["holder"]), (&"idle".into(), &Value::Null));
    assert_eq!(seen["pipelines"][0]["last_status"], "killed");
    assert_eq!(runs(&registry)[0]["status"], "killed");
    let late = torcula(&["status", "--catalog", &catalog(&registry), "--max-lag", "26h"]);
    assert_eq!(late.status.code(), Some(1), "it never went well: {}", text(&late));

    // The next run takes the lock at once, and writes down what became of the one before.
    let output = registry.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    let rows = registry.sql("SELECT status, ended_at IS NOT NULL FROM runs ORDER BY run_id");
    assert_eq!(rows, "killed,true\ndone,true");
    let late = torcula(&["status", "--catalog", &catalog(&registry), "--max-lag", "26h"]);
    assert_eq!(late.status.code(), Some(0), "{}", text(&late));
    let told = runs(&registry);
    assert!(
        told[0]["cases_per_s"].as_f64().unwrap() > 0.0
            && told[0]["seconds"].as_f64().unwrap() > 0.0
    );
}

/// The status, where the catalog is there and whole already.
fn status_if_there(registry: &Registry) -> Option<Value> {
    let output = torcula(&["status", "--catalog", &catalog(registry), "--json"]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_stopped_holder_is_stuck_and_keeps_the_lock_until_it_is_ended() {
    let registry = Registry::synth(300, &[]);
    let mut run = Running::start(&registry, &["--jobs", "1"]);
    run.until("the lock", || {
        let found = status_if_there(&registry)?;
        (found["activity"] == "running").then_some(())
    });
    run.until("its row", || (!runs(&registry).is_empty()).then_some(()));
    run.signal("-STOP");
    // As after minutes: its last heartbeat is older.
    let lock = registry.path().join("catalog/.torcula.lock");
    let note = std::fs::read_to_string(&lock).unwrap();
    let mut holder: Value = serde_json::from_str(note.lines().next().unwrap()).unwrap();
    holder["beat_at"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(&lock, format!("{holder}\n")).unwrap();
    let output = torcula(&["status", "--catalog", &catalog(&registry), "--max-lag", "26h"]);
    let said = text(&output);
    let pid = run.0.id();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("STUCK: run of prepare") && said.contains(&format!("kill -9 {pid}")),
        "{said}"
    );
    let refused = registry.run(&[]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for part in [
        "is being written by run of prepare",
        &format!("process {pid}"),
        "does not answer",
        "kill -CONT",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    run.signal("-KILL");
    run.0.wait().unwrap();
    let next = registry.run(&[]);
    assert!(next.status.success(), "{}", text(&next));
}
