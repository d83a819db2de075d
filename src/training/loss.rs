//! What training minimises: `w · (1 − overlap) + (1 − w) · entropy`, of probabilities p and truth t.
//!
//! The overlap, for each sample over its voxels, is the Tversky index (Salehi et al. 2017, arXiv:1706.05721):
//!
//! ```text
//! overlap = (2 tp + s) / (2 tp + 2 α fp + 2 β fn + s),   tp = Σ p t,  fp = Σ p (1 − t),  fn = Σ (1 − p) t,  s = 1
//! ```
//!
//! With α = β = ½ it is the soft Dice (Milletari et al. 2016, arXiv:1606.04797). The smoothing s makes an empty prediction of an
//! empty truth perfect.
//!
//! The entropy is the mean of `qᵞ · (−ln(1 − q))` from the logits, q the probability of the wrong answer: with γ = 0
//! the cross-entropy, above 0 the focal loss (Lin et al. 2017, arXiv:1708.02002). The mean goes over all voxels or over the
//! share of them where it is largest (top-k cross-entropy, Wu et al. 2016, arXiv:1605.06885): an infarct of ten voxels is heard
//! among half a million.

use tch::{Reduction, TchError, Tensor};
use torcula::engine::learner::TrainParams;

const SMOOTHING: f64 = 1.0;

/// A loss: which overlap, which entropy, and how much of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Share w of the overlap, 0 to 1.
    pub overlap: f64,
    /// Weight α of false positives.
    pub alpha: f64,
    /// Weight β of false negatives.
    pub beta: f64,
    /// Exponent γ of the focal loss.
    pub gamma: f64,
    /// Share of voxels, above 0, that count in the entropy; 1 for all.
    pub hardest: f64,
}

impl Loss {
    /// The loss of a train step.
    pub fn of(params: &TrainParams) -> Self {
        Self {
            overlap: params.dice_weight,
            alpha: params.tversky_alpha,
            beta: params.tversky_beta,
            gamma: params.focal_gamma,
            hardest: params.hardest_share,
        }
    }

    /// The mean loss of a batch.
    ///
    /// # Shapes
    /// `logits` and `truths` are `[batch, 1, z, y, x]`, truths 0 or 1 as f32.
    ///
    /// # Errors
    /// libtorch's, where the shapes differ.
    pub fn of_batch(&self, logits: &Tensor, truths: &Tensor) -> Result<Tensor, TchError> {
        let entropy = self.entropy(logits, truths)?;
        let missed = self.overlap(logits, truths)?.f_neg()?.f_add_scalar(1.0)?;
        missed.f_mul_scalar(self.overlap)?.f_add(&entropy.f_mul_scalar(1.0 - self.overlap)?)
    }

    fn overlap(&self, logits: &Tensor, truths: &Tensor) -> Result<Tensor, TchError> {
        let voxels = [1_i64, 2, 3, 4];
        let sum = |t: &Tensor| t.f_sum_dim_intlist(voxels.as_slice(), false, None);
        let probabilities = logits.f_sigmoid()?;
        let both = sum(&probabilities.f_mul(truths)?)?;
        let false_positive = sum(&probabilities)?.f_sub(&both)?.f_mul_scalar(2.0 * self.alpha)?;
        let false_negative = sum(truths)?.f_sub(&both)?.f_mul_scalar(2.0 * self.beta)?;
        let both = both.f_mul_scalar(2.0)?.f_add_scalar(SMOOTHING)?;
        let all = both.f_add(&false_positive)?.f_add(&false_negative)?;
        both.f_div(&all)?.f_mean(None)
    }

    fn entropy(&self, logits: &Tensor, truths: &Tensor) -> Result<Tensor, TchError> {
        let of = |reduction| {
            logits.f_binary_cross_entropy_with_logits::<&Tensor>(truths, None, None, reduction)
        };
        if self.gamma <= 0.0 && self.hardest >= 1.0 {
            return of(Reduction::Mean);
        }
        let mut each = of(Reduction::None)?;
        if self.gamma > 0.0 {
            // ln q = ln σ(−x) where the truth is 1, ln σ(x) where it is 0.
            let sign = truths.f_mul_scalar(-2.0)?.f_add_scalar(1.0)?;
            let wrong = logits.f_mul(&sign)?.f_log_sigmoid()?;
            each = each.f_mul(&wrong.f_mul_scalar(self.gamma)?.f_exp()?)?;
        }
        if self.hardest < 1.0 {
            let count = (self.hardest * each.numel() as f64).ceil().max(1.0) as i64;
            each = each.f_flatten(0, -1)?.f_topk(count, 0, true, false)?.0;
        }
        each.f_mean(None)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const DICE_AND_ENTROPY: Loss =
        Loss { overlap: 0.5, alpha: 0.5, beta: 0.5, gamma: 0.0, hardest: 1.0 };

    fn batch() -> Result<(Tensor, Tensor), TchError> {
        let logits = Tensor::from_slice(&[0.0_f32, 2.0, -1.0, 0.5, -3.0, -2.0, -4.0, -1.0]);
        let truths = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let shape = [2, 1, 1, 2, 2];
        Ok((logits.f_view(shape)?, truths.f_view(shape)?))
    }

    // `python benches/peers/training.py` prints these: MONAI's DiceLoss and TverskyLoss (smooth_nr = smooth_dr = 1 and ½),
    // BCEWithLogitsLoss, FocalLoss, and PyTorch's topk of the three largest.
    #[test]
    fn values_are_those_of_monai() -> Result<(), TchError> {
        let (logits, truths) = batch()?;
        let base = DICE_AND_ENTROPY;
        for (name, loss, expected) in [
            ("Dice", Loss { overlap: 1.0, ..base }, 0.276_050_031),
            ("cross-entropy", Loss { overlap: 0.0, ..base }, 0.264_292_628),
            ("half of each", base, 0.270_171_309),
            ("hardest", Loss { overlap: 0.0, hardest: 0.375, ..base }, 0.493_495_315),
            ("Tversky", Loss { overlap: 1.0, alpha: 0.3, beta: 0.7, ..base }, TVERSKY),
            ("focal", Loss { overlap: 0.0, gamma: 2.0, ..base }, FOCAL),
        ] {
            let found = loss.of_batch(&logits, &truths)?.f_double_value(&[])?;
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        }
        Ok(())
    }

    const TVERSKY: f64 = 0.218_981_147;
    const FOCAL: f64 = 0.036_237_337;

    // The same file prints them, from autograd.
    #[test]
    fn gradients_are_those_of_monai() -> Result<(), TchError> {
        let (logits, truths) = batch()?;
        let logits = logits.f_set_requires_grad(true)?;
        let loss = Loss { overlap: 0.5, alpha: 0.3, beta: 0.7, gamma: 2.0, hardest: 1.0 };
        loss.of_batch(&logits, &truths)?.f_backward()?;
        let found: Vec<f32> = Vec::try_from(&logits.f_grad()?.f_flatten(0, -1)?)?;
        for (f, e) in found.iter().zip(GRADIENT) {
            assert!((f - e).abs() < 1e-6, "{found:?}, expected {GRADIENT:?}");
        }
        Ok(())
    }

    const GRADIENT: [f32; 8] = [
        0.024_278_522,
        -0.008_104_888,
        0.007_718_423,
        -0.026_080_556,
        0.004_207_035,
        0.010_036_128,
        0.001_638_213,
        0.021_509_98,
    ];

    #[test]
    fn a_sure_and_right_answer_costs_nothing() -> Result<(), TchError> {
        let truths = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0]).f_view([2, 1, 1, 1, 2])?;
        let logits = truths.f_mul_scalar(80.0)?.f_sub_scalar(40.0)?;
        let none = Tensor::f_zeros([2, 1, 1, 1, 2], (Kind::Float, Device::Cpu))?;
        for gamma in [0.0, 2.0] {
            let loss = Loss { gamma, ..DICE_AND_ENTROPY };
            let right = loss.of_batch(&logits, &truths)?.f_double_value(&[])?;
            let empty = loss.of_batch(&none.f_sub_scalar(40.0)?, &none)?.f_double_value(&[])?;
            assert!(right.abs() < 1e-6 && empty.abs() < 1e-6, "{gamma}: {right} {empty}");
        }
        Ok(())
    }
}
