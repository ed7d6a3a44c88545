//! Something that happens once, and for good: a drain, an end, a first answer.

use tokio::sync::Semaphore;

/// Open from the moment it is opened. Those who wait go on in the order in which they came, so that a
/// simulated world replays; tokio's `watch` would wake them in an order of its own chance.
#[derive(Debug)]
pub struct Latch(
    /// Has no permits, ever: it is closed when the latch is opened.
    Semaphore,
);

impl Latch {
    /// A latch that is not open yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Semaphore::const_new(0))
    }

    /// Opens it; once more changes nothing.
    pub fn open(&self) {
        self.0.close();
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until it is open. Whoever gives up waiting only loses their place.
    pub async fn opened(&self) {
        let _closed = self.0.acquire().await;
    }
}

impl Default for Latch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_in_the_order_in_which_they_came() {
        let (latch, went) = (Latch::new(), Mutex::new(Vec::new()));
        let waiters = (0..100).map(|n| {
            let (latch, went) = (&latch, &went);
            async move {
                latch.opened().await;
                went.lock().unwrap().push(n);
            }
        });
        let mut all = pin!(join_all(waiters));
        assert!(all.as_mut().now_or_never().is_none());
        latch.open();
        all.await;
        assert_eq!(*went.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_open_latch_stays_open() {
        let latch = Latch::new();
        assert!(!latch.is_open());
        latch.open();
        latch.open();
        latch.opened().await;
        assert!(latch.is_open());
    }
}
