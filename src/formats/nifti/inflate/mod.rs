//! A gzip file (RFC 1952), inflated (RFC 1951) block by block into a window of bounded size.
//!
//! Faster than a general decoder on voxels, which are mostly literals: several of them come from one look-up (see
//! `tables`), bits come eight bytes at a time, and copies are sixteen bytes wide. What is decoded is handed out from the
//! window itself, so memory does not depend on the file, whatever it claims. Each member's checksum and length are verified
//! when its end is reached; what follows the last member and is no member is ignored, as gzip does.

use std::io::{self, BufRead, ErrorKind, Read};

mod canonical;
mod member;
mod tables;
#[cfg(test)]
mod tests;
mod turns;

use super::checksum::Checksum;
use super::huffman::ORDER;
use tables::{Codes, Entry, Lengths};
use turns::{AHEAD, HISTORY, ROOM, State, Turn, WINDOW, turns};

/// Bytes decoded at first, for whoever wants the header alone.
const FIRST: usize = 1 << 10;
/// Zeros behind the end of the input, so that a turn may look ahead there too.
const PADDING: usize = 2 * AHEAD;
/// Input that the head of a block takes at most, with room to spare: 19 + 320 codes of 14 bits.
const HEAD: usize = 1 << 10;

/// What the stream holds next.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// A member, if there is any.
    Member,
    /// The head of a block.
    Block,
    /// Codes of a block.
    Codes,
    /// So many bytes as they are.
    Stored(usize),
    /// Nothing.
    End,
}

/// A gzip file on its way to bytes.
pub(super) struct Inflate<R: Read> {
    source: R,
    /// Compressed bytes: up to `end` those that were read, and zeros behind the last.
    input: Vec<u8>,
    /// The next byte that enters `bits`.
    at: usize,
    end: usize,
    /// Whether the source has no more.
    ended: bool,
    bits: u64,
    count: u32,
    window: Box<[u8; WINDOW]>,
    /// The first byte that was not handed out.
    from: usize,
    /// One past the last decoded byte.
    to: usize,
    /// First byte of the member in hand, as far as it is in the window.
    floor: usize,
    place: Place,
    /// Whether the block in hand is the last of its member.
    last: bool,
    codes: Codes,
    checksum: Checksum,
    members: u64,
    /// Decoded bytes in the window after which they are handed out.
    limit: usize,
    /// Why there is no more after what is handed out.
    failed: Option<io::Error>,
}

impl<R: Read> Inflate<R> {
    /// Reads `block` compressed bytes at a time, 4 KiB at least.
    pub fn new(source: R, block: usize) -> Self {
        Self {
            source,
            input: vec![0; block.max(4 * HEAD) + PADDING],
            at: 0,
            end: 0,
            ended: false,
            bits: 0,
            count: 0,
            #[expect(
                clippy::large_stack_arrays,
                reason = "for a moment, once a file; its length spares bounds checks"
            )]
            window: Box::new([0; WINDOW]),
            from: 0,
            to: 0,
            floor: 0,
            place: Place::Member,
            last: false,
            codes: Codes::default(),
            checksum: Checksum::default(),
            members: 0,
            limit: FIRST,
            failed: None,
        }
    }

    /// Decodes until the window is full or the file ends, if everything was handed out.
    fn advance(&mut self) -> io::Result<()> {
        if self.from < self.to {
            return Ok(());
        }
        if let Some(error) = self.failed.take() {
            self.place = Place::End;
            return Err(error);
        }
        if self.to >= HISTORY + ROOM {
            let passed = self.to - HISTORY;
            self.window.copy_within(passed..self.to, 0);
            self.floor = self.floor.saturating_sub(passed);
            (self.from, self.to) = (HISTORY, HISTORY);
        }
        self.limit = if self.to == 0 { FIRST } else { HISTORY + ROOM };
        while self.to < self.limit && self.place != Place::End {
            if let Err(error) = self.step() {
                if self.from == self.to {
                    self.place = Place::End;
                    return Err(error);
                }
                self.failed = Some(error);
                return Ok(());
            }
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let start = self.to;
        match self.place {
            Place::Member => self.member()?,
            Place::Block => self.block()?,
            Place::Codes => self.codes()?,
            Place::Stored(left) => self.stored(left)?,
            Place::End => {}
        }
        self.checksum.update(&self.window[start..self.to]);
        if self.place == Place::Block && self.last { self.end_of_member() } else { Ok(()) }
    }

    /// Reads more input unless `least` bytes are there; at the end of the source, zeros follow.
    fn supply(&mut self, least: usize) -> io::Result<()> {
        if self.ended || self.end - self.at >= least {
            return Ok(());
        }
        self.input.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        let room = self.input.len() - PADDING;
        while self.end < room && !self.ended {
            match self.source.read(&mut self.input[self.end..room]) {
                Ok(0) => self.ended = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.ended {
            self.input[self.end..self.end + PADDING].fill(0);
        }
        Ok(())
    }

    /// Bytes that were read and are not in use yet, those that wait in `bits` included.
    fn left(&self) -> io::Result<usize> {
        (self.end + self.count as usize / 8).checked_sub(self.at).ok_or_else(too_short)
    }

    /// Takes off bits, 32 at most.
    fn take(&mut self, count: u32) -> io::Result<u32> {
        self.refill(count)?;
        let bits = self.bits & ((1 << count) - 1);
        self.bits >>= count;
        self.count -= count;
        Ok(bits as u32)
    }

    fn refill(&mut self, least: u32) -> io::Result<()> {
        while self.count < least {
            self.supply(1)?;
            if self.at >= self.end {
                return Err(too_short());
            }
            self.bits &= (1 << self.count) - 1;
            self.bits |= u64::from(self.input[self.at]) << self.count;
            self.at += 1;
            self.count += 8;
        }
        Ok(())
    }

    /// Goes to the next whole byte.
    fn align(&mut self) {
        self.bits >>= self.count % 8;
        self.count -= self.count % 8;
    }

    /// The head of a block.
    fn block(&mut self) -> io::Result<()> {
        self.last = self.take(1)? == 1;
        self.place = match self.take(2)? {
            0 => {
                self.align();
                let (length, inverse) = (self.take(16)?, self.take(16)?);
                if length != inverse ^ 0xffff {
                    return Err(damaged("the length of a stored block differs from its copy"));
                }
                Place::Stored(length as usize)
            }
            1 => {
                let mut lengths = [8; 288 + 32];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                lengths[288..].fill(5);
                self.take_codes(&lengths, 288)?;
                Place::Codes
            }
            2 => {
                self.read_codes()?;
                Place::Codes
            }
            _ => return Err(damaged("a block of no kind")),
        };
        Ok(())
    }

    fn take_codes(&mut self, lengths: &[u8], symbols: usize) -> io::Result<()> {
        let (of_symbols, of_distances) = lengths.split_at(symbols);
        if of_symbols[256] == 0 {
            return Err(damaged("a block without an end"));
        }
        if !self.codes.build(of_symbols, of_distances) {
            return Err(damaged("a block with impossible codes"));
        }
        Ok(())
    }

    fn read_codes(&mut self) -> io::Result<()> {
        let symbols = self.take(5)? as usize + 257;
        let distances = self.take(5)? as usize + 1;
        let of_lengths = self.take(4)? as usize + 4;
        if symbols > 286 || distances > 30 {
            return Err(damaged("a block with too many codes"));
        }
        let mut lengths = [0; 19];
        for i in &ORDER[..of_lengths] {
            lengths[*i] = self.take(3)? as u8;
        }
        let table =
            Lengths::new(&lengths).ok_or_else(|| damaged("a block with impossible codes"))?;
        let mut all = [0; 286 + 30];
        let mut filled = 0;
        while filled < symbols + distances {
            let entry = self.code_of_length(&table)?;
            let before = all[..filled].last().copied();
            let (length, times) = match entry.symbol() {
                16 => (
                    before.ok_or_else(|| damaged("a repeated length of nothing"))?,
                    3 + self.take(2)?,
                ),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length, 1),
            };
            let run = all[..symbols + distances].get_mut(filled..filled + times as usize);
            run.ok_or_else(|| damaged("a block with too many codes"))?.fill(length);
            filled += times as usize;
        }
        self.take_codes(&all[..filled], symbols)
    }

    fn code_of_length(&mut self, table: &Lengths) -> io::Result<Entry> {
        // The last code of a file may be followed by less than its table looks at.
        let entry = loop {
            let entry = table.at(self.bits & ((1 << self.count) - 1));
            if self.count >= entry.bits() {
                break entry;
            }
            self.refill(self.count + 1)?;
        };
        self.take(entry.bits())?;
        Ok(entry)
    }

    fn stored(&mut self, left: usize) -> io::Result<()> {
        let n = left.min(self.limit - self.to);
        let mut done = 0;
        while done < n && self.count > 0 {
            self.window[self.to + done] = self.take(8)? as u8;
            done += 1;
        }
        if self.count == 0 {
            self.bits = 0;
        }
        self.supply(HEAD)?;
        let more = (n - done).min(self.end.saturating_sub(self.at));
        self.window[self.to + done..][..more].copy_from_slice(&self.input[self.at..][..more]);
        self.at += more;
        if n > 0 && done + more == 0 {
            return Err(too_short());
        }
        self.to += done + more;
        let left = left - done - more;
        self.place = if left == 0 { Place::Block } else { Place::Stored(left) };
        Ok(())
    }

    /// Decodes until the window is full or the block ends.
    fn codes(&mut self) -> io::Result<()> {
        while self.to < self.limit && self.place == Place::Codes {
            self.supply(HEAD)?;
            let mut turn = self.turns(self.end);
            if turn == Turn::Short && self.ended {
                // Zeros follow; what is made of them is not handed out.
                let good = self.to;
                turn = self.turns(self.end + PADDING);
                // Eight bytes follow the last code of a whole file, more than any code takes.
                let cut_off = match self.left() {
                    Ok(left) if turn == Turn::Damaged => left < 8,
                    Ok(_) => turn == Turn::Short && self.to < self.limit,
                    Err(_) => true,
                };
                if cut_off {
                    self.to = good;
                    return Err(too_short());
                }
                // Zeros that wait in `bits` are given back.
                let zeros = self.at.saturating_sub(self.end);
                self.at -= zeros;
                self.count = self.count.saturating_sub(8 * zeros as u32);
            }
            match turn {
                Turn::Short => {}
                Turn::Ended => self.place = Place::Block,
                Turn::Damaged => return Err(damaged("a code or a copy of nothing")),
            }
        }
        Ok(())
    }

    /// Decodes as long as the window and the first `end` bytes of input have room for another turn.
    fn turns(&mut self, end: usize) -> Turn {
        let mut state = State { bits: self.bits, count: self.count, at: self.at, to: self.to };
        let places = [self.floor, self.limit];
        let end = turns(&self.codes, &self.input[..end], &mut self.window, places, &mut state);
        State { bits: self.bits, count: self.count, at: self.at, to: self.to } = state;
        end
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn too_short() -> io::Error {
    ErrorKind::UnexpectedEof.into()
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Inflate<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.advance()?;
        Ok(&self.window[self.from..self.to])
    }

    fn consume(&mut self, n: usize) {
        self.from = (self.from + n).min(self.to);
    }
}
