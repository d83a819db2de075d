//! What a schema asks for and what was found instead, in the words that messages use.

use serde_json::Value;

/// Names in backticks, with commas.
pub fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// ` from 1 to 8` and the like, for numbers with bounds.
pub fn limits(schema: &Value) -> String {
    let bound = |key| schema.get(key).and_then(Value::as_f64);
    match (bound("minimum"), bound("maximum"), bound("exclusiveMinimum"), bound("exclusiveMaximum"))
    {
        (Some(min), Some(max), ..) if min >= max => format!(" equal to {min}"),
        (Some(min), Some(max), ..) => format!(" from {min} to {max}"),
        (Some(min), None, None, Some(max)) => format!(" from {min} to below {max}"),
        (Some(min), None, ..) => format!(" of at least {min}"),
        (None, Some(max), Some(min), None) => format!(" above {min} and at most {max}"),
        (None, Some(max), ..) => format!(" of at most {max}"),
        (None, None, Some(min), Some(max)) => format!(" between {min} and {max}"),
        (None, None, Some(min), None) => format!(" above {min}"),
        (None, None, None, Some(max)) => format!(" below {max}"),
        _ => String::new(),
    }
}

/// The types a schema allows, as JSON Schema names them.
pub fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The fixed strings that a schema allows, where it allows nothing else.
pub fn names_of(schema: &Value) -> Vec<&str> {
    if let Some(name) = schema.get("const").and_then(Value::as_str) {
        return vec![name];
    }
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names.iter().filter_map(Value::as_str).collect();
    }
    let variants = schema.get("oneOf").and_then(Value::as_array);
    let all: Vec<Vec<&str>> = variants.into_iter().flatten().map(names_of).collect();
    if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() }
}

/// The key of a schema for a mapping with just that one key (a variant of an enum).
pub fn tag(schema: &Value) -> Option<&str> {
    let required = schema.get("required")?.as_array()?;
    let properties = schema.get("properties")?.as_object()?;
    (required.len() == 1 && properties.len() == 1).then(|| required[0].as_str())?
}

/// Whether a value is of a type, as JSON Schema names it.
pub fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

/// A value in words that follow "found".
pub fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the string `{}`", short(s)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// The beginning of a text's first line.
pub fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(40).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
