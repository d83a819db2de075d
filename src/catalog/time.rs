//! A moment as the catalog stores it: microseconds since 1970-01-01, UTC. In text it is RFC 3339 with a `Z`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A moment: microseconds since 1970-01-01, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Now, by the machine's clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// Time since then; none where it lies ahead.
    pub fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    /// Time from then to a later moment; none where that is earlier.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0).try_into().unwrap_or_default())
    }

    /// Seconds since 1970-01-01, UTC.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(moment) => f.pad(&moment.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339 (`2026-01-31T12:00:00Z`); without an offset, or as a bare date, it is taken as UTC.
    fn from_str(text: &str) -> Result<Self> {
        let naive = |text: &str| {
            let (date_time, spaced) = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f");
            NaiveDateTime::parse_from_str(text, date_time)
                .or_else(|_| NaiveDateTime::parse_from_str(text, spaced))
                .ok()
                .or_else(|| text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0))
        };
        DateTime::parse_from_rfc3339(text)
            .map(|moment| moment.timestamp_micros())
            .ok()
            .or_else(|| naive(text).map(|moment| moment.and_utc().timestamp_micros()))
            .map(Self)
            .ok_or_else(|| {
                Error::configuration(format!("'{text}' is not a moment"))
                    .hint("write it like 2026-01-31T12:00:00Z or 2026-01-31 (UTC)")
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Moment;

        impl Visitor<'_> for Moment {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 moment or microseconds since 1970-01-01")
            }

            fn visit_i64<E: de::Error>(self, micros: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(micros))
            }

            fn visit_u64<E: de::Error>(self, micros: u64) -> Result<Timestamp, E> {
                i64::try_from(micros).map(Timestamp).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(|error: Error| E::custom(error.reason()))
            }
        }

        deserializer.deserialize_any(Moment)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    // datetime(2026, 1, 31, 12, 0, 0, 250000, timezone.utc).timestamp() * 1e6 == 1769860800250000
    const MOMENT: Timestamp = Timestamp(1_769_860_800_250_000);

    #[test]
    fn text_keeps_the_microsecond() {
        assert_eq!(MOMENT.to_string(), "2026-01-31T12:00:00.250000Z");
        assert_eq!(MOMENT.to_string().parse::<Timestamp>().unwrap(), MOMENT);
        assert_eq!("2026-01-31T13:00:00.25+01:00".parse::<Timestamp>().unwrap(), MOMENT);
        assert_eq!("2026-01-31 12:00:00.25".parse::<Timestamp>().unwrap(), MOMENT);
        assert_eq!("1970-01-02".parse::<Timestamp>().unwrap(), Timestamp(86_400_000_000));
        assert!("yesterday".parse::<Timestamp>().unwrap_err().advice().is_some());
    }

    #[test]
    fn serde_takes_text_and_micros() {
        let json = serde_json::to_string(&MOMENT).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), MOMENT);
        assert_eq!(serde_json::from_str::<Timestamp>("1769860800250000").unwrap(), MOMENT);
    }
}
