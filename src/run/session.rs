//! Sessions: the catalog's tables, and steps of a pipeline as relations beside them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{self, LogicalPlan, lit};
use datafusion::prelude::SessionContext;
use serde_json::Value;

use crate::catalog::{Catalog, SessionAt};
use crate::error::Result;
use crate::pipeline::{Pipeline, Step, Union};

use super::relations::{planning, relation, replace, without};

/// A session in which the tables and what the step `until` needs (all steps, where it is none) can be queried by name.
pub async fn until(
    catalog: &Catalog,
    pipeline: &Pipeline,
    until: Option<&str>,
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    match until.and_then(|name| pipeline.step(name)) {
        Some(step) => {
            let needed: Vec<&str> = step.upstream.iter().map(String::as_str).collect();
            // A model whose fingerprint is known is found without the samples that it is of.
            let settled = |step: &Step| memo.knows(&trained(&step.name));
            of_steps(catalog, pipeline, &pipeline.closure_to(&needed, settled), memo).await
        }
        None => of_steps(catalog, pipeline, &pipeline.steps.iter().collect::<Vec<_>>(), memo).await,
    }
}

/// A session for one query: the tables, and the steps that it names with what they need.
pub async fn for_query(
    catalog: &Catalog,
    pipeline: &Pipeline,
    query: &str,
) -> Result<SessionContext> {
    let lower = query.to_lowercase();
    // A name within another name does no harm but the time to plan it.
    let names = pipeline.steps.iter().flat_map(|step| {
        std::iter::once(step.name.as_str()).chain(step.part_of.as_ref().map(|p| p.name.as_str()))
    });
    let named: BTreeSet<&str> = names.filter(|name| lower.contains(name)).collect();
    let named: Vec<&str> = named.into_iter().collect();
    of_steps(catalog, pipeline, &pipeline.closure(&named), &Arc::default()).await
}

/// A session with the tables and these steps, each after what it needs.
pub async fn of_steps(
    catalog: &Catalog,
    pipeline: &Pipeline,
    steps: &[&Step],
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    over(catalog.session(SessionAt::Latest).await?, pipeline, steps, memo).await
}

/// As [`of_steps`], with the catalog as it was. Steps are read as this pipeline, of that time, makes them.
pub async fn of_the_past(
    catalog: &Catalog,
    at: SessionAt,
    pipeline: &Pipeline,
    steps: &[&Step],
) -> Result<SessionContext> {
    let memo = Arc::new(Memo::of_the_past());
    over(catalog.session(at).await?, pipeline, steps, &memo).await
}

async fn over(
    tables: SessionContext,
    pipeline: &Pipeline,
    steps: &[&Step],
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    let mut session = Growing::new(tables, pipeline, Arc::clone(memo));
    session.add(steps).await?;
    Ok(session.ctx)
}

/// A session to which steps are added as they are needed.
pub struct Growing<'p> {
    /// The session.
    pub ctx: SessionContext,
    pipeline: &'p Pipeline,
    unions: Vec<Union<'p>>,
    there: HashSet<String>,
}

impl<'p> Growing<'p> {
    /// Over the tables of a session.
    pub fn new(ctx: SessionContext, pipeline: &'p Pipeline, memo: Arc<Memo>) -> Self {
        ctx.state_ref().write().config_mut().set_extension(memo);
        Self { ctx, pipeline, unions: pipeline.unions(), there: HashSet::new() }
    }

    /// Adds the relations of these steps, each after what it needs, and of the matrices that are complete with them.
    pub async fn add(&mut self, steps: &[&Step]) -> Result<()> {
        for step in steps {
            if self.there.contains(&step.name) {
                continue;
            }
            if let Some(found) = relation(&self.ctx, self.pipeline, step).await? {
                replace(&self.ctx, &step.name, found)?;
                self.there.insert(step.name.clone());
            }
            let Some(part_of) = &step.part_of else { continue };
            let complete = |u: &&Union<'_>| {
                u.name == part_of.name && u.steps.iter().all(|s| self.there.contains(&s.name))
            };
            if let Some(union) = self.unions.iter().find(complete) {
                replace(&self.ctx, union.name, united(&self.ctx, union).await?)?;
            }
        }
        Ok(())
    }
}

/// Fingerprints of splits and trainings, each worked out once. Sessions that follow each other in a run share them: a step is
/// asked for its fingerprint after all that it depends on is done.
#[derive(Debug, Default)]
pub struct Memo {
    known: Mutex<HashMap<String, String>>,
    past: bool,
}

impl Memo {
    /// For sessions that read the catalog as it was: what lies outside of it, such as a model's file, may be another by now.
    pub fn of_the_past() -> Self {
        Self { past: true, ..Self::default() }
    }

    fn of(ctx: &SessionContext) -> Option<Arc<Self>> {
        ctx.state_ref().read().config().get_extension()
    }

    fn knows(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set(&self, name: String, text: String) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, text);
    }
}

/// Whether a session reads the catalog as it was.
pub fn is_past(ctx: &SessionContext) -> bool {
    Memo::of(ctx).is_some_and(|memo| memo.past)
}

/// Under what name a training's fingerprint is known.
pub fn trained(step: &str) -> String {
    format!("train {step}")
}

/// The text of that name, made where the session does not know it.
pub async fn once(
    ctx: &SessionContext,
    name: String,
    make: impl Future<Output = Result<String>>,
) -> Result<String> {
    let memo = Memo::of(ctx);
    if let Some(found) = memo.as_ref().and_then(|memo| memo.get(&name)) {
        return Ok(found);
    }
    let made = make.await?;
    if let Some(memo) = memo {
        memo.set(name, made.clone());
    }
    Ok(made)
}

/// The relation of all steps of a matrix, with a column a parameter. What one of them lacks is null.
async fn united(ctx: &SessionContext, union: &Union<'_>) -> Result<DataFrame> {
    let mut inputs = Vec::new();
    let parameters = union.parameters();
    let values = |name: &str| {
        let of =
            |step: &&Step| step.part_of.iter().flat_map(|p| p.values.clone()).collect::<Vec<_>>();
        let all = union.steps.iter().flat_map(of);
        all.filter(|(n, _)| n == name).map(|(_, value)| value).collect::<Vec<Value>>()
    };
    let kinds: HashMap<&str, bool> = parameters
        .iter()
        .map(|name| (*name, values(name).iter().all(|v| whole(v).is_some())))
        .collect();
    for step in &union.steps {
        let frame = ctx.table(TableReference::bare(step.name.as_str())).await.map_err(planning)?;
        let mut frame = without(frame, &parameters)?;
        for (name, value) in step.part_of.iter().flat_map(|p| &p.values) {
            let value = match (value, kinds.get(name.as_str())) {
                (value, Some(true)) => lit(whole(value).unwrap_or_default()),
                (Value::Number(number), _) if values(name).iter().all(Value::is_number) => {
                    lit(number.as_f64().unwrap_or_default())
                }
                (Value::String(text), _) => lit(text.as_str()),
                (other, _) => lit(other.to_string()),
            };
            frame = frame.with_column(name, value).map_err(planning)?;
        }
        inputs.push(Arc::new(frame.into_unoptimized_plan()));
    }
    let plan = LogicalPlan::Union(logical_expr::Union::try_new_by_name(inputs).map_err(planning)?);
    Ok(DataFrame::new(ctx.state(), plan))
}

/// A whole number.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}
