//! Inflating against zlib.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use std::io::Write;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::turns::WINDOW;
use super::*;

fn packed(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What is handed out, and the error after it.
fn inflated(packed: &[u8], block: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let error = Inflate::new(packed, block).read_to_end(&mut bytes).err();
    (bytes, error.map(|e| e.kind()))
}

/// Bytes of several kinds: constant, periodic, of few values, voxels of two and four bytes, random.
fn samples() -> Vec<Vec<u8>> {
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut all = vec![vec![], vec![7], vec![0; 300_000]];
    for n in [100, 40_000, 400_000] {
        for period in [1_usize, 2, 3, 5, 8, 15, 16, 17, 300] {
            all.push((0..n).map(|i| (i % period * 37) as u8).collect());
        }
        all.push((0..n).map(|_| (random() % 5) as u8).collect());
        all.push((0..n / 2).flat_map(|_| ((random() % 300) as i16).to_le_bytes()).collect());
        all.push((0..n / 4).flat_map(|_| (random() as f32).to_le_bytes()).collect());
        all.push((0..n).map(|i| if i % 1000 < 700 { 0 } else { random() as u8 }).collect());
        all.push((0..n).map(|_| random() as u8).collect());
    }
    all
}

#[test]
fn every_level_comes_back() {
    for bytes in samples() {
        for level in [0, 1, 3, 6, 9] {
            let packed = packed(&bytes, level);
            for block in [4 << 10, 256 << 10] {
                let (found, error) = inflated(&packed, block);
                assert_eq!(error, None, "{} bytes, level {level}", bytes.len());
                assert!(found == bytes, "{} bytes, level {level}", bytes.len());
            }
        }
    }
}

#[test]
fn members_follow_each_other_and_headers_may_be_full() {
    let full = GzBuilder::new().filename("image.nii").comment("a comment").extra(vec![1; 3000]);
    let mut encoder = full.write(Vec::new(), Compression::fast());
    encoder.write_all(b"first, ").unwrap();
    let mut file = encoder.finish().unwrap();
    file.extend(packed(b"second, ", 9));
    file.extend(packed(b"", 1));
    file.extend(packed(b"third", 0));
    let expected = (b"first, second, third".to_vec(), None);
    assert_eq!(inflated(&file, 0), expected);
    file.extend(b"and what is no member");
    assert_eq!(inflated(&file, 0), expected);
    assert_eq!(inflated(b"no gzip file", 0).1, Some(ErrorKind::InvalidData));
}

#[test]
fn what_was_cut_off_ends_with_an_error_after_true_bytes() {
    for bytes in samples().into_iter().filter(|b| (100..50_000).contains(&b.len())) {
        let whole = packed(&bytes, 1);
        for end in (0..whole.len()).rev().take(60).chain((0..whole.len()).step_by(997)) {
            let (found, error) = inflated(&whole[..end], 0);
            assert_eq!(error, Some(ErrorKind::UnexpectedEof), "{end} of {}", whole.len());
            assert!(bytes.starts_with(&found), "{end} of {}", whole.len());
        }
    }
}

#[test]
fn a_bomb_takes_no_more_memory_than_any_other_file() {
    let bomb = packed(&vec![0; 50 << 20], 9);
    let mut inflate = Inflate::new(&bomb[..], 0);
    let (mut bytes, mut largest) = (0, 0);
    loop {
        let n = inflate.fill_buf().unwrap().len();
        if n == 0 {
            break;
        }
        (bytes, largest) = (bytes + n, largest.max(n));
        inflate.consume(n);
    }
    assert_eq!(bytes, 50 << 20);
    assert!(largest <= WINDOW);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes, the outcome is that of zlib.
    #[test]
    fn damaged_files_are_judged_as_zlib_judges_them(
        values in prop::collection::vec(0_u16..400, 0..4000),
        level in 0_u32..10,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..3),
    ) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| ((u32::from(*v).pow(2) / 300) as u16).to_le_bytes()).collect();
        let mut file = packed(&bytes, level);
        for (place, bit) in flips {
            let at = place.index(file.len());
            file[at] ^= 1 << bit;
        }
        let (found, error) = inflated(&file, 0);
        let mut theirs = Vec::new();
        let judged = MultiGzDecoder::new(&file[..]).read_to_end(&mut theirs);
        prop_assert_eq!(error.is_none(), judged.is_ok(), "{:?} {:?}", error, judged);
        if error.is_none() {
            prop_assert!(found == theirs);
        }
    }

    #[test]
    fn random_bytes_are_an_error_and_no_more(tail in prop::collection::vec(any::<u8>(), 0..600)) {
        let file = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &tail[..]].concat();
        let mut theirs = Vec::new();
        let judged = MultiGzDecoder::new(&file[..]).read_to_end(&mut theirs);
        prop_assert_eq!(inflated(&file, 0).1.is_none(), judged.is_ok());
    }

    /// However the bytes come, and wherever the members meet.
    #[test]
    fn pieces_and_members_make_no_difference(
        values in prop::collection::vec(any::<u8>(), 0..9000),
        of in 1_u8..=255,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        levels in prop::collection::vec(0_u32..10, 5),
        piece in 1_usize..5000,
    ) {
        let bytes: Vec<u8> = values.iter().map(|v| v % of).collect();
        let mut ends: Vec<usize> = places.iter().map(|p| p.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let (mut file, mut from) = (Vec::new(), 0);
        for (end, level) in ends.into_iter().zip(levels) {
            file.extend(packed(&bytes[from..end], level));
            from = end;
        }
        let mut found = Vec::new();
        Inflate::new(Pieces(&file, piece), 0).read_to_end(&mut found).unwrap();
        prop_assert!(found == bytes);
    }
}

/// Gives so many bytes at most at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.1);
        self.0.read(&mut buffer[..n])
    }
}

#[test]
fn every_byte_of_the_trailer_is_verified() {
    for bytes in samples().into_iter().filter(|b| b.len() < 50_000) {
        let whole = packed(&bytes, 1);
        for at in whole.len() - 8..whole.len() {
            for file in [whole.clone(), [&whole[..], &whole].concat()] {
                let mut file = file;
                file[at] ^= 0x10;
                assert_eq!(inflated(&file, 0).1, Some(ErrorKind::InvalidData), "byte {at}");
            }
        }
    }
}
