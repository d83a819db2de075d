//! Statistics: `statistics`, a list of calls with their values, and what each gives.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use torcula::study::statistics::{
    self as ours, Bootstrap, Categories, Continuity, Group, Level, Method, Outcome, Quantiles,
    Table,
};

use crate::common;

#[derive(Deserialize)]
struct Parameters {
    calls: Vec<Call>,
}

/// One call: which test, and what it is given.
#[derive(Deserialize)]
struct Call {
    test: String,
    #[serde(default)]
    values: Vec<Vec<Option<f64>>>,
    #[serde(default)]
    names: Vec<Vec<Option<String>>>,
    #[serde(default)]
    counts: Vec<Vec<u64>>,
    #[serde(default = "usual")]
    level: f64,
    #[serde(default)]
    definition: String,
    #[serde(default)]
    x: f64,
}

fn usual() -> f64 {
    Level::P95.share()
}

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if kernel != "statistics" {
        return None;
    }
    let Parameters { calls } = common::parameters(folder);
    let (found, time) =
        common::measure(repeats, || calls.iter().map(answer).collect::<Vec<Value>>());
    common::write_numbers(folder, &Value::Array(found));
    Some(time)
}

fn answer(call: &Call) -> Value {
    let level = Level::new(call.level).unwrap();
    let groups: Vec<Group> = call.values.iter().map(|v| Group::new("", v)).collect();
    let values = |i: usize| &call.values[i][..];
    match &call.test[..] {
        "describe" => json!(ours::describe_by(values(0), definition(&call.definition))),
        "mean_interval" => json!(ours::mean_interval(values(0), level)),
        "anova" => json!(ours::anova(&groups)),
        "kruskal_wallis" => json!(ours::kruskal_wallis(&groups)),
        "student_t" => json!(ours::student_t(&groups[0], &groups[1], level)),
        "welch_t" => json!(ours::welch_t(&groups[0], &groups[1], level)),
        "mann_whitney" => json!(ours::mann_whitney(&groups[0], &groups[1])),
        "paired_t" => json!(ours::paired_t(values(0), values(1), level)),
        "wilcoxon" => json!(ours::wilcoxon(values(0), values(1))),
        "bland_altman" => json!(ours::bland_altman(values(0), values(1), Level::P95, level)),
        "difference" => json!(ours::difference(&groups[0], &groups[1])),
        "holm" => json!(ours::holm(values(0))),
        "regress" => line(call, level),
        "bootstrap" => resampled(call, level),
        _ => categorical(call),
    }
}

fn definition(name: &str) -> Quantiles {
    match name {
        "median_unbiased" => Quantiles::MedianUnbiased,
        "weibull" => Quantiles::Weibull,
        _ => Quantiles::Linear,
    }
}

fn line(call: &Call, level: Level) -> Value {
    let found = ours::regress(&call.values[0], &call.values[1], level);
    let at = found.result.as_ref().ok().map(|line| line.at(call.x));
    let mut found = json!(found);
    found["at"] = json!(at);
    found
}

fn resampled(call: &Call, level: Level) -> Value {
    let method = if call.definition == "bca" { Method::Bca } else { Method::Percentile };
    let options = Bootstrap { method, resamples: 999, seed: 7, labels: &["peers"] };
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let found: Outcome<_> = ours::bootstrap(&call.values[0], mean, level, &options);
    let distribution = found.result.as_ref().map(|e| e.distribution.clone()).unwrap_or_default();
    let mut found = json!(found);
    found["distribution"] = json!(distribution);
    found
}

fn categorical(call: &Call) -> Value {
    let counts: Vec<&[u64]> = call.counts.iter().map(|row| &row[..]).collect();
    let table = Table::from_counts(&counts);
    let names: Vec<Vec<Option<&str>>> =
        call.names.iter().map(|group| group.iter().map(|n| n.as_deref()).collect()).collect();
    let groups: Vec<Categories> = names.iter().map(|n| Categories::new("", n)).collect();
    match &call.test[..] {
        "chi_square" => json!(ours::chi_square(&table, Continuity::None)),
        "chi_square_yates" => json!(ours::chi_square(&table, Continuity::Yates)),
        "fisher" => json!(ours::fisher(&table)),
        "difference_categorical" => json!(ours::difference_categorical(&groups[0], &groups[1])),
        other => panic!("no test {other}"),
    }
}
