//! Opening model files: those that a training wrote say all about themselves, a MONAI checkpoint says its shapes.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Device;
use torcula::engine::learner::{Activation, AxisOrder, PredictOptions};
use torcula::error::{Error, Result};

use crate::checkpoint::Checkpoint;
use crate::model::network::{Network, NetworkSpec, Shape};
use crate::model::swin_unetr::SwinUnetrConfig;
use crate::train_loop::keys;

/// A tensor that every Swin UNETR has.
const SWIN_UNETR: &str = "swinViT.patch_embed.proj.weight";
/// Voxels of a window along an axis, where nothing says better.
const FOREIGN_WINDOW: usize = 96;

/// The network in a file, on a device, and the file's metadata.
pub(super) fn network(
    path: &Path,
    options: &PredictOptions,
    device: Device,
) -> Result<(Network, BTreeMap<String, String>)> {
    let mut file = Checkpoint::read(path)?;
    let wrapper = file.names().find_map(|name| name.strip_suffix(SWIN_UNETR)).map(str::to_owned);
    let spec = match (file.metadata.contains_key(keys::NETWORK), wrapper) {
        (false, Some(wrapper)) => {
            file.strip(&wrapper);
            foreign(&file, options)?
        }
        _ => known(&file, options)?,
    };
    let network =
        Network::new(spec, 0, device).map_err(|e| e.context(path.display().to_string()))?;
    let unknown = file.names().find(|name| !network.store.tensors().any(|(n, _)| n == *name));
    if let Some(name) = unknown {
        return Err(Error::data(format!("{file}: tensor {name} is in no network that is known"))
            .hint(
                "Swin UNETR with its Hyena blocks, and other networks of MONAI, cannot be read",
            ));
    }
    file.load_all(&network.store)?;
    Ok((network, file.metadata))
}

/// The network of a model that a training wrote.
fn known(file: &Checkpoint, options: &PredictOptions) -> Result<NetworkSpec> {
    let spec: NetworkSpec = file.json(keys::NETWORK)?;
    if let [first, ..] = options.foreign()[..] {
        return Err(Error::configuration(format!("{file}: the model says its {first} itself"))
            .hint(format!("leave {first} out; it is for checkpoints from elsewhere")));
    }
    Ok(with_options(spec, options))
}

/// A Swin UNETR of MONAI, by the shapes of its tensors and what the options add.
fn foreign(file: &Checkpoint, options: &PredictOptions) -> Result<NetworkSpec> {
    let mut config = SwinUnetrConfig::of_checkpoint(file)?;
    config.downsample = options.downsample.unwrap_or(config.downsample);
    config.normalize = options.normalize.unwrap_or(config.normalize);
    let softmax = config.classes > 1;
    let spec = NetworkSpec {
        network: Shape::SwinUnetr(config),
        shape: [FOREIGN_WINDOW; 3],
        spacing_mm: options.spacing_mm,
        intensity_scale: options.intensity_scale.unwrap_or(1.0),
        axes: options.axes.unwrap_or(AxisOrder::Xyz),
        activation: if softmax { Activation::Softmax } else { Activation::Sigmoid },
        channel: usize::from(softmax),
    };
    Ok(with_options(spec, options))
}

fn with_options(mut spec: NetworkSpec, options: &PredictOptions) -> NetworkSpec {
    spec.shape = options.window.unwrap_or(spec.shape);
    if let Some(activation) = options.activation {
        spec.activation = activation;
        spec.channel = usize::from(activation == Activation::Softmax);
    }
    spec.channel = options.channel.unwrap_or(spec.channel);
    spec
}
