use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::formats::shards::{Sample, write};

const DIM: (usize, usize, usize) = (3, 4, 5);

/// Two shards of `cases` samples in all; a voxel of sample i is i + 1.
fn shards(folder: &Path, cases: usize) -> Result<Vec<SampleRef>> {
    let mut samples = Vec::new();
    for (name, range) in [("a", 0..cases / 2), ("b", cases / 2..cases)] {
        let shard = folder.join(format!("{name}.arrow"));
        let affine = Affine::from_spacing_mm([2.0, 2.0, 5.0]);
        let rows: Vec<Sample> = range
            .map(|i| Sample {
                case_id: format!("sub-{i:03}"),
                fingerprint: String::new(),
                image: Volume {
                    data: Array3::from_shape_fn(DIM, |(z, y, x)| (i + 1 + z + y + x) as f32),
                    affine,
                },
                truth: Volume {
                    data: Array3::from_shape_fn(DIM, |(z, _, x)| u8::from(x > z)),
                    affine,
                },
            })
            .collect();
        write(&shard, &rows, &BTreeMap::new())?;
        samples.extend(rows.iter().enumerate().map(|(row, s)| SampleRef {
            shard: shard.clone(),
            row,
            case_id: s.case_id.clone(),
        }));
    }
    Ok(samples)
}

fn options(samples: Vec<SampleRef>) -> FeedOptions {
    FeedOptions {
        samples,
        batch: 4,
        draws: 1,
        seed: 7,
        augment: Some(Plan::all()),
        patch: None,
        spacing_mm: [2.0, 2.0, 5.0],
        shuffle: true,
        workers: 2,
        depth: 2,
    }
}

type Contents = Vec<(Vec<String>, Vec<f32>, Vec<u8>)>;

fn contents(epoch: Epoch) -> Result<Contents> {
    epoch
        .map(|b| b.map(|b| (b.case_ids.clone(), b.images().to_vec(), b.truths().to_vec())))
        .collect()
}

fn temporary() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir()?)
}

#[test]
fn batches_are_the_same_at_any_number_of_workers() -> Result<()> {
    let folder = temporary()?;
    let samples = shards(folder.path(), 18)?;
    let feed = |workers| Feed::open(FeedOptions { workers, ..options(samples.clone()) });
    let one = contents(feed(1)?.epoch(3)?)?;
    assert_eq!(one.len(), 5);
    assert_eq!(one[4].0.len(), 2);
    assert_eq!(one, contents(feed(4)?.epoch(3)?)?);
    assert_eq!(one[2..], contents(feed(3)?.epoch_from(3, 2)?)?);
    assert_ne!(one, contents(feed(1)?.epoch(4)?)?);
    Ok(())
}

#[test]
fn patches_are_the_same_at_any_number_of_workers() -> Result<()> {
    let folder = temporary()?;
    let samples = shards(folder.path(), 9)?;
    let patch = Some(Patch { shape: [2, 3, 2], lesion_share: 0.5 });
    let feed = |workers| {
        let patch = patch.clone();
        Feed::open(FeedOptions { patch, workers, ..options(samples.clone()) })
    };
    let one = feed(1)?;
    assert_eq!((one.shape(), one.sample_shape()), ([1, 2, 3, 2], [1, 3, 4, 5]));
    let one = contents(one.epoch(3)?)?;
    assert_eq!(one[0].1.len(), 4 * 12);
    assert_eq!(one, contents(feed(3)?.epoch(3)?)?);
    assert_eq!(one[1..], contents(feed(2)?.epoch_from(3, 1)?)?);
    assert_ne!(one, contents(feed(1)?.epoch(4)?)?);
    Ok(())
}

#[test]
fn every_sample_has_its_draws_in_every_epoch() -> Result<()> {
    let folder = temporary()?;
    let feed = Feed::open(FeedOptions { draws: 2, ..options(shards(folder.path(), 9)?) })?;
    assert_eq!((feed.samples(), feed.batches()), (18, 5));
    let mut seen = BTreeMap::new();
    for (cases, images, _) in contents(feed.epoch(0)?)? {
        for (case, image) in cases.into_iter().zip(images.chunks_exact(60)) {
            seen.entry(case).or_insert_with(Vec::new).push(image.to_vec());
        }
    }
    assert_eq!(seen.len(), 9);
    assert!(seen.values().all(|draws| draws.len() == 2));
    assert!(seen.values().any(|draws| draws[0] != draws[1]));
    Ok(())
}

#[test]
fn a_plain_feed_keeps_order_and_bytes() -> Result<()> {
    let folder = temporary()?;
    let feed = Feed::open(FeedOptions::plain(shards(folder.path(), 5)?, 2, 1))?;
    assert_eq!(feed.shape(), [1, 3, 4, 5]);
    let batches = contents(feed.epoch(0)?)?;
    let cases: Vec<String> = batches.iter().flat_map(|b| b.0.clone()).collect();
    assert_eq!(cases, ["sub-000", "sub-001", "sub-002", "sub-003", "sub-004"]);
    assert_eq!(batches[1].1[0].to_bits(), 3.0_f32.to_bits());
    assert_eq!(batches[1].2[..5], [0, 1, 1, 1, 1]);
    Ok(())
}

#[test]
fn a_dropped_epoch_stops_and_the_next_one_runs() -> Result<()> {
    let folder = temporary()?;
    let feed = Feed::open(FeedOptions { batch: 1, ..options(shards(folder.path(), 40)?) })?;
    let mut epoch = feed.epoch(0)?;
    drop(epoch.next());
    std::thread::sleep(Duration::from_millis(20));
    drop(epoch);
    assert_eq!(contents(feed.epoch(1)?)?.len(), 40);
    Ok(())
}

#[test]
fn both_sides_count_their_waits() -> Result<()> {
    let folder = temporary()?;
    let feed =
        Feed::open(FeedOptions { batch: 1, depth: 1, ..options(shards(folder.path(), 8)?) })?;
    let mut epoch = feed.epoch(0)?;
    for batch in epoch.by_ref() {
        drop(batch?);
        std::thread::sleep(Duration::from_millis(4));
    }
    let waits = epoch.waits();
    assert!(waits.producer > Duration::from_millis(8), "{waits:?}");
    assert!(waits.consumer > Duration::ZERO, "{waits:?}");
    Ok(())
}

#[test]
fn what_is_missing_or_of_another_case_is_named() -> Result<()> {
    let folder = temporary()?;
    let samples = shards(folder.path(), 4)?;
    let reason = |change: &dyn Fn(&mut Vec<SampleRef>)| {
        let mut samples = samples.clone();
        change(&mut samples);
        let opened = Feed::open(options(samples));
        opened.err().map(|e| e.reason().to_owned()).unwrap_or_default()
    };
    assert!(reason(&|s| s[1].row = 9).contains("no row 9 (of sub-001), the shard has 2"));
    assert!(reason(&|s| s[1].row = 0).contains("row 0 is of sub-000, expected sub-001"));
    assert!(reason(&|s| s[0].shard = "nowhere.arrow".into()).contains("nowhere.arrow"));
    assert!(reason(&|s| s.clear()).contains("no samples"));
    Ok(())
}
