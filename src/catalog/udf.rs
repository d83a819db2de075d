//! Fingerprints, in Rust and in SQL: blake3 over the parts, each after its length in bytes (unsigned 64-bit, little
//! endian), so that `("ab", "c")` and `("a", "bc")` differ.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

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
        let mut columns = Vec::with_capacity(2);
        for array in ColumnarValue::values_to_arrays(&args.args)? {
            columns.push(cast(&array, &DataType::Utf8)?);
        }
        let [texts, salts] = &columns[..] else {
            return datafusion::common::exec_err!("torcula_fingerprint takes a text and a salt");
        };
        let hashed: StringArray = texts
            .as_string::<i32>()
            .iter()
            .zip(salts.as_string::<i32>())
            .map(|(text, salt)| Some(fingerprint([text?, salt?])))
            .collect();
        let hashed: ArrayRef = Arc::new(hashed);
        debug_assert_eq!(hashed.len(), texts.len(), "one fingerprint a row");
        Ok(ColumnarValue::Array(hashed))
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
}
