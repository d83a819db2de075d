//! N4 bias-field correction (Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29, 2010).
//!
//! The image v is a true image u times a smooth field: log v = log u + f. Each iteration sharpens the histogram of
//! log v − f (see `sharpen`), takes the residual r = (log v − f) − E(u|v), fits a cubic B-spline lattice to it over
//! the mask (see `lattice`) and adds that to f. A level ends after its iterations or once f moves no more (see
//! `convergence`); the next has twice the spans. Numbers follow ITK 5.4's filter, its single precision and its
//! running convergence measure included, so that fields and iteration counts agree with `SimpleITK`'s.
//!
//! Only masked voxels are touched until the end: they are gathered once, in memory order, and each iteration reads
//! them three times (histogram, residual and fit, evaluation and convergence) in blocks that stay in the cache.
//! One thread, no dependence on the processor: equal input gives equal bytes.

#[cfg(test)]
mod agreement;
mod basis;
mod convergence;
mod lattice;
mod level;
mod math;
mod sharpen;
mod shrink;
mod voxels;

use ndarray::Array3;

use crate::error::{Error, Result};
use crate::volume::{Grid, Image, Mask};
use basis::Basis;
use lattice::Lattice;
use level::{Fit, Stopped};
use voxels::{MOST_ALONG_X, Voxels};

/// Control points that a lattice may have on its last level.
const MOST_CONTROL_POINTS: usize = 1 << 21;

/// What N4 is told. The defaults are ITK's but for levels and shrink.
///
/// One level of 10 iterations, as many studies have it, removes little of a field with local structure. `make bench-defaults`,
/// a field with bumps 35 to 60 mm wide: its correlation with the log field found, and the coefficient of variation of white
/// matter, 0.169 before and 0.038 without a field, are 0.60 and 0.160 after `[10]` at full resolution, 0.97 and 0.061 after the
/// default, 0.997 and 0.041 after `[50, 50, 50, 50]` at full resolution, which takes 23 times as long as the default.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Most iterations at each level; each level after the first doubles the spline's spans.
    pub iterations: Vec<usize>,
    /// Fits on every n-th voxel along x and y (4 voxels at least remain). Along z, slices are left out only as far as
    /// those kept lie no further apart than the thinned in-plane voxels, and 4 at least remain. 1 takes all voxels.
    pub shrink: usize,
    /// A level ends once the coefficient of variation of the field's change is at most this; 0 runs every iteration.
    pub convergence: f64,
    /// Control points of the first level along x, y, z; 4 or more each. One span of the cubic spline has 4.
    pub control_points: [usize; 3],
    /// Bins of the histogram of log intensities, 2 to 4,096.
    pub bins: usize,
    /// Noise of the Wiener filter that sharpens the histogram.
    pub wiener_noise: f64,
    /// Full width at half maximum of the field's histogram, in log intensity.
    pub fwhm: f64,
    /// Largest distance in mm between the spline's knots at the first level, in place of `control_points`. The image is
    /// not padded to a multiple of it: knots are spread evenly from the first voxel to the last.
    pub spline_distance_mm: Option<f64>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            iterations: vec![10; 4],
            shrink: 4,
            convergence: 1e-3,
            control_points: [4; 3],
            bins: 200,
            wiener_noise: 0.01,
            fwhm: 0.15,
            spline_distance_mm: None,
        }
    }
}

impl Parameters {
    /// Checks what does not depend on an image.
    ///
    /// # Errors
    /// A configuration error that names the key.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &str, found: String, expected: &str| {
            Err(Error::configuration(format!("n4.{key} is {found}; expected {expected}")))
        };
        if self.iterations.is_empty() || self.iterations.len() > 12 {
            return fail(
                "iterations",
                format!("{:?}", self.iterations),
                "1 to 12 levels, such as [50, 50]",
            );
        }
        if self.shrink == 0 {
            return fail("shrink", "0".into(), "1 (every voxel) or more");
        }
        if !(self.convergence >= 0.0 && self.convergence.is_finite()) {
            return fail("convergence", self.convergence.to_string(), "0 or more, such as 0.001");
        }
        if self.control_points.iter().any(|&k| k < 4) {
            return fail(
                "control_points",
                format!("{:?}", self.control_points),
                "4 or more along each axis",
            );
        }
        if !(2..=4096).contains(&self.bins) {
            return fail("bins", self.bins.to_string(), "2 to 4096");
        }
        if !(self.wiener_noise >= 0.0 && self.wiener_noise.is_finite()) {
            return fail("wiener_noise", self.wiener_noise.to_string(), "0 or more, such as 0.01");
        }
        if !(self.fwhm > 0.0 && self.fwhm.is_finite()) {
            return fail("fwhm", self.fwhm.to_string(), "more than 0, such as 0.15");
        }
        match self.spline_distance_mm {
            Some(d) if !(d > 0.0 && d.is_finite()) => {
                fail("spline_distance_mm", d.to_string(), "more than 0, such as 200")
            }
            _ => Ok(()),
        }
    }

    /// Control points of the first level on a grid; the last level's must not be too many.
    fn lattice_size(&self, shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<[usize; 3]> {
        let size = match self.spline_distance_mm {
            None => self.control_points,
            Some(distance) => [0, 1, 2].map(|a| {
                let spans = (shape[a] as f64 - 1.0) * spacing_mm[a] / distance;
                3 + (spans.ceil() as usize).clamp(1, MOST_CONTROL_POINTS)
            }),
        };
        if last_level(size, self.iterations.len()) > MOST_CONTROL_POINTS as f64 {
            return Err(Error::configuration(format!(
                "n4 starts with {size:?} control points and doubles their spans {} times; expected at most \
                 {MOST_CONTROL_POINTS} at the end",
                self.iterations.len() - 1
            ))
            .hint("use fewer levels in n4.iterations, or fewer control points (a larger spline distance)"));
        }
        // A flat axis is carried by one control point: more spans along it would hold nothing.
        Ok([0, 1, 2].map(|a| if shape[a] == 1 { 4 } else { size[a] }))
    }
}

/// Control points at the last of `levels`, as a number that cannot overflow.
fn last_level(size: [usize; 3], levels: usize) -> f64 {
    size.iter()
        .map(|&k| (k.saturating_sub(3) as f64) * 2.0_f64.powi(levels as i32 - 1) + 3.0)
        .product()
}

/// An upper bound of the bytes that [`correct`] without weights allocates for an image of `voxels` voxels, its results
/// included.
///
/// 8 bytes a voxel of results, which are the fit's field and corrected input before; 4 bytes of input and runs for every
/// voxel that `shrink` leaves of an image of 4·shrink or more voxels along x and y; 12 bytes a row, for rows of 48 voxels or
/// more; 6 lattices in double precision; 256 KiB of tables and blocks.
pub fn footprint_bytes(voxels: u64, parameters: &Parameters) -> u64 {
    let most = MOST_CONTROL_POINTS as f64;
    let lattice = match parameters.spline_distance_mm {
        Some(_) => most,
        None => last_level(parameters.control_points, parameters.iterations.len()).min(most),
    };
    let in_plane = (parameters.shrink as u64).saturating_pow(2).max(1);
    let kept = voxels.saturating_mul(4) / in_plane;
    let whole = voxels.saturating_mul(8).saturating_add(voxels / 4);
    whole.saturating_add(kept).saturating_add(6 * 8 * lattice as u64 + (256 << 10))
}

/// What N4 found.
#[derive(Debug, Clone, PartialEq)]
pub struct Corrected {
    /// The image divided by exp(log field), at every voxel, the mask's outside included.
    pub image: Image,
    /// The log field at every voxel.
    pub log_field: Image,
    /// Iterations done at each level.
    pub iterations: Vec<usize>,
    /// Why a field is zero where it should not be: an empty mask, a constant image.
    pub warnings: Vec<String>,
}

/// Estimates the bias field of `image` over the voxels where `mask` is not zero, and divides it out.
///
/// Masked intensities above zero enter as logarithms; zero and below enter as they are, as in ITK. `weights`, on the
/// same grid, weigh the fit; voxels whose weight is zero or less leave the mask. An image of one slice is corrected in
/// two dimensions. `stop` is asked once an iteration.
///
/// # Errors
/// Configuration: a parameter out of range. Data: another shape of mask or weights, an axis x or y of one voxel, a
/// masked intensity that is not finite. Cancelled: `stop` said so.
pub fn correct(
    image: &Image,
    mask: &Mask,
    weights: Option<&Image>,
    parameters: &Parameters,
    stop: &dyn Fn() -> bool,
) -> Result<Corrected> {
    parameters.check()?;
    let grid = image.grid();
    let (shape, spacing_mm) = (grid.shape, grid.affine.spacing_mm());
    check_shapes(shape, mask, weights)?;
    let size = parameters.lattice_size(shape, spacing_mm)?;
    let axes = shrink::thinned(shape, spacing_mm, parameters.shrink);
    let working = axes.map(|a| a.count);
    let voxels = Voxels::gather(image, mask, weights, axes)?;
    let mut warnings = Vec::new();
    let mut iterations = vec![0; parameters.iterations.len()];
    let mut lattice = Lattice::zeros(size);
    let mut buffers = [vec![], vec![]];
    if voxels.len() == 0 {
        warnings.push(match parameters.shrink {
            1 => "the mask is empty: the field is zero".into(),
            n => format!("the mask is empty at shrink {n}: the field is zero"),
        });
    } else {
        let mut fit = Fit::new(voxels, working, grid.voxels(), parameters);
        for (level, done) in iterations.iter_mut().enumerate() {
            if level > 0 {
                lattice = lattice.refined(shape.map(|n| n > 1));
            }
            let (count, stopped) = fit.level(&mut lattice, parameters.iterations[level], stop)?;
            *done = count;
            if stopped == Stopped::Constant {
                warnings.push(format!(
                    "level {}, iteration {}: the masked intensities are constant: the field stays as it is",
                    level + 1,
                    count + 1
                ));
                break;
            }
        }
        buffers = fit.into_buffers();
    }
    let [log_field, corrected] = buffers.map(|buffer| volume(buffer, &grid));
    let (mut log_field, mut corrected) = (log_field?, corrected?);
    Basis::new(shape, lattice.size).render(&lattice, image, &mut log_field, &mut corrected);
    Ok(Corrected { image: corrected, log_field, iterations, warnings })
}

/// A volume in a buffer, whose values are of no use.
fn volume(mut buffer: Vec<f32>, grid: &Grid) -> Result<Image> {
    buffer.resize(grid.voxels(), 0.0);
    let data = Array3::from_shape_vec(grid.dim(), buffer).map_err(|e| Error::bug(e.to_string()))?;
    Ok(Image { data, affine: grid.affine })
}

fn check_shapes(shape: [usize; 3], mask: &Mask, weights: Option<&Image>) -> Result<()> {
    same_shape("mask", mask.grid().shape, shape)?;
    if let Some(weights) = weights {
        same_shape("weight image", weights.grid().shape, shape)?;
    }
    if shape[0] > MOST_ALONG_X {
        return Err(Error::data(format!(
            "the image has {shape:?} voxels; N4 takes {MOST_ALONG_X} at most along x"
        )));
    }
    if shape[0] < 2 || shape[1] < 2 || shape[2] < 1 {
        return Err(Error::data(format!(
            "the image has {shape:?} voxels; N4 needs 2 or more along x and y"
        )));
    }
    Ok(())
}

fn same_shape(what: &str, found: [usize; 3], expected: [usize; 3]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::data(format!("the {what} has {found:?} voxels; expected the image's {expected:?}"))
        .hint("resample it onto the image's grid"))
}
