//! Networks in files: safetensors, which Python, Rust and the browser read, with metadata beside the tensors.
//!
//! The file is written here rather than by the crate `safetensors`, which keeps metadata in a hash map: equal networks give
//! equal bytes. Layout: length of the header (u64, little endian), the header (JSON, padded with blanks to 8 bytes), the
//! values of all tensors in the order of their names (f32, little endian).

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, TchError, Tensor};
use torcula::error::{Error, Result};
use torcula::formats::files::{Published, publish, read_bounded};

use crate::device::torch_error;

/// No network here comes near.
const MAX_BYTES: u64 = 8 << 30;
const ALIGNMENT: usize = 8;

/// Writes named tensors (f32) and metadata, whole or not at all.
///
/// # Errors
/// An I/O or resource error that names the path; libtorch's where a tensor cannot be copied to the CPU.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Published> {
    let tensors: BTreeMap<String, &Tensor> = tensors.into_iter().collect();
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for (name, tensor) in &tensors {
        let start = end;
        end += tensor.numel() * size_of::<f32>();
        let entry = json!({"dtype": "F32", "shape": tensor.size(), "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    publish(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in tensors.values() {
            for value in values(tensor).map_err(|e| torch_error(&e))? {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    })
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
#[derive(Debug)]
pub struct Checkpoint {
    source: String,
    tensors: BTreeMap<String, (Vec<i64>, Vec<f32>)>,
    /// What was written beside the tensors.
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Reads a file.
    ///
    /// # Errors
    /// A data error where it is no safetensors file of f32 tensors; an I/O error where it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let source = path.display().to_string();
        let bytes = read_bounded(path, MAX_BYTES)?;
        let broken = |what: String| {
            Error::data(format!("{source}: {what}"))
                .hint("the file is damaged or no model of this software; train the model again")
        };
        let wrong = |e| broken(format!("this is no safetensors file ({e})"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
        let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(broken(format!("tensor {name} is {:?}, expected F32", view.dtype())));
            }
            let shape = view.shape().iter().map(|n| *n as i64).collect();
            let (words, _) = view.data().as_chunks();
            tensors.insert(
                name.to_owned(),
                (shape, words.iter().map(|w| f32::from_le_bytes(*w)).collect()),
            );
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { source, tensors, metadata })
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
                .hint("the file is damaged or of another version; train the model again")
        };
        let (shape, values) =
            self.tensors.get(name).ok_or_else(|| wrong("is missing".to_owned()))?;
        if *shape != tensor.size() {
            return Err(wrong(format!("has shape {shape:?}, expected {:?}", tensor.size())));
        }
        let copy = || {
            let _guard = tch::no_grad_guard();
            let from = Tensor::f_from_slice(values)?.f_view(shape.as_slice())?;
            tensor.shallow_clone().f_copy_(&from)
        };
        copy().map_err(|e| torch_error(&e))
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
}
