//! Published values beside ours: which entry of the file stands beside which row.

use serde_json::Value;

use super::is_share;
use crate::pipeline::report_spec::Published;

/// The published value of a measure where the keys have these values; none where no entry has exactly these keys and
/// says the measure.
///
/// An entry is a mapping from keys (columns and their values) and measures (columns and what was published). Numbers are
/// compared as numbers, words without regard to case, spaces and signs.
pub fn find(
    published: &Published,
    keys: &[(&str, &str)],
    measures: &[&str],
    wanted: &str,
) -> Option<Value> {
    let fits = |entry: &&std::collections::BTreeMap<String, Value>| {
        let given = entry.keys().filter(|k| !measures.contains(&k.as_str())).count();
        given == keys.len()
            && keys.iter().all(|(key, value)| entry.get(*key).is_some_and(|v| same(v, value)))
    };
    published.iter().filter(fits).find_map(|entry| entry.get(wanted)).cloned()
}

/// As [`find`], as a number.
pub fn number(
    published: &Published,
    keys: &[(&str, &str)],
    measures: &[&str],
    wanted: &str,
) -> Option<f64> {
    find(published, keys, measures, wanted)?.as_f64()
}

/// A published value of a measure in words, as the file has it: shares with two decimals at least, since a file cannot
/// tell 0.70 from 0.7.
pub fn words_of(value: &Value, measure: &str) -> String {
    let mut text = words(value);
    if is_share(measure) && text.split_once('.').is_some_and(|(_, digits)| digits.len() == 1) {
        text.push('0');
    }
    text
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn same(given: &Value, found: &str) -> bool {
    let text = words(given);
    match (text.parse::<f64>(), found.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => letters(&text) == letters(found),
    }
}

/// Letters, digits and comparison signs: `< 1.7 mL` and `>14 mL` stay apart, `Siemens ` and `SIEMENS` do not.
fn letters(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric() || "<>≤≥.".contains(*c))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn entries_stand_beside_the_row_with_their_keys() {
        let published: Published = serde_json::from_str(
            r#"[{"n": 217, "dice": 0.58}, {"n": 217, "cohort": "External", "dice": 0.5}, {"n": 433, "precision": "0.7 ± 0.1"}]"#,
        )
        .unwrap();
        let measures = ["dice", "precision"];
        let of = |keys: &[(&str, &str)], wanted| find(&published, keys, &measures, wanted);
        assert_eq!(of(&[("n", "217")], "dice"), Some(Value::from(0.58)));
        assert_eq!(of(&[("n", "217.0"), ("cohort", "external")], "dice"), Some(Value::from(0.5)));
        assert_eq!(of(&[("n", "217")], "precision"), None);
        assert_eq!(of(&[("n", "433")], "precision").map(|v| words(&v)).unwrap(), "0.7 ± 0.1");
        assert_eq!(of(&[("n", "866")], "dice"), None);
        assert_eq!(words_of(&Value::from(0.70), "dice"), "0.70");
        assert_eq!(words_of(&Value::from(0.125), "dice"), "0.125");
        assert_eq!(words_of(&Value::from(67.9), "age_y"), "67.9");
        assert_eq!(number(&published, &[("n", "217")], &measures, "dice"), Some(0.58));
    }

    #[test]
    fn signs_of_comparison_count() {
        assert!(
            same(&Value::from(">14 mL"), "> 14 mL") && !same(&Value::from("< 14 mL"), "> 14 mL")
        );
    }
}
