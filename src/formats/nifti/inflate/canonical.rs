//! Filling look-up tables with canonical codes.

use super::tables::Entry;

/// The longest code.
const LONGEST: usize = 15;

/// Fills a table and its subtables with the canonical code of these lengths; whether they are a complete code, or a single
/// code of one bit, or none at all, which zlib takes too.
pub(super) fn fill(
    lengths: &[u8],
    index: u32,
    entry: impl Fn(usize) -> Entry,
    table: &mut [Entry],
) -> bool {
    let mut counts = [0_usize; LONGEST + 1];
    for length in lengths {
        counts[usize::from(*length) & LONGEST] += 1;
    }
    let symbols: usize = counts[1..].iter().sum();
    let mut left = 1_i32;
    for count in &counts[1..] {
        left = 2 * left - *count as i32;
        if left < 0 {
            return false;
        }
    }
    let whole = 1 << index;
    if left > 0 {
        if symbols > 1 || counts[1] != symbols {
            return false;
        }
        table[..whole].fill(Entry::invalid());
    }
    let mut starts = [0_usize; LONGEST + 2];
    for length in 1..=LONGEST {
        starts[length + 1] = starts[length] + counts[length];
    }
    let mut sorted = [0_u16; 320];
    for (symbol, length) in lengths.iter().enumerate().filter(|(_, l)| **l > 0) {
        sorted[starts[usize::from(*length)]] = symbol as u16;
        starts[usize::from(*length)] += 1;
    }
    let mut codes = Placing { table, index, counts, code: 0, length: 1, end: 2, subtable: None };
    if left > 0 {
        if symbols == 1 {
            codes
                .table
                .iter_mut()
                .take(whole)
                .step_by(2)
                .for_each(|e| *e = entry(usize::from(sorted[0])).coded(1));
        }
        return true;
    }
    for symbol in &sorted[..symbols] {
        codes.place(entry(usize::from(*symbol)));
    }
    while codes.end < whole {
        codes.double();
    }
    true
}

/// A table while its codes are placed, from short to long.
struct Placing<'a> {
    table: &'a mut [Entry],
    index: u32,
    /// Codes of each length that are left.
    counts: [usize; LONGEST + 1],
    /// The next code, its first bit lowest.
    code: usize,
    length: usize,
    /// Entries in use.
    end: usize,
    /// Bits of the index that the subtable in hand belongs to, its start, and its bits.
    subtable: Option<(usize, usize, u32)>,
}

impl Placing<'_> {
    fn place(&mut self, entry: Entry) {
        while self.counts[self.length] == 0 {
            if self.length < self.index as usize {
                self.double();
            }
            self.length += 1;
        }
        self.counts[self.length] -= 1;
        let length = self.length as u32;
        if length <= self.index {
            self.table[self.code] = entry.coded(length);
        } else {
            self.place_long(entry.coded(length));
        }
        // The next code of a canonical code, bits reversed: a one is added at the far end.
        let unset = !self.code & ((1 << length) - 1);
        if unset > 0 {
            let bit = 1 << unset.ilog2();
            self.code = self.code & (bit - 1) | bit;
        }
    }

    /// Twice as many entries: each stands for both values of the bit that comes next.
    fn double(&mut self) {
        self.table.copy_within(..self.end, self.end);
        self.end *= 2;
    }

    fn place_long(&mut self, entry: Entry) {
        let prefix = self.code & ((1 << self.index) - 1);
        let (start, bits) = match self.subtable {
            Some((of, start, bits)) if of == prefix => (start, bits),
            _ => {
                // As many bits as the codes that begin alike need.
                let mut bits = self.length as u32 - self.index;
                let mut room = (1_usize << bits).saturating_sub(self.counts[self.length] + 1);
                while room > 0 && (self.index + bits) < LONGEST as u32 {
                    bits += 1;
                    room = (2 * room).saturating_sub(self.counts[(self.index + bits) as usize]);
                }
                let start = self.end;
                self.end += 1 << bits;
                self.table[prefix] = Entry::subtable(start, bits);
                self.subtable = Some((prefix, start, bits));
                (start, bits)
            }
        };
        let places = &mut self.table[start..start + (1 << bits)];
        let step = 1 << (self.length as u32 - self.index);
        places.iter_mut().skip(self.code >> self.index).step_by(step).for_each(|e| *e = entry);
    }
}
