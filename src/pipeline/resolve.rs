//! Variables and `--set` into the tree of a pipeline file.
//!
//! `vars:` declares variables with their defaults; one without a value must be set. `${name}` in any string stands for the
//! variable: a string that is nothing else takes the variable's value as it is (number, boolean, list), within a
//! longer string it is written out. `$${` is a literal `${`. A default may use the variables declared before it. Keys
//! are never replaced.
//!
//! `--set name=value` sets a variable, or else the key at a dotted path: `seed=7`, `steps.unet.train.epochs=2`,
//! `steps.prepared.stages.n4.shrink=2` (a stage by name, or by its position from 0). Everything before the last key must be
//! in the file. The value is YAML (`[50, 50]`, `2.5`); for a variable whose default is a string it is taken as it stands.

use std::collections::BTreeMap;

use serde_json::Value;

use super::diagnostics::{Problems, Source, Span};
use super::matrix;
use super::tree::{self, Data, Entry, Node};
use crate::engine::parameters::{nearest, suggest};

/// The keys of a pipeline file that `--set` may replace.
const KEYS: [&str; 8] =
    ["name", "seed", "catalog", "artifacts", "timeout_s", "on_failure", "retention", "steps"];

/// One `--set KEY=VALUE` as a source of text that diagnostics can show.
pub fn set_source(key: &str, value: &str) -> Source {
    Source { name: "--set".to_owned(), text: format!("{key}={value}") }
}

/// Applies `sets` (the n-th one is source n + 1) and replaces variables everywhere outside `vars`.
pub fn resolve(root: Node, sets: &[(String, String)], problems: &mut Problems) -> Node {
    let Data::Map(mut entries) = root.data else { return root };
    let declared = entries.iter().position(|e| e.key == "vars").map(|at| entries.remove(at));
    let mut variables = Variables::declare(declared.as_ref(), problems);
    let mut root = Node { span: root.span, data: Data::Map(entries) };
    for (n, (key, value)) in sets.iter().enumerate() {
        let whole = Span { source: n + 1, start: 0, end: key.len() };
        let offset = key.len() + 1;
        let given = Span { source: n + 1, start: offset, end: offset + value.len() };
        if variables.takes_text(key) {
            variables.set(key, Node::string(given, value.as_str()));
            continue;
        }
        let Some(node) = tree::parse(value, n + 1, offset, problems) else { continue };
        let node =
            if node.span.start == node.span.end { Node { span: given, ..node } } else { node };
        if variables.set(key, node.clone()) {
            continue;
        }
        for block in ["on_failure", "retention"] {
            let inside = key.strip_prefix(block).is_some_and(|rest| rest.starts_with('.'));
            if inside && root.get(block).is_none() {
                put(&mut root, block, whole, Node { span: given, data: Data::Map(Vec::new()) });
            }
        }
        let known = key.contains('.') || KEYS.contains(&key.as_str());
        if !known || !put(&mut root, key, whole, node) {
            let hint = unknown_path(&root, &variables, key);
            problems.add(whole, format!("there is no variable or key `{key}` to set"), hint);
        }
    }
    variables.resolve(problems);
    let (values, names) = (&variables.values, variables.names());
    let Data::Map(entries) = root.data else { return root };
    let mut steps = |node: Node, parameters: &[(String, Node)], problems: &mut Problems| {
        let mut all = values.clone();
        all.extend(parameters.iter().cloned());
        let own = parameters.iter().map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.iter().copied().chain(own).collect();
        replace(node, &all, &names, problems)
    };
    let one = |entry: Entry| {
        let value = if entry.key == "steps" {
            matrix::expand(entry.value, &mut steps, problems)
        } else {
            replace(entry.value, values, &names, problems)
        };
        Entry { value, ..entry }
    };
    Node { span: root.span, data: Data::Map(entries.into_iter().map(one).collect()) }
}

/// Declared variables, in the order of the file.
struct Variables {
    entries: Vec<Entry>,
    values: BTreeMap<String, Node>,
}

impl Variables {
    fn declare(declared: Option<&Entry>, problems: &mut Problems) -> Self {
        let entries = declared.map_or(&[][..], |e| e.value.entries()).to_vec();
        if let Some(e) =
            declared.filter(|e| !e.value.is_null() && !matches!(e.value.data, Data::Map(_)))
        {
            problems.add(
                e.key_span,
                "`vars` is a mapping from names to defaults",
                "vars: { data: demo-data }",
            );
        }
        for entry in entries.iter().filter(|e| !is_name(&e.key)) {
            let message = format!("`{}` cannot be the name of a variable", entry.key);
            problems.add(
                entry.key_span,
                message,
                "use letters, digits and `_`, beginning with a letter",
            );
        }
        Self { entries, values: BTreeMap::new() }
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| e.key.as_str()).collect()
    }

    fn takes_text(&self, name: &str) -> bool {
        self.entries.iter().any(|e| e.key == name && (e.value.as_str().is_some()))
    }

    /// Whether there is such a variable.
    fn set(&mut self, name: &str, value: Node) -> bool {
        let entry = self.entries.iter_mut().find(|e| e.key == name);
        entry.map(|e| e.value = value).is_some()
    }

    fn resolve(&mut self, problems: &mut Problems) {
        let names: Vec<String> = self.entries.iter().map(|e| e.key.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (n, entry) in self.entries.iter().enumerate() {
            if entry.value.is_null() {
                let message =
                    format!("the variable `{}` has no default and was not set", entry.key);
                problems.add(entry.key_span, message, format!("add --set {}=…", entry.key));
            }
            let value = if entry.value.span.source == 0 {
                replace(entry.value.clone(), &self.values, &names[..n], problems)
            } else {
                entry.value.clone()
            };
            self.values.insert(entry.key.clone(), value);
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Puts a value at a dotted path; false where something before its last key is not in the file.
fn put(node: &mut Node, path: &str, key_span: Span, value: Node) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
    // A key may itself contain dots: the longest one that fits wins.
    let fits =
        |key: &str| path == key || path.strip_prefix(key).is_some_and(|r| r.starts_with('.'));
    match &mut node.data {
        Data::Map(entries) => {
            let found = entries.iter_mut().filter(|e| fits(&e.key)).max_by_key(|e| e.key.len());
            match found {
                Some(entry) => {
                    if let Some(rest) = path[entry.key.len()..].strip_prefix('.') {
                        return put(&mut entry.value, rest, key_span, value);
                    }
                    entry.value = value;
                    true
                }
                None if rest.is_none() => {
                    entries.push(Entry { key: first.to_owned(), key_span, value });
                    true
                }
                None => false,
            }
        }
        Data::List(items) => {
            let named = |n: &Node| n.as_str() == Some(first) || n.entry(first).is_some();
            let index = first.parse::<usize>();
            let at = index.clone().ok().or_else(|| items.iter().position(named));
            let Some(item) = at.and_then(|at| items.get_mut(at)) else { return false };
            let path = if index.is_ok() { rest } else { Some(path) };
            let Some(path) = path else {
                *item = value;
                return true;
            };
            // A stage without parameters (`- qc`) is given some.
            if let Some(name) = item.as_str().map(str::to_owned) {
                let empty = Node { span: item.span, data: Data::Map(Vec::new()) };
                item.data = Data::Map(vec![Entry { key: name, key_span: item.span, value: empty }]);
            }
            put(item, path, key_span, value)
        }
        // A key without a value yet, such as `n4:`.
        Data::Scalar(Value::Null) => {
            node.data = Data::Map(Vec::new());
            put(node, path, key_span, value)
        }
        Data::Scalar(_) => false,
    }
}

fn unknown_path(root: &Node, variables: &Variables, path: &str) -> String {
    let mut known = variables.names();
    known.extend(KEYS);
    let mut node = root;
    let mut walked = String::new();
    for part in path.split('.') {
        let Some(next) = node.get(part) else { break };
        walked = format!("{walked}{part}.");
        (node, known) = (next, Vec::new());
    }
    known.extend(node.entries().iter().map(|e| e.key.as_str()));
    let names = node.items().iter().filter_map(|i| i.as_str().or(Some(&i.entries().first()?.key)));
    known.extend(names);
    let rest = &path[walked.len().min(path.len())..];
    let part = rest.split('.').next().unwrap_or(rest);
    match nearest(part, &known) {
        Some(near) => format!("did you mean `{walked}{near}{}`?", &rest[part.len()..]),
        None => suggest(part, &known),
    }
}

/// Replaces `${name}` in every string under `node`.
fn replace(
    node: Node,
    values: &BTreeMap<String, Node>,
    known: &[&str],
    problems: &mut Problems,
) -> Node {
    let span = node.span;
    let data = match node.data {
        Data::Scalar(Value::String(text)) if text.contains("${") => {
            return text_with_values(span, &text, values, known, problems);
        }
        Data::Scalar(value) => Data::Scalar(value),
        Data::List(items) => {
            Data::List(items.into_iter().map(|i| replace(i, values, known, problems)).collect())
        }
        Data::Map(entries) => {
            let one = |e: Entry| Entry { value: replace(e.value, values, known, problems), ..e };
            Data::Map(entries.into_iter().map(one).collect())
        }
    };
    Node { span, data }
}

fn text_with_values(
    span: Span,
    text: &str,
    values: &BTreeMap<String, Node>,
    known: &[&str],
    problems: &mut Problems,
) -> Node {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            let hint = "close it with `}`, or write `$${` for a literal `${`";
            problems.add_last(span, span, "`${` is not closed".to_owned(), hint.to_owned());
            return Node::string(span, text);
        };
        let (whole, name) = (&rest[at..=at + end], &rest[at + 2..at + end]);
        let shown =
            problems.text(span).find(whole).map_or(span, |n| span.part(&(n..n + whole.len())));
        let Some(value) = values.get(name).filter(|_| known.contains(&name)) else {
            let message = format!("the variable `{name}` is not declared here");
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean `${{{near}}}`?"),
                None => format!("declare it: `vars: {{ {name}: … }}`"),
            };
            problems.add_last(span, shown, message, hint);
            return Node::string(span, text);
        };
        if whole.len() == text.len() {
            return Node { span, ..value.clone() };
        }
        match &value.data {
            Data::Scalar(Value::String(s)) => out.push_str(s),
            Data::Scalar(Value::Null) => {}
            Data::Scalar(other) => out.push_str(&other.to_string()),
            _ => {
                let message =
                    format!("the variable `{name}` is a list or mapping inside a longer text");
                let hint = "use it as the whole value".to_owned();
                problems.add_last(span, shown, message, hint);
            }
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Node::string(span, out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(text: &str, sets: &[(&str, &str)]) -> (Value, Vec<String>) {
        let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut sources = vec![Source { name: "f".to_owned(), text: text.to_owned() }];
        sources.extend(sets.iter().map(|(k, v)| set_source(k, v)));
        let mut problems = Problems::new(sources);
        let node = tree::parse(text, 0, 0, &mut problems).map(|n| resolve(n, &sets, &mut problems));
        let found = problems.finish();
        let line = |i: &super::super::diagnostics::Diagnostic| {
            format!("{} ({})", i.message, i.hint.as_deref().unwrap_or_default())
        };
        (node.map_or(Value::Null, |n| n.to_json()), found.items().iter().map(line).collect())
    }

    #[test]
    fn variables_keep_their_type_alone_and_are_written_out_in_text() {
        let text =
            "vars: {data: d, n: 3, all: '${data}/x'}\na: '${n}'\nb: '${all}/${n}'\nc: '$${n}'\n";
        let (value, problems) = run(text, &[]);
        assert_eq!((value, problems.len()), (json!({"a": 3, "b": "d/x/3", "c": "${n}"}), 0));
    }

    #[test]
    fn a_set_replaces_variables_and_keys() {
        let text = "vars: {data: d, on: false}\na: '${data}'\non: '${on}'\ns: {p: {stages: [qc, n4: {shrink: 4}, x: ]}}";
        let sets = [
            ("data", "12"),
            ("on", "true"),
            ("s.p.stages.n4.shrink", "2"),
            ("s.p.stages.qc.min", "1.5"),
            ("s.p.stages.2.x.list", "[1, 2]"),
            ("s.p.to", "shards"),
            ("seed", "7"),
            ("on_failure.max_cases", "3"),
        ];
        let expected = json!({"a": "12", "on": true, "s": {"p": {
            "stages": [{"qc": {"min": 1.5}}, {"n4": {"shrink": 2}}, {"x": {"list": [1, 2]}}], "to": "shards",
        }}, "seed": 7, "on_failure": {"max_cases": 3}});
        assert_eq!(run(text, &sets), (expected, Vec::new()));
    }

    #[test]
    fn unknown_names_are_problems_with_the_nearest_one() {
        let text = "vars: {data: d, need: }\na: 'x/${dta}'\nb: '${zz'\ns: {unet: {epochs: 1}}";
        let (_, problems) =
            run(text, &[("dat", "x"), ("s.unt.epochs", "2"), ("s.unet.epochs.x", "2")]);
        assert_eq!(
            problems,
            [
                "the variable `need` has no default and was not set (add --set need=…)",
                "the variable `dta` is not declared here (did you mean `${data}`?)",
                "`${` is not closed (close it with `}`, or write `$${` for a literal `${`)",
                "there is no variable or key `dat` to set (did you mean `data`?)",
                "there is no variable or key `s.unt.epochs` to set (did you mean `s.unet.epochs`?)",
                "there is no variable or key `s.unet.epochs.x` to set (nothing can be given here)",
            ]
        );
    }
}
