//! The inner loop of inflating: from bits to bytes in the window.
#![expect(
    clippy::inline_always,
    reason = "out of the loop they would be compiled for the oldest processor"
)]

use super::tables::{Codes, Entry};

/// How far back a copy may lie.
pub(super) const HISTORY: usize = 32 << 10;
/// Bytes decoded before they are handed out: they stay in the second-level cache.
pub(super) const ROOM: usize = 128 << 10;
/// Bytes that one turn of the decoder may write: literals, the longest copy, and what wide stores write past it.
pub(super) const TURN: usize = 512;
/// Bytes of the window.
pub(super) const WINDOW: usize = HISTORY + ROOM + TURN;
/// Bytes of input that are there before a turn, or the head of a block, begins.
pub(super) const AHEAD: usize = 16;

/// Why turns ended.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// Input or window has no room for another.
    Short,
    /// The block ended.
    Ended,
    /// The codes mean nothing.
    Damaged,
}

/// What changes with every turn.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub bits: u64,
    pub count: u32,
    pub at: usize,
    pub to: usize,
}

#[multiversion::multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
pub(super) fn turns(
    codes: &Codes,
    input: &[u8],
    window: &mut [u8; WINDOW],
    [floor, limit]: [usize; 2],
    state: &mut State,
) -> Turn {
    let mut s = *state;
    let mut turn = Turn::Short;
    let limit = limit.min(HISTORY + ROOM);
    let ahead = |at: usize| input.get(at..).and_then(<[u8]>::first_chunk);
    match ahead(s.at) {
        Some(next) => s.refill(next),
        None => return turn,
    };
    // Looked up a turn ahead, so that the look-up does not wait for more bits.
    let mut entry = codes.at(s.bits);
    while s.to < limit
        && let Some(next) = ahead(s.at)
    {
        let used = s.refill(next);
        if entry.literals() > 0 {
            s.literals(window, entry);
            entry = codes.at(s.bits);
            if entry.literals() > 0 {
                s.literals(window, entry);
                entry = codes.at(s.bits);
                if entry.literals() > 0 {
                    s.literals(window, entry);
                    entry = codes.at(s.bits);
                    continue;
                }
            }
            s.refill_from(next, used);
        }
        let (length, distance);
        if entry.is_copy() {
            (length, distance) = (entry.length(), entry.distance(s.bits));
            s.skip(entry);
        } else {
            let long = codes.resolve(entry, s.bits);
            if long.literals() > 0 {
                s.literals(window, long);
                entry = codes.at(s.bits);
                continue;
            }
            length = long.lone_length(s.bits);
            s.skip(long);
            if !long.is_part() {
                turn = if long.is_end() { Turn::Ended } else { Turn::Damaged };
                break;
            }
            let found = codes.distance_at(s.bits);
            if !found.is_part() {
                turn = Turn::Damaged;
                break;
            }
            distance = found.distance(s.bits);
            s.skip(found);
        }
        entry = codes.at(s.bits);
        let Some(from) = s.to.checked_sub(distance).filter(|from| *from >= floor) else {
            turn = Turn::Damaged;
            break;
        };
        if length <= WIDE && length <= distance {
            window.copy_within(from..from + WIDE, s.to);
        } else {
            copy(window, s.to, distance, length);
        }
        s.to += length;
    }
    s.count &= 63;
    *state = s;
    turn
}

impl State {
    /// At least 56 bits, and how many bytes they took. All 64 are true ones, but those above the count come again with the
    /// next refill.
    #[inline(always)]
    fn refill(&mut self, next: &[u8; AHEAD]) -> usize {
        self.refill_from(next, 0)
    }

    /// The same where `before` bytes, 7 at most, of the next ones are used already.
    #[inline(always)]
    fn refill_from(&mut self, next: &[u8; AHEAD], before: usize) -> usize {
        let word = next[before & 7..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.bits |= word << (self.count & 63);
        let used = (!self.count & 63) as usize >> 3;
        self.at += used;
        self.count |= 0b11_1000;
        used
    }

    /// Above its lowest six bits the count is of no meaning.
    #[inline(always)]
    fn skip(&mut self, entry: Entry) {
        self.bits >>= entry.raw_bits() & 63;
        self.count = self.count.wrapping_sub(entry.raw_bits());
    }

    /// Two bytes are written, and as many count as there are literals.
    #[inline(always)]
    fn literals(&mut self, window: &mut [u8; WINDOW], entry: Entry) {
        window[self.to..self.to + 2].copy_from_slice(&entry.bytes());
        self.to += entry.literals();
        self.skip(entry);
    }
}

/// Bytes copied at once.
const WIDE: usize = 16;

/// Copies bytes that lie `distance` before; up to 31 bytes past them are written too.
fn copy(window: &mut [u8; WINDOW], to: usize, distance: usize, length: usize) {
    let from = to - distance;
    let end = to + length;
    let mut source = from;
    let mut target = to;
    if distance < WIDE {
        // Repeated until it is wide enough; whole repetitions stay in step.
        let mut wide = [0; 2 * WIDE];
        let period = distance * WIDE.div_ceil(distance);
        let start = &window[from..to];
        wide[..period].chunks_exact_mut(distance).for_each(|part| part.copy_from_slice(start));
        window[to..to + 2 * WIDE].copy_from_slice(&wide);
        target += period;
        source = to;
    }
    while target < end {
        let Some(&part) = window[source..].first_chunk::<WIDE>() else { return };
        window[target..target + WIDE].copy_from_slice(&part);
        source += WIDE;
        target += WIDE;
    }
}
