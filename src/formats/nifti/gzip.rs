//! A gzip stream of voxels: DEFLATE (RFC 1951) in one member (RFC 1952), as small as level 1 of zlib and several times faster.
//!
//! Voxels repeat as wholes or not at all, so matches are looked for at voxels only, a half or a quarter of the places that
//! a general compressor tries: one hash table of the last place of each four bytes, taken greedily, where a match costs less
//! than its literals by the codes of the block before. The rest is Huffman's: every block of voxels gets codes of its own. The
//! bytes depend on the voxels alone, on no version of a library.

use std::io::{self, Write};

use super::checksum::Checksum;
use super::huffman::{Bits, Codes, Frequencies, LONGEST_MATCH};

/// Bytes that share one set of codes.
const BLOCK: usize = 128 << 10;

/// How far back a match may lie.
const WINDOW: usize = 32 << 10;

/// Bits of the hash table, which takes 64 KiB of the second-level cache.
const HASH_BITS: u32 = 14;

/// Matches from this length on always cost less than their literals.
const LONG: usize = 16;

/// No name, no time, no system: equal voxels give equal bytes. The flag says "fastest".
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Literals, then a match.
#[derive(Clone, Copy)]
struct Sequence {
    literals: u32,
    /// 0 at the end of a block.
    length: u16,
    distance: u16,
}

/// A gzip file under construction.
pub(super) struct Gzip<W: Write> {
    out: W,
    /// Up to [`WINDOW`] bytes that were written, then those that were not.
    data: Vec<u8>,
    /// Where the bytes that were not written begin.
    start: usize,
    /// Place in the whole stream of the first byte of `data`, modulo 2³².
    base: u32,
    /// For each hash the last place in the stream, modulo 2³².
    table: Vec<u32>,
    /// Bytes of a voxel: matches begin at multiples of it.
    step: usize,
    sequences: Vec<Sequence>,
    /// The codes of the block before.
    codes: Option<Codes>,
    bits: Bits,
    checksum: Checksum,
}

impl<W: Write> Gzip<W> {
    /// Begins a file of voxels of `step` bytes, 1, 2 or 4.
    pub fn new(mut out: W, step: usize) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            data: Vec::with_capacity(WINDOW + BLOCK),
            start: 0,
            base: 0,
            table: vec![0; 1 << HASH_BITS],
            step,
            sequences: Vec::new(),
            codes: None,
            bits: Bits::default(),
            checksum: Checksum::default(),
        })
    }

    /// Adds voxels, each as `encode` stores it.
    pub fn voxels<T: Copy, const N: usize>(
        &mut self,
        mut voxels: &[T],
        encode: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
        while !voxels.is_empty() {
            let filled = self.data.len();
            let room = (self.start + BLOCK - filled) / N;
            let (now, later) = voxels.split_at(room.min(voxels.len()));
            self.data.resize(filled + now.len() * N, 0);
            let (stored, _) = self.data[filled..].as_chunks_mut::<N>();
            stored.iter_mut().zip(now).for_each(|(bytes, v)| *bytes = encode(*v));
            if now.len() == room {
                self.block()?;
            }
            voxels = later;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.block()?;
        self.bits.end();
        self.bits.drain_to(&mut self.out)?;
        self.out.write_all(&self.checksum.sum().to_le_bytes())?;
        self.out.write_all(&self.checksum.length().to_le_bytes())
    }

    /// Writes what was not written yet as one block.
    fn block(&mut self) -> io::Result<()> {
        if self.start == self.data.len() {
            return Ok(());
        }
        self.checksum.update(&self.data[self.start..]);
        let frequencies = self.parse();
        let codes = self.bits.begin_block(&frequencies);
        let mut at = self.start;
        for s in &self.sequences {
            let literals = &self.data[at..at + s.literals as usize];
            self.bits.literals(&codes, literals);
            if s.length > 0 {
                self.bits.copy(&codes, s.length as usize, s.distance as usize);
            }
            at += literals.len() + s.length as usize;
        }
        self.bits.end_block(&codes);
        self.codes = Some(codes);
        self.bits.drain_to(&mut self.out)?;
        let keep = self.data.len().min(WINDOW);
        let passed = self.data.len() - keep;
        self.data.copy_within(passed.., 0);
        self.data.truncate(keep);
        self.base = self.base.wrapping_add(passed as u32);
        self.start = keep;
        Ok(())
    }

    /// Finds the literals and matches of the block, and how often each symbol occurs.
    fn parse(&mut self) -> Frequencies {
        let mut frequencies = Frequencies::default();
        self.sequences.clear();
        let (data, step) = (&self.data[..], self.step);
        let (mut at, mut literals_from) = (self.start, self.start);
        while at + 4 <= data.len() {
            let word = word(data, at);
            let place = self.base.wrapping_add(at as u32);
            let distance = place.wrapping_sub(self.table[slot(word)]) as usize;
            self.table[slot(word)] = place;
            // A place that was never set, or is long past, is told by its distance or by the bytes there.
            let reachable = distance.wrapping_sub(1) < WINDOW.min(at);
            if reachable && self::word(data, at - distance) == word {
                let length = matching(data, at, distance, step);
                let pays = |codes: &Codes| codes.pays(&data[at..at + length], distance);
                if length >= LONG || self.codes.as_ref().is_none_or(pays) {
                    frequencies.literals(&data[literals_from..at]);
                    frequencies.copy(length, distance);
                    self.sequences.push(Sequence {
                        literals: (at - literals_from) as u32,
                        length: length as u16,
                        distance: distance as u16,
                    });
                    let end = at + length;
                    for inside in (at + step..end.min(data.len() - 3)).step_by(step) {
                        let place = self.base.wrapping_add(inside as u32);
                        self.table[slot(self::word(data, inside))] = place;
                    }
                    (at, literals_from) = (end, end);
                    continue;
                }
            }
            at += step;
        }
        frequencies.literals(&data[literals_from..]);
        self.sequences.push(Sequence {
            literals: (data.len() - literals_from) as u32,
            length: 0,
            distance: 0,
        });
        frequencies
    }
}

/// Where the hash table holds the last place of four bytes.
#[inline]
fn slot(word: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// Four bytes as a number.
#[inline]
fn word(data: &[u8], at: usize) -> u32 {
    data[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// How many bytes at `at` are those `distance` before, in whole voxels.
#[inline]
fn matching(data: &[u8], at: usize, distance: usize, step: usize) -> usize {
    let most = LONGEST_MATCH.min(data.len() - at);
    let (here, before) = (&data[at..at + most], &data[at - distance..][..most]);
    let (a, rest) = here.as_chunks::<8>();
    let (b, _) = before.as_chunks::<8>();
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if different != 0 {
            let length = 8 * i + different.trailing_zeros() as usize / 8;
            return length & !(step - 1);
        }
    }
    let from = most - rest.len();
    let tail = rest.iter().zip(&before[from..]).position(|(a, b)| a != b);
    tail.map_or(most, |i| from + i) & !(step - 1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Read;

    use flate2::bufread::MultiGzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn packed<const N: usize>(voxels: &[[u8; N]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut gzip = Gzip::new(&mut out, N).unwrap();
        gzip.voxels(voxels, |v| v).unwrap();
        gzip.finish().unwrap();
        out
    }

    fn comes_back<const N: usize>(voxels: &[[u8; N]]) -> usize {
        let packed = packed(voxels);
        let mut back = Vec::new();
        MultiGzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert!(back == voxels.as_flattened(), "{} voxels of {N} bytes", voxels.len());
        packed.len()
    }

    #[test]
    fn constant_random_and_periodic_voxels_come_back() {
        for n in [0, 1, 2, 3, 64, 65, 40_000, 300_001] {
            let mut state = 1_u32;
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32
            };
            let flat = comes_back(&vec![[0_u8; 4]; n]);
            assert!(flat < 200 + n / 50, "{n}: {flat}");
            let noise: Vec<[u8; 4]> = (0..n).map(|_| random().to_le_bytes()).collect();
            assert!(comes_back(&noise) < 300 + 4 * n + n / 50);
            let levels: Vec<[u8; 2]> =
                (0..n).map(|i| ((i * i % 401) as i16).to_le_bytes()).collect();
            comes_back(&levels);
            let mask: Vec<[u8; 1]> = (0..n).map(|i| [u8::from(i / 37 % 3 == 0)]).collect();
            comes_back(&mask);
            let rare: Vec<[u8; 1]> =
                (0..n).map(|i| [((i as f64).sqrt() as usize % 251) as u8]).collect();
            comes_back(&rare);
        }
    }

    #[test]
    fn codes_stay_within_their_longest() {
        // Frequencies like Fibonacci's make the deepest tree.
        let mut voxels = Vec::new();
        let (mut a, mut b) = (1_usize, 1_usize);
        for symbol in 0..24_u8 {
            voxels.extend(std::iter::repeat_n(symbol.wrapping_mul(37), a));
            (a, b) = (b, a + b);
        }
        let order = (0..voxels.len()).map(|i| [voxels[i * 48_611 % voxels.len()]]);
        comes_back(&order.collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_voxels_come_back(values in prop::collection::vec(0_u16..600, 0..3000), of in 1_u16..600) {
            let voxels: Vec<[u8; 2]> = values.iter().map(|v| (v % of).to_le_bytes()).collect();
            comes_back(&voxels);
            let floats: Vec<[u8; 4]> = values.iter().map(|v| (f32::from(v % of) * 0.37).to_le_bytes()).collect();
            comes_back(&floats);
            let bytes: Vec<[u8; 1]> = values.iter().map(|v| [(v % of) as u8]).collect();
            comes_back(&bytes);
        }
    }
}
