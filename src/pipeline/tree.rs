//! YAML into a tree that knows where each part stood, so that a problem found later can be shown in the file.
//!
//! The events of `saphyr-parser` are taken one by one, without recursion, and the tree is bounded in depth and, where
//! aliases repeat parts of it, in size: no file can exhaust the stack or the memory. Scalars follow the core
//! schema of YAML 1.2 (`yes` is a string). Tags are refused: every type is known from the key.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use super::diagnostics::{Problems, Span};

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// Most parts that a file may have, aliases counted as what they repeat.
const MAX_NODES: usize = 100_000;

/// A value and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stood.
    pub span: Span,
    /// What it is.
    pub data: Data,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Null, boolean, number or string.
    Scalar(Value),
    /// Items in order.
    List(Vec<Node>),
    /// Entries in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stood.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A string.
    pub fn string(span: Span, text: impl Into<String>) -> Self {
        Self { span, data: Data::Scalar(Value::String(text.into())) }
    }

    /// The entries, where it is a mapping.
    pub fn entries(&self) -> &[Entry] {
        if let Data::Map(entries) = &self.data { entries } else { &[] }
    }

    /// The items, where it is a list.
    pub fn items(&self) -> &[Self] {
        if let Data::List(items) = &self.data { items } else { &[] }
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|e| &e.value)
    }

    /// The text, where it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Data::Scalar(Value::String(text)) = &self.data { Some(text) } else { None }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => {
                let one = |e: &Entry| (e.key.clone(), e.value.to_json());
                Value::Object(entries.iter().map(one).collect::<Map<_, _>>())
            }
        }
    }

    /// Where a dotted path leads, as far as it can be followed: the key's place for `at_key` and where the value is a
    /// block, else the value's. `origin` is the place of this node's own key.
    pub fn locate(&self, path: &str, at_key: bool, origin: Span) -> Span {
        let (mut node, mut rest, mut key_span) = (self, path, origin);
        while !rest.is_empty() {
            let Some((span, next, remaining)) = node.step(rest) else { return key_span };
            (node, rest, key_span) = (next, remaining, span);
        }
        if at_key || path.is_empty() || node.span.start == node.span.end {
            key_span
        } else {
            node.span
        }
    }

    /// Follows the first segment of a dotted path: a key (the longest that fits, for keys with dots) or the index of an
    /// item.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(Span, &'n Self, &'p str)> {
        let fits = |key: &str| {
            let rest = path.strip_prefix(key)?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
        };
        match &self.data {
            Data::Scalar(_) => None,
            Data::Map(entries) => {
                let found = entries.iter().filter_map(|e| Some((e, fits(&e.key)?)));
                let (entry, rest) = found.min_by_key(|(_, rest)| rest.len())?;
                Some((entry.key_span, &entry.value, rest))
            }
            Data::List(items) => {
                let (first, rest) = path.split_once('.').unwrap_or((path, ""));
                let item = items.get(first.parse::<usize>().ok()?)?;
                Some((item.entries().first().map_or(item.span, |e| e.key_span), item, rest))
            }
        }
    }

    /// Number of nodes and of levels. Recursion is bounded by [`MAX_DEPTH`].
    fn size(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match &self.data {
            Data::Scalar(_) => Vec::new(),
            Data::List(items) => items.iter().map(Self::size).collect(),
            Data::Map(entries) => entries.iter().map(|e| e.value.size()).collect(),
        };
        let total = children.iter().map(|c| c.0).sum::<usize>();
        (total + 1, children.iter().map(|c| c.1).max().unwrap_or(0) + 1)
    }
}

/// Reads one document. `offset` is where `text` begins in the source. None where it cannot be read as a tree at all;
/// `problems` then holds the reason.
pub fn parse(text: &str, source: usize, offset: usize, problems: &mut Problems) -> Option<Node> {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let byte = |chars: usize| offset + places.get(chars).copied().unwrap_or(text.len());
    let mut builder = Builder::new(problems);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                let (start, end) = (byte(span.start.index()), byte(span.end.index()));
                builder.event(event, Span { source, start, end: end.max(start) })?;
            }
            Err(error) => {
                let at = byte(error.marker().index());
                let (message, hint) = syntax(text, at - offset, error.info());
                builder.problems.add(Span { source, start: at, end: at }, message, hint);
                return None;
            }
        }
    }
    let nothing = Span { source, start: offset, end: offset };
    Some(builder.root.unwrap_or(Node { span: nothing, data: Data::Scalar(Value::Null) }))
}

/// The parser's complaint, and the usual reason for it.
fn syntax(text: &str, at: usize, info: &str) -> (String, &'static str) {
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let hint = if line.contains("${") {
        "put quotes around a value with `${…}` inside `{ }` or `[ ]`"
    } else if line.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces, not with tabs"
    } else if info.contains("mapping values are not allowed") {
        "check the indentation, and put quotes around a value that contains `: `"
    } else if info.contains("flow") {
        "a bracket or brace is not closed, or a comma is missing"
    } else {
        ""
    };
    (format!("this is not valid YAML: {info}"), hint)
}

/// A list or mapping that is not finished.
enum Open {
    List(Node, usize),
    Map(Node, usize, Option<(String, Span)>),
}

struct Builder<'p> {
    problems: &'p mut Problems,
    stack: Vec<Open>,
    /// Finished nodes with a name, with their number of nodes and of levels.
    anchors: BTreeMap<usize, (Node, usize, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl<'p> Builder<'p> {
    fn new(problems: &'p mut Problems) -> Self {
        let (stack, anchors) = (Vec::new(), BTreeMap::new());
        Self { problems, stack, anchors, nodes: 0, root: None }
    }

    fn refuse(&mut self, span: Span, message: &str, hint: &str) -> Option<()> {
        self.problems.add(span, message, hint);
        None
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.refuse(span, "a file holds one document", "remove the second `---`")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                self.refuse(span, "tags (`!…`) are not used here", "remove the tag")
            }
            Event::Scalar(text, style, anchor, None) => {
                if let Some(Open::Map(_, _, key @ None)) = self.stack.last_mut() {
                    *key = Some((text.into_owned(), span));
                    return Some(());
                }
                let value = scalar(&text, style);
                if value.is_none() {
                    let message = format!("`{text}` cannot be used as a number");
                    self.problems.add(span, message, "give a finite number");
                }
                let data = Data::Scalar(value.unwrap_or(Value::Null));
                self.close(Node { span, data }, anchor)
            }
            Event::SequenceStart(anchor, None) => {
                self.open(Open::List(Node { span, data: Data::List(Vec::new()) }, anchor), span)
            }
            Event::MappingStart(anchor, None) => {
                self.open(Open::Map(Node { span, data: Data::Map(Vec::new()) }, anchor, None), span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (Open::List(mut node, anchor) | Open::Map(mut node, anchor, _)) =
                    self.stack.pop()?;
                // A block has no closing sign: its span stays empty, at its beginning.
                if node.span.end > node.span.start {
                    node.span.end = span.end;
                }
                self.close(node, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Some(()),
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Option<()> {
        let Some((node, size, levels)) = self.anchors.get(&anchor).cloned() else {
            return self.refuse(span, "this alias is inside of what it repeats", "");
        };
        self.nodes += size;
        if self.stack.len() + levels > MAX_DEPTH || self.nodes > MAX_NODES {
            return self.refuse(span, "this alias repeats too much", "write the value out");
        }
        self.close(Node { span, ..node }, 0)
    }

    fn open(&mut self, open: Open, span: Span) -> Option<()> {
        if matches!(self.stack.last(), Some(Open::Map(_, _, None))) {
            return self.refuse(span, "a key must be a word", "");
        }
        if self.stack.len() >= MAX_DEPTH {
            return self.refuse(span, "lists and mappings are nested too deeply", "");
        }
        self.stack.push(open);
        Some(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(node.span, "the file has too many parts", "");
        }
        if anchor > 0 {
            let (size, levels) = node.size();
            self.anchors.insert(anchor, (node.clone(), size, levels));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(list, _)) => {
                if let Data::List(items) = &mut list.data {
                    items.push(node);
                }
            }
            Some(Open::Map(map, _, key)) => {
                let Some((key, key_span)) = key.take() else {
                    return self.refuse(node.span, "a key must be a word", "");
                };
                let Data::Map(entries) = &mut map.data else { return None };
                if entries.iter().any(|e| e.key == key) {
                    let message = format!("the key `{key}` is given twice");
                    self.problems.add(key_span, message, "remove one of the two");
                } else {
                    entries.push(Entry { key, key_span, value: node });
                }
            }
        }
        Some(())
    }
}

/// A scalar by the core schema of YAML 1.2; none for a number that is not finite.
fn scalar(text: &str, style: ScalarStyle) -> Option<Value> {
    if style != ScalarStyle::Plain {
        return Some(Value::from(text));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return None;
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Some(Value::from(text));
    }
    let radix = |prefix, radix| u64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(n) = unsigned.parse::<u64>() {
        Some(Value::from(n))
    } else if let Ok(n) = text.parse::<i64>() {
        Some(Value::from(n))
    } else if let Some(n) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        Some(Value::from(n))
    } else if let Some(n) = text.parse::<f64>().ok().filter(|_| digits.contains(char::is_numeric)) {
        Number::from_f64(n).map(Value::Number)
    } else {
        Some(Value::from(text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::super::diagnostics::Source;
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let source = Source { name: "f.yaml".to_owned(), text: text.to_owned() };
        let mut problems = Problems::new(vec![source]);
        let node = parse(text, 0, 0, &mut problems);
        let found = if problems.is_empty() { None } else { Some(problems.finish()) };
        let line = |d: &super::super::diagnostics::Diagnostics| {
            let places = d.items().iter().map(|i| (d.place(i.span.unwrap()), &i.message));
            places.map(|(p, m)| format!("{}:{} {m}", p.line, p.column)).collect()
        };
        (node, found.as_ref().map(line).unwrap_or_default())
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = "[1, -2, +3, 1.5, 1e3, .5, 0x1F, 0o17, true, yes, null, ~, '1', 18446744073709551615, 2026-01-01, sub-1, .]";
        let (node, problems) = read(text);
        let expected = json!([
            1,
            -2,
            3,
            1.5,
            1000.0,
            0.5,
            31,
            15,
            true,
            "yes",
            null,
            null,
            "1",
            18_446_744_073_709_551_615_u64,
            "2026-01-01",
            "sub-1",
            "."
        ]);
        assert_eq!((node.unwrap().to_json(), problems.len()), (expected, 0));
    }

    #[test]
    fn places_survive_accents_and_windows_lines() {
        let text = "é: ü\r\nb:\r\n  - x\r\n  - n4: { shrink: 4 }\r\n";
        let node = read(text).0.unwrap();
        let span = node.locate("b.1.n4.shrink", false, Span::default());
        assert_eq!(&text[span.start..span.end], "4");
        let span = node.locate("b.1.n4.shrink", true, Span::default());
        assert_eq!(&text[span.start..span.end], "shrink");
        let span = node.locate("b.1.n4.other", false, Span::default());
        assert_eq!(&text[span.start..span.end], "n4", "a missing key is shown at its owner");
    }

    #[test]
    fn every_duplicate_key_is_found_and_the_first_counts() {
        let (node, problems) = read("a: 1\nb: {c: 1, c: 2}\na: 3\n");
        assert_eq!(problems, ["2:11 the key `c` is given twice", "3:1 the key `a` is given twice"]);
        assert_eq!(node.unwrap().to_json(), json!({"a": 1, "b": {"c": 1}}));
    }

    #[test]
    fn aliases_repeat_within_limits() {
        let (node, problems) = read("a: &x {q: [1, 2]}\nb: *x\n");
        assert!(problems.is_empty());
        assert_eq!(node.unwrap().to_json(), json!({"a": {"q": [1, 2]}, "b": {"q": [1, 2]}}));
        let bomb: String = (1..30).fold("a0: &a0 [1, 1]\n".to_owned(), |text, i| {
            text + &format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1)
        });
        assert!(read(&bomb).1[0].contains("repeats too much"));
        assert!(read("a: &x [*x]").1[0].contains("inside of what it repeats"));
    }

    #[test]
    fn hostile_files_are_problems_and_not_crashes() {
        for text in [
            "- ".repeat(100_000),
            "[".repeat(100_000),
            "a: ".repeat(10_000),
            "? [a]\n: b".to_owned(),
            "a: !!python/object x".to_owned(),
            "a: 1\n---\nb: 2".to_owned(),
            "a: .inf".to_owned(),
            "a: \0".to_owned(),
            "a: 'x".to_owned(),
            "{a: ${b}/c}".to_owned(),
        ] {
            assert!(!read(&text).1.is_empty(), "{}", text.chars().take(20).collect::<String>());
        }
        assert!(read("").0.unwrap().is_null());
        assert!(read("# only a comment").0.unwrap().is_null());
    }
}
