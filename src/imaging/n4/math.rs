//! Elementary functions and the width that N4's loops are written for.

pub(super) use crate::imaging::elementary::{exp, ln};

/// Elements handled together: one 512-bit register, two of 256 bits, four of 128.
pub(super) const LANES: usize = 16;
