//! Spans and metrics to an OpenTelemetry collector: OTLP over HTTP with protobuf.
//!
//! Off, unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or the one of a signal, as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set or an
//! address is given. The other standard variables hold too: `OTEL_SERVICE_NAME` (else `torcula`),
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_*`,
//! `OTEL_METRIC_EXPORT_INTERVAL` (60 s), `OTEL_TRACES_EXPORTER=none`, `OTEL_METRICS_EXPORTER=none`, `OTEL_SDK_DISABLED`.
//!
//! Threads of their own send; a full queue drops spans instead of waiting. A collector that does not answer is told once, left
//! alone for a minute, and tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use super::metric::{Kind, METRICS};
use super::{Live, Tell, refuse};
use crate::error::{Error, Result};

/// How long a collector that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(60);
/// How long the end of a run waits for the last spans and metrics to be taken.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How long a collector may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` (ms) says otherwise: the standard's default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The name of the instrumentation.
const SCOPE: &str = "torcula";

/// A collector, and the spans on their way to it.
#[derive(Debug, Clone)]
pub struct Collector {
    endpoint: Option<String>,
    gate: Arc<Gate>,
    client: reqwest::blocking::Client,
    tracer: Option<SdkTracerProvider>,
    metrics: bool,
}

impl Collector {
    /// The collector at `endpoint`, or the one that the environment names; none where neither does.
    ///
    /// # Errors
    /// A configuration error where the address is none.
    pub fn of(endpoint: Option<&str>, tell: &Tell) -> Result<Option<Self>> {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let is = |name: &str, value: &str| set(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let general = endpoint.map(str::to_owned).or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let wanted = |signal: &str| {
            let own = set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
            (general.is_some() || own.is_some()) && !is(&format!("OTEL_{signal}_EXPORTER"), "none")
        };
        let (traces, metrics) = (wanted("TRACES"), wanted("METRICS"));
        if is("OTEL_SDK_DISABLED", "true") || !(traces || metrics) {
            return Ok(None);
        }
        let own = ["TRACES", "METRICS"].map(|s| set(&format!("OTEL_EXPORTER_OTLP_{s}_ENDPOINT")));
        let addresses: Vec<String> = general.into_iter().chain(own.into_iter().flatten()).collect();
        let shown = addresses.first().cloned().unwrap_or_default();
        let encrypted = !addresses.iter().all(|address| address.starts_with("http://"));
        let gate = Arc::new(Gate::new(&shown, Arc::clone(tell)));
        let endpoint = endpoint.map(str::to_owned);
        let client = client(encrypted)?;
        let mut collector = Self { endpoint, gate, client, tracer: None, metrics };
        if traces {
            let exporter = collector.configured(SpanExporter::builder().with_http(), "traces");
            let exporter = exporter.build().map_err(|e| collector.refused(&e))?;
            let exporter = Patient { inner: exporter, gate: Arc::clone(&collector.gate) };
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
            collector.tracer = Some(provider.with_resource(resource()).build());
        }
        if metrics {
            // Built later, once there is a run; an address that is none is told before it.
            let exporter = collector.configured(MetricExporter::builder().with_http(), "metrics");
            exporter.build().map_err(|e| collector.refused(&e))?;
        }
        Ok(Some(collector))
    }

    /// The layer that makes spans of the program's spans, down to a level.
    pub(super) fn traces<S>(&self, level: LevelFilter) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.tracer.as_ref()?.tracer(SCOPE);
        let layer: OpenTelemetryLayer<S, SdkTracer> = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        let own = FilterFn::new(move |metadata| {
            metadata.is_span() && *metadata.level() <= level && metadata.target().starts_with(SCOPE)
        });
        Some(layer.with_filter(own.with_max_level_hint(level)))
    }

    /// Starts sending a run's metrics.
    pub(super) fn meters(&self, live: &Arc<Live>) -> Option<Meters> {
        if !self.metrics {
            return None;
        }
        let exporter = self.configured(MetricExporter::builder().with_http(), "metrics");
        // It was built before, from the same words.
        let exporter = exporter.build().ok()?;
        let exporter = Patient { inner: exporter, gate: Arc::clone(&self.gate) };
        let reader = PeriodicReader::builder(exporter).build();
        let provider =
            SdkMeterProvider::builder().with_reader(reader).with_resource(resource()).build();
        let meter = provider.meter(SCOPE);
        for metric in METRICS {
            let live = Arc::clone(live);
            let observe = move |observer: &dyn AsyncInstrument<f64>| {
                for sample in live.samples().iter().filter(|s| s.metric == *metric) {
                    let pipeline = KeyValue::new("pipeline", live.identity().pipeline.clone());
                    let labels = metric.labels.iter().zip(&sample.labels);
                    let labels = labels.map(|(name, value)| KeyValue::new(*name, value.clone()));
                    let labels: Vec<_> = labels.chain([pipeline]).collect();
                    observer.observe(sample.value, &labels);
                }
            };
            match metric.kind {
                Kind::Counter => drop(
                    meter
                        .f64_observable_counter(metric.name)
                        .with_unit(metric.unit)
                        .with_description(metric.help)
                        .with_callback(observe)
                        .build(),
                ),
                Kind::Gauge => drop(
                    meter
                        .f64_observable_gauge(metric.name)
                        .with_unit(metric.unit)
                        .with_description(metric.help)
                        .with_callback(observe)
                        .build(),
                ),
            }
        }
        Some(Meters { provider, gate: Arc::clone(&self.gate) })
    }

    /// Sends the spans that are left.
    pub(super) fn finish(self) {
        if let Some(tracer) = self.tracer {
            self.gate.last(move || tracer.shutdown());
        }
    }

    fn configured<B: WithExportConfig + WithHttpConfig>(&self, builder: B, signal: &str) -> B {
        let builder = builder
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(self.client.clone())
            .with_retry_policy(RetryPolicy::disabled());
        match &self.endpoint {
            Some(endpoint) => {
                builder.with_endpoint(format!("{}/v1/{signal}", endpoint.trim_end_matches('/')))
            }
            None => builder,
        }
    }

    fn refused(&self, error: &dyn std::error::Error) -> Error {
        // The error quotes the address, which may hold a password.
        let why = if self.gate.secret { String::new() } else { format!(": {error}") };
        refuse(
            "the OpenTelemetry collector",
            format!("{}{why}", self.gate.shown),
            "write it like http://localhost:4318",
        )
    }
}

/// The client of both signals. Must not be made on a thread of an asynchronous runtime.
fn client(encrypted: bool) -> Result<reqwest::blocking::Client> {
    let milliseconds = std::env::var("OTEL_EXPORTER_OTLP_TIMEOUT").ok();
    let timeout = milliseconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
    let mut client = reqwest::blocking::Client::builder().timeout(timeout.unwrap_or(TIMEOUT));
    if !encrypted {
        // Reading the system's certificates would be most of what a short run pays for being watched.
        client = client.tls_certs_only([]);
    }
    client.build().map_err(|e| Error::resource(format!("no client for OpenTelemetry: {e}")))
}

/// The metrics of a run, on their way to a collector.
#[derive(Debug)]
pub(super) struct Meters {
    provider: SdkMeterProvider,
    gate: Arc<Gate>,
}

impl Meters {
    /// Sends the last numbers.
    pub(super) fn finish(self) {
        self.gate.last(move || self.provider.shutdown());
    }
}

fn resource() -> Resource {
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match std::env::var_os("OTEL_SERVICE_NAME").is_some() {
        true => builder.build(),
        false => builder.with_service_name(SCOPE).build(),
    }
}

/// Whether the collector is worth a try, and who has been told that it is not.
struct Gate {
    /// The address as it may be shown.
    shown: String,
    /// Whether the address held a name or password.
    secret: bool,
    told: AtomicBool,
    failed_at: Mutex<Option<Instant>>,
    tell: Tell,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Gate {
    fn new(endpoint: &str, tell: Tell) -> Self {
        let shown = endpoint.parse::<url::Url>().ok().map(|url| {
            let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        });
        Self {
            secret: endpoint.contains('@') || endpoint.contains('?'),
            shown: shown.unwrap_or_default(),
            told: AtomicBool::new(false),
            failed_at: Mutex::new(None),
            tell,
        }
    }

    fn is_open(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_none_or(|at| at.elapsed() > PAUSE)
    }

    fn hear(&self, result: &OTelSdkResult) {
        match result {
            Ok(()) => *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Err(_) if self.secret => self.close("no answer"),
            Err(error) => self.close(&error.to_string()),
        }
    }

    /// Leaves the collector alone for a while; says so the first time.
    fn close(&self, why: &str) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !self.told.swap(true, Ordering::SeqCst) {
            (self.tell)(&format!(
                "the OpenTelemetry collector {} does not take spans and metrics ({why}); the run goes on without",
                self.shown
            ));
        }
    }

    /// The last sending of a signal, which may take [`LAST_WAIT`], or no time where the collector does not answer anyway.
    fn last(&self, send: impl FnOnce() -> OTelSdkResult + Send + 'static) {
        let (done, ended) = channel();
        // The thread is left behind where it takes longer.
        let sending = std::thread::Builder::new().spawn(move || {
            drop(send());
            let _ = done.send(());
        });
        if sending.is_ok() && self.is_open() && ended.recv_timeout(LAST_WAIT).is_err() {
            self.close(&format!("no answer within {} s", LAST_WAIT.as_secs()));
        }
    }
}

/// An exporter that leaves a collector alone for a while when it did not answer.
#[derive(Debug)]
struct Patient<E> {
    inner: E,
    gate: Arc<Gate>,
}

impl opentelemetry_sdk::trace::SpanExporter for Patient<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if !self.gate.is_open() {
            return Ok(());
        }
        let result = self.inner.export(batch).await;
        self.gate.hear(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl PushMetricExporter for Patient<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if !self.gate.is_open() {
            return Ok(());
        }
        let result = self.inner.export(metrics).await;
        self.gate.hear(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
