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
    let deep = TrainParams { strides: Some(vec![[2, 2, 4]; 2]), ..TrainParams { levels: 3, ..params } };
    let error = UNet3dConfig::plan(
        1,
        &TrainParams { kernels: None, ..deep },
        [16, 16, 5],
        [1.0, 1.0, 4.0],
    );
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
            [-0.304_170_31, 0.362_200_35, -0.286_921_8, -0.304_843_25],
            [-0.708_373_07, 1.013_478_04, -2.843_367_82, -1.229_454_87],
            [0.254_663_85, 0.410_757_3, 0.444_081_25, 0.300_768_29],
        ),
        (
            Normalization::Instance,
            [-0.932_905_02, 1.336_985_47, -2.469_679_83, -1.862_823_72],
            [-0.932_905_02, 1.336_985_47, -2.469_679_83, -1.862_823_72],
            [0.366_067_56, 0.776_331_54, 0.404_192_57, 0.682_337_34],
        ),
        (
            Normalization::Group,
            [-1.555_916_07, 0.107_046_26, -1.939_388_51, 0.132_541_37],
            [-1.555_916_07, 0.107_046_26, -1.939_388_51, 0.132_541_37],
            [0.361_186_57, 0.778_477_25, 0.162_854_52, -0.387_343_76],
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
            Ok::<_, TchError>((found?, crate::checkpoint::values(&net.forward(&images, training)?)?))
        };
        Ok::<_, TchError>((values(true)?, values(false)?))
    };
    let ((first, second), (still, same)) = run().map_err(|e| torch_error(&e))?;
    assert_ne!(first, second);
    assert_eq!(still, same);
    Ok(())
}
