//! What someone should look at: a worse model, drifting input, cases that are gone or broken.

use super::DifferenceJob;
use super::compare::{Alarm, Difference};
use super::shift::Drift;
use crate::report::exhibits::table::number;

/// The alarms of a difference, by the limits of the job.
pub(super) fn alarms(job: &DifferenceJob, found: &Difference) -> Vec<Alarm> {
    let limits = &job.params.alarms;
    let mut alarms = Vec::new();
    for (division, group) in found.shifts.iter().flat_map(|d| d.groups.iter().map(move |g| (d, g)))
    {
        let Some(dice) = group.measures.first() else { continue };
        if dice.n < limits.least_cases || !dice.exceeds(limits.dsc_shift) {
            continue;
        }
        let (Some(shift), Some([low, high])) = (dice.shift, dice.interval) else { continue };
        let way = if shift < 0.0 { "fell" } else { "rose" };
        let place = match division.variable.is_empty() {
            true => String::new(),
            false => format!(" of {} ({})", group.group, division.label.to_lowercase()),
        };
        let text = format!(
            "the mean DSC{place} {way} by {} (95 % CI of the shift {} to {}, n = {}); at most {} is allowed",
            number(shift.abs(), 3),
            number(low, 3),
            number(high, 3),
            dice.n,
            limits.dsc_shift
        );
        alarms.push(Alarm { kind: "model", text });
    }
    for drift in &found.drift {
        alarms.extend(drifted(job, drift).map(|text| Alarm { kind: "data", text }));
    }
    for (kind, limit, n) in [
        ("removed", limits.removed_share, found.removed.len()),
        ("failed", limits.failed_share, found.failed.len()),
    ] {
        let of = found.counts.scored_before;
        if of > 0 && n as f64 > limit * of as f64 {
            let verb = if kind == "failed" { "fail" } else { "are removed" };
            let text = format!(
                "{n} cases {verb} since, of {of} scored on the earlier night; a share of at most {limit} is allowed"
            );
            alarms.push(Alarm { kind, text });
        }
    }
    alarms
}

fn drifted(job: &DifferenceJob, drift: &Drift) -> Option<String> {
    let limits = &job.params.alarms;
    let (name, from) = (&drift.variable, &drift.baseline);
    let enough = |n: usize| n >= limits.least_cases && from.n >= limits.least_cases;
    let (distance, of, whose) = if enough(drift.now.n) && drift.smd_now.exceeds(limits.drift, false)
    {
        (&drift.smd_now, &drift.now, "all cases")
    } else if enough(drift.arrivals.n) && drift.smd_arrivals.exceeds(limits.drift, true) {
        (&drift.smd_arrivals, &drift.arrivals, "new and changed cases")
    } else {
        return None;
    };
    let value = |mean: Option<f64>| mean.map_or_else(|| "–".to_owned(), |mean| number(mean, 2));
    let distance = match distance.value {
        Some(d) => format!("standardised mean difference {}", number(d, 2)),
        None => "neither varies".to_owned(),
    };
    Some(format!(
        "{name} of {whose} drifted from {} to {} ({distance}, n = {}); at most {} is allowed",
        value(from.mean),
        value(of.mean),
        of.n,
        limits.drift
    ))
}
