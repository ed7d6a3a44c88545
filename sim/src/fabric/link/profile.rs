//! How one direction of a link behaves when nothing is wrong.

use fusion_runtime::Entropy;
use serde::{Deserialize, Serialize};

/// How one direction of a link behaves when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkProfile {
    /// The least time a packet takes, microseconds.
    pub latency_us_min: u64,
    /// Up to this much more for the distance, microseconds: drawn once per pair of data centres.
    pub distance_us_max: u64,
    /// And this for each packet.
    pub jitter: Jitter,
    /// The probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// The probability that a datagram arrives twice, 0 to 1.
    pub duplicate: f64,
    /// The probability that a datagram is held back, 0 to 1.
    pub reorder: f64,
    /// For how long at most it is held back, microseconds.
    pub hold_us_max: u64,
    /// What the line carries, headers included; unlimited when absent.
    pub bytes_per_s: Option<u64>,
    /// How long a packet waits for a busy line before it is dropped, microseconds.
    pub queue_us_max: u64,
}

/// The random part of a packet's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Jitter {
    /// Evenly between nothing and `us_max`.
    Uniform {
        /// Microseconds.
        us_max: u64,
    },
    /// A bell between nothing and `us_max`: the sum of four even draws.
    Normal {
        /// Microseconds.
        us_max: u64,
    },
    /// Mostly little, seldom much: halves with every `us_half`, at most 16 times that.
    Tail {
        /// Microseconds.
        us_half: u64,
    },
}

impl LinkProfile {
    /// Inside a machine: at once.
    #[must_use]
    pub fn loopback() -> Self {
        Self { latency_us_min: 20, jitter: Jitter::Uniform { us_max: 0 }, ..Self::near() }
    }

    /// Inside a data centre: 0.2 to 1 ms.
    #[must_use]
    pub fn near() -> Self {
        Self {
            latency_us_min: 200,
            distance_us_max: 0,
            jitter: Jitter::Uniform { us_max: 800 },
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            hold_us_max: 0,
            bytes_per_s: None,
            queue_us_max: 200_000,
        }
    }

    /// Between data centres: 10 to 60 ms, of which up to 10 ms jitter.
    #[must_use]
    pub fn far() -> Self {
        Self {
            latency_us_min: 10_000,
            distance_us_max: 40_000,
            jitter: Jitter::Uniform { us_max: 10_000 },
            ..Self::near()
        }
    }
}

impl Default for LinkProfile {
    fn default() -> Self {
        Self::near()
    }
}

impl Jitter {
    pub(super) fn draw_us(self, entropy: &Entropy) -> u64 {
        match self {
            Self::Uniform { us_max: 0 } | Self::Normal { us_max: 0 } | Self::Tail { us_half: 0 } => 0,
            Self::Uniform { us_max } => entropy.below(us_max + 1),
            Self::Normal { us_max } => (0..4).map(|_| entropy.below(us_max + 1)).sum::<u64>() / 4,
            Self::Tail { us_half } => {
                // Whole halvings from the low bits, the rest of the way evenly: integers only, so that
                // every machine draws the same.
                let draw = entropy.u64();
                let halvings = u64::from((draw & 0x7fff).trailing_ones());
                halvings * us_half + ((((draw >> 16) & 0xffff) * us_half) >> 16)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_jitter_is_mostly_little_and_seldom_much() {
        let entropy = Entropy::from_u64(1);
        let draws: Vec<_> = (0..10_000).map(|_| Jitter::Tail { us_half: 1_000 }.draw_us(&entropy)).collect();
        let below_half = draws.iter().filter(|us| **us < 1_000).count();
        assert!((4_500..5_500).contains(&below_half), "{below_half}");
        assert!(draws.iter().any(|us| *us > 5_000));
        assert!(draws.iter().all(|us| *us < 16_000));
    }

    #[test]
    fn normal_jitter_is_mostly_about_the_middle() {
        let entropy = Entropy::from_u64(1);
        let draws: Vec<_> = (0..10_000).map(|_| Jitter::Normal { us_max: 1_000 }.draw_us(&entropy)).collect();
        let middle = draws.iter().filter(|us| (350..=650).contains(*us)).count();
        assert!((6_500..7_500).contains(&middle), "{middle}: 68 % of a bell are within its deviation");
        assert!(draws.iter().all(|us| *us <= 1_000));
    }

    #[test]
    fn uniform_jitter_stays_below_its_limit_and_reaches_it() {
        let entropy = Entropy::from_u64(1);
        let draws: Vec<_> = (0..1_000).map(|_| Jitter::Uniform { us_max: 3 }.draw_us(&entropy)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&0), Some(&3)));
    }

    #[test]
    fn a_profile_with_a_misspelt_field_is_refused() {
        assert!(serde_json::from_str::<LinkProfile>(r#"{"latency_ms":3}"#).is_err());
    }
}
