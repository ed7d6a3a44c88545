//! How fast all clients of one run together may ask.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fusion_runtime::Clock;

/// The moment at which the next request may go. Shared by everybody who holds the target.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Duration>);

impl Pace {
    /// Waits for this request's turn; `per_second` 0 means no limit.
    pub(crate) async fn turn(&self, clock: &Clock, per_second: u32) {
        if per_second == 0 {
            return;
        }
        let mine = {
            let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = clock.now().max(*next);
            *next = mine + Duration::from_secs(1) / per_second;
            mine
        };
        clock.sleep_until(mine).await;
    }
}
