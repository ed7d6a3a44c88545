//! MER-001: one notification reaches all devices of its user.

use super::streams::{families, missing};
use crate::facts::Facts;
use crate::judge::{Casebook, Evidence, Judge, Scope};

/// MER-001: what one device of a user is told, every other one is told, too.
///
/// The cases are users with several devices that were told something, one a device. A device that was away
/// so long that it had to re-sync is no case (MER-003).
pub(crate) struct EveryDeviceIsReached;

impl Judge for EveryDeviceIsReached {
    fn name(&self) -> &'static str {
        "every-device-is-reached"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MER-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        // Queues that were lost are another matter.
        if facts.faults().had("lose_rows") {
            return;
        }
        for family in families(facts) {
            for stream in &family {
                let told = family.iter().any(|other| !other.told.is_empty());
                if !told || !stream.resyncs.is_empty() || stream.was_closed {
                    continue;
                }
                case.reached();
                for (id, at, by) in missing(&family, stream) {
                    let statement = format!("{by} was told event {id}, and {} was not", stream.host);
                    case.violated("not-reached", statement, [at]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Told, family};
    use super::*;
    use crate::judge::Ruling;

    fn judged(tablet: &[Told]) -> (Ruling, u64, Vec<String>) {
        let story = family(tablet);
        let verdict = EveryDeviceIsReached.judge(story.told());
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.ruling, verdict.reached, kinds)
    }

    #[test]
    fn what_both_are_told_holds() {
        assert_eq!(judged(&[Told::Event(1), Told::Event(2)]), (Ruling::Holds, 2, vec![]));
    }

    #[test]
    fn a_device_that_is_left_out_violates() {
        let (_, _, kinds) = judged(&[Told::Event(1)]);
        assert_eq!(kinds, ["every-device-is-reached/MER-001/not-reached"]);
    }

    #[test]
    fn a_device_that_had_to_read_afresh_or_is_away_is_no_case() {
        assert_eq!(judged(&[Told::Resync]).1, 1);
        assert_eq!(judged(&[Told::Closed]), (Ruling::Unknown, 0, vec![]));
    }
}
