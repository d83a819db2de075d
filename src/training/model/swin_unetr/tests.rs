use tch::{Device, Kind};
use torcula::engine::learner::{Merging, SwinParams};
use torcula::error::Result;

use super::*;
use crate::device::torch_error;
use crate::model::formula::{assert_close, fill, image};

fn config(feature_size: usize, channels: usize, classes: i64) -> SwinUnetrConfig {
    let params = SwinParams { feature_size, ..SwinParams::default() };
    SwinUnetrConfig { classes, ..SwinUnetrConfig::plan(channels, &params) }
}

/// The second version, with other depths, windows and merging.
fn second() -> SwinUnetrConfig {
    SwinUnetrConfig {
        use_v2: true,
        downsample: Merging::MergingV2,
        depths: [1, 3, 2, 1],
        window_size: 4,
        ..config(12, 1, 2)
    }
}

fn output(config: &SwinUnetrConfig, shape: &[i64]) -> Result<Tensor> {
    let mut store = Store::new(0, Device::Cpu);
    let net = SwinUnetr::new(&mut store, config)?;
    let _guard = tch::no_grad_guard();
    let run = || net.forward(&image(shape)?, false);
    fill(&store).and_then(|()| run()).map_err(|e| torch_error(&e))
}

// benches/peers/networks.py prints these numbers: MONAI 1.6.1, SWIN.
#[test]
fn outputs_are_those_of_monai() -> Result<()> {
    let check = |what: &str, config: &SwinUnetrConfig, shape: &[i64], expected: &[f64]| {
        let found = output(config, shape)?;
        assert_close(what, &found, expected).map_err(|e| torch_error(&e))
    };
    check(
        "feature size 24",
        &config(24, 1, 1),
        &[1, 1, 64, 32, 32],
        &[
            0.227_759_17,
            -0.104_047_94,
            0.617_179_75,
            -1.250_843_29,
            0.564_354_9,
            -0.108_681_77,
            1.148_998_26,
            -0.183_980_52,
            -1.848_916_29,
            0.441_958_9,
        ],
    )?;
    check(
        "feature size 48",
        &config(48, 2, 3),
        &[1, 2, 32, 64, 32],
        &[
            0.338_326_48,
            0.649_529_4,
            0.619_566_62,
            1.795_925_74,
            -0.357_798_34,
            -0.086_981_95,
            -0.330_633_32,
            -3.072_873_12,
            -0.960_722_39,
            0.781_265_8,
        ],
    )?;
    check(
        "second version",
        &second(),
        &[2, 1, 64, 32, 32],
        &[
            -0.018_731_33,
            -0.995_377_42,
            0.302_319_79,
            0.457_605_15,
            1.739_659_31,
            -1.761_990_67,
            -1.073_226_81,
            -0.706_771_37,
            0.610_756_04,
            1.519_294_62,
        ],
    )
}

#[test]
fn a_gradient_reaches_every_weight_and_training_agrees_with_inference() -> Result<()> {
    let mut store = Store::new(0, Device::Cpu);
    let net = SwinUnetr::new(&mut store, &config(12, 1, 1))?;
    let run = || {
        let images = image(&[1, 1, 64, 32, 32])?;
        let trained = net.forward(&images, true)?;
        trained.f_square()?.f_sum(Kind::Float)?.f_backward()?;
        let apart = trained.f_sub(&net.forward(&images, false)?)?.f_abs()?.f_max()?;
        apart.f_double_value(&[])
    };
    assert!(run().map_err(|e| torch_error(&e))? < 1e-4);
    for (name, tensor) in store.trainable() {
        assert!(tensor.grad().defined(), "{name}");
    }
    Ok(())
}

#[test]
fn the_shape_is_read_from_a_checkpoint() -> Result<()> {
    use crate::checkpoint::{Checkpoint, write};
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("monai.safetensors");
    // What leaves no trace in the shapes is left to the user.
    for expected in [config(24, 2, 3), SwinUnetrConfig { downsample: Merging::Merging, ..second() }]
    {
        let mut store = Store::new(0, Device::Cpu);
        SwinUnetr::new(&mut store, &expected)?;
        let tensors = store.tensors().map(|(name, n)| (name.to_owned(), &n.tensor));
        write(&path, tensors, &std::collections::BTreeMap::new())?;
        assert_eq!(SwinUnetrConfig::of_checkpoint(&Checkpoint::read(&path)?)?, expected);
    }
    Ok(())
}

#[test]
fn an_axis_that_is_no_multiple_is_refused() -> Result<()> {
    let mut store = Store::new(0, Device::Cpu);
    let net = SwinUnetr::new(&mut store, &config(12, 1, 1))?;
    let refused = |shape: [i64; 5]| {
        let images = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        net.forward(&images, false).err().map(|e| torch_error(&e).reason().to_owned())
    };
    let reason = refused([1, 1, 64, 32, 40]).unwrap_or_default();
    assert!(reason.contains("40 voxels, expected a multiple of 32"), "{reason}");
    let reason = refused([1, 1, 32, 32, 32]).unwrap_or_default();
    assert!(reason.contains("64 along at least one axis"), "{reason}");
    Ok(())
}
