//! Chance with the few questions that a generator asks of it.

use std::time::Duration;

use fusion_runtime::Entropy;

/// One named stream of chance.
pub(super) struct Dice(Entropy);

impl Dice {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self(entropy)
    }

    /// A stream of its own.
    pub(super) fn stream(&self, label: &str) -> Self {
        Self(self.0.stream(label))
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.0.below(high.saturating_sub(low) + 1)
    }

    /// A number from `low` to `high`, small ones more often: the least of two draws.
    pub(super) fn few(&self, low: u64, high: u64) -> u64 {
        self.between(low, high).min(self.between(low, high))
    }

    pub(super) fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True in `percent` of 100 cases.
    pub(super) fn percent(&self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    /// One of `things`, each as often as any other; none of none.
    pub(super) fn one_of<'t, T>(&self, things: &'t [T]) -> Option<&'t T> {
        things.get(self.0.below(things.len() as u64) as usize)
    }

    /// Takes one out.
    pub(super) fn take<T>(&self, things: &mut Vec<T>) -> Option<T> {
        (!things.is_empty()).then(|| things.swap_remove(self.0.below(things.len() as u64) as usize))
    }

    /// One of the choices, each as often as its weight says. At least one weight is above 0.
    pub(super) fn weighted<T: Copy>(&self, choices: &[(u64, T)]) -> T {
        let mut at = self.0.below(choices.iter().map(|(weight, _)| weight).sum());
        for &(weight, choice) in choices {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return choice,
            }
        }
        choices[choices.len() - 1].1
    }
}
