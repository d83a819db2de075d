use ndarray::Array3;
use torcula::engine::learner::SwinParams;
use torcula::volume::Affine;

use super::*;
use crate::checkpoint::write;
use crate::model::Store;
use crate::model::formula::{SAMPLES, fill, image};
use crate::model::swin_unetr::{SwinUnetr, SwinUnetrConfig};

/// Voxels along x, y, z.
const SHAPE: [usize; 3] = [70, 40, 20];

/// A checkpoint as MONAI would write it, with names that a wrapper has put `module.` before.
fn checkpoint(path: &Path, classes: i64) -> Result<()> {
    let params = SwinParams { feature_size: 12, ..SwinParams::default() };
    let config = SwinUnetrConfig { classes, ..SwinUnetrConfig::plan(1, &params) };
    let mut store = Store::new(0, Device::Cpu);
    SwinUnetr::new(&mut store, &config)?;
    fill(&store).map_err(|e| torch_error(&e))?;
    let tensors = store.tensors().map(|(name, n)| (format!("module.{name}"), &n.tensor));
    write(path, tensors, &BTreeMap::new()).map(|_| ())
}

/// The image of `benches/peers/networks.py`, which has x first.
fn volume() -> Result<Image> {
    let [x, y, z] = SHAPE;
    let values = image(&SHAPE.map(|n| n as i64)).and_then(|i| values(&i));
    let values = values.map_err(|e| torch_error(&e))?;
    let data = Array3::from_shape_fn((z, y, x), |(k, j, i)| values[(i * y + j) * z + k]);
    Ok(Volume { data, affine: Affine::from_spacing_mm([1.0; 3]) })
}

fn options() -> PredictOptions {
    PredictOptions { window: Some([64, 32, 32]), overlap: 0.25, ..PredictOptions::on("cpu") }
}

// benches/peers/networks.py prints these numbers: MONAI 1.6.1, sliding_window_inference with WINDOWS, plain and mirrored.
#[test]
fn windows_are_blended_as_monai_blends_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("monai.safetensors");
    checkpoint(&path, 1)?;
    let plain = [
        0.793_747_25,
        0.227_119_95,
        0.549_422_5,
        0.077_293_27,
        0.284_150_33,
        0.440_851_45,
        0.486_961_1,
        0.785_285_8,
        0.337_410_03,
        0.131_958_71,
    ];
    let mirrored = [
        0.593_063_9,
        0.121_204_12,
        0.264_834_5,
        0.056_100_4,
        0.504_400_73,
        0.414_999_25,
        0.409_045_07,
        0.331_743_5,
        0.243_679_37,
        0.163_405_02,
    ];
    for (flip, expected) in [(vec![], plain), (vec![VoxelAxis::X, VoxelAxis::Z], mirrored)] {
        let predictor = TorchPredictor::open(&path, &PredictOptions { flip, ..options() })?;
        assert_eq!((predictor.channels(), predictor.spacing_mm()), (1, None));
        let found = predictor.predict(&[&volume()?])?;
        let [_, y, z] = SHAPE;
        for (k, expected) in expected.iter().enumerate() {
            let at = (k + 1) * SHAPE.iter().product::<usize>() / (SAMPLES + 1);
            let found = found.data[[at % z, at / z % y, at / z / y]];
            assert!((found - expected).abs() < 1e-4_f32, "{k}: {found}, expected {expected}");
        }
    }
    Ok(())
}

#[test]
fn the_whole_volume_is_one_window_where_that_is_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("monai.safetensors");
    checkpoint(&path, 1)?;
    let whole = PredictOptions { window: Some([0; 3]), ..options() };
    let large = PredictOptions { window: Some([96, 64, 32]), ..options() };
    let found = |o: &PredictOptions| TorchPredictor::open(&path, o)?.predict(&[&volume()?]);
    let found = found(&whole)?;
    assert_eq!(found, TorchPredictor::open(&path, &large)?.predict(&[&volume()?])?);
    assert!(found.voxels().iter().all(|p| (0.0..=1.0).contains(p)));
    Ok(())
}

#[test]
fn what_does_not_fit_the_model_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("monai.safetensors");
    checkpoint(&path, 2)?;
    let reason =
        |r: Result<TorchPredictor>| r.err().map(|e| e.reason().to_owned()).unwrap_or_default();
    let three = PredictOptions { channel: Some(2), ..options() };
    let found = reason(TorchPredictor::open(&path, &three));
    assert!(found.contains("the output has no channel 2, there are 2"), "{found}");
    let predictor = TorchPredictor::open(&path, &options())?;
    let image = volume()?;
    let found = predictor.predict(&[&image, &image]).err().map(|e| e.reason().to_owned());
    assert_eq!(found.as_deref(), Some("the model wants 1 images a case, found 2"));
    // Softmax over two classes: together they are sure.
    let background = PredictOptions { channel: Some(0), ..options() };
    let background = TorchPredictor::open(&path, &background)?.predict(&[&image])?;
    let lesion = predictor.predict(&[&image])?;
    let sum = &background.data + &lesion.data;
    assert!(sum.iter().all(|s| (s - 1.0).abs() < 1e-5));
    Ok(())
}
