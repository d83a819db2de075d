use tch::{Device, Kind};
use torcula::engine::learner::TrainParams;
use torcula::error::Error;

use super::*;
use crate::device::torch_error;
use crate::model::formula::{assert_close, fill, image};

fn params(levels: usize) -> TrainParams {
    TrainParams { levels, filters: 4, ..TrainParams::default() }
}

fn plan(levels: usize, shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<UNet3dConfig> {
    UNet3dConfig::plan(1, &params(levels), shape, spacing_mm)
}

#[test]
fn thick_slices_are_pooled_later() -> Result<()> {
    let config = plan(4, [96, 96, 24], [2.0, 2.0, 5.0])?;
    assert_eq!(config.strides, [[1, 2, 2], [2, 2, 2], [2, 2, 2]]);
    assert_eq!(config.kernels, [[1, 3, 3], [3; 3], [3; 3], [3; 3]]);
    assert_eq!(config.filters, [4, 8, 16, 32]);
    assert_eq!(config.multiple(), [4, 8, 8]);
    let cube = plan(4, [32, 32, 32], [1.0; 3])?;
    assert_eq!((cube.strides, cube.kernels), (vec![[2; 3]; 3], vec![[3; 3]; 4]));
    let flat = plan(4, [64, 64, 8], [1.0, 1.0, 1.0])?;
    assert_eq!(flat.strides, [[2, 2, 2], [1, 2, 2], [1, 2, 2]]);
    assert_eq!(flat.kernels, vec![[3; 3]; 4]);
    Ok(())
}

#[test]
fn kernels_and_strides_can_be_given() -> Result<()> {
    let params = TrainParams {
        kernels: Some(vec![[5, 3, 1], [3; 3]]),
        strides: Some(vec![[4, 2, 1]]),
        ..params(2)
    };
    let config = UNet3dConfig::plan(1, &params, [16, 16, 5], [1.0, 1.0, 4.0])?;
    assert_eq!(config.kernels, [[1, 3, 5], [3; 3]]);
    assert_eq!(config.strides, [[1, 2, 4]]);
    let deep =
        TrainParams { strides: Some(vec![[2, 2, 4]; 2]), ..TrainParams { levels: 3, ..params } };
    let error =
        UNet3dConfig::plan(1, &TrainParams { kernels: None, ..deep }, [16, 16, 5], [1.0, 1.0, 4.0]);
    let reason = error.err().map(|e| e.reason().to_owned()).unwrap_or_default();
    assert!(reason.contains("16 voxels along z into one, the samples have 5"), "{reason}");
    Ok(())
}

#[test]
fn what_does_not_fit_says_what_would() {
    let error = plan(4, [16, 16, 8], [1.0; 3]).err();
    let hint = error.as_ref().and_then(Error::advice).unwrap_or_default();
    assert!(hint.contains("set levels to 3"), "{hint}");
    assert!(plan(0, [16; 3], [1.0; 3]).is_err());
    assert!(plan(2, [16; 3], [1.0, f64::NAN, 1.0]).is_err());
    let mut broken = plan(2, [16; 3], [1.0; 3]).ok();
    if let Some(config) = &mut broken {
        config.filters.clear();
        assert!(UNet3d::new(&mut Store::new(0, Device::Cpu), config).is_err());
    }
}

#[test]
fn logits_have_the_shape_of_the_image() -> Result<()> {
    for (levels, shape, spacing_mm) in [
        (1, [8, 8, 8], [1.0; 3]),
        (2, [8, 12, 5], [2.0, 2.0, 5.0]),
        (3, [16, 32, 8], [1.0, 1.0, 3.0]),
    ] {
        let config = plan(levels, shape, spacing_mm)?;
        let mut store = Store::new(1, Device::Cpu);
        let net = UNet3d::new(&mut store, &config)?;
        let multiple = config.multiple();
        let [x, y, z] = shape;
        let size: [i64; 3] =
            std::array::from_fn(|a| [z, y, x][a].next_multiple_of(multiple[a]) as i64);
        let size = [2, 1, size[0], size[1], size[2]];
        let run = || {
            let images = Tensor::f_ones(size, (Kind::Float, Device::Cpu))?;
            net.forward(&images, true)
        };
        assert_eq!(run().map_err(|e| torch_error(&e))?.size(), size);
    }
    Ok(())
}

#[test]
fn one_seed_gives_one_network() -> Result<()> {
    let config = plan(2, [8; 3], [1.0; 3])?;
    let weights = |seed| -> Result<Vec<f32>> {
        let mut store = Store::new(seed, Device::Cpu);
        UNet3d::new(&mut store, &config)?;
        let (_, stem) = store.trainable().find(|(name, _)| *name == "stem.weight").unzip();
        let stem = stem.ok_or_else(|| Error::bug("no stem"))?;
        crate::checkpoint::values(stem).map_err(|e| torch_error(&e))
    };
    assert_eq!(weights(3)?, weights(3)?);
    assert_ne!(weights(3)?, weights(4)?);
    Ok(())
}

/// Models of earlier versions load: names, and the weights that a seed gives, are kept.
#[test]
fn the_defaults_are_the_network_of_earlier_models() -> Result<()> {
    let config = plan(2, [8; 3], [1.0; 3])?;
    let mut store = Store::new(3, Device::Cpu);
    let net = UNet3d::new(&mut store, &config)?;
    let mut names: Vec<String> =
        ["stem.weight", "up0.weight", "up0.bias", "head.conv.bias"].map(str::to_owned).to_vec();
    for unit in ["down0.0", "down0.1", "down1.0", "down1.1", "up0.0", "up0.1", "head"] {
        for tensor in ["scale", "shift", "mean", "variance"] {
            names.push(format!("{unit}.norm.{tensor}"));
        }
        names.push(format!("{unit}.conv.weight"));
    }
    names.sort();
    assert_eq!(store.tensors().map(|(name, _)| name).collect::<Vec<_>>(), names);
    assert_eq!(store.parameters(), 5197);
    // The logits in training of the first version of this network.
    let expected = [
        -7.187_313_56,
        -6.173_264_5,
        -8.244_599_34,
        -7.817_279_82,
        -7.0,
        -7.199_807_17,
        -7.659_389_97,
        -7.276_088_71,
        -7.136_288_64,
        -7.580_305_58,
    ];
    let run = || assert_close("logits", &net.forward(&image(&[1, 1, 8, 8, 8])?, true)?, &expected);
    run().map_err(|e| torch_error(&e))
}

/// The network of `UNET` in benches/peers/networks.py.
fn twin(norm: Normalization) -> Result<(Store, UNet3d)> {
    let config = UNet3dConfig {
        channels: 2,
        filters: vec![6, 12, 24],
        kernels: vec![[1, 3, 3], [3; 3], [3; 3]],
        strides: vec![[1, 2, 2], [2; 3]],
        norm,
        dropout: 0.0,
        deep_supervision: true,
    };
    let mut store = Store::new(0, Device::Cpu);
    let net = UNet3d::new(&mut store, &config)?;
    fill(&store).map_err(|e| torch_error(&e))?;
    Ok((store, net))
}

// benches/peers/networks.py prints these numbers: UNET with PyTorch 2.15.0; the image, then the first head and the second in training.
#[test]
fn outputs_are_those_of_the_twin_in_pytorch() -> Result<()> {
    for (norm, expected, first, second) in [
        (
            Normalization::Batch,
            [
                0.765_649_44,
                0.140_353_35,
                -0.498_468_73,
                0.054_375_68,
                0.023_579_87,
                1.063_913_58,
                -0.051_356_78,
                0.559_948_68,
                -1.828_851_22,
                0.057_408_15,
            ],
            [1.710_194_95, 1.027_565_12, -1.905_141_35, -0.453_724_89],
            [0.898_258_86, 0.361_296_27, 0.393_627_58, 0.104_083_49],
        ),
        (
            Normalization::Instance,
            [
                1.334_427_95,
                0.984_513_34,
                -1.984_805_58,
                -0.472_396_37,
                -0.798_394_68,
                0.940_169_57,
                -0.569_296_48,
                0.750_015_97,
                -1.276_551_49,
                0.123_285_34,
            ],
            [1.334_427_95, 0.984_513_34, -1.984_805_58, -0.472_396_37],
            [0.720_369_76, 0.468_517_99, 0.321_577_61, -0.017_957_14],
        ),
        (
            Normalization::Group,
            [
                0.842_106_64,
                0.269_550_32,
                -1.683_967_71,
                -0.905_024_77,
                -0.348_717_15,
                1.717_240_45,
                -0.897_110_34,
                0.825_113_36,
                -1.507_271_53,
                -0.528_160_04,
            ],
            [0.842_106_64, 0.269_550_32, -1.683_967_71, -0.905_024_77],
            [1.007_208_35, 0.443_553_18, -0.020_031_9, 0.114_494_14],
        ),
    ] {
        let (_store, net) = twin(norm)?;
        let run = || {
            let images = image(&[2, 2, 4, 16, 12])?;
            assert_close("inference", &net.forward(&images, false)?, &expected)?;
            let heads = net.heads(&images)?;
            assert_eq!(heads.len(), 2);
            assert_close("first head", &heads[0], &first)?;
            assert_close("second head", &heads[1], &second)
        };
        run().map_err(|e| torch_error(&e).context(format!("{norm:?}")))?;
    }
    Ok(())
}

#[test]
fn dropped_channels_are_drawn_in_training_alone() -> Result<()> {
    let params = TrainParams { dropout: 0.5, ..params(2) };
    let config = UNet3dConfig::plan(1, &params, [8; 3], [1.0; 3])?;
    let net = UNet3d::new(&mut Store::new(0, Device::Cpu), &config)?;
    let run = || {
        let images = image(&[1, 1, 8, 8, 8])?;
        let values = |training: bool| {
            tch::manual_seed(5);
            let found = crate::checkpoint::values(&net.forward(&images, training)?);
            tch::manual_seed(6);
            Ok::<_, TchError>((
                found?,
                crate::checkpoint::values(&net.forward(&images, training)?)?,
            ))
        };
        Ok::<_, TchError>((values(true)?, values(false)?))
    };
    let ((first, second), (still, same)) = run().map_err(|e| torch_error(&e))?;
    assert_ne!(first, second);
    assert_eq!(still, same);
    Ok(())
}
