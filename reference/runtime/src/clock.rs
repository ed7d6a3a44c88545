//! Time, as an argument: monotonic, wall, and waiting.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::executor;

/// A moment of wall time in microseconds since the Unix epoch. For expiry and display, never for order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// The waited-for thing did not happen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// A machine's clock. Clones are the same clock.
#[derive(Clone)]
pub struct Clock {
    origin: tokio::time::Instant,
    /// What [`Clock::now`] read at the origin.
    elapsed_at_origin: Duration,
    wall_at_zero_us: u64,
    error: Arc<Error>,
}

/// In which ways a wall clock is wrong.
#[derive(Default)]
struct Error {
    skew_us: AtomicI64,
    jumped_us: AtomicI64,
    drift_ppm: AtomicI64,
    /// Since when it drifts, by [`Clock::now`].
    drifts_since_us: AtomicU64,
}

impl Clock {
    /// The real clock of this machine.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
    pub fn real() -> Self {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Timestamp(wall.as_micros() as u64))
    }

    /// A clock whose wall time is `wall` now and which follows the runtime's time, paused or not.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self::joining(wall, Duration::ZERO)
    }

    /// The clock of a machine that starts when its world, which began at `wall`, has run for `elapsed`,
    /// where the machine's runtime knows nothing of the time before.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one reader of the runtime's clock")]
    pub fn joining(wall: Timestamp, elapsed: Duration) -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            elapsed_at_origin: elapsed,
            wall_at_zero_us: wall.0,
            error: Arc::default(),
        }
    }

    /// The same time line seen by another machine, whose wall clock can be set wrong by itself.
    #[must_use]
    pub fn of_another_host(&self) -> Self {
        Self { error: Arc::default(), ..self.clone() }
    }

    /// Sets the wall clock wrong by `us` microseconds (negative: it is behind).
    pub fn set_skew_us(&self, us: i64) {
        self.error.skew_us.store(us, Ordering::Relaxed);
    }

    /// Lets the wall clock go wrong by `ppm` microseconds in each second from now on (negative: it is slow).
    /// 0 sets it right again.
    pub fn set_drift_ppm(&self, ppm: i64) {
        self.error.drifts_since_us.store(self.now().as_micros() as u64, Ordering::Relaxed);
        self.error.drift_ppm.store(ppm, Ordering::Relaxed);
    }

    /// Sets the wall clock forward by `us` microseconds (negative: back), once more.
    pub fn jump_us(&self, us: i64) {
        self.error.jumped_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Undoes every [`Clock::jump_us`].
    pub fn undo_jumps(&self) {
        self.error.jumped_us.store(0, Ordering::Relaxed);
    }

    /// By how much the wall clock is wrong, microseconds.
    #[must_use]
    pub fn skew_us(&self) -> i64 {
        self.error.at(self.now().as_micros() as u64)
    }

    /// Time since this clock was made, or since its world began. Never goes backwards, is not skewed.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.elapsed_at_origin + self.since_origin()
    }

    /// The same as the standard library's type, for libraries that insist on it.
    pub(crate) fn instant(&self) -> std::time::Instant {
        (self.origin + self.since_origin()).into_std()
    }

    /// Wall time, as wrong as it has been set.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        let now_us = self.now().as_micros() as u64;
        Timestamp((self.wall_at_zero_us + now_us).saturating_add_signed(self.error.at(now_us)))
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        executor::sleep(duration).await;
    }

    /// Waits until [`Clock::now`] reads `moment`.
    pub async fn sleep_until(&self, moment: Duration) {
        executor::sleep_until(self.origin + moment.saturating_sub(self.elapsed_at_origin)).await;
    }

    /// `future`, given up after `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] when it had not ended by then; the future is dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        executor::timeout(limit, future).await
    }

    fn since_origin(&self) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the one reader of the runtime's clock")]
        let now = tokio::time::Instant::now();
        now.saturating_duration_since(self.origin)
    }
}

impl Error {
    /// By how much the clock is wrong when [`Clock::now`] reads `now_us`.
    fn at(&self, now_us: u64) -> i64 {
        let ppm = i128::from(self.drift_ppm.load(Ordering::Relaxed));
        let drifts_us = now_us.saturating_sub(self.drifts_since_us.load(Ordering::Relaxed));
        let drifted_us = (i128::from(drifts_us) * ppm / 1_000_000) as i64;
        let stepped_us = self.skew_us.load(Ordering::Relaxed) + self.jumped_us.load(Ordering::Relaxed);
        stepped_us.saturating_add(drifted_us)
    }
}

impl Timestamp {
    /// This moment in whole seconds, as tokens carry it (RFC 7519, NumericDate).
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = std::time::UNIX_EPOCH + Duration::from_micros(self.0);
        write!(f, "{}", humantime::format_rfc3339_millis(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_starts_later_reads_the_time_of_its_world() {
        let clock = Clock::joining(Timestamp(5_000_000), Duration::from_secs(60));
        assert_eq!((clock.now(), clock.wall()), (Duration::from_secs(60), Timestamp(65_000_000)));

        clock.sleep_until(Duration::from_secs(62)).await;
        assert_eq!((clock.now(), clock.wall()), (Duration::from_secs(62), Timestamp(67_000_000)));

        clock.sleep_until(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Duration::from_secs(62), "a moment that is over is not waited for");
    }
    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_is_wrong_as_it_was_made_and_right_again_after() {
        let clock = Clock::starting_at(Timestamp(100_000_000));
        let other = clock.of_another_host();
        let wrong_by = || i128::from(other.wall().0) - i128::from(clock.wall().0);
        other.set_drift_ppm(-1_000);
        other.jump_us(700);
        other.jump_us(-200);
        other.set_skew_us(20);
        assert_eq!(wrong_by(), 520);
        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(wrong_by(), 520 - 10_000);
        other.undo_jumps();
        other.set_skew_us(0);
        assert_eq!(wrong_by(), -10_000);
        other.set_drift_ppm(0);
        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(wrong_by(), 0);
    }
}
