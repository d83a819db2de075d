//! Networks in files: safetensors, which Python, Rust and the browser read, with metadata beside the tensors.
//!
//! The file is written here rather than by the crate `safetensors`, which keeps metadata in a hash map: equal networks give
//! equal bytes. Layout: length of the header (u64, little endian), the header (JSON, padded with blanks to 8 bytes), the
//! values of all tensors (little endian), whole numbers (i64) before the rest (f32) so that all are aligned, each in the
//! order of their names.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, TchError, Tensor};
use torcula::error::{Error, Result};
use torcula::formats::files::{Published, publish, read_bounded};

use crate::device::torch_error;
use crate::model::Store;

/// No network here comes near.
const MAX_BYTES: u64 = 8 << 30;
const ALIGNMENT: usize = 8;

/// Writes named tensors and metadata, whole or not at all.
///
/// # Errors
/// An I/O or resource error that names the path; libtorch's where a tensor cannot be copied to the CPU.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Published> {
    let whole = |tensor: &Tensor| tensor.kind() == Kind::Int64;
    let tensors: BTreeMap<(bool, String), &Tensor> =
        tensors.into_iter().map(|(name, tensor)| ((!whole(tensor), name), tensor)).collect();
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for ((_, name), tensor) in &tensors {
        let start = end;
        let (dtype, bytes) = if whole(tensor) { ("I64", 8) } else { ("F32", 4) };
        end += tensor.numel() * bytes;
        let entry = json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    publish(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in tensors.values() {
            let bytes = bytes(tensor).map_err(|e| torch_error(&e))?;
            out.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// The values of a tensor as they stand in the file.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>, TchError> {
    if tensor.kind() == Kind::Int64 {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0_i64; tensor.numel()];
        tensor.f_copy_data(&mut values, tensor.numel())?;
        return Ok(values.into_iter().flat_map(i64::to_le_bytes).collect());
    }
    Ok(values(tensor)?.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// The values of a tensor in memory order.
///
/// # Errors
/// libtorch's, where it cannot be copied to the CPU.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor =
        tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

/// A checkpoint that was read.
pub struct Checkpoint {
    source: String,
    bytes: Vec<u8>,
    tensors: BTreeMap<String, Stored>,
    /// What was written beside the tensors.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor in the bytes of the file.
#[derive(Debug)]
struct Stored {
    shape: Vec<i64>,
    kind: Kind,
    place: Range<usize>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({self}, {} tensors)", self.tensors.len())
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Checkpoint {
    /// Reads a file. Half, double and brain floats are taken as they are and become single floats where they are loaded.
    ///
    /// # Errors
    /// A data error where it is no safetensors file of such tensors; an I/O error where it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let source = path.display().to_string();
        let bytes = read_bounded(path, MAX_BYTES)?;
        let broken = |what: String| {
            Error::data(format!("{source}: {what}"))
                .hint("give what a train step wrote, or a state dict saved with safetensors.torch.save_file")
        };
        let wrong = |e| broken(format!("this is no safetensors file ({e})"));
        let (header_bytes, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
        SafeTensors::deserialize(&bytes).map_err(wrong)?;
        let start = size_of::<u64>() + header_bytes;
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors() {
            let kind = match info.dtype {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::I64 => Kind::Int64,
                other => {
                    return Err(broken(format!("tensor {name} is {other:?}, expected floats")));
                }
            };
            let shape = info.shape.iter().map(|n| *n as i64).collect();
            let place = start + info.data_offsets.0..start + info.data_offsets.1;
            tensors.insert(name, Stored { shape, kind, place });
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { source, bytes, tensors, metadata })
    }

    /// The shape of the tensor `name`, where the file has it.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Takes `prefix` off the names of all tensors that have it, such as the `module.` of a wrapper.
    pub fn strip(&mut self, prefix: &str) {
        let tensors = std::mem::take(&mut self.tensors);
        let short = |name: String| name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name);
        self.tensors = tensors.into_iter().map(|(name, t)| (short(name), t)).collect();
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The value of a metadata key.
    ///
    /// # Errors
    /// A data error where it is missing.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| {
            Error::data(format!("{}: its metadata has no `{key}`", self.source))
                .hint("this is no model of this software; give the file that a train step wrote")
        })
    }

    /// A metadata value that is JSON or a number.
    ///
    /// # Errors
    /// A data error where it is missing or does not parse.
    pub fn json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?)
            .map_err(|e| Error::data(format!("{}: metadata `{key}`: {e}", self.source)))
    }

    /// Copies the tensor `name` of the file into `tensor`.
    ///
    /// # Errors
    /// A data error where it is missing or has another shape.
    pub fn load(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let wrong = |what: String| {
            Error::data(format!("{}: tensor {name} {what}", self.source))
                .hint("the file is damaged, or of another version or network")
        };
        let stored = self.tensors.get(name).ok_or_else(|| wrong("is missing".to_owned()))?;
        if stored.shape != tensor.size() {
            let (found, expected) = (&stored.shape, tensor.size());
            return Err(wrong(format!("has shape {found:?}, expected {expected:?}")));
        }
        let copy = || {
            let _guard = tch::no_grad_guard();
            let bytes = &self.bytes[stored.place.clone()];
            let from = Tensor::f_from_data_size(bytes, &stored.shape, stored.kind)?;
            tensor.shallow_clone().f_copy_(&from)
        };
        copy().map_err(|e| torch_error(&e))
    }

    /// Copies every tensor that a network keeps from the file.
    ///
    /// # Errors
    /// A data error where one is missing or has another shape.
    pub fn load_all(&self, store: &Store) -> Result<()> {
        let mut kept = store.tensors().filter(|(_, named)| !named.computed);
        kept.try_for_each(|(name, named)| self.load(name, &named.tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir()?)
    }

    #[test]
    fn what_is_written_is_read_and_equal_bytes_come_again() -> Result<()> {
        let folder = folder()?;
        let path = folder.path().join("m.safetensors");
        let [a, b] =
            [[1.5_f32, -0.0, f32::MIN_POSITIVE], [3.0, 4.0, 1e-40]].map(|v| Tensor::from_slice(&v));
        let metadata = (0..20).map(|i| (format!("key{i}"), format!("\"{i}\" é"))).collect();
        let tensors = || [("b".to_owned(), &b), ("a".to_owned(), &a)];
        let first = write(&path, tensors(), &metadata)?;
        assert_eq!(first, write(&path, tensors(), &metadata)?);
        let read = Checkpoint::read(&path)?;
        assert_eq!(read.metadata, metadata);
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        for (name, tensor) in tensors() {
            let copy = tensor.zeros_like();
            read.load(&name, &copy)?;
            let values = |t| values(t).map_err(|e| torch_error(&e));
            assert_eq!(bits(&values(&copy)?), bits(&values(tensor)?));
        }
        let reason = |r: Result<()>| r.err().map(|e| e.reason().to_owned()).unwrap_or_default();
        assert!(reason(read.load("c", &a)).ends_with("tensor c is missing"));
        assert!(
            reason(read.load("a", &a.view([3, 1]))).ends_with("has shape [3], expected [3, 1]")
        );
        assert!(read.text("nothing").is_err());
        Ok(())
    }

    #[test]
    fn damaged_files_are_data_errors() -> Result<()> {
        let folder = folder()?;
        let path = folder.path().join("m.safetensors");
        write(&path, [("a".to_owned(), &Tensor::from_slice(&[1.0_f32; 9]))], &BTreeMap::new())?;
        let bytes = std::fs::read(&path)?;
        let huge = [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
        for broken in
            [&bytes[..0], &bytes[..5], &bytes[..bytes.len() - 1], &huge, b"not a model at all"]
        {
            std::fs::write(&path, broken)?;
            let fault = Checkpoint::read(&path).err().map(|e| e.fault().name());
            assert_eq!(fault, Some("data"), "{} bytes", broken.len());
        }
        Ok(())
    }

    // import numpy as np; np.array([1.5, -2.0], "f2").tobytes(), and the upper halves of the same as f4
    #[test]
    fn other_floats_become_single() -> Result<()> {
        let folder = folder()?;
        let path = folder.path().join("m.safetensors");
        let header = br#"{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend([0x00, 0x3e, 0x00, 0xc0, 0xc0, 0x3f, 0x00, 0xc0]);
        std::fs::write(&path, bytes)?;
        let mut file = Checkpoint::read(&path)?;
        file.strip("wrapped.");
        for name in ["h", "b"] {
            let tensor = Tensor::from_slice(&[0.0_f32, 0.0]);
            file.load(name, &tensor)?;
            assert_eq!(values(&tensor).map_err(|e| torch_error(&e))?, [1.5, -2.0]);
        }
        Ok(())
    }

    #[test]
    fn whole_numbers_stand_before_the_rest() -> Result<()> {
        let folder = folder()?;
        let path = folder.path().join("m.safetensors");
        let [one, index] = [Tensor::from_slice(&[1.0_f32]), Tensor::from_slice(&[7_i64, -8])];
        let tensors = [("a".to_owned(), &one), ("b".to_owned(), &index)];
        write(&path, tensors, &BTreeMap::new())?;
        let file = Checkpoint::read(&path)?;
        assert_eq!(file.tensors["b"].place.start % 8, 0);
        let copy = index.zeros_like();
        file.load("b", &copy)?;
        assert_eq!(Vec::<i64>::try_from(&copy).map_err(|e| torch_error(&e))?, [7, -8]);
        Ok(())
    }
}
