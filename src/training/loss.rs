//! What training minimises: `w · (1 − soft Dice) + (1 − w) · cross-entropy`.
//!
//! Soft Dice (Milletari et al. 2016, arXiv:1606.04797) of probabilities p and truth t, for each sample over its voxels:
//!
//! ```text
//! dice = (2 Σ p t + s) / (Σ p + Σ t + s),   s = 1
//! ```
//!
//! The smoothing s makes an empty prediction of an empty truth perfect. The cross-entropy is the mean of
//! `−t ln p − (1 − t) ln(1 − p)`, computed from the logits, over all voxels or over the share of them where it is largest (top-k
//! cross-entropy, Wu et al. 2016, arXiv:1605.06885): an infarct of ten voxels is heard among half a million.

use tch::{Reduction, TchError, Tensor};

const SMOOTHING: f64 = 1.0;

/// The mean loss of a batch; `dice_weight` from 0 (cross-entropy alone) to 1 (Dice alone); `hardest`, above 0, is the share of
/// voxels that count in the cross-entropy, 1 for all.
///
/// # Shapes
/// `logits` and `truths` are `[batch, 1, z, y, x]`, truths 0 or 1 as f32.
///
/// # Errors
/// libtorch's, where the shapes differ.
pub fn dice_and_cross_entropy(
    logits: &Tensor,
    truths: &Tensor,
    dice_weight: f64,
    hardest: f64,
) -> Result<Tensor, TchError> {
    let of = |reduction| {
        logits.f_binary_cross_entropy_with_logits::<&Tensor>(truths, None, None, reduction)
    };
    let entropy = if hardest < 1.0 {
        let each = of(Reduction::None)?.f_flatten(0, -1)?;
        let count = (hardest * each.numel() as f64).ceil().max(1.0) as i64;
        each.f_topk(count, 0, true, false)?.0.f_mean(None)?
    } else {
        of(Reduction::Mean)?
    };
    let voxels = [1_i64, 2, 3, 4];
    let sum = |t: &Tensor| t.f_sum_dim_intlist(voxels.as_slice(), false, None);
    let probabilities = logits.f_sigmoid()?;
    let overlap = sum(&probabilities.f_mul(truths)?)?.f_mul_scalar(2.0)?.f_add_scalar(SMOOTHING)?;
    let total = sum(&probabilities)?.f_add(&sum(truths)?)?.f_add_scalar(SMOOTHING)?;
    let dice = overlap.f_div(&total)?.f_mean(None)?;
    let dice_loss = dice.f_neg()?.f_add_scalar(1.0)?;
    dice_loss.f_mul_scalar(dice_weight)?.f_add(&entropy.f_mul_scalar(1.0 - dice_weight)?)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    // import math
    // logits = [[0.0, 2.0, -1.0, 0.5], [-3.0, -2.0, -4.0, -1.0]]; truths = [[0, 1, 0, 1], [0, 0, 0, 0]]
    // p = [[1 / (1 + math.exp(-l)) for l in row] for row in logits]
    // bce = sum(-math.log(q if t else 1 - q) for r, s in zip(p, truths) for q, t in zip(r, s)) / 8
    // dice = sum((2 * sum(q * t for q, t in zip(r, s)) + 1) / (sum(r) + sum(s) + 1) for r, s in zip(p, truths)) / 2
    // for w in (0, 0.5, 1): print(w * (1 - dice) + (1 - w) * bce)
    #[test]
    fn values_are_those_of_the_formula() -> Result<(), TchError> {
        let logits = Tensor::from_slice(&[0.0_f32, 2.0, -1.0, 0.5, -3.0, -2.0, -4.0, -1.0]);
        let truths = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let shape = [2, 1, 1, 2, 2];
        let (logits, truths) = (logits.f_view(shape)?, truths.f_view(shape)?);
        for (weight, expected) in EXPECTED {
            let loss = dice_and_cross_entropy(&logits, &truths, weight, 1.0)?.f_double_value(&[])?;
            assert!((loss - expected).abs() < 1e-6, "{weight}: {loss}");
        }
        // The three largest of the eight: sorted(bce)[-3:], mean.
        let hardest = dice_and_cross_entropy(&logits, &truths, 0.0, 0.375)?.f_double_value(&[])?;
        assert!((hardest - HARDEST).abs() < 1e-6, "{hardest}");
        Ok(())
    }

    const HARDEST: f64 = 0.493_495_284;
    const EXPECTED: [(f64, f64); 3] =
        [(0.0, 0.264_292_605), (0.5, 0.270_171_309), (1.0, 0.276_050_013)];

    #[test]
    fn a_sure_and_right_answer_costs_nothing() -> Result<(), TchError> {
        let truths = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0]).f_view([2, 1, 1, 1, 2])?;
        let logits = truths.f_mul_scalar(80.0)?.f_sub_scalar(40.0)?;
        let loss = dice_and_cross_entropy(&logits, &truths, 0.5, 1.0)?.f_double_value(&[])?;
        assert!(loss.abs() < 1e-6, "{loss}");
        let none = Tensor::f_zeros([2, 1, 1, 1, 2], (Kind::Float, tch::Device::Cpu))?;
        let empty = dice_and_cross_entropy(&none.f_sub_scalar(40.0)?, &none, 0.5, 1.0)?;
        assert!(empty.f_double_value(&[])?.abs() < 1e-6);
        Ok(())
    }
}
