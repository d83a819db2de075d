//! `matrix:` — one step in the file becomes one step for every combination of its parameters' values.
//!
//! That happens while variables are replaced, on the tree: inside of such a step `${n}` is the value of its parameter `n`,
//! and the places of everything stay those of the file. `unet` with `matrix: { n: [50, 100], seed: [1] }` becomes
//! `unet_n50_seed1` and `unet_n100_seed1`; a word stands in the name as it is (`unet_single_site`). Each carries a `part_of`, from
//! which the relation `unet` is made.
//!
//! A parameter is a list of values, or a mapping from values to variables that come with them: with
//! `{ set: { small: { draws: 40 }, all: { draws: 2 } } }`, `${set.draws}` is 40 in the one step and 2 in the other.
//!
//! Where a step of a matrix takes its cases or its network from another matrix whose parameters it has too, that name
//! becomes the step of the same values. So a fine-tuning finds its parent, and nothing has to be spelled out. In a query, the
//! name means all steps of the matrix: there, one of them is written as `unet_n${n}`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::diagnostics::{Problems, Span};
use super::tree::{Data, Entry, Node};

/// Most steps that a file may become.
const MAX_STEPS: usize = 5000;

/// Columns that relations have, so that no parameter can be called that.
const COLUMNS: [&str; 5] = ["case_id", "subject_id", "fingerprint", "part", "split"];

/// One combination of the values of a matrix's parameters.
type Values = Vec<(String, Node)>;

/// Puts values, and the file's variables, into a part of the tree.
type Replace<'r> = dyn FnMut(Node, &[(String, Node)], &mut Problems) -> Node + 'r;

const EXAMPLE: &str = "matrix: { n: [50, 100], seed: [1, 2] }";

/// A step of the file: the name it has there, and the values it stands for, where it is of a matrix.
struct Made {
    entry: Entry,
    of: Option<(String, Values)>,
}

/// Replaces the steps that have a `matrix`. `replace` puts the values of the given parameters, and of the file's variables,
/// into a part of the tree.
pub fn expand(steps: Node, replace: &mut Replace<'_>, problems: &mut Problems) -> Node {
    let Data::Map(entries) = steps.data else { return replace(steps, &[], problems) };
    let mut made: Vec<Made> = Vec::new();
    for entry in entries {
        let Some(matrix) = entry.value.entry("matrix") else {
            let value = replace(entry.value, &[], problems);
            made.push(Made { entry: Entry { value, ..entry }, of: None });
            continue;
        };
        let read = parameters(matrix, replace, problems);
        let total = |all: &[Parameter]| all.iter().map(|p| p.values.len()).product::<usize>();
        match read.filter(|all| made.len().saturating_add(total(all)) <= MAX_STEPS) {
            Some(parameters) => made.extend(instances(&entry, &parameters, replace, problems)),
            None => {
                if !problems.is_stopped() {
                    let message = format!(
                        "with the matrix of `{}` the pipeline has too many steps",
                        entry.key
                    );
                    let hint = format!("a pipeline has at most {MAX_STEPS} steps");
                    problems.add(matrix.key_span, message, hint);
                }
                problems.stop();
            }
        }
    }
    refuse_doubles(&made, problems);
    connect(&mut made);
    Node { span: steps.span, data: Data::Map(made.into_iter().map(|m| m.entry).collect()) }
}

/// The parameters of a step's matrix; none where they cannot be used, which is then a problem.
fn parameters(
    matrix: &Entry,
    replace: &mut Replace<'_>,
    problems: &mut Problems,
) -> Option<Vec<Parameter>> {
    let node = replace(matrix.value.clone(), &[], problems);
    let all: Vec<Option<Parameter>> =
        node.entries().iter().map(|entry| Parameter::of(entry, problems)).collect();
    if all.is_empty() {
        let message = "`matrix` is a mapping from parameters to values";
        problems.add(matrix.key_span, message, EXAMPLE);
    }
    let all: Option<Vec<Parameter>> = all.into_iter().collect();
    let all = all.filter(|all| !all.is_empty());
    if all.is_none() {
        problems.stop();
    }
    all
}

/// A parameter of a matrix, and for each of its values the variables that come with it.
struct Parameter {
    name: String,
    values: Vec<(Node, Values)>,
}

impl Parameter {
    fn of(entry: &Entry, problems: &mut Problems) -> Option<Self> {
        let (name, at) = (&entry.key, entry.key_span);
        if !is_word(name)
            || !name.starts_with(|c: char| c.is_ascii_lowercase())
            || COLUMNS.contains(&name.as_str())
        {
            let message = format!("`{name}` cannot be a parameter of a matrix");
            let hint = "it becomes a column: use a–z, 0–9 and `_`, and no name that cases have";
            problems.add(at, message, hint);
            return None;
        }
        let named = entry.value.entries().iter().map(|e| {
            let own = |v: &Entry| (format!("{name}.{}", v.key), v.value.clone());
            (Node::string(e.key_span, e.key.as_str()), e.value.entries().iter().map(own).collect())
        });
        let listed = entry.value.items().iter().map(|value| (value.clone(), Vec::new()));
        let values: Vec<(Node, Values)> = listed.chain(named).collect();
        if values.is_empty() {
            problems.add(at, format!("the parameter `{name}` has no list of values"), EXAMPLE);
            return None;
        }
        let mut seen = BTreeSet::new();
        for (value, _) in &values {
            let span = if value.span.end > value.span.start { value.span } else { at };
            let text = suffix(name, value);
            if text.is_none() {
                let message = format!("this value of `{name}` cannot be part of a step's name");
                problems.add(span, message, "use numbers, or words of a–z, 0–9 and `_`");
                return None;
            }
            if !seen.insert(text) {
                problems.add(
                    span,
                    format!("`{name}` has this value twice"),
                    "remove one of the two",
                );
                return None;
            }
        }
        Some(Self { name: name.clone(), values })
    }
}

fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.chars().all(fits)
}

/// What a value adds to the name of its step: `n50`, or a word as it is.
fn suffix(name: &str, value: &Node) -> Option<String> {
    match &value.data {
        Data::Scalar(Value::Number(number)) => {
            let number = number.as_f64()?.to_string().replace('.', "_").replace('-', "m");
            Some(format!("{name}{number}"))
        }
        Data::Scalar(Value::String(text)) => is_word(text).then(|| text.clone()),
        _ => None,
    }
}

fn instances(
    entry: &Entry,
    parameters: &[Parameter],
    replace: &mut Replace<'_>,
    problems: &mut Problems,
) -> Vec<Made> {
    let mut combinations: Vec<(Values, Values)> = vec![Default::default()];
    for Parameter { name, values } in parameters {
        let with = |(before, more): &(Values, Values)| {
            let one = |(value, own): &(Node, Values)| {
                let values = [&before[..], &[(name.clone(), value.clone())]].concat();
                (values, [&more[..], own].concat())
            };
            values.iter().map(one).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    let mut body = entry.value.clone();
    if let Data::Map(entries) = &mut body.data {
        entries.retain(|e| e.key != "matrix");
    }
    let one = |(values, more): (Values, Values)| {
        let ends = values.iter().filter_map(|(name, value)| suffix(name, value));
        let name = std::iter::once(entry.key.clone()).chain(ends).collect::<Vec<_>>().join("_");
        problems.call(&name, &entry.key);
        let mut value = replace(body.clone(), &[&values[..], &more].concat(), problems);
        if let (Data::Map(entries), at) = (&mut value.data, entry.key_span) {
            entries.push(part_of(&entry.key, &values, at));
        }
        let of = Some((entry.key.clone(), values));
        Made { entry: Entry { key: name, key_span: entry.key_span, value }, of }
    };
    combinations.into_iter().map(one).collect()
}

/// `part_of: { unet: { n: 50 } }`.
fn part_of(name: &str, values: &Values, at: Span) -> Entry {
    let map =
        |entries: Vec<Entry>| Node { span: Span { end: at.start, ..at }, data: Data::Map(entries) };
    let entry = |key: &str, value: Node| Entry { key: key.to_owned(), key_span: at, value };
    let values = map(values.iter().map(|(key, value)| entry(key, value.clone())).collect());
    entry("part_of", map(vec![entry(name, values)]))
}

fn refuse_doubles(made: &[Made], problems: &mut Problems) {
    let mut seen: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for Made { entry, of } in made {
        let of = of.as_ref().map(|(name, _)| name.as_str());
        let Some(other) = seen.insert(&entry.key, of) else { continue };
        let matrix = of.or(other).unwrap_or_default();
        let message = format!("the matrix of `{matrix}` makes a step that is there already");
        problems.add(entry.key_span, message, "rename one of the two");
    }
}

/// Values of a matrix by name, as JSON.
type Plain = Vec<(String, Value)>;

/// Puts the step of the same values where a step of a matrix names another matrix.
fn connect(made: &mut [Made]) {
    let mut matrices: BTreeMap<String, Vec<(Plain, String)>> = BTreeMap::new();
    let plain = |values: &Values| -> Plain {
        values.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
    };
    for Made { entry, of } in made.iter() {
        let (name, values) = match of {
            Some((name, values)) => (name.clone(), plain(values)),
            // A step that says itself where it belongs.
            None => {
                let Some([relation]) = entry.value.get("part_of").map(Node::entries) else {
                    continue;
                };
                let values = relation.value.entries().iter();
                (relation.key.clone(), values.map(|e| (e.key.clone(), e.value.to_json())).collect())
            }
        };
        matrices.entry(name).or_default().push((values, entry.key.clone()));
    }
    for Made { entry, of } in made {
        let Some((own, values)) = of else { continue };
        let values = plain(values);
        // The one whose values are all among this step's.
        let same = |name: &str| {
            let fits = |v: &[(String, Value)]| v.iter().all(|pair| values.contains(pair));
            let steps = matrices.get(name).filter(|_| name != own)?;
            steps.iter().find(|(v, _)| fits(v)).map(|(_, step)| step.clone())
        };
        let Data::Map(keys) = &mut entry.value.data else { continue };
        for key in keys {
            match (key.key.as_str(), &mut key.value.data) {
                ("from", Data::Scalar(Value::String(text))) => swap(text, &same),
                ("from", Data::Map(parts)) => {
                    for part in parts {
                        swap(&mut part.key, &same);
                    }
                }
                ("infer" | "train", Data::Map(parameters)) => {
                    let networks = parameters.iter_mut().filter(|p| {
                        (key.key == "infer" && p.key == "model") || p.key == "fine_tune"
                    });
                    for network in networks {
                        if let Data::Scalar(Value::String(text)) = &mut network.value.data {
                            swap(text, &same);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn swap(name: &mut String, same: &dyn Fn(&str) -> Option<String>) {
    if let Some(step) = same(name.trim()) {
        *name = step;
    }
}
