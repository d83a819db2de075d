//! Parameters from a pipeline or the command line into the structs that stages take.
//!
//! A struct describes itself: the JSON Schema that `schemars` derives from it is what editors complete from, and the
//! same schema is walked here against the value that was given. So every unknown key, wrong type, value out of range and
//! missing key is found at once, at any depth, in words; serde has the last word and brings what only code can
//! check. Mappings are strict: a key that the struct does not have is always a problem.

mod words;

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use self::words::found;
use self::words::{is_a, limits, list, names_of, short, tag, types};

/// One thing wrong with the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterProblem {
    /// Where: keys and list positions joined by dots (`iterations`, `windows.0.size`); none for the whole.
    pub key: Option<String>,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ParameterProblem {
    /// A problem with the value of `key`, or with the whole where that is empty.
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        let key = (!key.is_empty()).then(|| key.to_owned());
        Self { key, message: message.into(), hint: None }
    }

    /// Adds what the reader should do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the key itself is at fault, and not its value.
    pub fn concerns_key(&self) -> bool {
        self.message.starts_with(UNKNOWN)
    }
}

impl fmt::Display for ParameterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) if !self.concerns_key() => write!(f, "`{key}`: {}", self.message)?,
            _ => f.write_str(&self.message)?,
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

const UNKNOWN: &str = "unknown ";

/// Reads parameters; what is not given, or all of it where `value` is null, keeps its default.
///
/// # Errors
/// Every problem that there is, in the order of the keys as given.
pub fn parse_parameters<P>(value: Value) -> Result<P, Vec<ParameterProblem>>
where
    P: DeserializeOwned + Default + JsonSchema,
{
    if value.is_null() { Ok(P::default()) } else { parse_strictly(value, &[]) }
}

/// Reads a value of any type that has a schema, as strictly as [`parse_parameters`]. Parts of it whose type is named
/// in `opaque` (the schema's name) are left to serde.
///
/// # Errors
/// Every problem that there is, in the order of the keys as given.
pub fn parse_strictly<P>(value: Value, opaque: &[&str]) -> Result<P, Vec<ParameterProblem>>
where
    P: DeserializeOwned + JsonSchema,
{
    let schema = schemars::schema_for!(P).to_value();
    let mut walk = Walk { root: &schema, opaque, problems: Vec::new() };
    walk.value(&value, &schema, "");
    if !walk.problems.is_empty() {
        return Err(walk.problems);
    }
    let alone = value.clone();
    serde_json::from_value(value).map_err(|error| culprits::<P>(&alone, &error))
}

/// Finds the keys that fail when each is read alone; the whole is blamed where none does.
fn culprits<P: DeserializeOwned>(
    value: &Value,
    whole: &serde_json::Error,
) -> Vec<ParameterProblem> {
    let alone = |(key, value): (&String, &Value)| {
        let one = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        let error = serde_json::from_value::<P>(one).err()?;
        Some(ParameterProblem::new(key, error.to_string()))
    };
    // A struct with required keys fails for any single key, which tells nothing.
    let empty_is_fine = serde_json::from_value::<P>(Value::Object(Map::new())).is_ok();
    let found: Vec<_> = match value {
        Value::Object(map) if empty_is_fine => map.iter().filter_map(alone).collect(),
        _ => Vec::new(),
    };
    if found.is_empty() { vec![ParameterProblem::new("", whole.to_string())] } else { found }
}

/// The known name that a reader most likely meant, if one is near enough.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    let distance = |k: &str| {
        let extends = k.len() > 2 && name.len() > 2 && (k.starts_with(name) || name.starts_with(k));
        if extends { 0 } else { strsim::osa_distance(name, k) }
    };
    known.iter().map(|k| (distance(k), *k)).filter(|(d, _)| *d <= allowed).min().map(|(_, k)| k)
}

/// The hint for an unknown name: the nearest known one, or else all of them.
pub fn suggest(name: &str, known: &[&str]) -> String {
    match (nearest(name, known), known) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "nothing can be given here".to_owned(),
        (None, all) => format!("known: {}", list(all)),
    }
}

/// One walk over a value and its schema.
struct Walk<'a> {
    root: &'a Value,
    opaque: &'a [&'a str],
    problems: Vec<ParameterProblem>,
}

impl<'a> Walk<'a> {
    fn add(&mut self, path: &str, message: String) -> &mut ParameterProblem {
        self.problems.push(ParameterProblem::new(path, message));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// The schema behind references; none where it is to be left alone.
    fn follow(&self, mut schema: &'a Value) -> Option<&'a Value> {
        while let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or(name);
            if self.opaque.contains(&name) {
                return None;
            }
            schema = self.root.get("$defs")?.get(name)?;
        }
        schema.is_object().then_some(schema)
    }

    fn value(&mut self, value: &Value, schema: &'a Value, path: &str) {
        let Some(schema) = self.follow(schema) else { return };
        let names = names_of(schema);
        if !names.is_empty() {
            return self.name(value, &names, path);
        }
        if let Some(variants) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            return self.variants(value, variants.as_array().map_or(&[], Vec::as_slice), path);
        }
        if !types(schema).is_empty() && !types(schema).iter().any(|t| is_a(value, t)) {
            let expected = self.describe(schema);
            self.add(path, format!("expected {expected}, found {}", found(value)));
            return;
        }
        match value {
            Value::Object(map) => self.object(map, schema, path),
            Value::Array(items) => self.array(items, schema, path),
            Value::Number(number) => self.range(number.as_f64().unwrap_or(f64::NAN), schema, path),
            _ => {}
        }
    }

    fn name(&mut self, value: &Value, names: &[&str], path: &str) {
        match value.as_str() {
            Some(name) if names.contains(&name) => {}
            Some(name) => {
                let hint = suggest(name, names);
                self.add(path, format!("{UNKNOWN}name `{}`", short(name))).hint = Some(hint);
            }
            None => {
                self.add(path, format!("expected one of {}, found {}", list(names), found(value)));
            }
        }
    }

    fn variants(&mut self, value: &Value, variants: &'a [Value], path: &str) {
        let variants: Vec<&'a Value> = variants.iter().filter_map(|v| self.follow(v)).collect();
        let mut outcomes = Vec::new();
        for variant in &variants {
            let mut trial = Walk { root: self.root, opaque: self.opaque, problems: Vec::new() };
            trial.value(value, variant, path);
            if trial.problems.is_empty() {
                return;
            }
            outcomes.push((*variant, trial.problems));
        }
        let tags: Vec<&str> = variants.iter().filter_map(|v| tag(v)).collect();
        let names: Vec<&str> = variants.iter().flat_map(|v| names_of(v)).collect();
        if let Value::Object(map) = value
            && let (1, Some(key)) = (map.len(), map.keys().next())
            && !tags.is_empty()
        {
            if let Some((_, problems)) = outcomes.into_iter().find(|(v, _)| tag(v) == Some(key)) {
                self.problems.extend(problems);
            } else {
                let hint = suggest(key, &[tags, names].concat());
                let message = format!("{UNKNOWN}name `{}`", short(key));
                self.add(&join(path, key), message).hint = Some(hint);
            }
            return;
        }
        let same_kind =
            |v: &Value| names_of(v).is_empty() && types(v).iter().any(|t| is_a(value, t));
        outcomes.retain(|(v, _)| same_kind(v));
        match outcomes.pop() {
            Some((_, problems)) if outcomes.is_empty() => self.problems.extend(problems),
            None if value.is_string() && !names.is_empty() => self.name(value, &names, path),
            _ => {
                let mut expected: Vec<String> = Vec::new();
                for words in variants.iter().map(|v| self.describe(v)).filter(|w| w != "nothing") {
                    if !expected.contains(&words) {
                        expected.push(words);
                    }
                }
                let expected = expected.join(" or ");
                self.add(path, format!("expected {expected}, found {}", found(value)));
            }
        }
    }

    fn object(&mut self, map: &Map<String, Value>, schema: &'a Value, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> =
            properties.iter().flat_map(|p| p.keys()).map(String::as_str).collect();
        let others = schema.get("additionalProperties");
        for (key, value) in map {
            let at = join(path, key);
            if let Some(property) = properties.and_then(|p| p.get(key)) {
                self.value(value, property, &at);
            } else if let Some(other) = others.filter(|o| o.as_bool() != Some(false)) {
                self.value(value, other, &at);
            } else if !known.is_empty() || others.is_some() {
                let hint = suggest(key, &known);
                self.add(&at, format!("{UNKNOWN}key `{}`", short(key))).hint = Some(hint);
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(key) {
                let about = properties
                    .and_then(|p| p.get(key)?.get("description")?.as_str())
                    .map(|d| d.lines().next().unwrap_or(d).trim_end_matches('.').to_owned());
                self.add(path, format!("the key `{key}` is missing")).hint =
                    about.map(|about| format!("`{key}`: {about}"));
            }
        }
    }

    fn array(&mut self, items: &[Value], schema: &'a Value, path: &str) {
        let bound = |key| schema.get(key).and_then(Value::as_u64);
        let n = items.len() as u64;
        if bound("minItems").is_some_and(|min| n < min)
            || bound("maxItems").is_some_and(|max| n > max)
        {
            let (expected, s) = (self.describe(schema), if n == 1 { "" } else { "s" });
            self.add(path, format!("expected {expected}, found a list of {n} item{s}"));
        }
        let Some(each) = schema.get("items") else { return };
        for (i, item) in items.iter().enumerate() {
            self.value(item, each, &join(path, &i.to_string()));
        }
    }

    fn range(&mut self, number: f64, schema: &'a Value, path: &str) {
        let bound = |key| schema.get(key).and_then(Value::as_f64);
        let outside = bound("minimum").is_some_and(|min| number < min)
            || bound("maximum").is_some_and(|max| number > max)
            || bound("exclusiveMinimum").is_some_and(|min| number <= min)
            || bound("exclusiveMaximum").is_some_and(|max| number >= max);
        if outside {
            let expected = self.describe(schema);
            self.add(path, format!("expected {expected}, found {number}"));
        }
    }

    /// What a schema asks for, in words that follow "expected".
    fn describe(&self, schema: &Value) -> String {
        let names = names_of(schema);
        if let [name] = names.as_slice() {
            return format!("`{name}`");
        }
        if !names.is_empty() {
            return format!("one of {}", list(&names));
        }
        if let Some(name) = tag(schema) {
            return format!("a mapping with the key `{name}`");
        }
        let words: Vec<String> =
            types(schema).iter().filter(|t| **t != "null").map(|t| self.word(schema, t)).collect();
        match (words.is_empty(), types(schema).is_empty()) {
            (false, _) => words.join(" or "),
            (true, false) => "nothing".to_owned(),
            (true, true) => "another value".to_owned(),
        }
    }

    fn word(&self, schema: &Value, kind: &str) -> String {
        let bound = |key| schema.get(key).and_then(Value::as_u64);
        match kind {
            "string" => "a string".to_owned(),
            "boolean" => "`true` or `false`".to_owned(),
            "integer" => format!("an integer{}", limits(schema)),
            "number" => format!("a number{}", limits(schema)),
            "array" => {
                let count = match (bound("minItems"), bound("maxItems")) {
                    (Some(min), Some(max)) if min == max => format!("{min} "),
                    (Some(min), Some(max)) => format!("{min} to {max} "),
                    (Some(min), None) if min > 0 => format!("at least {min} "),
                    (None, Some(max)) => format!("at most {max} "),
                    _ => String::new(),
                };
                format!("a list of {count}{}", self.plural(schema.get("items")))
            }
            _ => "a mapping".to_owned(),
        }
    }

    fn plural(&self, items: Option<&Value>) -> &'static str {
        let name = items.and_then(|i| i.get("$ref")?.as_str()?.rsplit('/').next());
        let referred = name.and_then(|name| self.root.get("$defs")?.get(name));
        let Some(items) = referred.or(items) else { return "items" };
        match types(items).first().copied() {
            _ if !names_of(items).is_empty() => "names",
            Some("number") => "numbers",
            Some("integer") => "integers",
            Some("string") => "strings",
            _ => "items",
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Given {
        blur_mm: f64,
        #[schemars(range(min = 1))]
        shrink: u32,
        iterations: Vec<u32>,
        spacing_mm: Option<[f64; 3]>,
        scope: Scope,
        steps: Vec<Step>,
        #[serde(deserialize_with = "even")]
        even: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Scope {
        /// All of it.
        Volume,
        Slice,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Step {
        Flip(Flip),
        Gamma(Flip),
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Flip {
        axis: u8,
    }

    impl Default for Given {
        fn default() -> Self {
            Self {
                blur_mm: 2.0,
                shrink: 4,
                iterations: vec![10],
                spacing_mm: None,
                scope: Scope::Volume,
                steps: Vec::new(),
                even: 2,
            }
        }
    }

    fn even<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let n = u32::deserialize(from)?;
        if n % 2 == 0 { Ok(n) } else { Err(serde::de::Error::custom(format!("{n} is odd"))) }
    }

    fn problems(value: Value) -> Vec<String> {
        let list = parse_parameters::<Given>(value).unwrap_err();
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(parse_parameters::<Given>(Value::Null), Ok(Given::default()));
        assert_eq!(parse_parameters::<Given>(json!({})), Ok(Given::default()));
    }

    #[test]
    fn given_keys_replace_defaults() {
        let given =
            json!({"blur_mm": 3, "spacing_mm": [1, 1, 5.5], "steps": [{"flip": {"axis": 1}}]});
        let blur: Given = parse_parameters(given).unwrap();
        assert_eq!(blur.spacing_mm, Some([1.0, 1.0, 5.5]));
        assert_eq!(blur.steps, [Step::Flip(Flip { axis: 1 })]);
        assert_eq!((blur.blur_mm.to_bits(), blur.shrink), (3.0_f64.to_bits(), 4));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let given = json!({
            "blurr_mm": 2, "blur_mm": "abc", "shrink": 0, "iterations": [10, "x", 1.5],
            "spacing_mm": [1, 2], "scope": "slices", "steps": [{"flop": {}}, {"gamma": {"axes": 1}}],
        });
        let expected = [
            "unknown key `blurr_mm` (did you mean `blur_mm`?)",
            "`blur_mm`: expected a number, found the string `abc`",
            "`shrink`: expected an integer of at least 1, found 0",
            "`iterations.1`: expected an integer of at least 0, found the string `x`",
            "`iterations.2`: expected an integer of at least 0, found the number 1.5",
            "`spacing_mm`: expected a list of 3 numbers, found a list of 2 items",
            "unknown name `slices` (did you mean `slice`?)",
            "unknown name `flop` (did you mean `flip`?)",
            "unknown key `axes` (did you mean `axis`?)",
        ];
        assert_eq!(problems(given), expected);
    }

    #[test]
    fn kinds_are_named() {
        assert_eq!(problems(json!([1])), ["expected a mapping, found a list"]);
        let scope = problems(json!({"scope": 3}));
        assert_eq!(scope, ["`scope`: expected one of `slice`, `volume`, found the number 3"]);
        let spacing = problems(json!({"spacing_mm": "2"}));
        assert_eq!(spacing, ["`spacing_mm`: expected a list of 3 numbers, found the string `2`"]);
    }

    #[test]
    fn what_only_code_can_check_names_its_key() {
        assert_eq!(problems(json!({"even": 3, "shrink": 2})), ["`even`: 3 is odd"]);
    }

    #[test]
    fn names_far_from_all_list_them() {
        assert_eq!(suggest("zzz", &["blur_mm", "shrink"]), "known: `blur_mm`, `shrink`");
        assert_eq!(nearest("blur", &["blur_mm", "shrink"]), Some("blur_mm"));
        assert_eq!(nearest("n5", &["n4", "qc"]), Some("n4"));
    }
}
