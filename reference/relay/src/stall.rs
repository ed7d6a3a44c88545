//! Notices that the relay stood still: stopped, paused, or starved of its processor.
//!
//! What piled up in the socket meanwhile is too late to be heard, and may be of a call that has ended
//! since: it is thrown away (MED-001). While no leg is open nothing is watched and nothing wakes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::Relay;

/// How often the watch looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// Not having looked for this long means that the relay stood still.
const STILL: Duration = Duration::from_millis(600);

/// When the watch last looked.
#[derive(Default)]
pub(crate) struct Stall {
    watching: AtomicBool,
    stood_still: AtomicBool,
    looked_ms: AtomicU64,
    opened: Notify,
}

impl Stall {
    /// A leg is open: there is something to watch.
    pub(crate) fn begin(&self) {
        self.opened.notify_one();
    }

    /// Whether the relay stood still until a moment ago; asked again, it did not.
    pub(crate) fn take(&self, now: Duration) -> bool {
        self.look(now);
        self.stood_still.swap(false, Ordering::Relaxed)
    }

    /// Whether nobody had looked for too long.
    fn look(&self, now: Duration) -> bool {
        let now_ms = now.as_millis() as u64;
        let looked = Duration::from_millis(self.looked_ms.swap(now_ms, Ordering::Relaxed));
        let still = self.watching.load(Ordering::Relaxed) && now > looked + STILL;
        if still {
            self.stood_still.store(true, Ordering::Relaxed);
        }
        still
    }
}

/// Looks at the clock again and again while a leg is open.
pub(crate) async fn watch(relay: Relay) {
    let (stall, clock) = (&relay.stall, &relay.host.clock);
    loop {
        stall.opened.notified().await;
        stall.looked_ms.store(clock.now().as_millis() as u64, Ordering::Relaxed);
        stall.watching.store(true, Ordering::Relaxed);
        while relay.legs().open_count() > 0 {
            clock.sleep(TICK).await;
            if !stall.look(clock.now()) {
                // Nothing had piled up: what comes from now on is in time.
                stall.stood_still.store(false, Ordering::Relaxed);
            }
        }
        stall.watching.store(false, Ordering::Relaxed);
    }
}
