//! A trained network at work: whole volumes, or overlapping windows where an image is larger than those it learned from.
//!
//! Windows have the shape of the training samples and overlap by at least half. Their probabilities are averaged with
//! Gaussian weights (σ = an eighth of the window, as in nnU-Net), which trusts the middle of a window more than its rim.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use ndarray::{Array3, ArrayView3, s};
use tch::{Device, TchError, Tensor};
use torcula::engine::learner::Predictor;
use torcula::error::{Error, Result};
use torcula::volume::{Image, Volume};

use crate::checkpoint::{Checkpoint, values};
use crate::device::{self, torch_error};
use crate::model::network::{Network, NetworkSpec};
use crate::train_loop::keys;

/// A network on a thread of its own. libtorch keeps a team of threads for every thread that calls it; callers come from
/// many, so they hand their images to one.
#[derive(Debug)]
pub struct TorchPredictor {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    spec: NetworkSpec,
    metadata: BTreeMap<String, String>,
}

/// Intensities in, probabilities out, both `[z, y, x]`.
#[derive(Debug)]
struct Request {
    image: Array3<f32>,
    reply: Sender<Result<Array3<f32>>>,
}

impl TorchPredictor {
    /// Loads a model.
    ///
    /// # Errors
    /// A data error where the file is no model of this software; a configuration error where the device is not there.
    pub fn open(path: &Path, device: &str) -> Result<Self> {
        let device = device::open(device)?;
        let file = Checkpoint::read(path)?;
        let spec: NetworkSpec = file.json(keys::NETWORK)?;
        if spec.unet3d.channels != 1 {
            return Err(Error::data(format!(
                "{}: the model wants {} channels, images have 1",
                path.display(),
                spec.unet3d.channels
            )));
        }
        let network = Network::new(spec.clone(), 0, device)?;
        for (name, named) in network.store.tensors() {
            file.load(name, &named.tensor)?;
        }
        let (requests, inbox) = bounded::<Request>(0);
        let thread = std::thread::Builder::new()
            .name("predict".to_owned())
            .spawn(move || {
                device::set_threads(0);
                for Request { image, reply } in inbox {
                    let answer = probabilities(&network, &image).map_err(|e| torch_error(&e));
                    // Whoever asked may have given up.
                    drop(reply.send(answer));
                }
            })
            .map_err(|e| Error::resource(format!("the network's thread cannot start: {e}")))?;
        let metadata = file.metadata;
        Ok(Self { requests: Some(requests), thread: Some(thread), spec, metadata })
    }

    fn ask(&self, image: Array3<f32>) -> Result<Array3<f32>> {
        let (reply, answer) = bounded(1);
        let gone = || Error::bug("the network's thread has ended");
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request { image, reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Averages overlapping windows.
    fn windows(&self, image: ArrayView3<'_, f32>) -> Result<Array3<f32>> {
        let [x, y, z] = self.spec.shape;
        let window = [z, y, x];
        let size: [usize; 3] = image.dim().into();
        let weights: [Vec<f32>; 3] = window.map(gaussian);
        let starts: [Vec<usize>; 3] = std::array::from_fn(|a| starts(size[a], window[a]));
        let mut sum = Array3::<f32>::zeros(image.dim());
        let mut total = Array3::<f32>::zeros(image.dim());
        for (z, y, x) in product(&starts) {
            let end = |start: usize, a: usize| (start + window[a]).min(size[a]);
            let part = s![z..end(z, 0), y..end(y, 1), x..end(x, 2)];
            let found = self.ask(image.slice(part).to_owned())?;
            let mut sums = sum.slice_mut(part);
            let mut totals = total.slice_mut(part);
            for ((k, j, i), probability) in found.indexed_iter() {
                let weight = weights[0][k] * weights[1][j] * weights[2][i];
                sums[[k, j, i]] += weight * probability;
                totals[[k, j, i]] += weight;
            }
        }
        Ok(sum / total)
    }
}

impl Predictor for TorchPredictor {
    fn predict(&self, image: &Image) -> Result<Image> {
        if let Some(wrong) = image.voxels().iter().find(|v| !v.is_finite()) {
            return Err(Error::data(format!(
                "the image holds {wrong}, expected finite intensities"
            ))
            .hint("let the quality control see the image before the network"));
        }
        let shape = image.grid().shape;
        let fits = shape.iter().zip(self.spec.shape).all(|(n, window)| *n <= window);
        let data = match fits {
            true => self.ask(image.data.clone())?,
            false => self.windows(image.data.view())?,
        };
        Ok(Volume { data, affine: image.affine })
    }

    fn grid_shape(&self) -> [usize; 3] {
        self.spec.shape
    }

    fn spacing_mm(&self) -> [f64; 3] {
        self.spec.spacing_mm
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl Drop for TorchPredictor {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has reached whoever asked.
            drop(thread.join());
        }
    }
}

fn probabilities(network: &Network, image: &Array3<f32>) -> Result<Array3<f32>, TchError> {
    let _guard = tch::no_grad_guard();
    let (z, y, x) = image.dim();
    let slice = image.as_standard_layout();
    let tensor = Tensor::f_from_slice(slice.as_slice().unwrap_or_default())?
        .f_view([1, 1, z as i64, y as i64, x as i64])?
        .f_to_device(network.store.device())?;
    let found = network.logits(&tensor, false)?.f_sigmoid()?.f_to_device(Device::Cpu)?;
    Array3::from_shape_vec((z, y, x), values(&found)?)
        .map_err(|e| TchError::Shape(format!("the network changed the shape: {e}")))
}

/// Where windows begin along an axis: as few as overlap by at least half, evenly spread from end to end.
fn starts(size: usize, window: usize) -> Vec<usize> {
    if size <= window {
        return vec![0];
    }
    let (room, stride) = (size - window, (window / 2).max(1));
    let steps = room.div_ceil(stride);
    (0..=steps).map(|i| (room * i + steps / 2) / steps).collect()
}

/// Weights along an axis of a window, 1 in the middle.
fn gaussian(window: usize) -> Vec<f32> {
    let (middle, sigma) = ((window as f64 - 1.0) / 2.0, (window as f64 / 8.0).max(0.5));
    (0..window).map(|i| (-0.5 * ((i as f64 - middle) / sigma).powi(2)).exp() as f32).collect()
}

fn product(starts: &[Vec<usize>; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    let [z, y, x] = starts;
    z.iter().flat_map(move |&z| y.iter().flat_map(move |&y| x.iter().map(move |&x| (z, y, x))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_axis_and_overlap_by_half() {
        assert_eq!(starts(10, 16), [0]);
        assert_eq!(starts(16, 16), [0]);
        assert_eq!(starts(17, 16), [0, 1]);
        for (size, window) in [(40, 16), (33, 8), (9, 1), (100, 33)] {
            let starts = starts(size, window);
            assert_eq!((starts[0], starts[starts.len() - 1] + window), (0, size));
            assert!(starts.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= (window / 2).max(1)));
        }
    }

    // [math.exp(-0.5 * ((i - 7.5) / 2) ** 2) for i in (0, 4, 7)]
    #[test]
    fn weights_are_a_gaussian() {
        let weights = gaussian(16);
        for (i, expected) in
            [(0, 0.000_883_83), (4, 0.216_265_17), (7, 0.969_233_2), (15, 0.000_883_83)]
        {
            assert!((weights[i] - expected).abs() < 1e-6, "{i}: {}", weights[i]);
        }
    }
}
