//! Look-up tables that turn the next bits of a DEFLATE stream (RFC 1951) into what they mean.
//!
//! Look-ups wait for each other: where the next code begins is known only when the one before was found. So as much as the bits
//! of an index hold comes from one look-up: two literals, or a length with the code of its distance. Longer codes than the
//! index lie in subtables behind the table.
#![expect(
    clippy::inline_always,
    reason = "out of the decoder's loop they would be compiled for the oldest processor"
)]

use super::canonical::fill;

/// Bits of the index of the table of literals and lengths.
pub(super) const SYMBOL_BITS: u32 = 11;
/// Bits of the index of the table of distances.
const DISTANCE_BITS: u32 = 9;
/// Bits of the longest code of a code length, and of the index of their table.
const LENGTH_BITS: u32 = 7;

/// Entries of a table and its subtables, rounded up to a power of two; a complete code of 288 symbols needs 2,342 at most
/// (`enough 288 11 15` of zlib).
const ENTRIES: usize = 4096;
/// The same for 32 distances and an index of 9 bits (`enough 32 9 15`): 594.
const DISTANCE_ENTRIES: usize = 1024;

// An entry, from the lowest bit: 6 bits for how many bits it takes off the stream; 2 for the number of literals; 3 for what it
// is instead; 4 for how many of its bits come before the extra ones, or for the subtable's index; from bit 16 on literals, or
// 16 bits of a distance, a symbol or a subtable's start and 9 bits of a length.
const LITERALS: u32 = 6;
const KIND: u32 = 8;
const CODE: u32 = 11;
const LOW: u32 = 16;
const HIGH: u32 = 32;

/// What an entry without literals is.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum Kind {
    /// A length and its distance, the distance with extra bits.
    Copy,
    /// A length or a distance alone, with extra bits; or the symbol of a code length.
    Part,
    /// The end of the block.
    End,
    /// Long codes, to be looked up elsewhere.
    Subtable,
    /// Nothing that has a meaning.
    Invalid,
}

/// What the next bits mean.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry(u64);

impl Entry {
    /// Bits to take off the stream, extra bits included; above the lowest six bits of the number stands something else.
    #[inline(always)]
    pub fn raw_bits(self) -> u32 {
        self.0 as u32
    }

    /// Bits to take off the stream, extra bits included.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.0 as u32 & 63
    }

    /// How many literals, 0 to 2.
    #[inline(always)]
    pub fn literals(self) -> usize {
        (self.0 >> LITERALS & 3) as usize
    }

    /// The literals.
    #[inline(always)]
    pub fn bytes(self) -> [u8; 2] {
        ((self.0 >> LOW) as u16).to_le_bytes()
    }

    #[inline(always)]
    fn is(self, kind: Kind) -> bool {
        self.0 >> LITERALS & 31 == (kind as u64) << (KIND - LITERALS)
    }

    /// Whether it is a length with its distance.
    #[inline(always)]
    pub fn is_copy(self) -> bool {
        self.is(Kind::Copy)
    }

    /// Whether it is a length or a distance alone.
    #[inline(always)]
    pub fn is_part(self) -> bool {
        self.is(Kind::Part)
    }

    /// Whether a block ends here.
    pub fn is_end(self) -> bool {
        self.is(Kind::End)
    }

    /// The extra bits that the stream has for it.
    #[inline(always)]
    fn extra(self, stream: u64) -> usize {
        ((stream & ((1 << self.bits()) - 1)) >> self.code()) as usize
    }

    /// The distance.
    #[inline(always)]
    pub fn distance(self, stream: u64) -> usize {
        (self.0 >> LOW & 0xffff) as usize + self.extra(stream)
    }

    /// The length of a copy.
    #[inline(always)]
    pub fn length(self) -> usize {
        (self.0 >> HIGH) as usize
    }

    /// The length, where it stands alone.
    pub fn lone_length(self, stream: u64) -> usize {
        self.length() + self.extra(stream)
    }

    /// The symbol of a code length.
    pub fn symbol(self) -> u8 {
        (self.0 >> LOW) as u8
    }

    fn new(kind: Kind, low: usize, high: usize, extra_bits: u32) -> Self {
        let numbers = (low as u64) << LOW | (high as u64) << HIGH;
        Self(u64::from(extra_bits) | (kind as u64) << KIND | numbers)
    }

    fn literal(byte: u8) -> Self {
        Self(1 << LITERALS | u64::from(byte) << LOW)
    }

    /// What no code stands for.
    pub fn invalid() -> Self {
        Self::new(Kind::Invalid, 0, 0, 0)
    }

    /// Long codes, in the `1 << bits` entries from `start` on.
    pub fn subtable(start: usize, bits: u32) -> Self {
        let link = Self::new(Kind::Subtable, start, 0, 0);
        Self(link.0 | u64::from(bits) << CODE)
    }

    /// With a code of `bits` bits before its extra ones.
    pub fn coded(self, bits: u32) -> Self {
        Self((self.0 + u64::from(bits)) | (u64::from(bits) << CODE))
    }

    /// Bits of the code alone.
    #[inline(always)]
    fn code(self) -> u64 {
        self.0 >> CODE & 15
    }

    /// This literal and another.
    #[inline(always)]
    fn and_literal(self, next: Self) -> Self {
        // Bits, code and number of literals are sums.
        let sums = next.0 & ((1 << LOW) - 1);
        Self(self.0 + sums + ((next.0 >> LOW & 0xff) << (LOW + 8)))
    }

    /// The length with the extra bits that the index has for it, all of its bits counted as code.
    fn of_index(self, index: usize) -> Self {
        let length = self.lone_length(index as u64) as u64;
        let bits = u64::from(self.bits());
        Self(bits | bits << CODE | length << HIGH)
    }

    /// This length and a distance.
    #[inline(always)]
    fn and_distance(self, distance: Self) -> Self {
        Self(self.0 + distance.0 - ((Kind::Part as u64) << KIND))
    }
}

/// Base and extra bits of the lengths from symbol 257 on.
const LENGTHS: [(u32, u32); 29] = {
    let mut all = [(0, 0); 29];
    let mut i = 0;
    while i < 28 {
        let extra = if i < 8 { 0 } else { i as u32 / 4 - 1 };
        let base = if i < 8 { i as u32 + 3 } else { ((4 + i as u32 % 4) << extra) + 3 };
        all[i] = (base, extra);
        i += 1;
    }
    all[28] = (258, 0);
    all
};

/// The entry of a symbol of literals and lengths.
fn of_symbol(symbol: usize) -> Entry {
    match symbol {
        0..=255 => Entry::literal(symbol as u8),
        256 => Entry::new(Kind::End, 0, 0, 0),
        _ => match LENGTHS.get(symbol - 257) {
            Some(&(base, extra)) => Entry::new(Kind::Part, 0, base as usize, extra),
            None => Entry::new(Kind::Invalid, 0, 0, 0),
        },
    }
}

/// The entry of a distance.
fn of_distance(symbol: usize) -> Entry {
    match symbol {
        0..=3 => Entry::new(Kind::Part, symbol + 1, 0, 0),
        4..=29 => {
            let extra = symbol as u32 / 2 - 1;
            Entry::new(Kind::Part, ((2 + symbol % 2) << extra) + 1, 0, extra)
        }
        _ => Entry::new(Kind::Invalid, 0, 0, 0),
    }
}

/// Literals, lengths and distances.
pub(super) struct Codes {
    /// One symbol an entry.
    symbols: Box<[Entry; ENTRIES]>,
    distances: Box<[Entry; DISTANCE_ENTRIES]>,
    /// As much an entry as its index holds.
    joined: Box<[Entry; 1 << SYMBOL_BITS]>,
}

impl Default for Codes {
    fn default() -> Self {
        Self {
            #[expect(
                clippy::large_stack_arrays,
                reason = "for a moment, once a file; its length spares bounds checks"
            )]
            symbols: Box::new([Entry::default(); ENTRIES]),
            distances: Box::new([Entry::default(); DISTANCE_ENTRIES]),
            joined: Box::new([Entry::default(); 1 << SYMBOL_BITS]),
        }
    }
}

impl Codes {
    /// Takes over the codes with these lengths; whether they are codes.
    pub fn build(&mut self, symbols: &[u8], distances: &[u8]) -> bool {
        let are_codes = fill(symbols, SYMBOL_BITS, of_symbol, &mut self.symbols[..])
            && fill(distances, DISTANCE_BITS, of_distance, &mut self.distances[..]);
        if are_codes {
            self.join();
        }
        are_codes
    }

    /// What the next bits mean, but for long codes.
    #[inline(always)]
    pub fn at(&self, stream: u64) -> Entry {
        self.joined[stream as usize & ((1 << SYMBOL_BITS) - 1)]
    }

    /// The same for an entry that may stand for long codes.
    #[inline(always)]
    pub fn resolve(&self, entry: Entry, stream: u64) -> Entry {
        sub(&self.symbols, entry, stream >> SYMBOL_BITS)
    }

    /// The distance that the next bits mean.
    #[inline(always)]
    pub fn distance_at(&self, stream: u64) -> Entry {
        let entry = self.distances[stream as usize & ((1 << DISTANCE_BITS) - 1)];
        sub(&self.distances, entry, stream >> DISTANCE_BITS)
    }

    /// Fills `joined`: behind each code that is shorter than the index, what the rest of the index means.
    fn join(&mut self) {
        let Self { symbols, distances, joined } = self;
        for index in 0..joined.len() {
            let first = symbols[index];
            let bits = first.bits();
            let is_whole = bits <= SYMBOL_BITS && first.code() > 0;
            if !is_whole || !(first.literals() > 0 || first.is_part()) {
                joined[index] = first;
                continue;
            }
            if index >> bits > 0 {
                // Done with the index that has nothing behind these bits.
                continue;
            }
            let rest = u64::from(SYMBOL_BITS - bits);
            let places = joined[index..].iter_mut().step_by(1 << bits);
            if first.literals() > 0 {
                for (place, next) in places.zip(symbols.iter()) {
                    let fits = next.literals() > 0 && next.code() <= rest;
                    *place = if fits { first.and_literal(*next) } else { first };
                }
            } else {
                let length = first.of_index(index);
                for (i, place) in places.enumerate() {
                    let next = distances[i & ((1 << DISTANCE_BITS) - 1)];
                    let fits = next.is_part() && next.code() <= rest;
                    *place = if fits { length.and_distance(next) } else { first };
                }
            }
        }
    }
}

/// The code of code lengths.
pub(super) struct Lengths([Entry; 1 << LENGTH_BITS]);

impl Lengths {
    /// The code with these lengths, if it is one.
    pub fn new(lengths: &[u8; 19]) -> Option<Self> {
        let mut table = [Entry::default(); 1 << LENGTH_BITS];
        let complete: u32 = lengths.iter().filter(|l| **l > 0).map(|l| 128 >> l).sum();
        let of = |symbol: usize| Entry::new(Kind::Part, symbol, 0, 0);
        (complete == 128 && fill(lengths, LENGTH_BITS, of, &mut table)).then_some(Self(table))
    }

    /// What the next bits mean.
    pub fn at(&self, stream: u64) -> Entry {
        self.0[stream as usize & ((1 << LENGTH_BITS) - 1)]
    }
}

/// The entry of a long code, in the subtable that `entry` names; `rest` are the bits after the index.
#[inline(always)]
fn sub<const N: usize>(table: &[Entry; N], entry: Entry, rest: u64) -> Entry {
    if !entry.is(Kind::Subtable) {
        return entry;
    }
    let within = rest as usize & ((1 << (entry.0 >> CODE & 15)) - 1);
    table[((entry.0 >> LOW) as usize + within) & (N - 1)]
}
