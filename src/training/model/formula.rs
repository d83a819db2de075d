//! Weights and images by a formula of names and places, the same in `benches/peers/networks.py`: tests against PyTorch need no
//! stored file.

use tch::{Device, TchError, Tensor};

use super::Store;

/// Numbers that a test compares of every output.
pub const SAMPLES: usize = 10;

/// Values in [-1, 1) that look random: the finaliser of MurmurHash3 over the place, keyed by the name (FNV-1a).
fn formula(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let key = name
        .bytes()
        .fold(0x811C_9DC5_u32, |key, byte| (key ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..count as u32).map(move |place| {
        let mut h = place.wrapping_mul(0x9E37_79B1).wrapping_add(key);
        h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
        h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        h ^= h >> 16;
        f64::from(h) / 2_f64.powi(31) - 1.0
    })
}

/// An image of that shape.
pub fn image(shape: &[i64]) -> Result<Tensor, TchError> {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = formula("image", count).map(|v| v as f32).collect();
    Tensor::f_from_slice(&values)?.f_view(shape)
}

/// Gives every tensor of a network its formula.
pub fn fill(store: &Store) -> Result<(), TchError> {
    let _guard = tch::no_grad_guard();
    for (name, named) in store.tensors().filter(|(_, named)| !named.computed) {
        let shape = named.tensor.size();
        let values = formula(name, named.tensor.numel());
        let fan_in: i64 = shape[1..].iter().product();
        let spread = (6.0 / fan_in as f64).sqrt();
        let scale = ["weight", "scale", "variance"].iter().any(|end| name.ends_with(end));
        let value = |v: f64| match shape.len() {
            1 if scale => 1.0 + 0.3 * v,
            1 => 0.3 * v,
            _ => spread * v,
        };
        let values: Vec<f32> = values.map(|v| value(v) as f32).collect();
        named
            .tensor
            .shallow_clone()
            .f_copy_(&Tensor::f_from_slice(&values)?.f_view(&shape[..])?)?;
    }
    Ok(())
}

/// Some values of an output, spread over it.
pub fn samples(output: &Tensor) -> Result<Vec<f64>, TchError> {
    let flat = output.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?;
    let numel = flat.numel();
    (1..=SAMPLES).map(|k| flat.f_double_value(&[(k * numel / (SAMPLES + 1)) as i64])).collect()
}

/// Whether an output is what PyTorch gives, to 1e-4.
pub fn assert_close(what: &str, output: &Tensor, expected: &[f64]) -> Result<(), TchError> {
    let found = samples(output)?;
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{what}: {found}, expected {expected}");
    }
    Ok(())
}
