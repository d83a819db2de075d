//! Units of the numbers in tables, parameters and reports, as one closed list: a column, a parameter or a
//! metric names its unit by value, so that a typing mistake cannot invent one. Affines are voxel → world (RAS+, mm).

use std::fmt;

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unit {
    /// Not a quantity: text, identifiers, switches.
    #[default]
    None,
    /// A pure number: counts, shares, ratios, scores.
    One,
    /// Voxels along an axis.
    Voxel,
    /// The image's own intensity scale.
    Intensity,
    /// Lengths.
    Millimetre,
    /// Volumes.
    Millilitre,
    /// Diffusion weighting (b-values).
    SecondPerSquareMillimetre,
    /// Times of the acquisition.
    Millisecond,
    /// Durations of work.
    Second,
    /// Time since onset.
    Hour,
    /// Ages.
    Year,
    /// Field strengths.
    Tesla,
    /// Sizes of files and memory.
    Byte,
    /// Moments: microseconds since 1970-01-01, UTC.
    MicrosecondUtc,
}

impl Unit {
    /// The symbol written into column metadata and `schemas/`; empty where the value is not a quantity.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::None => "",
            Self::One => "1",
            Self::Voxel => "voxel",
            Self::Intensity => "intensity",
            Self::Millimetre => "mm",
            Self::Millilitre => "mL",
            Self::SecondPerSquareMillimetre => "s/mm²",
            Self::Millisecond => "ms",
            Self::Second => "s",
            Self::Hour => "h",
            Self::Year => "y",
            Self::Tesla => "T",
            Self::Byte => "B",
            Self::MicrosecondUtc => "µs UTC",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.symbol())
    }
}

/// A length of time as people write it, in its two largest units: `2 h 3 min`.
pub fn human_duration(time: std::time::Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} days {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn times_have_two_units() {
        let text = |s| super::human_duration(Duration::from_secs(s));
        assert_eq!([text(0), text(59), text(61)], ["0 s", "59 s", "1 min 1 s"]);
        assert_eq!(
            [text(7_380), text(90_000), text(180_000)],
            ["2 h 3 min", "25 h 0 min", "2 days 2 h"]
        );
    }
}
