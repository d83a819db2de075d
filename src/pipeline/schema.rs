//! The JSON Schema of the pipeline file, from the types that read it, so that editors complete and check while one
//! writes.
//!
//! It differs from what the types say in one way: where a number, a boolean or a list is expected, a string that is a
//! variable (`${name}`) will do as well.

use serde_json::{Map, Value, json};

use super::spec::{ACTIONS, PipelineFile};
use crate::stages::StageSpec;

/// Where the schema is in the repository.
pub const SCHEMA_FILE: &str = "schemas/pipeline.schema.json";

/// The text of [`SCHEMA_FILE`].
pub fn schema_text() -> String {
    let mut schema = schemars::schema_for!(PipelineFile).to_value();
    if let Some(step) = schema.pointer_mut("/$defs/StepSpec").and_then(Value::as_object_mut) {
        let one = |action: &&str| json!({ "required": [action] });
        step.insert("oneOf".to_owned(), ACTIONS.iter().map(one).collect());
    }
    if let Some(stage) = schema.pointer_mut("/$defs/TestSpec/properties/stage") {
        stage["enum"] = json!(StageSpec::names());
    }
    allow_variables(&mut schema);
    if let Some(definitions) = schema.pointer_mut("/$defs").and_then(Value::as_object_mut) {
        let variable = json!({
            "description": "A variable declared in `vars`.",
            "type": "string",
            "pattern": "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$",
        });
        definitions.insert("Variable".to_owned(), variable);
    }
    // Serialising a JSON value cannot fail.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// Lets a variable stand in for every value that is neither a string nor a mapping.
fn allow_variables(schema: &mut Value) {
    let Value::Object(map) = schema else {
        if let Value::Array(items) = schema {
            items.iter_mut().for_each(allow_variables);
        }
        return;
    };
    for (key, value) in map.iter_mut() {
        // Those hold values, not schemas.
        if !matches!(key.as_str(), "default" | "const" | "enum" | "required" | "examples") {
            allow_variables(value);
        }
    }
    let replaceable =
        |t: &Value| matches!(t.as_str(), Some("number" | "integer" | "boolean" | "array"));
    let is_replaceable = match map.get("type") {
        Some(Value::Array(types)) => types.iter().any(replaceable),
        Some(one) => replaceable(one),
        None => false,
    };
    if !is_replaceable {
        return;
    }
    let about = ["title", "description", "default"];
    let (outer, inner): (Map<_, _>, Map<_, _>) =
        std::mem::take(map).into_iter().partition(|(key, _)| about.contains(&key.as_str()));
    *map = outer;
    map.insert("anyOf".to_owned(), json!([inner, { "$ref": "#/$defs/Variable" }]));
}
