//! Admission by predicted memory: the sum of what all cases in work may need stays within one byte budget.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Bytes of one permit: fine enough for small cases, coarse enough for a semaphore's 32-bit counts.
const UNIT: u64 = 64 * 1024;

/// Bytes that cases in work may use together. Cheap to clone; clones share the budget.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    units: u32,
    ceiling: u64,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Budget {
    /// A budget of `bytes`. A single case that needs more may still run, alone, while it stays below `ceiling`
    /// bytes (what the machine has); beyond that it is refused.
    pub fn new(bytes: u64, ceiling: u64) -> Self {
        let units = u32::try_from((bytes / UNIT).clamp(1, 1 << 28)).unwrap_or(1 << 28);
        Self {
            permits: Arc::new(Semaphore::new(units as usize)),
            units,
            ceiling: ceiling.max(bytes),
        }
    }

    /// The budget in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// Bytes not in use now.
    pub fn free(&self) -> u64 {
        self.permits.available_permits() as u64 * UNIT
    }

    /// Waits, in order of asking, until `bytes` are free. A case above the whole budget waits until it is alone.
    ///
    /// # Errors
    /// A resource error where the case cannot fit the machine at all.
    pub async fn admit(&self, bytes: u64) -> Result<Permit> {
        if bytes > self.ceiling {
            return Err(Error::resource(format!(
                "the case needs about {} and this machine can give {}",
                human(bytes),
                human(self.ceiling)
            ))
            .hint("run it on a machine with more memory, or put a resample stage before it"));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        match Arc::clone(&self.permits).acquire_many_owned(units).await {
            Ok(permit) => Ok(Permit(permit)),
            Err(_) => Err(Error::cancelled()),
        }
    }
}

/// Bytes as people write them: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cases_wait_for_memory_and_large_ones_run_alone() -> Result<()> {
        let budget = Budget::new(10 << 20, 40 << 20);
        let a = budget.admit(6 << 20).await?;
        assert_eq!(budget.free(), 4 << 20);
        let waiting = budget.clone();
        let large = tokio::spawn(async move { waiting.admit(30 << 20).await });
        tokio::task::yield_now().await;
        assert!(!large.is_finished(), "it must wait for the first case to end");
        drop(a);
        let alone = large.await.map_err(|e| Error::bug(e.to_string()))??;
        assert_eq!(budget.free(), 0, "a case above the budget takes all of it");
        drop(alone);
        assert_eq!(budget.free(), 10 << 20);
        Ok(())
    }

    #[tokio::test]
    async fn what_cannot_fit_the_machine_is_a_failure() {
        let error = Budget::new(1 << 20, 2 << 20).admit(3 << 20).await.map(|_| ());
        assert!(error.is_err_and(|e| e.reason().contains("3.0 MiB")));
    }
}
