//! The training feed and the event files of a training.
//!
//! `feed` makes shards of `images.f32` and `truths.u8` (samples, z, y, x) and runs one epoch: its batches go to `batches.f32` and
//! `batch_truths.u8`, its cases to `out.json`; the time is that of all threads of the process. `events` writes `scalars` to
//! an event file.

use std::collections::BTreeMap;
use std::path::Path;

use cpu_time::ProcessTime;
use ndarray::Array3;
use serde::Deserialize;
use serde_json::{Value, json};
use torcula::engine::feed::{Feed, FeedOptions, Patch, SampleRef};
use torcula::formats::shards::{Precision, Sample, write_as};
use torcula::formats::tensorboard::EventFile;
use torcula::imaging::augment::Plan;
use torcula::volume::{Affine, Volume};

use crate::common;

#[derive(Deserialize)]
struct Parameters {
    /// Samples, z, y, x.
    shape: [usize; 4],
    spacing_mm: [f64; 3],
    batch: usize,
    augment: bool,
    shuffle: bool,
    patch: Option<[usize; 3]>,
    precision: Precision,
    workers: usize,
}

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    match kernel {
        "feed" => Some(feed(folder, repeats)),
        "events" => Some(events(folder)),
        _ => None,
    }
}

fn feed(folder: &Path, repeats: usize) -> Value {
    let p: Parameters = common::parameters(folder);
    let options = FeedOptions {
        batch: p.batch,
        augment: p.augment.then(Plan::all),
        patch: p.patch.map(|shape| Patch { shape, lesion_share: 0.5 }),
        spacing_mm: p.spacing_mm,
        shuffle: p.shuffle,
        seed: 1,
        depth: 4,
        ..FeedOptions::plain(shards(folder, &p), p.batch, p.workers)
    };
    let feed = Feed::open(options).unwrap();
    let (mut cases, mut images, mut truths) = (Vec::new(), Vec::<u8>::new(), Vec::new());
    for batch in feed.epoch(0).unwrap() {
        let batch = batch.unwrap();
        cases.extend(batch.case_ids.clone());
        images.extend(batch.images().iter().flat_map(|v| v.to_le_bytes()));
        truths.extend(batch.truths());
    }
    common::write_numbers(folder, &json!(cases));
    std::fs::write(folder.join("batches.f32"), images).unwrap();
    std::fs::write(folder.join("batch_truths.u8"), truths).unwrap();
    let epochs = (0..repeats).map(|epoch| {
        let start = ProcessTime::now();
        let sum: f32 = feed.epoch(epoch).unwrap().map(|b| b.unwrap().images()[0]).sum();
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64() * 1e3
    });
    json!({ "cpu_ms": epochs.reduce(f64::min) })
}

/// Shards of 64 samples.
fn shards(folder: &Path, p: &Parameters) -> Vec<SampleRef> {
    let [samples, z, y, x] = p.shape;
    let images = std::fs::read(folder.join("images.f32")).unwrap();
    let truths = std::fs::read(folder.join("truths.u8")).unwrap();
    let affine = Affine::from_spacing_mm(p.spacing_mm);
    let (words, _) = images.as_chunks::<4>();
    let rows: Vec<Sample> = words
        .chunks(z * y * x)
        .zip(truths.chunks(z * y * x))
        .enumerate()
        .map(|(i, (image, truth))| {
            let image = image.iter().map(|w| f32::from_le_bytes(*w)).collect();
            let data = Array3::from_shape_vec((z, y, x), image).unwrap();
            let mask = Array3::from_shape_vec((z, y, x), truth.to_vec()).unwrap();
            Sample {
                case_id: format!("{i}"),
                fingerprint: String::new(),
                image: Volume { data, affine },
                truth: Volume { data: mask, affine },
            }
        })
        .collect();
    assert_eq!(rows.len(), samples);
    let mut all = Vec::new();
    for (n, rows) in rows.chunks(64).enumerate() {
        let shard = folder.join(format!("{n}.arrow"));
        write_as(&shard, rows, &BTreeMap::new(), p.precision).unwrap();
        all.extend(rows.iter().enumerate().map(|(row, s)| SampleRef {
            shard: shard.clone(),
            row,
            case_id: s.case_id.clone(),
        }));
    }
    all
}

fn events(folder: &Path) -> Value {
    let scalars: BTreeMap<String, Vec<f64>> = common::parameters(folder);
    let mut file = EventFile::create(folder).unwrap();
    let steps = scalars.values().map(Vec::len).max().unwrap_or_default();
    for step in 0..steps {
        let values: Vec<(&str, f64)> =
            scalars.iter().map(|(tag, v)| (tag.as_str(), v[step])).collect();
        file.scalars(step as i64, &values).unwrap();
    }
    json!({})
}
