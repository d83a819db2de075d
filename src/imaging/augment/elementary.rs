//! Powers and logarithms in single precision that compile to vector code, and give the same bits on every machine
//! (the ones of the C library differ between platforms in the last place).
//!
//! 2ˣ: x = n + f with |f| ≤ ½, Taylor series of 2ᶠ to degree 7, n added to the exponent.
//! log₂ x: x = m 2ᵉ with m in [√½, √2), r = (m − 1) / (m + 1), log₂ m = 2 / ln 2 · (r + r³/3 + r⁵/5 + r⁷/7 + r⁹/9).
//! Both are within 2 · 10⁻⁷ of the true value (relative for 2ˣ, absolute for log₂ of numbers in [½, 2]).

/// 2ˣ; x is taken as −126 below and as 127 above them.
pub(in crate::imaging) fn exp2(x: f32) -> f32 {
    // 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const C: [f32; 7] = [
        std::f32::consts::LN_2,
        0.240_226_5,
        0.055_504_11,
        0.009_618_129,
        0.001_333_355_8,
        0.000_154_035_3,
        0.000_015_252_734,
    ];
    let x = x.clamp(-126.0, 127.0);
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    let mut p = C[6];
    for c in [C[5], C[4], C[3], C[2], C[1], C[0], 1.0] {
        p = p * f + c;
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// eˣ, within the range of [`exp2`].
pub(in crate::imaging) fn exp(x: f32) -> f32 {
    exp2(x * std::f32::consts::LOG2_E)
}

/// log₂ x of a normal number above 0; anything finite for other numbers that are not NaN.
pub(in crate::imaging) fn log2(x: f32) -> f32 {
    // √½ as bits: splits off the exponent so that the rest lies in [√½, √2).
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF);
    let r = (m - 1.0) / (m + 1.0);
    let r2 = r * r;
    let mut p = 1.0 / 9.0;
    for c in [1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = p * r2 + c;
    }
    exponent + 2.0 * std::f32::consts::LOG2_E * r * p
}

/// xᵖ for x ≥ 0 and p > 0; 0 for numbers too small to be normal.
pub(in crate::imaging) fn power(x: f32, p: f32) -> f32 {
    let value = exp2(p * log2(x));
    if x < f32::MIN_POSITIVE { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_agree_with_double_precision() {
        for i in -4000..4000 {
            let x = i as f32 * 0.003;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2e-6, "{x}");
            let want = f64::from(x).exp2();
            assert!((f64::from(exp2(x)) / want - 1.0).abs() < 2e-7, "{x}");
        }
        assert!((exp2(0.0) - 1.0).abs() < f32::EPSILON / 4.0);
    }

    #[test]
    fn powers_agree_with_double_precision() {
        for i in 1..4000 {
            let x = i as f32 / 4000.0;
            for p in [0.3_f32, 0.74, 1.0, 1.35, 2.0] {
                let want = f64::from(x).powf(f64::from(p));
                assert!((f64::from(power(x, p)) / want - 1.0).abs() < 3e-6, "{x} {p}");
            }
        }
        assert!((power(1.0, 0.7) - 1.0).abs() < f32::EPSILON / 4.0);
        assert!(power(0.0, 0.7).abs() < f32::MIN_POSITIVE);
    }
}
