//! What a nightly job declares: differences are of one step that scores, and a notification has somewhere to go.

use super::steps::Draft;
use crate::engine::parameters::suggest;
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::night_spec::{Against, DifferenceParams, NotifySpec};
use crate::pipeline::plan::{Action, Source};
use crate::pipeline::tree::Node;

/// Checks the steps that tell a difference.
pub fn check(drafts: &[Draft<'_>], problems: &mut Problems) {
    for draft in drafts {
        let Some(Action::Difference(params)) = &draft.action else { continue };
        source(draft, drafts, problems);
        nights(draft, params, problems);
    }
}

fn source(draft: &Draft<'_>, drafts: &[Draft<'_>], problems: &mut Problems) {
    let Some(from) = &draft.from else { return };
    let scores = |d: &&Draft<'_>| d.verb.is_some_and(|verb| verb.key == "score");
    let is_scored = match &from.source {
        Source::Step { name, part: None } => {
            drafts.iter().filter(scores).any(|other| other.name == name)
        }
        _ => false,
    };
    if !is_scored {
        let known: Vec<&str> = drafts.iter().filter(scores).map(|d| d.name).collect();
        let hint = match (&from.source, known.as_slice()) {
            (_, []) => "make a step with `score`".to_owned(),
            (Source::Step { name, .. }, known) => suggest(name, known),
            (_, known) => format!("known: {}", known.join(", ")),
        };
        problems.add(from.span, "a difference is that of one step with `score`", hint);
    }
}

fn nights(draft: &Draft<'_>, params: &DifferenceParams, problems: &mut Problems) {
    for (key, night) in [("against", &params.against), ("baseline", &params.baseline)] {
        if let Against::Text(text) = night
            && night.night().is_none()
        {
            let message = format!("`{text}` is no night");
            let hint = "write `last`, `first`, a version of the table cases (12), or a moment (2026-01-31T04:00:00Z)";
            problems.add(draft.place(key), message, hint);
        }
    }
    if params.json() == params.html {
        let message = "the JSON would replace the HTML: both have one name";
        problems.add(draft.place("json"), message, "end the names in .html and .json");
    }
}

/// Checks where a notification goes.
pub fn notify(root: &Node, spec: &NotifySpec, problems: &mut Problems) {
    let Some(entry) = root.entry("notify") else { return };
    let place = |key: &str| -> Span { entry.value.locate(key, false, entry.key_span) };
    if spec.command.is_empty() && spec.webhook.is_none() {
        let hint = "command: [mail, -s, \"{summary}\", you@example.org], or webhook: { url_env: TORCULA_WEBHOOK }";
        problems.add(entry.key_span, "`notify` tells nobody", hint);
    }
    if spec.command.first().is_some_and(|program| program.trim().is_empty()) {
        problems.add(place("command"), "the command names no program", "command: [mail, …]");
    }
    let Some(webhook) = &spec.webhook else { return };
    if webhook.url.is_some() == webhook.url_env.is_some() {
        let hint = "url: https://…, or url_env: NAME of an environment variable that holds it";
        problems.add(place("webhook"), "a webhook has either `url` or `url_env`", hint);
    }
    let good = |url: &String| {
        url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    };
    if webhook.url.as_ref().is_some_and(|url| !good(url)) {
        let message = "the webhook's `url` is no web address";
        problems.add(place("webhook.url"), message, "write it like https://chat.example.org/hook");
    }
    for (key, name) in [("url_env", &webhook.url_env), ("token_env", &webhook.token_env)] {
        let word = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if name.as_ref().is_some_and(|name| !word(name)) {
            let message = format!("`{key}` is the name of an environment variable, not its value");
            problems.add(place(&format!("webhook.{key}")), message, "url_env: TORCULA_WEBHOOK");
        }
    }
}
