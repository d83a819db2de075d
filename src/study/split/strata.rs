//! Strata: the values of some columns, put together.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::study::statistics::describe;

/// Different numbers from which a column counts by its quartiles.
const MANY: usize = 10;

/// The stratum of every case, from its values in each column.
///
/// A value that is missing is a stratum like any other. A column of more than ten different numbers counts by its
/// quartiles (Hyndman–Fan type 7, of the values that are known).
///
/// # Errors
/// A configuration error where a column has no value in any case, or where nearly every case would be a stratum.
pub fn strata(columns: &[(&str, Vec<Value>)], cases: usize) -> Result<Vec<String>> {
    let mut strata = vec![String::new(); cases];
    for (name, values) in columns {
        if cases > 0 && values.iter().all(Value::is_null) {
            let found = format!("`{name}` has no value in any of {cases} cases");
            let hint = "remove it from `stratify`, or ingest the column";
            return Err(Error::configuration(found).hint(hint));
        }
        let texts = words(values);
        let different = texts.iter().collect::<BTreeSet<_>>().len();
        if different > 20 && different * 2 > cases {
            let found = format!("`{name}` has {different} different values in {cases} cases");
            let hint = "stratify by something that many patients share";
            return Err(Error::configuration(found).hint(hint));
        }
        for (stratum, text) in strata.iter_mut().zip(texts) {
            if !stratum.is_empty() {
                stratum.push_str(" · ");
            }
            stratum.push_str(&text);
        }
    }
    Ok(strata)
}

/// The values of a column as words; of many different numbers, their quarters.
fn words(values: &[Value]) -> Vec<String> {
    let known = values.iter().filter(|v| !v.is_null());
    let numbers: Vec<f64> = known.clone().filter_map(Value::as_f64).collect();
    let different = numbers.iter().map(|n| n.to_bits()).collect::<BTreeSet<_>>().len();
    let all_numbers = numbers.len() == known.count();
    let quartiles = || {
        let found = describe(&numbers.iter().copied().map(Some).collect::<Vec<_>>());
        [found.q1, found.median, found.q3].map(std::result::Result::unwrap_or_default)
    };
    let cuts = (all_numbers && different > MANY).then(quartiles);
    let word = |value: &Value| match (value, &cuts) {
        (Value::Null, _) => "unknown".to_owned(),
        (Value::String(text), _) => text.clone(),
        (value, Some(cuts)) => {
            let number = value.as_f64().unwrap_or_default();
            format!("Q{}", 1 + cuts.iter().filter(|cut| number > **cut).count())
        }
        (value, None) => value.to_string(),
    };
    values.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    #[test]
    fn words_flags_and_few_numbers_are_their_own_strata() {
        let columns = [
            ("vendor", vec![json!("GE"), json!("Philips"), json!(null)]),
            ("field", vec![json!(1.5), json!(3.0), json!(3.0)]),
            ("old", vec![json!(true), json!(null), json!(false)]),
        ];
        let found = strata(&columns, 3).unwrap();
        assert_eq!(found, ["GE · 1.5 · true", "Philips · 3.0 · unknown", "unknown · 3.0 · false"]);
    }

    #[test]
    fn many_numbers_count_by_their_quartiles() {
        let mut ages: Vec<Value> = (1..=100).map(|n| json!(f64::from(n) + 0.5)).collect();
        ages.push(json!(null));
        let found = strata(&[("age_y", ages)], 101).unwrap();
        let count = |word: &str| found.iter().filter(|w| *w == word).count();
        assert_eq!(["Q1", "Q2", "Q3", "Q4", "unknown"].map(count), [25, 25, 25, 25, 1]);
    }

    #[test]
    fn columns_that_say_nothing_or_too_much_are_refused() {
        let empty = strata(&[("ward", vec![Value::Null; 4])], 4).unwrap_err();
        assert!(empty.reason().contains("`ward` has no value in any of 4 cases"), "{empty}");
        let names = (0..50).map(|n| json!(format!("patient {n}"))).collect();
        assert!(strata(&[("name", names)], 50).unwrap_err().reason().contains("50 different"));
        assert_eq!(strata(&[("ward", Vec::new())], 0).unwrap(), Vec::<String>::new());
    }
}
