//! The metadata of a safetensors file: texts by key, beside its tensors. The tensors are the training crate's to read.
//!
//! Layout: length of the header (u64, little endian), the header as JSON with `__metadata__` among the names of the tensors.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::files::{io_error, open_regular};
use crate::error::{Error, Result};

/// Largest header that is read, in bytes: the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a header says besides its tensors.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
}

/// The metadata of a file; empty where it has none.
///
/// # Errors
/// An I/O error where the file cannot be read; a data error where it is no safetensors file.
pub fn metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let broken = |what: &str| {
        Error::data(format!("{}: no safetensors file: {what}", path.display()))
            .hint("`torcula models export` writes such a file; so does safetensors.torch.save_file")
    };
    let (mut file, _) = open_regular(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken("it ends before its header"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(broken("its first 8 bytes are not the length of a header"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(|e| io_error(path, "cannot be read", &e))?;
    if (header.len() as u64) < length {
        return Err(broken("it ends within its header"));
    }
    if header.first() != Some(&b'{') {
        return Err(broken("its header is no JSON object"));
    }
    let header: Header =
        serde_json::from_slice(&header).map_err(|e| broken(&format!("its header: {e}")))?;
    Ok(header.metadata)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn metadata_is_read_and_what_is_no_such_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        // safetensors.numpy.save({"w": numpy.zeros(1, "f4")}, {"a": "b"})
        let header =
            r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes().chain([0; 4]));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(metadata(&path).unwrap()["a"], "b");
        for broken in [&bytes[..4], &bytes[..20], &[255; 30], b"\x02\0\0\0\0\0\0\0[]"] {
            std::fs::write(&path, broken).unwrap();
            let error = metadata(&path).unwrap_err();
            assert!(error.reason().contains("m.safetensors"), "{error}");
        }
        assert!(metadata(&folder.path().join("none")).is_err());
    }
}
