//! Functions for SQL.
//!
//! Fingerprints, here and in Rust: blake3 over the parts, each after its length in bytes (unsigned 64-bit, little
//! endian), so that `("ab", "c")` and `("a", "bc")` differ. Variables: what a registry's table says beside the columns of `cases`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;

/// The fingerprint of some parts: 64 hexadecimal digits.
pub fn fingerprint<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// `torcula_fingerprint(text, salt)` for SQL: the [`fingerprint`] of the two; null where either is.
pub(super) fn torcula_fingerprint() -> ScalarUDF {
    ScalarUDF::from(Fingerprint { signature: Signature::string(2, Volatility::Immutable) })
}

/// `variable(variables, 'name')` for SQL: the text of one key of a JSON object; null where there is no such key, or its
/// value is null.
pub(super) fn variable() -> ScalarUDF {
    ScalarUDF::from(Variable { signature: Signature::string(2, Volatility::Immutable) })
}

/// The text of one key of a JSON object.
fn value_of(object: &str, key: &str) -> Option<String> {
    let mut object: serde_json::Map<String, Value> = serde_json::from_str(object).ok()?;
    match object.remove(key)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// A JSON object with another laid over it: keys of the other are set, or taken out where it says null. Null where either is.
pub(super) fn patched() -> ScalarUDF {
    ScalarUDF::from(Patched { signature: Signature::string(2, Volatility::Immutable) })
}

/// As [`patched`]; what is no object counts as an empty one.
fn patch(object: &str, patch: &str) -> String {
    let read = |text: &str| -> serde_json::Map<String, Value> {
        serde_json::from_str(text).unwrap_or_default()
    };
    let mut object = read(object);
    for (key, value) in read(patch) {
        match value {
            Value::Null => drop(object.shift_remove(&key)),
            value => drop(object.insert(key, value)),
        }
    }
    Value::Object(object).to_string()
}

/// A function of two texts, row by row; null where either is.
fn of_texts(
    args: &ScalarFunctionArgs,
    function: impl Fn(&str, &str) -> Option<String>,
) -> QueryResult<ColumnarValue> {
    let mut columns = Vec::with_capacity(2);
    for array in ColumnarValue::values_to_arrays(&args.args)? {
        columns.push(cast(&array, &DataType::Utf8)?);
    }
    let [first, second] = &columns[..] else {
        return datafusion::common::exec_err!("this function takes two texts");
    };
    let pairs = first.as_string::<i32>().iter().zip(second.as_string::<i32>());
    let made: StringArray = pairs.map(|(a, b)| function(a?, b?)).collect();
    let made: ArrayRef = Arc::new(made);
    debug_assert_eq!(made.len(), first.len(), "one text a row");
    Ok(ColumnarValue::Array(made))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Variable {
    signature: Signature,
}

impl ScalarUDFImpl for Variable {
    fn name(&self) -> &'static str {
        "variable"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        of_texts(&args, value_of)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Patched {
    signature: Signature,
}

impl ScalarUDFImpl for Patched {
    fn name(&self) -> &'static str {
        "patched"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        of_texts(&args, |object, over| Some(patch(object, over)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    signature: Signature,
}

impl ScalarUDFImpl for Fingerprint {
    fn name(&self) -> &'static str {
        "torcula_fingerprint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        of_texts(&args, |text, salt| Some(fingerprint([text, salt])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // import blake3, struct
    // blake3.blake3(b"".join(struct.pack("<Q", len(p)) + p for p in (b"sub-1", b"7"))).hexdigest()
    const PYTHON: &str = "595f00ae204aa481f19c96bc5eede2b615f3dccd4874ab257a74064b02dd9505";

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
        assert_ne!(fingerprint(["a"]), fingerprint(["a", ""]));
        assert_eq!(fingerprint(["sub-1", "7"]), PYTHON);
    }

    #[test]
    fn a_variable_is_the_text_of_its_key() {
        let object = r#"{"dwi":"poor","age":71,"ward":null}"#;
        let found = ["dwi", "age", "ward", "absent"].map(|key| value_of(object, key));
        assert_eq!(found, [Some("poor".to_owned()), Some("71".to_owned()), None, None]);
        assert_eq!(value_of("no object", "dwi"), None);
    }
}
