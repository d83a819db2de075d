//! Sharpening of the intensity histogram: the map from a log intensity to its expectation without the field.
//!
//! The field blurs the histogram of log intensities with a Gaussian of the given full width at half maximum F. A
//! Wiener filter takes it out, G = F̂*/(F̂*F̂ + noise), U = max(ifft(Ĥ·G), 0), and the expectation of the true value
//! given the measured one is E(u|v) = ifft(F̂·fft(xU)) / ifft(F̂·fft(U)) (Sled, Zijdenbos, Evans, IEEE TMI 17, 1998;
//! Tustison et al., IEEE TMI 29, 2010). Two rules of Tustison's implementation matter for agreement: a voxel that
//! sets a new maximum is no candidate for the minimum, and what lies outside the range counts in no bin and maps to
//! the last bin's expectation. Bin positions and the Gaussian are computed in single precision, as there: their rounding
//! moves the field by some 1e-7, which is enough to end a level one iteration earlier or later.
#![expect(clippy::inline_always, reason = "a call inside a vector loop would undo the loop")]

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::math::LANES;
use crate::error::{Error, Result};

/// Voxels whose bins are computed together before they are counted.
const BATCH: usize = 4 * LANES;
/// Voxels counted before the packed counters are emptied: 2¹⁹ counts and 2¹⁹·2²² of fractions fit into 64 bits.
const FLUSH: usize = 1 << 19;
/// Where a packed counter keeps its count; below it, the sum of fractions.
const COUNT_SHIFT: u32 = 44;
/// Sets of counters, used in turn: neighbouring voxels often share a bin, and adding to it twice in a row is slow.
const SETS: usize = 4;
/// 2²³: above it single precision holds integers only, so adding it rounds, and leaves the integer in the low bits.
const INTEGERS: f32 = 8_388_608.0;

/// Smallest and largest log intensity, as N4 takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    /// Smallest value that does not set a new maximum.
    pub min: f32,
    /// Largest value.
    pub max: f32,
}

impl Range {
    /// The range of `values` in memory order, given their plain minimum and maximum.
    ///
    /// Only the strictly rising values at the start can be below every later value and yet set a maximum, so only
    /// when the first value is the plain minimum must the rest be searched.
    pub fn new(values: &[f32], min: f32, max: f32) -> Self {
        let first = values.first().copied().unwrap_or(min);
        if first > min {
            return Self { min, max };
        }
        let rising = values.windows(2).take_while(|w| w[0] < w[1]).count();
        let rest = values.get(rising + 1..).unwrap_or_default();
        Self { min: rest.iter().copied().fold(f32::MAX, f32::min), max }
    }

    /// Whether there is anything to sharpen.
    pub fn is_empty(self) -> bool {
        self.max <= self.min
    }
}

/// E(u|v) by bin, looked up linearly.
#[derive(Debug, Clone)]
pub(super) struct Map {
    min: f32,
    slope: f32,
    /// The last bin as a number.
    last: f32,
    /// Expectation at a bin and the step to the next; the last step is zero. Padded to a power of two.
    bins: Vec<[f32; 2]>,
}

/// Builds a [`Map`] an iteration; keeps its buffers.
pub(super) struct Sharpener {
    bins: usize,
    noise: f64,
    width: f32,
    /// Bits of a packed fraction.
    bits: u32,
    counters: Vec<u64>,
    histogram: Vec<f64>,
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
    scratch: Vec<Complex<f64>>,
    real: [Vec<f64>; 2],
    spectra: [Vec<Complex<f64>>; 3],
}

impl Sharpener {
    /// For `bins` bins from 2 to 4,096, a Wiener noise, and a full width at half maximum in log intensity.
    pub fn new(bins: usize, noise: f64, width: f64) -> Self {
        let padded = bins.next_power_of_two() * 2;
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) =
            (planner.plan_fft_forward(padded), planner.plan_fft_inverse(padded));
        let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Self {
            bins,
            noise: f64::from(noise as f32),
            width: width as f32,
            // Bins up to `bins` itself, and one bit more for a fraction rounded up to 1, share 32 bits.
            bits: (31 - (usize::BITS - bins.leading_zeros())).min(22),
            counters: vec![0; SETS * (bins + 1)],
            histogram: vec![0.0; bins],
            scratch: vec![Complex::default(); scratch],
            real: [vec![0.0; padded], vec![0.0; padded]],
            spectra: [(); 3].map(|()| forward.make_output_vec()),
            forward,
            inverse,
        }
    }

    /// The map for these log intensities, whose range must not be empty.
    pub fn map(&mut self, values: &[f32], range: Range) -> Result<Map> {
        let slope = (range.max - range.min) / (self.bins - 1) as f32;
        self.count(values, range.min, slope);
        let mut expectation = self.expectation(range.min, slope)?;
        let last = expectation.last().copied().unwrap_or_default();
        expectation.push(last);
        let mut bins: Vec<_> = expectation.windows(2).map(|e| [e[0], e[1] - e[0]]).collect();
        bins.resize(self.bins.next_power_of_two(), [last, 0.0]);
        Ok(Map { min: range.min, slope, last: (self.bins - 1) as f32, bins })
    }

    /// The soft histogram: a value at bin c adds 1 − (c − ⌊c⌋) to bin ⌊c⌋ and the rest to the next.
    fn count(&mut self, values: &[f32], min: f32, slope: f32) {
        self.histogram.fill(0.0);
        let unit = f64::from(1_u32 << self.bits).recip();
        for part in values.chunks(FLUSH) {
            self.counters.fill(0);
            tally(
                part,
                Bins { min, slope, count: self.bins as u32, bits: self.bits },
                &mut self.counters,
            );
            for i in 0..self.bins {
                let counter: u64 = self.counters[i..].iter().step_by(self.bins + 1).sum();
                let fraction = (counter & ((1 << COUNT_SHIFT) - 1)) as f64 * unit;
                self.histogram[i] += (counter >> COUNT_SHIFT) as f64 - fraction;
                if let Some(next) = self.histogram.get_mut(i + 1) {
                    *next += fraction;
                }
            }
        }
    }

    /// E(u|v) at the bins from the histogram.
    fn expectation(&mut self, min: f32, slope: f32) -> Result<Vec<f32>> {
        let padded = self.real[0].len();
        let first = (padded - self.bins) / 2;
        // The Gaussian, wrapped around zero: its spectrum is real.
        let width = self.width / slope;
        let scale = 2.0 * (std::f64::consts::LN_2 / std::f64::consts::PI).sqrt() / f64::from(width);
        let decay = (4.0 * std::f64::consts::LN_2 / f64::from(width * width)) as f32;
        for n in 0..=padded / 2 {
            let power = f64::from(-((n * n) as f32) * decay).exp() as f32;
            let value = f64::from(scale as f32 * power);
            self.real[0][n] = value;
            self.real[0][(padded - n) % padded] = value;
        }
        self.transform(0, 0)?;
        // The histogram, deconvolved: U in `real[0]`, xU in `real[1]`.
        self.real[0].fill(0.0);
        self.real[0][first..first + self.bins].copy_from_slice(&self.histogram);
        self.transform(0, 1)?;
        let [gauss, measured, _] = &mut self.spectra;
        for (m, f) in measured.iter_mut().zip(&*gauss) {
            *m *= f.re / (f.re * f.re + self.noise);
        }
        self.back(1, 0)?;
        let [u, xu] = &mut self.real;
        for (n, (u, xu)) in u.iter_mut().zip(xu).enumerate() {
            *u = u.max(0.0);
            *xu = f64::from(min + (n as f32 - first as f32) * slope) * *u;
        }
        self.transform(0, 1)?;
        self.transform(1, 2)?;
        let [gauss, denominator, numerator] = &mut self.spectra;
        for ((d, n), f) in denominator.iter_mut().zip(numerator).zip(&*gauss) {
            *d *= f.re;
            *n *= f.re;
        }
        self.back(1, 0)?;
        self.back(2, 1)?;
        let cropped = first..first + self.bins;
        let pairs = self.real[0][cropped.clone()].iter().zip(&self.real[1][cropped]);
        Ok(pairs.map(|(d, n)| if *d == 0.0 { 0.0 } else { (n / d) as f32 }).collect())
    }

    fn transform(&mut self, real: usize, spectrum: usize) -> Result<()> {
        let Self { forward, scratch, .. } = self;
        forward
            .process_with_scratch(&mut self.real[real], &mut self.spectra[spectrum], scratch)
            .map_err(|e| Error::bug(format!("the histogram's transform failed: {e}")))
    }

    fn back(&mut self, spectrum: usize, real: usize) -> Result<()> {
        let Self { inverse, scratch, .. } = self;
        inverse
            .process_with_scratch(&mut self.spectra[spectrum], &mut self.real[real], scratch)
            .map_err(|e| Error::bug(format!("the histogram's inverse transform failed: {e}")))
    }
}

/// What [`tally`] needs to know of the bins.
#[derive(Clone, Copy)]
struct Bins {
    min: f32,
    slope: f32,
    count: u32,
    bits: u32,
}

/// Adds every value to its packed counter (count above [`COUNT_SHIFT`], fractions below); what lies outside the range
/// goes to the last counter, which is nobody's bin.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn tally(values: &[f32], bins: Bins, counters: &mut [u64]) {
    let mut keys = [0_u32; BATCH];
    let (batches, rest) = values.as_chunks::<BATCH>();
    for batch in batches {
        fixed_point(batch, bins, &mut keys);
        add(&keys, bins, counters);
    }
    let mut last = [f32::NAN; BATCH];
    last[..rest.len()].copy_from_slice(rest);
    fixed_point(&last, bins, &mut keys);
    add(&keys[..rest.len()], bins, counters);
}

#[inline(always)]
fn add(keys: &[u32], bins: Bins, counters: &mut [u64]) {
    let shift = bins.bits + 1;
    let mask = (1_u32 << shift) - 1;
    let mut sets = counters.chunks_exact_mut(bins.count as usize + 1);
    let [Some(a), Some(b), Some(c), Some(d)] = [(); SETS].map(|()| sets.next()) else { return };
    let count = |set: &mut [u64], key: u32| {
        set[(key >> shift) as usize] += (1 << COUNT_SHIFT) + u64::from(key & mask);
    };
    let (fours, rest) = keys.as_chunks::<SETS>();
    for four in fours {
        count(a, four[0]);
        count(b, four[1]);
        count(c, four[2]);
        count(d, four[3]);
    }
    for &key in rest {
        count(a, key);
    }
}

/// Bin and fraction as one number: the bin above `bits` + 1 bits of fraction, in units of 2^−`bits`.
#[inline(always)]
fn fixed_point(values: &[f32; BATCH], bins: Bins, keys: &mut [u32; BATCH]) {
    let unit = (1_u32 << bins.bits) as f32;
    let last = (bins.count - 1) as f32;
    let outside = bins.count as f32;
    for (key, value) in keys.iter_mut().zip(values) {
        let c = (value - bins.min) / bins.slope;
        let c = if c >= 0.0 && c <= last { c } else { outside };
        let whole = floor(c);
        let fraction = integer((c - whole) * unit);
        *key = integer(whole) << (bins.bits + 1) | fraction;
    }
}

/// ⌊c⌋ for 0 ≤ c < 2²²: no call and no conversion, so loops become vector code everywhere.
#[inline(always)]
fn floor(c: f32) -> f32 {
    let near = (c + INTEGERS) - INTEGERS;
    if near > c { near - 1.0 } else { near }
}

/// The integer nearest to 0 ≤ c < 2²².
#[inline(always)]
fn integer(c: f32) -> u32 {
    (c + INTEGERS).to_bits() & (INTEGERS as u32 - 1)
}

impl Map {
    /// `residuals = values − E(values)`; both of one length.
    pub fn residuals(&self, values: &[f32], residuals: &mut [f32]) {
        subtract(self, values, residuals);
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn subtract(map: &Map, values: &[f32], residuals: &mut [f32]) {
    let (batches, rest) = values.as_chunks::<BATCH>();
    let (outs, rest_out) = residuals.as_chunks_mut::<BATCH>();
    for (batch, out) in batches.iter().zip(outs) {
        subtract_batch(map, batch, out);
    }
    let mut last = [map.min; BATCH];
    let mut out = [0.0; BATCH];
    last[..rest.len()].copy_from_slice(rest);
    subtract_batch(map, &last, &mut out);
    rest_out.copy_from_slice(&out[..rest.len()]);
}

#[inline(always)]
fn subtract_batch(map: &Map, values: &[f32; BATCH], out: &mut [f32; BATCH]) {
    let mut bin = [0_u32; BATCH];
    let mut fraction = [0.0_f32; BATCH];
    for l in 0..BATCH {
        let c = (values[l] - map.min) / map.slope;
        let c = if c >= 0.0 && c <= map.last { c } else { map.last };
        let whole = floor(c);
        bin[l] = integer(whole);
        fraction[l] = c - whole;
    }
    let mut found = [[0.0_f32; 2]; BATCH];
    // Changes no bin: it tells the compiler that none is out of bounds.
    let mask = map.bins.len() - 1;
    for (found, bin) in found.iter_mut().zip(bin) {
        *found = map.bins[bin as usize & mask];
    }
    for l in 0..BATCH {
        out[l] = values[l] - (found[l][0] + found[l][1] * fraction[l]);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn bimodal(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| {
                let mode = if i % 3 == 0 { 4.0 } else { 5.0 };
                mode + 0.3 * (i as f32 * 0.37).sin() + 0.1 * (i as f32 * 1.3).cos()
            })
            .collect()
    }

    fn range(values: &[f32]) -> Range {
        let min = values.iter().copied().fold(f32::MAX, f32::min);
        Range::new(values, min, values.iter().copied().fold(f32::MIN, f32::max))
    }

    #[test]
    fn a_new_maximum_is_no_candidate_for_the_minimum() {
        assert_eq!(range(&[3.0, 1.0, 2.0]), Range { min: 1.0, max: 3.0 });
        assert_eq!(range(&[1.0, 2.0, 9.0, 5.0, 3.0]), Range { min: 3.0, max: 9.0 });
        assert_eq!(range(&[1.0, 1.0, 9.0]), Range { min: 1.0, max: 9.0 });
        assert!(range(&[1.0, 2.0, 3.0]).is_empty());
        assert!(range(&[]).is_empty());
        assert!(range(&[2.0, 2.0]).is_empty());
    }

    #[test]
    fn the_histogram_counts_every_voxel_once() {
        let values = bimodal(10_007);
        let range = range(&values);
        for bins in [2, 16, 200, 256, 4096] {
            let mut sharpener = Sharpener::new(bins, 0.01, 0.15);
            let slope = (range.max - range.min) / (bins - 1) as f32;
            sharpener.count(&values, range.min, slope);
            let total: f64 = sharpener.histogram.iter().sum();
            assert!((total - 10_007.0).abs() < 1.5, "{bins} bins: {total}");
            let mut plain = vec![0.0_f64; bins + 1];
            for v in &values {
                let c = (v - range.min) / slope;
                if c >= 0.0 && c <= (bins - 1) as f32 {
                    plain[c as usize] += f64::from(1.0 - c.fract());
                    plain[c as usize + 1] += f64::from(c.fract());
                }
            }
            let worst = plain.iter().zip(&sharpener.histogram).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f64::max) < 0.05, "{bins} bins");
        }
    }

    #[test]
    fn sharpening_pulls_values_towards_their_mode() {
        let values = bimodal(20_000);
        let map = Sharpener::new(200, 0.01, 0.15).map(&values, range(&values)).unwrap();
        let mut residuals = vec![0.0; values.len()];
        map.residuals(&values, &mut residuals);
        let spread = |mode: f32, v: &mut dyn Iterator<Item = f32>| {
            v.map(|v| (v - mode).powi(2)).sum::<f32>()
        };
        let before = spread(5.0, &mut values.iter().copied().filter(|v| *v > 4.6));
        let after = spread(
            5.0,
            &mut values.iter().zip(&residuals).filter(|(v, _)| **v > 4.6).map(|(v, r)| v - r),
        );
        assert!(after < before, "{after} against {before}");
    }

    #[test]
    fn outside_the_range_the_last_expectation_holds() {
        let map = Map {
            min: 1.0,
            slope: 0.5,
            last: 2.0,
            bins: vec![[1.0, 1.0], [2.0, 2.0], [4.0, 0.0], [4.0, 0.0]],
        };
        let mut out = [0.0; 4];
        map.residuals(&[0.0, 1.25, 2.0, 3.0], &mut out);
        assert_eq!(out.map(f32::to_bits), [-4.0, -0.25, -2.0, -1.0].map(f32::to_bits));
    }
}
