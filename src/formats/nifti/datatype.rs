//! The real number types of NIfTI voxels, and their conversion to `f32`.
//!
//! value = stored × slope + intercept, computed in `f64`, then rounded to `f32`, as nibabel's `get_fdata` followed by
//! a cast does. Types without a real value a voxel (RGB, complex) or without a Rust type (128-bit floats) are refused.

use crate::error::{Error, Result};

/// How a voxel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// Unsigned, 8 bits.
    UInt8,
    /// Signed, 8 bits.
    Int8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Signed, 16 bits.
    Int16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Signed, 32 bits.
    Int32,
    /// Unsigned, 64 bits.
    UInt64,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 double precision.
    Float64,
}

impl DataType {
    /// The type of a header's `datatype` code.
    ///
    /// # Errors
    /// A data error naming the type where it is unknown or has no real value.
    pub fn from_code(code: i16) -> Result<Self> {
        let kind = match code {
            2 => return Ok(Self::UInt8),
            4 => return Ok(Self::Int16),
            8 => return Ok(Self::Int32),
            16 => return Ok(Self::Float32),
            64 => return Ok(Self::Float64),
            256 => return Ok(Self::Int8),
            512 => return Ok(Self::UInt16),
            768 => return Ok(Self::UInt32),
            1024 => return Ok(Self::Int64),
            1280 => return Ok(Self::UInt64),
            1 => "1-bit",
            32 | 1792 | 2048 => "complex",
            128 | 2304 => "RGB colour",
            1536 => "128-bit float",
            _ => {
                return Err(Error::data(format!(
                    "datatype {code} is none of the data types of NIfTI"
                )));
            }
        };
        Err(Error::data(format!(
            "the voxels are of the {kind} type (datatype {code}); an image here has one real number a voxel"
        ))
        .hint("convert the image to a real type first, for example to its magnitude as float32"))
    }

    /// The `datatype` code in a header.
    pub fn code(self) -> i16 {
        match self {
            Self::UInt8 => 2,
            Self::Int16 => 4,
            Self::Int32 => 8,
            Self::Float32 => 16,
            Self::Float64 => 64,
            Self::Int8 => 256,
            Self::UInt16 => 512,
            Self::UInt32 => 768,
            Self::Int64 => 1024,
            Self::UInt64 => 1280,
        }
    }

    /// Size of a voxel in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::UInt8 | Self::Int8 => 1,
            Self::UInt16 | Self::Int16 => 2,
            Self::UInt32 | Self::Int32 | Self::Float32 => 4,
            Self::UInt64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// The name that numpy gives it: `uint8`, `float32`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::UInt8 => "uint8",
            Self::Int8 => "int8",
            Self::UInt16 => "uint16",
            Self::Int16 => "int16",
            Self::UInt32 => "uint32",
            Self::Int32 => "int32",
            Self::UInt64 => "uint64",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }
}

/// How stored numbers become values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coding {
    pub datatype: DataType,
    pub big_endian: bool,
    pub slope: f64,
    pub intercept: f64,
}

/// Appends one value a voxel of `raw`, which holds whole voxels.
macro_rules! decode_as {
    ($type:ty, $coding:expr, $raw:expr, $out:expr) => {{
        let (voxels, _) = $raw.as_chunks::<{ size_of::<$type>() }>();
        let (slope, intercept) = ($coding.slope, $coding.intercept);
        match ($coding.big_endian, slope == 1.0 && intercept == 0.0) {
            (false, true) => $out.extend(voxels.iter().map(|&v| <$type>::from_le_bytes(v) as f32)),
            (true, true) => $out.extend(voxels.iter().map(|&v| <$type>::from_be_bytes(v) as f32)),
            (false, false) => $out.extend(
                voxels
                    .iter()
                    .map(|&v| (<$type>::from_le_bytes(v) as f64 * slope + intercept) as f32),
            ),
            (true, false) => $out.extend(
                voxels
                    .iter()
                    .map(|&v| (<$type>::from_be_bytes(v) as f64 * slope + intercept) as f32),
            ),
        }
    }};
}

/// Appends the values of the voxels in `raw` to `out`.
#[expect(
    clippy::cast_lossless,
    clippy::float_cmp,
    reason = "one macro serves all types; exactly 1 and 0 mean unscaled"
)]
pub(super) fn decode(coding: &Coding, raw: &[u8], out: &mut Vec<f32>) {
    match coding.datatype {
        DataType::UInt8 => decode_as!(u8, coding, raw, out),
        DataType::Int8 => decode_as!(i8, coding, raw, out),
        DataType::UInt16 => decode_as!(u16, coding, raw, out),
        DataType::Int16 => decode_as!(i16, coding, raw, out),
        DataType::UInt32 => decode_as!(u32, coding, raw, out),
        DataType::Int32 => decode_as!(i32, coding, raw, out),
        DataType::UInt64 => decode_as!(u64, coding, raw, out),
        DataType::Int64 => decode_as!(i64, coding, raw, out),
        DataType::Float32 => decode_as!(f32, coding, raw, out),
        DataType::Float64 => decode_as!(f64, coding, raw, out),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const ALL: [DataType; 10] = [
        DataType::UInt8,
        DataType::Int8,
        DataType::UInt16,
        DataType::Int16,
        DataType::UInt32,
        DataType::Int32,
        DataType::UInt64,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
    ];

    #[test]
    fn codes_names_and_sizes_agree() {
        for t in ALL {
            assert_eq!(DataType::from_code(t.code()).unwrap(), t);
            assert_eq!(serde_json::to_string(&t).unwrap(), format!("\"{}\"", t.name()));
            assert_eq!(
                t.bytes() * 8,
                t.name().trim_matches(char::is_alphabetic).parse::<usize>().unwrap()
            );
        }
        for code in [0, 1, 32, 128, 1536, 1792, 2048, 2304, -1, 3] {
            assert!(DataType::from_code(code).is_err(), "{code}");
        }
    }

    #[test]
    fn both_byte_orders_and_scaling_decode() {
        let plain =
            |datatype, big_endian| Coding { datatype, big_endian, slope: 1.0, intercept: 0.0 };
        let mut out = Vec::new();
        decode(&plain(DataType::Int16, false), &[0xfe, 0xff, 2, 0], &mut out);
        decode(&plain(DataType::Int16, true), &[0xff, 0xfe, 0, 2], &mut out);
        decode(&plain(DataType::Float64, true), &(-3.25f64).to_be_bytes(), &mut out);
        let scaled = Coding { slope: 0.5, intercept: -1.0, ..plain(DataType::UInt8, false) };
        decode(&scaled, &[0, 255], &mut out);
        assert_eq!(out, [-2.0, 2.0, -2.0, 2.0, -3.25, -1.0, 126.5]);
    }
}
