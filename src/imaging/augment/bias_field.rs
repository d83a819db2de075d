//! A smooth change of brightness over the head, as an uneven receive coil leaves it.
//!
//! As `RandomBiasField` of `TorchIO`: every voxel is multiplied by exp Σ c(i,j,k) xⁱ yʲ zᵏ over i + j + k ≤ order, with
//! x, y, z running from −1 to 1 over the volume and each coefficient uniform within ± `coefficients` (Sudre et al. 2017,
//! van Leemput et al. 1999, doi:10.1109/42.811270). The polynomial is gathered to one in x alone for every row.

use rand_chacha::ChaCha8Rng;

use super::{Draw, check_probability, check_range, to_record};
use crate::error::{Error, Result};
use crate::imaging::elementary::exp;
use crate::imaging::random::uniform;
use crate::volume::{Grid, Image};

/// The highest order that is taken: 286 coefficients.
const MAX_ORDER: u32 = 10;

/// Parameters of a random bias field.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BiasField {
    /// Share of the samples that are changed.
    pub probability: f64,
    /// Each coefficient is uniform between minus this and this.
    pub coefficients: f64,
    /// Highest total power of x, y and z in the polynomial (0 to 10).
    pub order: u32,
}

impl Default for BiasField {
    /// `TorchIO`'s order 3 and ±0.5, on half of the samples.
    fn default() -> Self {
        Self { probability: 0.5, coefficients: 0.5, order: 3 }
    }
}

/// The polynomial that was drawn.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BiasFieldDraw {
    /// Highest total power.
    pub order: u32,
    /// c(i,j,k) for x, y, z, the power of x outermost and that of z innermost, each as far as i + j + k ≤ order.
    pub coefficients: Vec<f64>,
}

impl BiasField {
    /// Refuses parameters that mean nothing, with the parameter named.
    pub fn check(&self) -> Result<()> {
        check_probability("bias_field", self.probability)?;
        check_range("bias_field.coefficients", self.coefficients, 0.0, 5.0)?;
        check_range("bias_field.order", f64::from(self.order), 0.0, f64::from(MAX_ORDER))
    }

    /// Draws the coefficients.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> BiasFieldDraw {
        let order = self.order.min(MAX_ORDER);
        let range = -self.coefficients..self.coefficients;
        let coefficients =
            (0..terms(order)).map(|_| to_record(uniform(rng, range.clone()))).collect();
        BiasFieldDraw { order, coefficients }
    }
}

/// Number of monomials of three variables up to an order.
fn terms(order: u32) -> usize {
    let n = order as usize;
    (n + 1) * (n + 2) * (n + 3) / 6
}

impl BiasFieldDraw {
    /// Multiplies the image by the field; coefficients of 0 change nothing.
    ///
    /// # Errors
    /// A data error where the number of coefficients is not that of the order.
    pub fn apply(&self, image: &mut Image) -> Result<()> {
        Draw { bias_field: Some(self.clone()), ..Draw::default() }.apply(image, None)
    }

    /// The field on a grid; none where it is 1 everywhere.
    pub(super) fn field(&self, grid: &Grid) -> Result<Option<Field<'_>>> {
        if self.order > MAX_ORDER || self.coefficients.len() != terms(self.order) {
            return Err(Error::data(format!(
                "a bias field of order {} with {} coefficients (expected order 0 to {MAX_ORDER}, with {})",
                self.order,
                self.coefficients.len(),
                terms(self.order.min(MAX_ORDER))
            )));
        }
        if self.coefficients.iter().all(|c| *c == 0.0) {
            return Ok(None);
        }
        let nx = grid.shape[0];
        let xs = (0..nx).map(|x| centred(x, nx) as f32).collect();
        Ok(Some(Field { draw: self, shape: grid.shape, xs }))
    }
}

/// For each power of x, the coefficients of the powers of y.
pub(super) type InPlaneField = Vec<Vec<f64>>;

/// A field on a grid, row by row.
pub(super) struct Field<'a> {
    draw: &'a BiasFieldDraw,
    shape: [usize; 3],
    /// Where the voxels of a row lie between −1 and 1.
    xs: Vec<f32>,
}

impl Field<'_> {
    /// The polynomial in x and y that is left in slice `z`.
    pub(super) fn at_z(&self, z: usize) -> InPlaneField {
        let z = centred(z, self.shape[2]);
        let order = self.draw.order as usize;
        let mut rest = self.draw.coefficients.as_slice();
        (0..=order)
            .map(|i| {
                (0..=order - i)
                    .map(|j| {
                        let (powers, after) = rest.split_at(order - i - j + 1);
                        rest = after;
                        polynomial(powers, z)
                    })
                    .collect()
            })
            .collect()
    }

    /// Multiplies row `y` of the slice that `in_plane` was made for.
    pub(super) fn multiply(&self, in_plane: &InPlaneField, y: usize, row: &mut [f32]) {
        let mut in_row = [0.0_f32; MAX_ORDER as usize + 1];
        let y = centred(y, self.shape[1]);
        for (c, powers) in in_row.iter_mut().zip(in_plane) {
            *c = polynomial(powers, y) as f32;
        }
        multiply_by_exp(row, &self.xs, &in_row[..in_plane.len()]);
    }
}

/// Multiplies each voxel by exp Σ cᵢ xⁱ.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn multiply_by_exp(row: &mut [f32], xs: &[f32], coefficients: &[f32]) {
    let exponent = |x: f32| coefficients.iter().rev().fold(0.0, |e: f32, c| e * x + c);
    let (blocks, rest) = row.as_chunks_mut::<16>();
    let (xs, last) = xs.as_chunks::<16>();
    for (block, xs) in blocks.iter_mut().zip(xs) {
        let mut exponents = [0.0_f32; 16];
        for c in coefficients.iter().rev() {
            exponents.iter_mut().zip(xs).for_each(|(e, x)| *e = *e * x + c);
        }
        block.iter_mut().zip(&exponents).for_each(|(v, e)| *v *= exp(*e));
    }
    rest.iter_mut().zip(last).for_each(|(v, x)| *v *= exp(exponent(*x)));
}

/// Σ cₖ vᵏ.
fn polynomial(coefficients: &[f64], v: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * v + c)
}

/// The place of voxel `i` of `n` between −1 and 1; the only voxel of an axis is at 0.
fn centred(i: usize, n: usize) -> f64 {
    if n < 2 { 0.0 } else { (2.0 * i as f64 - (n as f64 - 1.0)) / (n as f64 - 1.0) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ramp;
    use super::*;
    use crate::imaging::random::keyed;

    #[test]
    fn no_coefficients_keep_the_bytes() -> Result<()> {
        let image = ramp();
        let mut out = image.clone();
        BiasFieldDraw { order: 3, coefficients: vec![0.0; 20] }.apply(&mut out)?;
        assert!(image.data.iter().zip(&out.data).all(|(a, b)| a.to_bits() == b.to_bits()));
        Ok(())
    }

    // benches/peers/augment.py: TorchIO 1.2.1, tio.BiasField.
    #[test]
    fn agrees_with_torchio() -> Result<()> {
        let mut image = ramp();
        let coefficients = (0..20).map(|i| 0.5 * (f64::from(i * 37 % 21) - 10.0) / 10.0).collect();
        BiasFieldDraw { order: 3, coefficients }.apply(&mut image)?;
        let row = image.data.slice(ndarray::s![1, 2, ..]).to_vec();
        let want: [f32; 6] = [7.091_183_7, 0.0, 3.976_135_7, 8.425_269, 11.532_221, 12.084_675];
        for (g, w) in row.iter().zip(want) {
            assert!((g - w).abs() < 2e-6 * w.abs().max(1.0), "{row:?}");
        }
        Ok(())
    }

    #[test]
    fn the_number_of_coefficients_follows_from_the_order() {
        assert_eq!([0, 1, 2, 3, 10].map(terms), [1, 4, 10, 20, 286]);
        let drawn = BiasField::default().draw(&mut keyed(1, &["field"]));
        assert_eq!(drawn.coefficients.len(), 20);
        assert!(drawn.coefficients.iter().all(|c| c.abs() <= 0.5));
        assert!(BiasFieldDraw { order: 3, coefficients: vec![0.1] }.apply(&mut ramp()).is_err());
    }

    #[test]
    fn a_field_and_its_negative_cancel() -> Result<()> {
        let image = ramp();
        let mut out = image.clone();
        let mut drawn = BiasField::default().draw(&mut keyed(5, &["field"]));
        drawn.apply(&mut out)?;
        drawn.coefficients.iter_mut().for_each(|c| *c = -*c);
        drawn.apply(&mut out)?;
        for (a, b) in image.data.iter().zip(&out.data) {
            assert!((a - b).abs() < 5e-6 * a.abs().max(1.0), "{a} {b}");
        }
        Ok(())
    }
}
