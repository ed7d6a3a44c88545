//! MAP-008: nobody reads the user map by asking for everybody.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fusion_protocol::{Code, Problem};

use crate::Cluster;

/// How many look-ups one caller may make at once.
const BURST: u32 = 5_000;
/// How many look-ups a second one caller may make for ever.
const PER_SECOND: u32 = 500;
/// How many callers are counted; beyond it those that have rested longest are forgotten.
const CALLERS_MAX: usize = 16 << 10;

/// What each caller may still ask.
#[derive(Default)]
pub(crate) struct Quota(Mutex<BTreeMap<String, Bucket>>);

struct Bucket {
    left: f64,
    at: Duration,
}

impl Quota {
    /// Counts one look-up by `caller`.
    ///
    /// # Errors
    /// `too-many`.
    pub(super) fn take(&self, caller: &str, cluster: &Cluster) -> Result<(), Problem> {
        self.take_at(caller, cluster.host.clock.now())
    }

    fn take_at(&self, caller: &str, now: Duration) -> Result<(), Problem> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS_MAX && !callers.contains_key(caller) {
            // Whoever has rested this long has a full bucket, as has somebody new.
            let full = Duration::from_secs(u64::from(BURST / PER_SECOND));
            callers.retain(|_, bucket| now < bucket.at + full);
        }
        let new = || Bucket { left: f64::from(BURST), at: now };
        let bucket = callers.entry(caller.to_owned()).or_insert_with(new);
        let rested = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + rested * f64::from(PER_SECOND)).min(f64::from(BURST));
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Code::TooMany.into());
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_asks_for_everybody_is_told_to_wait_and_others_are_not() {
        let quota = Quota::default();
        let asked = (0..BURST + 10).filter(|_| quota.take_at("x", Duration::ZERO).is_ok()).count();
        assert_eq!(asked, BURST as usize);
        assert!(quota.take_at("y", Duration::ZERO).is_ok());
        assert!(quota.take_at("x", Duration::from_secs(1)).is_ok());
    }
}
