//! Quality control by centre, and the cases that stand out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::pictures::{self, ImageAt};
use super::query::{Source, literals};
use crate::error::Result;
use crate::report::data::{CentreMetric, Outlier, Quality, Reason};
use crate::report::stats::{quantile, robust_z};

/// Most outliers with a picture.
const SHOWN: usize = 12;
/// Robust standard deviations from which a case is unusual in its centre (Iglewicz and Hoaglin 1993).
const UNUSUAL: f64 = 3.5;
/// The stage of quality control.
const QC: &str = "qc";

#[derive(Deserialize)]
struct Measured {
    case_id: String,
    centre: Option<String>,
    verdict: String,
    #[serde(default)]
    reasons: Vec<String>,
    snr: Option<f64>,
    noise_sigma: Option<f64>,
}

/// A case that may be shown, without its picture.
struct Candidate {
    case_id: String,
    centre: Option<String>,
    verdict: &'static str,
    reasons: Vec<String>,
    distance: f64,
}

impl Candidate {
    /// Failed cases first, then warnings, then the unusual ones by their distance.
    fn order(&self, other: &Self) -> Ordering {
        let severity = |c: &Self| ["fail", "warn", "unusual"].iter().position(|v| *v == c.verdict);
        severity(self)
            .cmp(&severity(other))
            .then(other.distance.total_cmp(&self.distance))
            .then_with(|| self.case_id.cmp(&other.case_id))
    }
}

/// The section on image quality.
pub async fn load(source: &Source<'_>) -> Result<Quality> {
    if !source.has("quality").await || !source.has("cases").await {
        return Ok(Quality::default());
    }
    let sql = format!(
        "WITH latest AS (\n  SELECT *, row_number() OVER (PARTITION BY case_id ORDER BY created_at DESC, run_id DESC) AS age\n  \
         FROM quality WHERE true{}\n)\nSELECT q.case_id, c.centre, q.verdict, q.reasons, q.snr, q.noise_sigma\n\
         FROM latest q LEFT JOIN cases c ON c.case_id = q.case_id\nWHERE q.age = 1 ORDER BY c.centre, q.case_id",
        source.of_the_pipeline()
    );
    let rows: Vec<Measured> = source.rows(&sql).await?;
    let snr = by_centre(&rows, |row| row.snr);
    let noise = by_centre(&rows, |row| row.noise_sigma);
    let mut candidates: Vec<Candidate> =
        rows.iter().filter_map(|row| candidate(row, &snr, &noise)).collect();
    candidates.extend(refused(source, &rows).await?);
    candidates.sort_by(Candidate::order);
    let more_outliers = candidates.len().saturating_sub(SHOWN) as u64;
    candidates.truncate(SHOWN);
    let verdicts = ["pass", "warn", "fail"].map(|verdict| Reason {
        reason: verdict.to_owned(),
        cases: rows.iter().filter(|row| row.verdict == verdict).count() as u64,
    });
    Ok(Quality {
        cases: rows.len() as u64,
        verdicts: verdicts.to_vec(),
        metrics: [("SNR", snr), ("Noise SD (intensity)", noise)]
            .into_iter()
            .filter(|(_, centres)| !centres.is_empty())
            .map(|(label, centres)| CentreMetric {
                label: label.to_owned(),
                centres: centres.into_iter().collect(),
            })
            .collect(),
        outliers: with_pictures(source, candidates).await?,
        more_outliers,
        sql,
    })
}

/// Sorted finite values of each centre.
fn by_centre(rows: &[Measured], value: fn(&Measured) -> Option<f64>) -> BTreeMap<String, Vec<f64>> {
    let mut centres: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        if let Some(value) = value(row).filter(|v| v.is_finite()) {
            centres.entry(named(row.centre.as_ref())).or_default().push(value);
        }
    }
    for values in centres.values_mut() {
        values.sort_by(f64::total_cmp);
    }
    centres
}

fn named(centre: Option<&String>) -> String {
    centre.map_or_else(|| "not known".to_owned(), Clone::clone)
}

/// A case that is not `pass`, or whose signal is far below or noise far above what its centre has.
fn candidate(
    row: &Measured,
    snr: &BTreeMap<String, Vec<f64>>,
    noise: &BTreeMap<String, Vec<f64>>,
) -> Option<Candidate> {
    let mut reasons = row.reasons.clone();
    let mut distance = 0.0_f64;
    for (name, value, centres, sign) in
        [("SNR", row.snr, snr, -1.0), ("noise SD", row.noise_sigma, noise, 1.0)]
    {
        let Some((value, group)) = value.zip(centres.get(&named(row.centre.as_ref()))) else {
            continue;
        };
        let far = robust_z(value, group).map(|z| z * sign).filter(|z| *z > UNUSUAL);
        if let (Some(z), Some(median)) = (far, quantile(group, 0.5)) {
            reasons.push(format!(
                "{name} {value:.1}, median of the centre {median:.1} (robust z {:.1})",
                z * sign
            ));
            distance = distance.max(z);
        }
    }
    let verdict = match row.verdict.as_str() {
        "fail" => "fail",
        "warn" => "warn",
        _ if distance > 0.0 => "unusual",
        _ => return None,
    };
    Some(Candidate {
        case_id: row.case_id.clone(),
        centre: row.centre.clone(),
        verdict,
        reasons,
        distance,
    })
}

#[derive(Deserialize)]
struct Refused {
    case_id: String,
    centre: Option<String>,
    reason: String,
}

/// Cases that quality control refused before it wrote a row.
async fn refused(source: &Source<'_>, rows: &[Measured]) -> Result<Vec<Candidate>> {
    if !source.has("failures").await {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT f.case_id, c.centre, f.reason\nFROM ({}\n) f LEFT JOIN cases c ON c.case_id = f.case_id\nWHERE f.stage = '{QC}' ORDER BY f.case_id",
        super::flow::failures_sql(source).await
    );
    let refused: Vec<Refused> = source.rows(&sql).await?;
    let measured: HashSet<&str> = rows.iter().map(|row| row.case_id.as_str()).collect();
    let new =
        refused.into_iter().filter(|r| !measured.contains(r.case_id.as_str())).map(|r| Candidate {
            case_id: r.case_id,
            centre: r.centre,
            verdict: "fail",
            reasons: vec![r.reason],
            distance: 0.0,
        });
    Ok(new.collect())
}

#[derive(Deserialize)]
struct Place {
    case_id: String,
    image_uri: String,
    image_volume: i64,
}

async fn with_pictures(source: &Source<'_>, candidates: Vec<Candidate>) -> Result<Vec<Outlier>> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = candidates.iter().map(|c| c.case_id.as_str()).collect();
    let sql = format!(
        "SELECT case_id, image_uri, image_volume FROM cases WHERE case_id IN ({})",
        literals(&ids)
    );
    let places: Vec<Place> = source.rows(&sql).await?;
    let mut outliers = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let place = places.iter().find(|p| p.case_id == candidate.case_id);
        let picture = match place {
            Some(p) => {
                pictures::thumbnail(ImageAt { uri: p.image_uri.clone(), volume: p.image_volume })
                    .await
            }
            None => Err("the case is not in the table cases".to_owned()),
        };
        outliers.push(Outlier {
            case_id: candidate.case_id,
            centre: candidate.centre,
            verdict: candidate.verdict.to_owned(),
            reasons: candidate.reasons,
            picture,
        });
    }
    Ok(outliers)
}
