use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array3, s};
use torcula::engine::feed::SampleRef;
use torcula::engine::learner::{Augmentation, Learner, PredictOptions, TrainParams};
use torcula::error::Fault;
use torcula::formats::shards::{Precision, Sample, write_as};
use torcula::volume::{Affine, Image, Volume};

use super::*;
use crate::TorchLearner;
use crate::checkpoint::{self, Checkpoint};

const DIM: (usize, usize, usize) = (8, 16, 16);
const SPACING_MM: [f64; 3] = [2.0, 2.0, 5.0];

fn sample(i: usize, brightness: f32) -> Sample {
    let affine = Affine::from_spacing_mm(SPACING_MM);
    let inside = |z: usize, y: usize, x: usize| {
        z.abs_diff(4) < 2 && y.abs_diff(5 + i) < 3 && x.abs_diff(8) < 3
    };
    let texture = |z, y, x| ((z * 7 + y * 13 + x * 5 + i) % 11) as f32;
    let image = Array3::from_shape_fn(DIM, |(z, y, x)| {
        brightness * (100.0 + texture(z, y, x) + if inside(z, y, x) { 60.0 } else { 0.0 })
    });
    let truth = Array3::from_shape_fn(DIM, |(z, y, x)| u8::from(inside(z, y, x)));
    Sample {
        case_id: format!("sub-{i}"),
        fingerprint: String::new(),
        image: Volume { data: image, affine },
        truth: Volume { data: truth, affine },
    }
}

fn job(folder: &Path, samples: &[Sample], params: TrainParams) -> Result<TrainJob> {
    let shard = folder.join("shard.arrow");
    write_as(&shard, samples, &BTreeMap::new(), Precision::Float32)?;
    let train: Vec<SampleRef> = samples
        .iter()
        .enumerate()
        .map(|(row, s)| SampleRef { shard: shard.clone(), row, case_id: s.case_id.clone() })
        .collect();
    Ok(TrainJob {
        params,
        val: train.clone(),
        train,
        spacing_mm: SPACING_MM,
        seed: 11,
        parent: None,
        folder: folder.join("model"),
        metadata: BTreeMap::from([("torcula.run_id".to_owned(), "run".to_owned())]),
        fingerprint: "print".to_owned(),
        place: 0,
    })
}

fn small() -> TrainParams {
    TrainParams {
        levels: 2,
        filters: 4,
        epochs: 4,
        batch: 2,
        learning_rate: 0.01,
        device: "cpu".to_owned(),
        threads: 1,
        feed_threads: 1,
        ..TrainParams::default()
    }
}

#[test]
fn one_sample_is_learned_and_found_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let params = TrainParams {
        epochs: 6,
        draws: 32,
        learning_rate: 0.02,
        augment: Augmentation::Names(Vec::new()),
        ..small()
    };
    let sample = sample(0, 1.0);
    let trained =
        train(&job(folder.path(), std::slice::from_ref(&sample), params)?, &|_| (), &|| false)?;
    let losses: Vec<f64> = trained.curve.iter().map(|e| e.train_loss).collect();
    assert!(losses[5] < 0.3 * losses[0], "{losses:?}");
    assert!(trained.best_val_dice > 0.95, "{:?}", trained.curve);
    assert_eq!(hash_file(&trained.path)?.blake3, trained.blake3);

    let predictor = TorchLearner::new().predictor(&trained.path, &PredictOptions::on("cpu"))?;
    assert_eq!((predictor.grid_shape(), predictor.spacing_mm()), ([16, 16, 8], Some(SPACING_MM)));
    let metadata = predictor.metadata();
    assert_eq!(metadata["torcula.run_id"], "run");
    assert_eq!(metadata[keys::EPOCH], trained.best_epoch.to_string());
    let found = predictor.predict(&[&sample.image])?;
    assert_eq!(found.grid(), sample.image.grid());
    assert_eq!(found, predictor.predict(&[&sample.image])?);
    let dice = dice(&found, &sample.truth.data);
    assert!((dice - trained.best_val_dice).abs() < 1e-6, "{dice} {}", trained.best_val_dice);

    // Twice the field of view, with the sample in one corner: windows find it there as well.
    let mut data = Array3::from_elem((8, 30, 27), 105.0);
    data.slice_mut(s![.., ..16, ..16]).assign(&sample.image.data);
    let mut truth = Array3::zeros(data.dim());
    truth.slice_mut(s![.., ..16, ..16]).assign(&sample.truth.data);
    let found = predictor.predict(&[&Image { data, affine: sample.image.affine }])?;
    assert!(found.voxels().iter().all(|p| (0.0..=1.0).contains(p)));
    let near = found.data.slice(s![.., ..14, ..14]).to_owned();
    let near = Volume { data: near, affine: found.affine };
    let truth = truth.slice(s![.., ..14, ..14]).to_owned();
    assert!(self::dice(&near, &truth) > 0.85, "{}", self::dice(&near, &truth));
    Ok(())
}

fn dice(probability: &Image, truth: &Array3<u8>) -> f64 {
    let (mut overlap, mut total) = (0.0, 0.0);
    for (p, t) in probability.data.iter().zip(truth) {
        let (p, t) = (f64::from(u8::from(*p > 0.5)), f64::from(*t));
        (overlap, total) = (overlap + p * t, total + p + t);
    }
    2.0 * overlap / total
}

#[test]
fn an_interrupted_training_ends_with_the_same_model() -> Result<()> {
    let samples: Vec<Sample> = (0..4).map(|i| sample(i, 1.0)).collect();
    let [whole, parts] = [tempfile::tempdir()?, tempfile::tempdir()?];
    let expected = train(&job(whole.path(), &samples, small())?, &|_| (), &|| false)?;

    let interrupted = job(parts.path(), &samples, small())?;
    let epochs = Cell::new(0);
    let count = |event: &TrainEvent| {
        epochs.set(epochs.get() + i32::from(matches!(event, TrainEvent::Epoch(_))));
    };
    let error = train(&interrupted, &count, &|| epochs.get() == 2).err();
    assert_eq!(error.map(|e| e.fault()), Some(Fault::Cancelled));
    let found = train(&interrupted, &count, &|| false)?;
    assert_eq!(epochs.get(), 4);
    assert_eq!(found.blake3, expected.blake3);
    assert_eq!(found.best_epoch, expected.best_epoch);
    let curve = |t: &TrainedModel| -> Vec<[u64; 2]> {
        t.curve.iter().map(|e| [e.train_loss.to_bits(), e.val_dice.to_bits()]).collect()
    };
    assert_eq!(curve(&found), curve(&expected));

    // A finished training is not done again; another one in the same folder is done anew.
    train(&interrupted, &count, &|| true)?;
    assert_eq!(epochs.get(), 4);
    let other = TrainJob { fingerprint: "other".to_owned(), ..interrupted };
    train(&other, &count, &|| false)?;
    assert_eq!(epochs.get(), 8);
    Ok(())
}

/// The weights that a training ends with.
fn weights(folder: &Path, samples: &[Sample], params: TrainParams) -> Result<Vec<Vec<f32>>> {
    let job = job(folder, samples, params)?;
    let mut training = Training::new(&job, Device::Cpu)?;
    while !training.is_over() {
        training.epoch(&|_| (), &|| false)?;
    }
    let weights = training.network.store.trainable().map(|(_, t)| checkpoint::values(t));
    weights.collect::<Result<_, _>>().map_err(|e| torch_error(&e))
}

#[test]
fn with_every_option_and_stopped_anywhere_the_model_is_the_same() -> Result<()> {
    let samples: Vec<Sample> = (0..4).map(|i| sample(i, 1.0)).collect();
    let params = TrainParams {
        epochs: 2,
        draws: 3,
        accumulate: 2,
        ema: 0.9,
        clip_norm: 0.5,
        optimizer: torcula::engine::learner::Optimizer::Sgd,
        focal_gamma: 2.0,
        tversky_alpha: 0.3,
        tversky_beta: 0.7,
        dropout: 0.2,
        norm: torcula::engine::learner::Normalization::Instance,
        patch: Some([8, 12, 8]),
        ..small()
    };
    let [whole, parts] = [tempfile::tempdir()?, tempfile::tempdir()?];
    let expected = train(&job(whole.path(), &samples, params.clone())?, &|_| (), &|| false)?;
    let stopped = job(parts.path(), &samples, params)?;
    let mut starts = 0;
    let found = loop {
        starts += 1;
        // Stopped at the third question: within epochs, between them, and while validating.
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        };
        match train(&stopped, &|_| (), &stop) {
            Err(e) if e.fault() == Fault::Cancelled => {}
            other => break other?,
        }
    };
    assert_eq!(starts, 4);
    assert_eq!(found.blake3, expected.blake3);
    let losses =
        |t: &TrainedModel| -> Vec<u64> { t.curve.iter().map(|e| e.train_loss.to_bits()).collect() };
    assert_eq!(losses(&found), losses(&expected));
    Ok(())
}

#[test]
fn two_batches_accumulated_are_one_of_twice_the_size() -> Result<()> {
    // Two draws of one sample, unchanged: a batch of both has the statistics of either.
    let one = [sample(0, 1.0)];
    let augment = Augmentation::Names(Vec::new());
    // SGD's steps follow the gradients; Adam's would follow the rounding of small ones.
    let optimizer = torcula::engine::learner::Optimizer::Sgd;
    let params = TrainParams { epochs: 1, draws: 6, augment, optimizer, ..small() };
    let [a, b, c] = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let large = weights(a.path(), &one, TrainParams { batch: 2, ..params.clone() })?;
    let small_batches = TrainParams { batch: 1, accumulate: 2, ..params.clone() };
    let accumulated = weights(b.path(), &one, small_batches)?;
    let other = weights(c.path(), &one, TrainParams { batch: 1, ..params })?;
    let apart = |x: &[Vec<f32>], y: &[Vec<f32>]| -> f32 {
        let all = x.iter().flatten().zip(y.iter().flatten());
        all.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    assert!(apart(&large, &accumulated) < 1e-4, "{}", apart(&large, &accumulated));
    assert!(apart(&large, &other) > 1e-3, "{}", apart(&large, &other));
    Ok(())
}

#[test]
fn what_a_parent_cannot_give_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let samples = [sample(0, 1.0)];
    let parent = job(folder.path(), &samples, TrainParams { epochs: 1, ..small() })?;
    let path = train(&parent, &|_| (), &|| false)?.path;
    let reason = |params: TrainParams| {
        let child = TrainJob {
            params,
            parent: Some(path.clone()),
            folder: folder.path().join("child"),
            ..parent.clone()
        };
        let error = Training::new(&child, Device::Cpu).err();
        error.map(|e| format!("{e} {}", e.advice().unwrap_or_default())).unwrap_or_default()
    };
    assert_eq!(reason(small()), "");
    let wide = reason(TrainParams { filters: 8, ..small() });
    assert!(wide.contains("filters [4, 8], and the step asks for"), "{wide}");
    let unknown = reason(TrainParams { freeze: vec!["down7".to_owned()], ..small() });
    assert!(unknown.contains("no part `down7`") && unknown.contains("down0, down1"), "{unknown}");
    let all = ["stem", "down0", "down1", "up0", "head"].map(str::to_owned).to_vec();
    let nothing = reason(TrainParams { freeze: all, ..small() });
    assert!(nothing.contains("leaves nothing to train"), "{nothing}");
    Ok(())
}

#[test]
fn coarse_levels_learn_with_deep_supervision() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let samples = [sample(0, 1.0)];
    let strides = Some(vec![[2, 2, 1], [2, 2, 2]]);
    let params = TrainParams { levels: 3, strides, deep_supervision: true, epochs: 1, ..small() };
    let job = job(folder.path(), &samples, params)?;
    let start = Training::new(&job, Device::Cpu)?;
    let trained = Checkpoint::read(&train(&job, &|_| (), &|| false)?.path)?;
    let sides = start.network.store.trainable().filter(|(name, _)| name.starts_with("side1."));
    let mut changed = 0;
    for (name, before) in sides {
        let after = before.zeros_like();
        trained.load(name, &after)?;
        changed += usize::from(after != *before);
    }
    // Scale and shift of the norm, weight and bias of the convolution.
    assert_eq!(changed, 4);
    Ok(())
}

#[test]
fn a_swin_unetr_needs_room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = torcula::engine::learner::Architecture::SwinUnetr;
    let params = TrainParams { model, levels: 4, filters: 16, ..small() };
    let job = job(folder.path(), &[sample(0, 1.0)], params)?;
    let error = Training::new(&job, Device::Cpu).err();
    let reason = error.as_ref().map(Error::reason).unwrap_or_default();
    assert!(reason.contains("one is left at the coarsest level"), "{reason}");
    Ok(())
}

#[test]
fn patience_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let params = TrainParams { epochs: 9, patience: 2, learning_rate: 1e-9, ..small() };
    let job = job(folder.path(), &[sample(0, 1.0), sample(1, 1.0)], params)?;
    let trained = train(&job, &|_| (), &|| false)?;
    assert_eq!(trained.curve.len(), trained.best_epoch + 2, "{:?}", trained.curve);
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_names_the_cases() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let job = job(folder.path(), &[sample(0, 1.0), sample(1, 1.0)], small())?;
    let mut training = Training::new(&job, Device::Cpu)?;
    for (_, weights) in training.network.store.trainable() {
        let _ = tch::no_grad(|| weights.shallow_clone().fill_(f64::NAN));
    }
    let error = training.epoch(&|_| (), &|| false).err();
    let reason = error.as_ref().map(Error::reason).unwrap_or_default();
    assert!(reason.contains("the loss of the batch of sub-"), "{reason}");
    assert_eq!(error.as_ref().map(Error::fault), Some(Fault::Data));
    Ok(())
}

#[test]
fn what_is_no_model_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("m.safetensors");
    let reason = || {
        let opened = TorchLearner::new().predictor(&path, &PredictOptions::on("cpu"));
        opened.err().map(|e| e.reason().to_owned()).unwrap_or_default()
    };
    assert!(reason().contains("m.safetensors"));
    checkpoint::write(
        &path,
        [("a".to_owned(), &Tensor::from_slice(&[1.0_f32]))],
        &BTreeMap::new(),
    )?;
    assert!(reason().contains("its metadata has no `torcula.network`"), "{}", reason());
    let broken = BTreeMap::from([(keys::NETWORK.to_owned(), "{}".to_owned())]);
    checkpoint::write(&path, [], &broken)?;
    assert!(reason().contains("metadata `torcula.network`"), "{}", reason());
    Ok(())
}
