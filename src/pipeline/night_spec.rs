//! What a nightly job tells: how a scored step differs from an earlier night, and whom a run notifies.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exhibit_spec::StratumSpec;
use crate::catalog::Timestamp;

/// Compares a scored step with what it was on an earlier night, and writes an HTML and a JSON report: new, changed, removed and
/// failed cases, shifts of the scores, cases whose DSC moved, and alarms. Without an earlier night, the report says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DifferenceParams {
    /// The HTML file to write.
    pub html: PathBuf,
    /// The JSON file to write. Default: beside the HTML file, with the ending `.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<PathBuf>,
    /// Title of the report. Default: the pipeline's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The earlier night: `last` (the last run of this pipeline that was done, the default), `first`, a version of the table
    /// `cases`, or a moment (`2026-01-31T04:00:00Z`).
    #[serde(default)]
    pub against: Against,
    /// The night that input data are compared with for drift, in the same words. Default: `first`, so that a slow drift adds up.
    #[serde(default = "first")]
    pub baseline: Against,
    /// Variables by which shifts of the scores are told.
    #[serde(default = "default_strata")]
    pub strata: Vec<StratumSpec>,
    /// A case whose DSC moved by more is listed and shown.
    #[serde(default = "default_dsc_moved")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dsc_moved: f64,
    /// Moved cases that are shown before and after, those that moved most.
    #[serde(default = "default_pictures")]
    #[schemars(range(min = 0, max = 100))]
    pub pictures: usize,
    /// Numbers that are watched for drift: columns of `cases`, or of `quality` where a step has a stage `qc`.
    #[serde(default = "default_drift")]
    pub drift: Vec<String>,
    /// Resamples of every bootstrap interval.
    #[serde(default = "default_resamples")]
    #[schemars(range(min = 100, max = 100_000))]
    pub resamples: usize,
    /// What raises an alarm.
    #[serde(default)]
    pub alarms: AlarmParams,
}

fn first() -> Against {
    Against::Text("first".to_owned())
}

fn default_strata() -> Vec<StratumSpec> {
    ["centre", "vendor", "volume_ml"].map(|name| StratumSpec::Name(name.to_owned())).into()
}

fn default_dsc_moved() -> f64 {
    0.05
}

fn default_pictures() -> usize {
    12
}

fn default_drift() -> Vec<String> {
    let names =
        ["snr", "noise_sigma", "efc", "cjv", "intensity_max", "spacing_x_mm", "spacing_z_mm"];
    names.map(str::to_owned).into()
}

fn default_resamples() -> usize {
    2000
}

impl DifferenceParams {
    /// The JSON file.
    pub fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| self.html.with_extension("json"))
    }
}

/// What raises an alarm. With one, the run ends with exit code 4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmParams {
    /// Shift of the mean DSC, in all cases or a group of at least `least_cases`, whose 95 % interval excludes 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dsc_shift: f64,
    /// Standardised mean difference of a watched number from the baseline night: of all cases, or of those that are new since.
    #[schemars(range(min = 0.0))]
    pub drift: f64,
    /// Fewest cases of a group, or of new cases, that may raise an alarm.
    #[schemars(range(min = 2))]
    pub least_cases: usize,
    /// Share of the earlier night's scored cases that are removed since.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub removed_share: f64,
    /// Share of the earlier night's scored cases that fail since.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failed_share: f64,
    /// Whether an alarm ends the run with exit code 4; without it, alarms are only told.
    pub exit_code: bool,
}

impl Default for AlarmParams {
    fn default() -> Self {
        Self {
            dsc_shift: 0.02,
            drift: 0.25,
            least_cases: 10,
            removed_share: 0.05,
            failed_share: 0.05,
            exit_code: true,
        }
    }
}

/// An earlier night: `last`, `first`, a version of the table `cases`, or a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Against {
    /// A version of the table `cases`.
    Version(u64),
    /// `last`, `first`, or a moment.
    Text(String),
}

impl Default for Against {
    fn default() -> Self {
        Self::Text("last".to_owned())
    }
}

/// What an [`Against`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NightAt {
    /// The last run that was done.
    Last,
    /// The first run that was done.
    First,
    /// A version of the table `cases`.
    Version(i64),
    /// A moment.
    Moment(Timestamp),
}

impl Against {
    /// The night that is meant; none where the text is neither a word nor a moment.
    pub fn night(&self) -> Option<NightAt> {
        Some(match self {
            Self::Version(version) => NightAt::Version(i64::try_from(*version).ok()?),
            Self::Text(text) => match text.trim() {
                "last" => NightAt::Last,
                "first" => NightAt::First,
                other => NightAt::Moment(other.parse().ok()?),
            },
        })
    }
}

/// Tells people how a run ended: runs a command, or posts JSON to a webhook. It is no part of the pipeline's hash, and is not
/// stored in the catalog. What cannot be delivered is a warning; the run is as good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifySpec {
    /// When.
    #[serde(default)]
    pub when: NotifyWhen,
    /// A program and its arguments, run without a shell. `{summary}` in an argument is the summary line; the message is on
    /// standard input as JSON, and TORCULA_SUMMARY, TORCULA_STATUS, TORCULA_EXIT_CODE, TORCULA_RUN_ID, TORCULA_REPORT are set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// A web address that takes the message as JSON; `text` in it is the summary line, as chat programs want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSpec>,
    /// Time limit of the command, and of each attempt to post, in seconds.
    #[serde(default = "default_notify_timeout_s")]
    #[schemars(range(min = 0.1, max = 3600.0))]
    pub timeout_s: f64,
    /// How often a post that failed is tried again.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 20))]
    pub retries: u32,
}

fn default_notify_timeout_s() -> f64 {
    30.0
}

fn default_retries() -> u32 {
    3
}

/// When people are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotifyWhen {
    /// After every run.
    #[default]
    Always,
    /// When anything was done, removed or failed, an alarm was raised, or the run did not end well.
    News,
    /// When an alarm was raised or the run did not end well.
    Trouble,
}

/// A web address; its secrets come from the environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// The address (https or http). One with a secret in it belongs into `url_env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The environment variable that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// The environment variable that holds a token, sent as `Authorization: Bearer TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

/// An address may hold a secret.
impl std::fmt::Debug for WebhookSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSpec")
            .field("url", &self.url.as_ref().map(|_| "…"))
            .field("url_env", &self.url_env)
            .field("token_env", &self.token_env)
            .finish()
    }
}
