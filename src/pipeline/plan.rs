//! A checked pipeline, ready to run: names resolved, defaults filled in, steps in the order of their dependencies.

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::check::sql::relations;
use super::expect::Expectation;
use super::night_spec::{DifferenceParams, NotifySpec};
use super::phantom::PhantomParams;
use super::report_spec::ReportParams;
use super::spec::{
    FailureLimit, InferParams, IngestParams, Retention, ScoreParams, ShardParams, TrainStep,
};
use super::study_spec::{CohortParams, Membership, SplitParams};
use crate::engine::Slot;
use crate::error::{Error, Result};
use crate::stages::StageSpec;

/// A checked pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Folder or URI of the catalog, as given.
    pub catalog: PathBuf,
    /// Folder of the artifacts.
    pub artifacts: PathBuf,
    /// Time limit of one case in one step, in seconds; above 0.
    pub timeout_s: f64,
    /// How many cases may fail.
    pub on_failure: FailureLimit,
    /// What `torcula clean` keeps of superseded artifacts, where the file says so.
    pub retention: Option<Retention>,
    /// The steps: each stands after those that it depends on, otherwise in the order of the file.
    pub steps: Vec<Step>,
    /// Whom a run tells how it ended; no part of [`resolved`](Self::resolved), since it may hold an address with a secret.
    pub notify: Option<NotifySpec>,
    /// Checks of single stages.
    pub tests: Vec<StageTest>,
    /// BLAKE3 of [`resolved`](Self::resolved) with its keys sorted, in hexadecimal.
    pub hash: String,
    /// The pipeline with every variable replaced and every default filled in, without its tests. It is itself a
    /// pipeline file and stands for the same pipeline.
    pub resolved: Value,
}

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name, which is also its relation's.
    pub name: String,
    /// Where its cases come from.
    pub from: Source,
    /// What is done.
    pub action: Action,
    /// Seed of everything random in it.
    pub seed: u64,
    /// The relation that it is one part of.
    pub part_of: Option<Membership>,
    /// The steps that must be done before: sources, the model, and those that fill the catalog tables it queries.
    pub upstream: Vec<String>,
}

/// A relation that is made of several steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Union<'p> {
    /// Its name.
    pub name: &'p str,
    /// The steps, in their order.
    pub steps: Vec<&'p Step>,
}

impl<'p> Union<'p> {
    /// Names of the parameters that tell the steps apart.
    pub fn parameters(&self) -> Vec<&'p str> {
        let first = self.steps.first().and_then(|step| step.part_of.as_ref());
        first.into_iter().flat_map(|p| &p.values).map(|(name, _)| name.as_str()).collect()
    }
}

/// Where a step's cases come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: an ingest finds its cases itself.
    None,
    /// A query over the catalog's tables and steps.
    Sql {
        /// The query.
        query: String,
        /// The steps that it names.
        steps: Vec<String>,
    },
    /// A step, or one part of it.
    Step {
        /// The step.
        name: String,
        /// The part of the split that the step's cases come from.
        part: Option<String>,
    },
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Fills the table `cases`.
    Ingest(IngestParams),
    /// Selects cases.
    Cohort(CohortParams),
    /// Runs stages over cases.
    Stages(StagesAction),
    /// Draws a partition.
    Split(SplitParams),
    /// Trains a network.
    Train(Box<TrainStep>),
    /// Predicts with a network.
    Infer(InferParams),
    /// Compares with the truth.
    Score(ScoreParams),
    /// Tells how a scored step differs from an earlier night.
    Difference(DifferenceParams),
    /// Writes a report.
    Report(ReportParams),
}

/// Stages and what they end in.
#[derive(Debug, Clone, PartialEq)]
pub struct StagesAction {
    /// The stages in their order.
    pub stages: Vec<StageSpec>,
    /// Volumes to write as files; empty for shards.
    pub keep: Vec<Slot>,
    /// Files or shards.
    pub output: Output,
}

/// What the stages of a step end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// One file a volume and case.
    Files,
    /// Training samples.
    Shards(ShardParams),
}

/// A check of one stage on a synthetic head.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTest {
    /// What it shows.
    pub name: String,
    /// The stage.
    pub stage: StageSpec,
    /// The synthetic head.
    pub phantom: PhantomParams,
    /// What must hold afterwards.
    pub expect: Vec<Expectation>,
}

impl Action {
    /// The key of the action in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "ingest",
            Self::Cohort(_) => "cohort",
            Self::Stages(_) => "stages",
            Self::Split(_) => "split",
            Self::Train(_) => "train",
            Self::Infer(_) => "infer",
            Self::Score(_) => "score",
            Self::Difference(_) => "difference",
            Self::Report(_) => "report",
        }
    }

    /// Whether it tells of a run and hands on no cases. Such a step comes after everything else.
    pub fn tells(&self) -> bool {
        matches!(self, Self::Difference(_) | Self::Report(_))
    }
}

impl Pipeline {
    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|s| s.name == name)
    }

    /// The relations that are made of several steps, in the order of their first steps.
    pub fn unions(&self) -> Vec<Union<'_>> {
        let mut found: Vec<Union<'_>> = Vec::new();
        for step in &self.steps {
            let Some(part_of) = &step.part_of else { continue };
            match found.iter_mut().find(|union| union.name == part_of.name) {
                Some(union) => union.steps.push(step),
                None => found.push(Union { name: &part_of.name, steps: vec![step] }),
            }
        }
        found
    }

    /// The steps that must be done before `names` (steps, or relations of several steps), and those themselves, in their
    /// order. What is neither is left out.
    pub fn closure(&self, names: &[&str]) -> Vec<&Step> {
        self.closure_to(names, |_| false)
    }

    /// As [`closure`](Self::closure), without what only steps that are `settled` need.
    pub fn closure_to(&self, names: &[&str], settled: impl Fn(&Step) -> bool) -> Vec<&Step> {
        let named = |step: &Step| names.iter().any(|name| step.is_called(name));
        let mut needed: HashSet<&str> = HashSet::new();
        let mut found: Vec<&Step> = Vec::new();
        // A step stands after all that it needs: backwards, each is seen after everything that needs it.
        for step in self.steps.iter().rev() {
            if named(step) || needed.contains(step.name.as_str()) {
                if !settled(step) {
                    needed.extend(step.upstream.iter().map(String::as_str));
                }
                found.push(step);
            }
        }
        found.reverse();
        found
    }

    /// The stages that the images of a step have gone through since the files of the cases; those of a step that writes shards are
    /// not counted. None where that cannot be told: images come on several ways, or from the table of all artifacts.
    pub fn stages_of(&self, step: &Step) -> Option<Vec<StageSpec>> {
        let sources = match &step.from {
            Source::None => Vec::new(),
            Source::Step { name, .. } => vec![name.clone()],
            Source::Sql { query, .. } => relations(query).ok()?,
        };
        let mut ways = Vec::new();
        for source in &sources {
            match source.split('@').next().unwrap_or_default() {
                "artifacts" => return None,
                "cases" => ways.push(Vec::new()),
                name => {
                    for step in self.steps.iter().filter(|step| step.is_called(name)) {
                        ways.push(self.stages_of(step)?);
                    }
                }
            }
        }
        let mut stages = ways.pop().unwrap_or_default();
        if ways.iter().any(|way| *way != stages) {
            return None;
        }
        if let Action::Stages(StagesAction { stages: own, output: Output::Files, .. }) =
            &step.action
        {
            stages.extend(own.iter().cloned());
        }
        Some(stages)
    }

    /// Fills in [`resolved`](Self::resolved) and [`hash`](Self::hash).
    pub(super) fn seal(mut self) -> Result<Self> {
        let mut steps = Map::new();
        for step in &self.steps {
            steps.insert(step.name.clone(), step.to_file(self.seed)?);
        }
        let mut resolved = json!({
            "torcula": 1,
            "name": self.name,
            "seed": self.seed,
            "catalog": self.catalog,
            "artifacts": self.artifacts,
            "timeout_s": self.timeout_s,
            "on_failure": json_of(&self.on_failure)?,
            "steps": steps,
        });
        if let Some(retention) = &self.retention {
            resolved["retention"] = json_of(retention)?;
        }
        escape(&mut resolved);
        self.hash = blake3::hash(sorted(&resolved).to_string().as_bytes()).to_hex().to_string();
        self.resolved = resolved;
        Ok(self)
    }
}

impl Step {
    /// Whether a name is that of the step, or of the matrix that it belongs to.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.part_of.as_ref().is_some_and(|of| of.name == name)
    }

    /// The step as it would stand in a file of a pipeline with this seed.
    fn to_file(&self, seed: u64) -> Result<Value> {
        let mut out = Map::new();
        if let Some(part_of) = &self.part_of {
            let values: Map<String, Value> = part_of.values.iter().cloned().collect();
            out.insert("part_of".to_owned(), json!({ &part_of.name: values }));
        }
        if self.seed != seed {
            out.insert("seed".to_owned(), json!(self.seed));
        }
        match &self.from {
            Source::None => None,
            Source::Sql { query, .. } => out.insert("from".to_owned(), json!(query)),
            Source::Step { name, part: None } => out.insert("from".to_owned(), json!(name)),
            Source::Step { name, part: Some(part) } => {
                out.insert("from".to_owned(), json!({name: part}))
            }
        };
        let params = match &self.action {
            Action::Ingest(p) => json_of(p)?,
            Action::Cohort(p) => json_of(p)?,
            Action::Stages(p) => json_of(&p.stages)?,
            Action::Split(p) => json_of(p)?,
            Action::Train(p) => json_of(p)?,
            Action::Infer(p) => json_of(p)?,
            Action::Score(p) => json_of(p)?,
            Action::Difference(p) => json_of(p)?,
            Action::Report(p) => json_of(p)?,
        };
        out.insert(self.action.name().to_owned(), params);
        if let Action::Stages(action) = &self.action {
            match &action.output {
                Output::Files => out.insert("keep".to_owned(), json_of(&action.keep)?),
                Output::Shards(p) => out.insert("to".to_owned(), json!({"shards": json_of(p)?})),
            };
        }
        Ok(Value::Object(out))
    }
}

fn json_of(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::bug(format!("parameters are no JSON: {e}")))
}

/// Protects `${` so that the resolved pipeline, read again, means the same.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("${") => *text = text.replace("${", "$${"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

/// The same value with the keys of every mapping sorted, so that equal pipelines have equal text.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        other => other.clone(),
    }
}
