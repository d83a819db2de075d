//! The codes of DEFLATE (RFC 1951): symbols, lengths of their codes by Huffman's method, and the bits.

use std::cmp::Reverse;
use std::io::{self, Write};

/// Literals, the end of a block and lengths.
const SYMBOLS: usize = 286;
/// Distances.
const DISTANCES: usize = 30;

const END: usize = 256;

/// The longest match.
pub(super) const LONGEST_MATCH: usize = 258;

/// Longest code of a symbol or distance. Four literals and what waits for a whole byte fit 64 bits.
const LONGEST: usize = 14;
/// Longest code of a code length.
const LONGEST_OF_LENGTHS: usize = 7;

/// The order in which lengths of code lengths are stored.
pub(super) const ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Symbol of a match's length, how many bits follow it, and which.
fn length_symbol(length: usize) -> (usize, u32, u32) {
    match length {
        0..=10 => (257 + length - 3, 0, 0),
        258 => (285, 0, 0),
        _ => {
            let (class, extra, rest) = classes(length - 3, 2);
            (257 + class, extra, rest)
        }
    }
}

/// Symbol of a match's distance, how many bits follow it, and which.
fn distance_symbol(distance: usize) -> (usize, u32, u32) {
    if distance <= 4 { (distance - 1, 0, 0) } else { classes(distance - 1, 1) }
}

/// Classes of numbers that double in size, 2^`bits` of one size.
fn classes(n: usize, bits: u32) -> (usize, u32, u32) {
    let extra = n.ilog2() - bits;
    let class = ((extra as usize) << bits) + (n >> extra);
    (class, extra, (n & ((1 << extra) - 1)) as u32)
}

/// How often each symbol and distance occurs in a block.
pub(super) struct Frequencies {
    lengths: [u32; LONGEST_MATCH + 1],
    distances: [u32; DISTANCES],
    /// Literals, counted apart by turns so that equal neighbours do not wait for each other.
    turns: [[u32; 256]; 4],
}

impl Default for Frequencies {
    fn default() -> Self {
        Self { lengths: [0; LONGEST_MATCH + 1], distances: [0; DISTANCES], turns: [[0; 256]; 4] }
    }
}

impl Frequencies {
    #[inline]
    pub fn literals(&mut self, literals: &[u8]) {
        let (fours, rest) = literals.as_chunks::<4>();
        for four in fours {
            for (turn, byte) in self.turns.iter_mut().zip(four) {
                turn[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            self.turns[0][usize::from(*byte)] += 1;
        }
    }

    #[inline]
    pub fn copy(&mut self, length: usize, distance: usize) {
        self.lengths[length] += 1;
        self.distances[distance_symbol(distance).0] += 1;
    }

    /// Of all symbols, the end of the block once.
    fn all_symbols(&self) -> [u32; SYMBOLS] {
        let mut all = [0; SYMBOLS];
        for (length, n) in self.lengths.iter().enumerate().skip(3) {
            all[length_symbol(length).0] += n;
        }
        for turn in &self.turns {
            all.iter_mut().zip(turn).for_each(|(sum, n)| *sum += n);
        }
        all[END] = 1;
        all
    }
}

/// A code: its bits in the order of the stream, and how many.
#[derive(Clone, Copy, Default)]
struct Code {
    bits: u16,
    length: u8,
}

/// The codes of a block.
pub(super) struct Codes {
    symbols: [Code; SYMBOLS],
    distances: [Code; DISTANCES],
    /// For each length of a match its symbol's code with the bits that follow it.
    lengths: [(u32, u32); LONGEST_MATCH + 1],
}

impl Codes {
    fn new(symbols: &[u8; SYMBOLS], distances: &[u8; DISTANCES]) -> Self {
        let symbols = codes(symbols);
        let mut lengths = [(0, 0); LONGEST_MATCH + 1];
        for (length, code) in lengths.iter_mut().enumerate().skip(3) {
            let (symbol, extra, rest) = length_symbol(length);
            let Code { bits, length } = symbols[symbol];
            *code = (u32::from(bits) | rest << length, u32::from(length) + extra);
        }
        Self { symbols, distances: codes(distances), lengths }
    }

    /// Whether these bytes would take fewer bits as a match than as literals.
    #[inline]
    pub fn pays(&self, bytes: &[u8], distance: usize) -> bool {
        let cost = |code: Code| if code.length == 0 { UNUSED } else { u32::from(code.length) };
        let literals: u32 = bytes.iter().map(|b| cost(self.symbols[usize::from(*b)])).sum();
        let (length, length_bits, _) = length_symbol(bytes.len());
        let (distance, distance_bits, _) = distance_symbol(distance);
        let symbols = cost(self.symbols[length]) + cost(self.distances[distance]);
        symbols + length_bits + distance_bits < literals
    }
}

/// What a symbol without a code would cost about, in bits.
const UNUSED: u32 = 12;

/// Bits on their way into bytes.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are complete.
    done: usize,
    waiting: u64,
    count: u32,
}

impl Bits {
    /// Adds the lowest `count` bits; 57 at most may wait before [`Self::flush`].
    #[inline]
    fn put(&mut self, bits: u32, count: u32) {
        self.waiting |= u64::from(bits) << self.count;
        self.count += count;
    }

    #[inline]
    fn code(&mut self, code: Code) {
        self.put(u32::from(code.bits), u32::from(code.length));
    }

    /// Moves whole bytes out.
    #[inline]
    fn flush(&mut self) {
        if self.done + 8 > self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len() + 4096, 0);
        }
        self.bytes[self.done..][..8].copy_from_slice(&self.waiting.to_le_bytes());
        let whole = self.count / 8;
        self.done += whole as usize;
        self.waiting = self.waiting.checked_shr(8 * whole).unwrap_or(0);
        self.count %= 8;
    }

    /// Hands the complete bytes on.
    pub fn drain_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.flush();
        out.write_all(&self.bytes[..self.done])?;
        self.done = 0;
        Ok(())
    }

    /// Writes the head of a block with the best codes for its symbols.
    pub fn begin_block(&mut self, frequencies: &Frequencies) -> Codes {
        let symbols = lengths::<SYMBOLS>(&frequencies.all_symbols(), LONGEST);
        let distances = lengths::<DISTANCES>(&frequencies.distances, LONGEST);
        let used = |lengths: &[u8], least: usize| {
            lengths.iter().rposition(|l| *l > 0).map_or(least, |last| (last + 1).max(least))
        };
        let (n_symbols, n_distances) = (used(&symbols, 257), used(&distances, 1));
        let both = [&symbols[..n_symbols], &distances[..n_distances]].concat();
        let runs = run_lengths(&both);
        let mut counts = [0; 19];
        for (symbol, ..) in &runs {
            counts[usize::from(*symbol)] += 1;
        }
        let of_lengths = lengths::<19>(&counts, LONGEST_OF_LENGTHS);
        let n_lengths =
            ORDER.iter().rposition(|i| of_lengths[*i] > 0).map_or(4, |i| (i + 1).max(4));
        // Not the last block, codes of its own.
        self.put(0b100, 3);
        self.put(n_symbols as u32 - 257, 5);
        self.put(n_distances as u32 - 1, 5);
        self.put(n_lengths as u32 - 4, 4);
        for i in &ORDER[..n_lengths] {
            self.flush();
            self.put(u32::from(of_lengths[*i]), 3);
        }
        let codes = codes(&of_lengths);
        for (symbol, rest, count) in runs {
            self.flush();
            self.code(codes[usize::from(symbol)]);
            self.put(u32::from(rest), count);
        }
        self.flush();
        Codes::new(&symbols, &distances)
    }

    #[inline]
    pub fn literals(&mut self, codes: &Codes, literals: &[u8]) {
        let (fours, rest) = literals.as_chunks::<4>();
        for four in fours {
            for byte in four {
                self.code(codes.symbols[usize::from(*byte)]);
            }
            self.flush();
        }
        if !rest.is_empty() {
            for byte in rest {
                self.code(codes.symbols[usize::from(*byte)]);
            }
            self.flush();
        }
    }

    #[inline]
    pub fn copy(&mut self, codes: &Codes, length: usize, distance: usize) {
        let (bits, count) = codes.lengths[length];
        self.put(bits, count);
        let (symbol, extra, rest) = distance_symbol(distance);
        self.code(codes.distances[symbol]);
        self.put(rest, extra);
        self.flush();
    }

    pub fn end_block(&mut self, codes: &Codes) {
        self.code(codes.symbols[END]);
        self.flush();
    }

    /// Ends the stream: a last block of the fixed codes with nothing in it, and the rest of its byte.
    pub fn end(&mut self) {
        self.put(0b011, 3);
        self.put(0, 7);
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }
}

/// Lengths of codes for symbols of these frequencies; 0 for symbols that do not occur. Two symbols at least have a code, so
/// that every set of codes is complete.
fn lengths<const N: usize>(frequencies: &[u32; N], longest: usize) -> [u8; N] {
    let mut order: Vec<usize> = (0..N).filter(|i| frequencies[*i] > 0).collect();
    order.extend((0..N).filter(|i| frequencies[*i] == 0).take(2_usize.saturating_sub(order.len())));
    order.sort_by_key(|i| Reverse(frequencies[*i]));
    let mut per_length = limited(depths(&order, frequencies), longest).into_iter().enumerate();
    let mut lengths = [0; N];
    let mut next = per_length.next();
    for symbol in order {
        while let Some((_, 0)) = next {
            next = per_length.next();
        }
        if let Some((length, left)) = &mut next {
            lengths[symbol] = *length as u8;
            *left -= 1;
        }
    }
    lengths
}

/// How many leaves Huffman's tree has at each depth; `order` from frequent to rare.
fn depths(order: &[usize], frequencies: &[u32]) -> Vec<u32> {
    let n = order.len();
    // Leaves from rare to frequent, then the inner nodes in the order in which they are made, which is their order of weight.
    let mut weights: Vec<u64> = order.iter().rev().map(|i| u64::from(frequencies[*i])).collect();
    let mut parents = vec![0; 2 * n - 1];
    let (mut leaf, mut inner) = (0, n);
    for made in n..2 * n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let take_leaf = leaf < n && (inner >= made || weights[leaf] <= weights[inner]);
            let taken = if take_leaf { &mut leaf } else { &mut inner };
            weight += weights[*taken];
            parents[*taken] = made;
            *taken += 1;
        }
        weights.push(weight);
    }
    let mut depth = vec![0_usize; 2 * n - 1];
    let mut counts = vec![0; n + 1];
    for node in (0..2 * n - 2).rev() {
        depth[node] = depth[parents[node]] + 1;
        if node < n {
            counts[depth[node]] += 1;
        }
    }
    counts
}

/// Moves leaves that lie too deep up, and as many others down as that needs.
fn limited(mut counts: Vec<u32>, longest: usize) -> Vec<u32> {
    let deeper: u32 = counts.iter().skip(longest + 1).sum();
    counts.resize(longest + 1, 0);
    counts[longest] += deeper;
    let full = 1_u64 << longest;
    let mut taken: u64 =
        counts.iter().enumerate().skip(1).map(|(l, n)| u64::from(*n) << (longest - l)).sum();
    while taken > full {
        counts[longest] -= 1;
        if let Some(shorter) = (1..longest).rev().find(|l| counts[*l] > 0) {
            counts[shorter] -= 1;
            counts[shorter + 1] += 2;
        }
        taken -= 1;
    }
    counts
}

/// The codes that follow from their lengths.
fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut counts = [0_u16; 16];
    lengths.iter().filter(|l| **l > 0).for_each(|l| counts[usize::from(*l)] += 1);
    let mut next = [0_u16; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + counts[length - 1]) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return Code::default();
        }
        let bits = next[usize::from(length)];
        next[usize::from(length)] += 1;
        Code { bits: bits.reverse_bits() >> (16 - length), length }
    })
}

/// Code lengths as symbols of the code of lengths, each with the bits that follow it: 16 repeats the last length 3 to 6
/// times, 17 and 18 are 3 to 10 and 11 to 138 zeros.
fn run_lengths(lengths: &[u8]) -> Vec<(u8, u8, u32)> {
    let mut runs = Vec::new();
    for run in lengths.chunk_by(|a, b| a == b) {
        let (length, mut left) = (run[0], run.len());
        if length > 0 {
            runs.push((length, 0, 0));
            left -= 1;
        }
        while left > 0 {
            let (symbol, rest, bits, taken) = match (length, left) {
                (_, 1 | 2) => (length, 0, 0, 1),
                (0, 3..=10) => (17, left - 3, 3, left),
                (0, _) => (18, left.min(138) - 11, 7, left.min(138)),
                _ => (16, left.min(6) - 3, 2, left.min(6)),
            };
            runs.push((symbol, rest as u8, bits));
            left -= taken;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_standard() {
        let length = [3, 10, 11, 12, 13, 18, 19, 22, 257, 258].map(length_symbol);
        let expected = [
            (257, 0, 0),
            (264, 0, 0),
            (265, 1, 0),
            (265, 1, 1),
            (266, 1, 0),
            (268, 1, 1),
            (269, 2, 0),
            (269, 2, 3),
            (284, 5, 30),
            (285, 0, 0),
        ];
        assert_eq!(length, expected);
        let distance = [1, 4, 5, 6, 7, 9, 24_577, 32_768].map(distance_symbol);
        let expected = [
            (0, 0, 0),
            (3, 0, 0),
            (4, 1, 0),
            (4, 1, 1),
            (5, 1, 0),
            (6, 2, 0),
            (29, 13, 0),
            (29, 13, 8191),
        ];
        assert_eq!(distance, expected);
    }

    #[test]
    fn lengths_fill_the_code_and_rare_symbols_have_long_ones() {
        for longest in [5, 9, LONGEST] {
            let mut frequencies = [0_u32; 30];
            let (mut a, mut b) = (1, 1);
            for f in &mut frequencies[3..29] {
                *f = a;
                (a, b) = (b, a + b);
            }
            let found = lengths(&frequencies, longest);
            let filled: usize =
                found.iter().filter(|l| **l > 0).map(|l| 1 << (longest - usize::from(*l))).sum();
            assert_eq!(filled, 1 << longest, "{found:?}");
            assert!(found[3..29].windows(2).all(|w| w[0] >= w[1]) && found[2] == 0, "{found:?}");
        }
        assert_eq!(lengths(&[0, 0, 7], 5), [1, 0, 1]);
        assert_eq!(lengths(&[0, 0, 0], 5), [1, 1, 0]);
    }
}
