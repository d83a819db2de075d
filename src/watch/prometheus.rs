//! Metrics in Prometheus's text format: a file for node-exporter, and a small HTTP server.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::metric::{Kind, METRICS, Sample};
use super::{Live, refuse};
use crate::error::Result;

/// How often the server looks whether the run has ended.
const POLL: Duration = Duration::from_millis(100);
/// Longest request line that is read, and how long it may take.
const LONGEST_LINE: u64 = 8 * 1024;
const SLOWEST: Duration = Duration::from_secs(2);

pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces a file in one step, so that node-exporter never reads half of it. The temporary file does not end in `.prom`.
pub(super) fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder_of(path).join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)).map_err(|e| {
        refuse(
            "--metrics-listen",
            format!("{address}: {e}"),
            "give another port, or end what listens there",
        )
    })
}

pub(super) fn serve(server: &TcpListener, live: &Live, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(POLL) {
        while let Ok((stream, _)) = server.accept() {
            // A client that goes away, or never asks, is no matter.
            let _ = answer(stream, live);
        }
    }
}

fn answer(mut stream: TcpStream, live: &Live) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SLOWEST))?;
    stream.set_write_timeout(Some(SLOWEST))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(LONGEST_LINE));
    let mut request = String::new();
    lines.read_line(&mut request)?;
    // The headers are read to their end, so that closing the connection does not reset it.
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics" | "/")) => ("200 OK", render(live)),
        _ => ("404 Not Found", "the metrics are at /metrics\n".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// A run's numbers in the text format, version 0.0.4.
pub fn render(live: &Live) -> String {
    text(&live.identity().pipeline, &live.samples())
}

fn text(pipeline: &str, samples: &[Sample]) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let mut own = samples.iter().filter(|s| s.metric == *metric).peekable();
        if own.peek().is_none() {
            continue;
        }
        let name = metric.prometheus();
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        text.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help));
        for sample in own {
            text.push_str(&format!("{name}{{pipeline=\"{}\"", escaped(pipeline)));
            for (label, value) in metric.labels.iter().zip(&sample.labels) {
                text.push_str(&format!(",{label}=\"{}\"", escaped(value)));
            }
            text.push_str(&format!("}} {}\n", sample.value));
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::super::metric;
    use super::*;
    use crate::engine::{Budget, Silent, Stop};
    use crate::watch::live::Identity;

    pub(in crate::watch) fn live() -> Arc<Live> {
        let identity = Identity { pipeline: "night".to_owned(), ..Identity::default() };
        let budget = Budget::new(1 << 20, 1 << 20);
        Arc::new(Live::new(identity, 1, budget, Stop::default(), Arc::new(Silent)))
    }

    #[test]
    fn labels_are_escaped_and_a_metric_is_described_once() {
        let sample = |step: &str, value| Sample {
            metric: &metric::READ,
            labels: vec![step.to_owned()],
            value,
        };
        let text = text("a\"b", &[sample("x\\y", 3.0), sample("two\nlines", 0.5)]);
        let expected = "# HELP torcula_read_bytes_total Input files, as they lie on disk\n\
            # TYPE torcula_read_bytes_total counter\n\
            torcula_read_bytes_total{pipeline=\"a\\\"b\",step=\"x\\\\y\"} 3\n\
            torcula_read_bytes_total{pipeline=\"a\\\"b\",step=\"two\\nlines\"} 0.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_server_answers_and_a_silent_client_does_not_stop_it() {
        let server = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.local_addr().unwrap();
        let (stop, stopped) = channel();
        let serving = std::thread::spawn(move || serve(&server, &live(), &stopped));
        let silent = TcpStream::connect(address).unwrap();
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let found = ask("/metrics");
        assert!(found.starts_with("HTTP/1.1 200 OK\r\n") && found.contains("torcula_run_active"));
        assert!(ask("/elsewhere").starts_with("HTTP/1.1 404"));
        let taken = listen(address).unwrap_err();
        assert!(taken.reason().contains(&address.to_string()), "{taken}");
        drop((stop, silent));
        serving.join().unwrap();
    }
}
