//! What a piece of work costs: wall time and CPU time.
//!
//! Read past the C library, so that it is real time even within a world of madsim, which puts its own
//! clock under the whole process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time, seconds.
    pub wall_s: f64,
    /// CPU time of the process, seconds.
    pub cpu_s: f64,
}

/// Measures from here on, for reports; nothing that is judged depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    wall: Duration,
    cpu: Duration,
}

impl Meter {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: read(ClockId::Monotonic), cpu: read(ClockId::ProcessCPUTime) }
    }

    /// What has been spent since the start.
    #[must_use]
    pub fn elapsed(&self) -> Cost {
        let since = |clock, start| read(clock).saturating_sub(start).as_secs_f64();
        Cost { wall_s: since(ClockId::Monotonic, self.wall), cpu_s: since(ClockId::ProcessCPUTime, self.cpu) }
    }
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
