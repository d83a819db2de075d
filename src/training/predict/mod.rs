//! A trained network at work: whole volumes, or overlapping windows where an image is larger than a window.
//!
//! The logits of windows are blended as MONAI's `sliding_window_inference` blends them (see [`windows`]), mirrored images are
//! averaged before that, and the blend becomes a probability. A window has the shape of the training samples, so that
//! an image of that shape is seen whole.

mod open;
pub mod windows;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use ndarray::Array3;
use tch::{Device, Kind, TchError, Tensor};
use torcula::engine::learner::{Activation, AxisOrder, PredictOptions, Predictor, VoxelAxis};
use torcula::error::{Error, Result};
use torcula::volume::{Image, Volume};

use crate::checkpoint::values;
use crate::device::{self, torch_error};
use crate::model::network::{Network, NetworkSpec, Shape};

use windows::Windows;

/// Windows in one batch on a GPU. On a CPU one window keeps all cores busy.
const GPU_BATCH: usize = 4;

/// A network on a thread of its own. libtorch keeps a team of threads for every thread that calls it; callers come from
/// many, so they hand their images to one, and prepare the next images meanwhile.
#[derive(Debug)]
pub struct TorchPredictor {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    spec: NetworkSpec,
    metadata: BTreeMap<String, String>,
}

/// Intensities in, probabilities out, all `[z, y, x]` of one shape.
#[derive(Debug)]
struct Request {
    channels: Vec<Array3<f32>>,
    reply: Sender<Result<Array3<f32>>>,
}

impl TorchPredictor {
    /// Loads a model.
    ///
    /// # Errors
    /// A data error where the file is no model that is known; a configuration error where the device is not there or the
    /// options do not fit the model.
    pub fn open(path: &Path, options: &PredictOptions) -> Result<Self> {
        options.validate()?;
        let device = device::open(&options.device)?;
        let (network, metadata) = open::network(path, options, device)?;
        let spec = network.spec.clone();
        let runner = Runner { network, overlap: options.overlap, flip: options.flip.clone() };
        let (requests, inbox) = bounded::<Request>(0);
        let thread = std::thread::Builder::new()
            .name("predict".to_owned())
            .spawn(move || {
                device::set_threads(0);
                for Request { channels, reply } in inbox {
                    let answer = runner.probabilities(&channels).map_err(|e| torch_error(&e));
                    // Whoever asked may have given up.
                    drop(reply.send(answer));
                }
            })
            .map_err(|e| Error::resource(format!("the network's thread cannot start: {e}")))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), spec, metadata })
    }

    fn check(&self, channels: &[&Image]) -> Result<()> {
        if channels.len() != Predictor::channels(self) {
            return Err(Error::data(format!(
                "the model wants {} images a case, found {}",
                Predictor::channels(self),
                channels.len()
            ))
            .hint("give it as many images, in the order that it was trained with"));
        }
        for image in channels {
            if let Some(wrong) = image.voxels().iter().find(|v| !v.is_finite()) {
                let found = format!("the image holds {wrong}, expected finite intensities");
                return Err(Error::data(found)
                    .hint("let the quality control see the image before the network"));
            }
            if image.data.dim() != channels[0].data.dim() {
                let (found, expected) = (image.grid().shape, channels[0].grid().shape);
                return Err(Error::data(format!(
                    "the images of a case have shapes {expected:?} and {found:?}"
                ))
                .hint("resample them to one grid"));
            }
        }
        Ok(())
    }
}

impl Predictor for TorchPredictor {
    fn predict(&self, channels: &[&Image]) -> Result<Image> {
        self.check(channels)?;
        let data = channels.iter().map(|c| c.data.clone()).collect();
        let (reply, answer) = bounded(1);
        let gone = || Error::bug("the network's thread has ended");
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request { channels: data, reply }).map_err(|_| gone())?;
        let data = answer.recv().map_err(|_| gone())??;
        Ok(Volume { data, affine: channels[0].affine })
    }

    fn channels(&self) -> usize {
        usize::try_from(self.spec.network.channels()).unwrap_or_default()
    }

    fn grid_shape(&self) -> [usize; 3] {
        self.spec.shape
    }

    fn spacing_mm(&self) -> Option<[f64; 3]> {
        self.spec.spacing_mm
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        let whole: u64 = self.spec.shape.iter().map(|n| *n as u64).product();
        // Feature maps of the finest level that live at once, and what their convolutions need beside them.
        let features = match &self.spec.network {
            Shape::Unet3d(config) => config.filters.first().copied().unwrap_or(1),
            Shape::SwinUnetr(config) => 2 * config.feature_size,
        };
        let blended = 8 * self.spec.network.classes().unsigned_abs() * voxels;
        64 * features.unsigned_abs() * whole.max(1) + blended
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

/// The network and how it is run.
struct Runner {
    network: Network,
    overlap: f64,
    flip: Vec<VoxelAxis>,
}

impl Runner {
    fn probabilities(&self, channels: &[Array3<f32>]) -> Result<Array3<f32>, TchError> {
        let _guard = tch::no_grad_guard();
        let spec = &self.network.spec;
        let (z, y, x) = channels[0].dim();
        let size = [1, 1, z as i64, y as i64, x as i64];
        let images: Vec<Tensor> = channels
            .iter()
            .map(|channel| {
                let voxels = channel.as_standard_layout();
                Tensor::f_from_slice(voxels.as_slice().unwrap_or_default())?.f_view(size)
            })
            .collect::<Result<_, _>>()?;
        let images = Tensor::f_cat(&images, 1)?.f_to_device(self.network.store.device())?;
        let logits = self.blend(&images)?;
        let probabilities = match spec.activation {
            Activation::Sigmoid => logits.f_sigmoid()?,
            Activation::Softmax => logits.f_softmax(1, Kind::Float)?,
        };
        let lesion = probabilities.f_select(1, spec.channel as i64)?.f_to_device(Device::Cpu)?;
        Array3::from_shape_vec((z, y, x), values(&lesion)?)
            .map_err(|e| TchError::Shape(format!("the network changed the shape: {e}")))
    }

    /// The logits `[1, classes, z, y, x]` of images `[1, channels, z, y, x]`: windows, weighed.
    fn blend(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let size = images.size();
        let spec = &self.network.spec;
        let [wx, wy, wz] = spec.shape;
        let multiple = match spec.axes {
            AxisOrder::Zyx => spec.network.multiple(),
            AxisOrder::Xyz => reversed(spec.network.multiple()),
        };
        let shape: [usize; 3] = std::array::from_fn(|a| size[a + 2] as usize);
        let windows = Windows::new(shape, [wz, wy, wx], multiple, self.overlap);
        let [d, h, w] = windows.padding.map(|axis| axis.map(|n| n as i64));
        let padded = match windows.padding {
            [[0, 0], [0, 0], [0, 0]] => images.shallow_clone(),
            _ => images.f_constant_pad_nd([w[0], w[1], h[0], h[1], d[0], d[1]])?,
        };
        let mut blended = match windows.is_one() {
            true => self.mirrored(&padded)?,
            false => self.sum(&padded, &windows)?,
        };
        for (axis, before) in (2..).zip([d[0], h[0], w[0]]) {
            blended = blended.f_narrow(axis, before, size[axis as usize])?;
        }
        Ok(blended)
    }

    fn sum(&self, images: &Tensor, windows: &Windows) -> Result<Tensor, TchError> {
        let (size, device) = (images.size(), images.device());
        let window = windows.window.map(|n| n as i64);
        let weights = Tensor::f_from_slice(&windows.weights())?
            .f_view([1, 1, window[0], window[1], window[2]])?
            .f_to_device(device)?;
        let part = |tensor: &Tensor, corner: [usize; 3]| {
            let mut part = tensor.shallow_clone();
            for (axis, (start, length)) in (2..).zip(corner.into_iter().zip(window)) {
                part = part.f_narrow(axis, start as i64, length)?;
            }
            Ok::<_, TchError>(part)
        };
        let classes = self.network.spec.network.classes();
        let zeros = |channels: i64| {
            let shape = [1, channels, size[2], size[3], size[4]];
            Tensor::f_zeros(shape, (Kind::Float, device))
        };
        let (sum, total) = (zeros(classes)?, zeros(1)?);
        let batch = if device.is_cuda() { GPU_BATCH } else { 1 };
        let corners: Vec<[usize; 3]> = windows.corners().collect();
        for corners in corners.chunks(batch) {
            let inputs: Vec<Tensor> =
                corners.iter().map(|c| part(images, *c)).collect::<Result<_, _>>()?;
            let logits = self.mirrored(&Tensor::f_cat(&inputs, 0)?)?;
            for (number, corner) in (0..).zip(corners) {
                let weighed = logits.f_narrow(0, number, 1)?.f_mul(&weights)?;
                let _ = part(&sum, *corner)?.f_add_(&weighed)?;
                let _ = part(&total, *corner)?.f_add_(&weights)?;
            }
        }
        sum.f_div(&total)
    }

    /// The mean logits over all ways to mirror the images along the wanted axes.
    fn mirrored(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let mut axes: Vec<i64> = self.flip.iter().map(|axis| 4 - *axis as i64).collect();
        axes.sort_unstable();
        axes.dedup();
        let mut mean = self.ordered(images)?;
        let ways = 1_i64 << axes.len();
        for way in 1..ways {
            let chosen = (0..axes.len()).filter(|bit| way >> bit & 1 == 1);
            let along: Vec<i64> = chosen.map(|bit| axes[bit]).collect();
            let flipped = self.ordered(&images.f_flip(&along)?)?.f_flip(&along)?;
            mean = mean.f_add(&flipped)?;
        }
        if ways == 1 { Ok(mean) } else { mean.f_div_scalar(ways) }
    }

    /// The logits of images, handed over with their axes as the network knows them.
    fn ordered(&self, images: &Tensor) -> Result<Tensor, TchError> {
        const REVERSED: [i64; 5] = [0, 1, 4, 3, 2];
        match self.network.spec.axes {
            AxisOrder::Zyx => self.network.logits(images, false),
            AxisOrder::Xyz => {
                let turned = images.f_permute(REVERSED)?.f_contiguous()?;
                self.network.logits(&turned, false)?.f_permute(REVERSED)
            }
        }
    }
}

fn reversed<T: Copy>([a, b, c]: [T; 3]) -> [T; 3] {
    [c, b, a]
}

#[cfg(test)]
mod tests;
