//! Which column of `cases` a participant's variable goes into.

use serde_json::{Map, Value, json};

/// Puts the participant's variables into their columns; what has no column of its own goes into `variables`.
pub(super) fn variables(mut found: Map<String, Value>, row: &mut Map<String, Value>) {
    for (column, names, kind) in VARIABLE_COLUMNS {
        let value = names.iter().find_map(|name| found.remove(*name));
        let value = value.map_or(Value::Null, |value| typed(&value, *kind));
        if row.get(*column).is_none_or(Value::is_null) {
            row.insert((*column).to_owned(), value);
        }
    }
    row.insert("variables".to_owned(), json!(Value::Object(found).to_string()));
}

/// Whether a variable has a column of `cases`.
pub fn has_column(name: &str) -> bool {
    name == "model"
        || IMAGE_COLUMNS.contains(&name)
        || VARIABLE_COLUMNS.iter().any(|(_, names, _)| names.contains(&name))
}

/// Types of variables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
}

/// Column of `cases`, names that participants tables give it, type.
const VARIABLE_COLUMNS: &[(&str, &[&str], Kind)] = &[
    ("centre", &["centre", "center", "site", "hospital"], Kind::Text),
    ("age_y", &["age_y", "age"], Kind::Number),
    ("sex", &["sex", "gender"], Kind::Text),
    ("nihss", &["nihss", "NIHSS"], Kind::Number),
    ("stroke_subtype", &["stroke_subtype", "toast", "TOAST"], Kind::Text),
    ("onset_h", &["onset_h", "onset_to_imaging_h"], Kind::Number),
    ("location", &["location", "infarct_location"], Kind::Text),
    ("chronic_infarct", &["chronic_infarct"], Kind::Flag),
    ("wmh_volume_ml", &["wmh_volume_ml", "wmh_ml"], Kind::Number),
    ("vendor", &["vendor", "manufacturer"], Kind::Text),
    ("field_strength_t", &["field_strength_t"], Kind::Number),
];

/// Columns that say what an image is like. Where there is one it is asked; without one the table's word is taken.
pub(super) const IMAGE_COLUMNS: &[&str] = &[
    "spacing_x_mm",
    "spacing_y_mm",
    "spacing_z_mm",
    "b_value_s_per_mm2",
    "repetition_time_ms",
    "echo_time_ms",
    "slice_thickness_mm",
    "slice_gap_mm",
    "truth_volume_ml",
];

/// A variable as its column takes it; `n/a` and what cannot be read are missing.
pub(super) fn typed(value: &Value, kind: Kind) -> Value {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => return Value::Null,
        other => other.to_string(),
    };
    if text.is_empty() || text.eq_ignore_ascii_case("n/a") || text.eq_ignore_ascii_case("nan") {
        return Value::Null;
    }
    match kind {
        Kind::Text => json!(text),
        Kind::Number => {
            text.parse::<f64>().ok().filter(|v| v.is_finite()).map_or(Value::Null, |v| json!(v))
        }
        Kind::Flag => match text.to_ascii_lowercase().as_str() {
            "1" | "yes" | "y" | "true" => json!(true),
            "0" | "no" | "n" | "false" => json!(false),
            _ => Value::Null,
        },
    }
}
