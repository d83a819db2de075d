//! What is wrong with a pipeline file: every problem with its place, shown with the lines around it.
//!
//! A place is a [`Span`] in one of several sources: the file, or one `--set` argument. Problems are gathered in
//! [`Problems`] while the file is read and checked, and end as [`Diagnostics`], which sorts, renders and counts them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::error::Error;

/// A stretch of a source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// Which source: 0 is the file, `n` the n-th `--set`.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
}

impl Span {
    /// The part of this span from `start` to `end`, counted in bytes from its beginning.
    #[must_use]
    pub fn part(self, range: &Range<usize>) -> Self {
        Self { start: self.start + range.start, end: self.start + range.end, ..self }
    }
}

/// A text that spans point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called: the path of the file, or `--set`.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Where; none where the file as a whole is at fault.
    pub span: Option<Span>,
}

/// A place as people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// The problems found so far.
#[derive(Debug)]
pub struct Problems {
    sources: Vec<Source>,
    items: Vec<Diagnostic>,
    silenced: BTreeSet<Span>,
    /// Names that are not in the file, and the one there that they come from.
    calls: Vec<(String, String)>,
    stopped: bool,
}

impl Problems {
    /// None yet. `sources[0]` is the file.
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            items: Vec::new(),
            silenced: BTreeSet::new(),
            calls: Vec::new(),
            stopped: false,
        }
    }

    /// Adds one at a place; the hint may be empty.
    pub fn add(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        if !self.silenced.contains(&span) {
            let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
            self.items.push(Diagnostic { message: message.into(), hint, span: Some(span) });
        }
    }

    /// Adds one and reports nothing more about that place: what follows from it would only distract.
    pub fn add_last(&mut self, at: Span, shown: Span, message: String, hint: String) {
        self.add(shown, message, hint);
        self.silenced.insert(at);
    }

    /// Problems of `name`, which is not in the file, are told of `known`, from which it was made: one mistake in a
    /// step with a matrix is one problem.
    pub fn call(&mut self, name: &str, known: &str) {
        self.calls.push((format!("`{name}`"), format!("`{known}`")));
    }

    /// Says that what is wrong keeps the file from being understood, so that looking further would only distract.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether to look no further.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The text between two bytes of a source.
    pub fn text(&self, span: Span) -> &str {
        self.sources
            .get(span.source)
            .and_then(|source| source.text.get(span.start..span.end))
            .unwrap_or_default()
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All of them, in the order of the places.
    pub fn finish(self) -> Diagnostics {
        let mut items = self.items;
        for item in &mut items {
            for (name, known) in &self.calls {
                item.message = item.message.replace(name, known);
            }
        }
        // Equal ones meet, in the order in which they were found.
        items.sort_by_key(|item| item.span);
        let mut seen = Vec::new();
        items.retain(|item| {
            let fresh = !seen.contains(item);
            if fresh {
                seen.push(item.clone());
            }
            fresh
        });
        Diagnostics { sources: self.sources, items }
    }
}

/// All that is wrong with a pipeline: at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    sources: Vec<Source>,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The file could not be read at all.
    pub fn unreadable(name: &str, error: &Error) -> Self {
        let sources = vec![Source { name: name.to_owned(), text: String::new() }];
        let message = error.reason().to_owned();
        let hint = error.advice().map(str::to_owned);
        Self { sources, items: vec![Diagnostic { message, hint, span: None }] }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// The problems, in the order of the file, then of the `--set` arguments.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Line and column where a span begins.
    pub fn place(&self, span: Span) -> Place {
        let text = self.sources.get(span.source).map_or("", |s| s.text.as_str());
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// For machines: `[{"file", "line", "column", "message", "hint"}]`; line and column are null where the whole file is
    /// meant.
    pub fn to_json(&self) -> Value {
        let one = |item: &Diagnostic| {
            let place = item.span.map(|span| self.place(span));
            json!({
                "file": self.sources[item.span.map_or(0, |s| s.source)].name,
                "line": place.map(|p| p.line),
                "column": place.map(|p| p.column),
                "message": item.message,
                "hint": item.hint,
            })
        };
        Value::Array(self.items.iter().map(one).collect())
    }

    /// For people: each problem with its lines underlined and its hint, and the count at the end.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
        let mut out = String::new();
        for item in &self.items {
            out.push_str(&self.render_one(item, &renderer));
            out.push_str("\n\n");
        }
        let n = self.count();
        let s = if n == 1 { "" } else { "s" };
        out + &format!("{}: {n} problem{s}\n", self.sources[0].name)
    }

    fn render_one(&self, item: &Diagnostic, renderer: &Renderer) -> String {
        let source = &self.sources[item.span.map_or(0, |s| s.source)];
        let title = Level::ERROR.primary_title(item.message.as_str());
        let group = match item.span {
            Some(span) => title.element(
                Snippet::source(source.text.as_str())
                    .path(source.name.as_str())
                    .annotation(AnnotationKind::Primary.span(first_line(&source.text, span))),
            ),
            None => title.element(Level::NOTE.message(source.name.as_str())),
        };
        let hint = item.hint.as_deref();
        let group = group.elements(hint.map(|hint| Level::HELP.with_name("hint").message(hint)));
        renderer.render(&[group])
    }
}

/// The part of a span on its first line, so that a block is not underlined to its end.
fn first_line(text: &str, span: Span) -> Range<usize> {
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
    let start = floor(span.start).unwrap_or(0);
    let end = floor(span.end).unwrap_or(0).max(start);
    let line = text[start..end].find(['\n', '\r']).map_or(end, |at| start + at);
    start..line
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::configuration(diagnostics.to_string())
    }
}
