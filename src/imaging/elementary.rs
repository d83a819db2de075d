//! Exponential, logarithm and power in single precision that compile to vector code.
//!
//! Plain arithmetic without tables, branches or fused operations, so that a loop over them becomes vector code and
//! every machine and instruction set gives the same bits (the C library's differ between platforms in the last place).
//! Sources: S. Moshier, Cephes (`expf`); `FreeBSD` msun (`logf`).
#![expect(clippy::inline_always, reason = "a call inside a vector loop would undo the loop")]

/// eˣ within 1.5 units in the last place; saturates outside [−87.3, 88.3].
#[inline(always)]
pub(in crate::imaging) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 88.3 { 88.3 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let q = 1.987_569_1e-4;
    let q = q * r + 1.398_199_9e-3;
    let q = q * r + 8.333_452e-3;
    let q = q * r + 4.166_579_6e-2;
    let q = q * r + 1.666_666_5e-1;
    let q = q * r + 0.5;
    let y = (q * (r * r) + r) + 1.0;
    y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// Natural logarithm within 1 unit in the last place of a positive finite number, subnormal ones included; anything
/// finite for other numbers that are not NaN.
#[inline(always)]
pub(in crate::imaging) fn ln(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    const LN2_HIGH: f32 = 6.931_381e-1;
    const LN2_LOW: f32 = 9.058_001e-6;
    let subnormal = x < f32::MIN_POSITIVE;
    let x = if subnormal { x * 8_388_608.0 } else { x };
    let bias = if subnormal { -23.0 } else { 0.0 };
    // x = m · 2^e with m in [√½, √2).
    let e = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((e << 23) as u32));
    let e = e as f32 + bias;
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let r = w * (0.400_009_72 + w * 0.242_790_79) + z * (0.666_666_6 + w * 0.284_987_87);
    let half = 0.5 * f * f;
    s * (half + r) + e * LN2_LOW - half + f + e * LN2_HIGH
}

/// log₂ x, as [`ln`].
#[inline(always)]
pub(in crate::imaging) fn log2(x: f32) -> f32 {
    ln(x) * std::f32::consts::LOG2_E
}

/// xᵖ for x ≥ 0 and p > 0, within (1 + |p ln x|) · 2 · 10⁻⁷; 0 for numbers too small to be normal.
#[inline(always)]
pub(in crate::imaging) fn power(x: f32, p: f32) -> f32 {
    let value = exp(p * ln(x));
    if x < f32::MIN_POSITIVE { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units in the last place of the true value.
    fn ulps(found: f32, expected: f64) -> f64 {
        let e = expected as f32;
        let ulp = f64::from(e.abs().next_up()) - f64::from(e.abs());
        (f64::from(found) - expected).abs() / ulp
    }

    #[test]
    fn exp_is_within_1_5_units_in_the_last_place() {
        let worst = (-870_000..880_000).step_by(7).map(|i| i as f32 * 1e-4);
        let worst = worst.map(|x| ulps(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        assert!(worst < 1.5, "{worst}");
        let near = (-40_000..40_000).map(|i| i as f32 * 1e-6);
        let near = near.map(|x| ulps(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        assert!(near < 0.55, "near zero, where N4's convergence measure lives: {near}");
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp(1e9).is_finite() && exp(-1e9) > 0.0);
    }

    #[test]
    fn ln_is_within_1_unit_in_the_last_place() {
        let mut x = 1e-40_f32;
        let mut worst = 0.0_f64;
        while x < 1e38 {
            worst = worst.max(ulps(ln(x), f64::from(x).ln()));
            x *= 1.000_13;
        }
        assert!(worst < 1.0, "{worst}");
        assert_eq!(ln(1.0).to_bits(), 0.0_f32.to_bits());
        assert_eq!(log2(1.0).to_bits(), 0.0_f32.to_bits());
        assert!((log2(1024.0) - 10.0).abs() < 1e-6);
    }

    #[test]
    fn powers_agree_with_double_precision() {
        for i in 1..4000 {
            let x = i as f32 / 4000.0;
            for p in [0.3_f32, 0.74, 1.0, 1.35, 2.0] {
                let want = f64::from(x).powf(f64::from(p));
                let within = 2e-7 * (1.0 + want.ln().abs());
                assert!((f64::from(power(x, p)) / want - 1.0).abs() < within, "{x} {p}");
            }
        }
        assert_eq!(power(1.0, 0.7).to_bits(), 1.0_f32.to_bits());
        assert_eq!(power(0.0, 0.7).to_bits(), 0);
    }
}
