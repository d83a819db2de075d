//! Facts about an acquisition from its BIDS JSON sidecars.
//!
//! BIDS gives times in seconds; they are kept in ms here. Sidecars made from DICOM without conversion hold ms already:
//! no repetition time reaches 100 s and no echo time 1 s, so larger numbers are taken as ms. Field strengths above
//! 100 are in gauss (10,000 to the tesla).
//!
//! Source: BIDS specification, "Magnetic Resonance Imaging data", hardware and timing fields.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::read_text;
use super::limits;
use crate::error::{Error, Result};

/// What is known about how an image was acquired.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Maker of the scanner: `Siemens`, `Philips`, `GE`, or as the file says.
    pub vendor: Option<String>,
    /// The maker's name of the scanner.
    pub model: Option<String>,
    /// Field strength in tesla.
    pub field_strength_t: Option<f64>,
    /// Repetition time in ms.
    pub repetition_time_ms: Option<f64>,
    /// Echo time in ms.
    pub echo_time_ms: Option<f64>,
    /// Diffusion weighting in s/mm².
    pub b_value_s_per_mm2: Option<f64>,
    /// Thickness of a slice in mm.
    pub slice_thickness_mm: Option<f64>,
    /// Space between the faces of neighbouring slices in mm: the distance of their centres minus the thickness.
    pub slice_gap_mm: Option<f64>,
    /// Age in years.
    pub age_y: Option<f64>,
    /// Sex as the file says, usually `F`, `M` or `O`.
    pub sex: Option<String>,
}

/// The facts of sidecars, of which a later one overrides an earlier one key by key.
///
/// # Errors
/// A data error where a file is no JSON object; an I/O error where it cannot be read. Values of an unexpected kind are
/// as if they were missing.
pub fn read<P: AsRef<Path>>(sidecars: &[P]) -> Result<Facts> {
    merged(sidecars).map(|all| facts(&all))
}

/// All keys of sidecars, of which a later one overrides an earlier one key by key.
///
/// # Errors
/// Those of [`read`].
pub fn merged<P: AsRef<Path>>(sidecars: &[P]) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    for path in sidecars.iter().map(AsRef::as_ref) {
        let text = read_text(path, limits::SIDECAR_BYTES.get())?;
        let object: Map<String, Value> = serde_json::from_str(&text).map_err(|e| {
            Error::data(format!("{}: not a JSON object: {}", path.display(), complaint(&e)))
                .hint("a sidecar is one JSON object, { \"Manufacturer\": … }")
        })?;
        all.extend(object);
    }
    Ok(all)
}

/// What is wrong with a JSON text, and where: never what stands there, which may be somebody's name.
pub(super) fn complaint(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Eof => "it ends too early",
        Category::Data => "it is of another kind",
        Category::Syntax | Category::Io => "it is not valid JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// The facts in one JSON object.
pub fn facts(sidecar: &Map<String, Value>) -> Facts {
    let number = |key: &str| number(sidecar.get(key)?);
    let positive = |key: &str| number(key).filter(|&v| v > 0.0);
    let in_ms =
        |key: &str, ms_from: f64| positive(key).map(|v| if v < ms_from { v * 1000.0 } else { v });
    let text = |key: &str| {
        sidecar.get(key)?.as_str().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let slice_thickness_mm = positive("SliceThickness");
    let gap = positive("SpacingBetweenSlices").zip(slice_thickness_mm).map(|(s, t)| s - t);
    Facts {
        vendor: text("Manufacturer").map(vendor),
        model: text("ManufacturersModelName").or_else(|| text("ManufacturerModelName")),
        field_strength_t: positive("MagneticFieldStrength")
            .map(|t| if t > 100.0 { t / 10_000.0 } else { t }),
        repetition_time_ms: in_ms("RepetitionTime", 100.0),
        echo_time_ms: in_ms("EchoTime", 1.0),
        b_value_s_per_mm2: ["DiffusionBValue", "bValue", "b_value"]
            .iter()
            .find_map(|k| number(k))
            .filter(|&b| b >= 0.0),
        slice_thickness_mm,
        // Overlapping slices would give a negative gap; rounding gives a tiny one.
        slice_gap_mm: gap.filter(|&g| g > -0.01).map(|g| g.max(0.0)),
        age_y: sidecar.get("PatientAge").and_then(age_y),
        sex: text("PatientSex"),
    }
}

/// A finite number, also where it is written as text.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    number.filter(|v: &f64| v.is_finite())
}

/// Years of an age as a number or as DICOM writes it: `060Y`, `018M`, `006W`, `003D`.
fn age_y(value: &Value) -> Option<f64> {
    if let Some(years) = number(value) {
        return Some(years).filter(|y| (0.0..=130.0).contains(y));
    }
    let text = value.as_str()?.trim();
    let count: f64 = text.get(..text.len().checked_sub(1)?)?.parse().ok()?;
    let years = match text.as_bytes().last()? {
        b'Y' => count,
        b'M' => count / 12.0,
        b'W' => count / 52.18,
        b'D' => count / 365.25,
        _ => return None,
    };
    Some(years).filter(|y| (0.0..=130.0).contains(y))
}

/// One name for each maker, however its machines spell it.
fn vendor(text: String) -> String {
    let lower = text.to_lowercase();
    for (part, name) in [
        ("siemens", "Siemens"),
        ("philips", "Philips"),
        ("ge medical", "GE"),
        ("ge healthcare", "GE"),
        ("general electric", "GE"),
        ("toshiba", "Toshiba"),
        ("canon", "Canon"),
        ("hitachi", "Hitachi"),
        ("uih", "United Imaging"),
        ("united imaging", "United Imaging"),
    ] {
        if lower.contains(part) {
            return name.to_owned();
        }
    }
    if lower == "ge" { "GE".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn of(json: &str) -> Facts {
        facts(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn seconds_become_ms_and_ms_stay() {
        let bids =
            of(r#"{"RepetitionTime": 9.9, "EchoTime": 0.055, "MagneticFieldStrength": 1.5}"#);
        let dicom =
            of(r#"{"RepetitionTime": 9900, "EchoTime": 55, "MagneticFieldStrength": 15000}"#);
        assert_eq!(bids, dicom);
        assert_eq!((bids.repetition_time_ms, bids.echo_time_ms), (Some(9900.0), Some(55.0)));
        assert_eq!(bids.field_strength_t, Some(1.5));
    }

    #[test]
    fn dicom_names_ages_and_gaps_are_understood() {
        let f = of(
            r#"{"Manufacturer": "Philips Medical Systems", "ManufacturerModelName": "Achieva dStream",
            "PatientAge": "060Y", "PatientSex": "F", "SliceThickness": 4.0, "SpacingBetweenSlices": "5.0",
            "DiffusionBValue": 800.0}"#,
        );
        assert_eq!(
            (f.vendor.as_deref(), f.model.as_deref()),
            (Some("Philips"), Some("Achieva dStream"))
        );
        assert_eq!(
            (f.age_y, f.slice_gap_mm, f.b_value_s_per_mm2),
            (Some(60.0), Some(1.0), Some(800.0))
        );
        assert_eq!(of(r#"{"PatientAge": "018M"}"#).age_y, Some(1.5));
        assert_eq!(of(r#"{"PatientAge": "Y"}"#).age_y, None);
        assert_eq!(of(r#"{"PatientAge": "6é"}"#).age_y, None);
    }

    #[test]
    fn odd_values_are_as_if_missing() {
        let odd = r#"{"RepetitionTime": [1], "EchoTime": null, "Manufacturer": 3, "SliceThickness": -2,
            "DiffusionBValue": "n/a", "SpacingBetweenSlices": 1e999999}"#;
        assert_eq!(of(&odd.replace("1e999999", "\"inf\"")), Facts::default());
    }

    #[test]
    fn later_sidecars_override() {
        let dir = tempfile::tempdir().unwrap();
        let [root, own] = ["root.json", "own.json"].map(|n| dir.path().join(n));
        std::fs::write(&root, r#"{"EchoTime": 0.1, "Manufacturer": "SIEMENS"}"#).unwrap();
        std::fs::write(&own, r#"{"EchoTime": 0.09}"#).unwrap();
        let f = read(&[&root, &own]).unwrap();
        assert_eq!((f.vendor.as_deref(), f.echo_time_ms), (Some("Siemens"), Some(90.0)));
        std::fs::write(&own, "[1]").unwrap();
        assert!(read(&[&own]).unwrap_err().reason().contains("own.json"));
    }
}
