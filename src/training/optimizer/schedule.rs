//! The learning rate over the steps of a training.

use torcula::engine::learner::Schedule;

/// The learning rate of `step` (from 0) of `steps`: rises linearly over `warmup` steps to `peak`, then follows the schedule.
pub fn learning_rate(
    schedule: Schedule,
    peak: f64,
    step: usize,
    steps: usize,
    warmup: usize,
) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / (warmup + 1) as f64;
    }
    let share = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => peak * 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos()),
        Schedule::Poly => peak * (1.0 - share.min(1.0)).powf(0.9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let rate = |schedule, step| learning_rate(schedule, 1.0, step, 104, 4);
        for (step, expected) in [(0, 0.2), (3, 0.8), (4, 1.0), (54, 0.5), (104, 0.0)] {
            assert!((rate(Schedule::Cosine, step) - expected).abs() < 1e-12, "{step}");
        }
        assert!((rate(Schedule::Poly, 54) - 0.5_f64.powf(0.9)).abs() < 1e-12);
        assert!((rate(Schedule::Constant, 104) - 1.0).abs() < 1e-12);
    }
}
