//! The marks: traits that are declared, so that whatever is never reached has a name.

use fusion_history::judges;

use crate::scenario::FAMILIES;

/// A declared trait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The trait's name.
    pub name: String,
    /// Why generated worlds are not expected to reach it; nothing when they are.
    pub exempt: Option<&'static str>,
}

/// What services and devices go through, besides what judges and faults are marks of.
pub const MARKS: &[&str] = &[
    // The race of a pair (CNV-003): won by one, settled on the other.
    "conversation PROVISIONAL oneToOne > BOUND oneToOne",
    "conversation PROVISIONAL oneToOne > SEALING oneToOne",
    "conversation SEALING oneToOne > SUPERSEDED oneToOne",
    "slot UNBOUND > BOUND merging",
    "slot BOUND merging > BOUND",
    "index MEMBER > MEMBER superseded",
    "create: there already",
    "say: redirected",
    "read: redirected",
    "at once create and create",
    // Groups and who comes later (CNV-006).
    "add: created",
    "at once add and say",
    "at once say and say",
    // Calls: rung, answered, missed, at once, among many (LOC).
    "locus INITIALIZING 1oftwo > ACTIVE 2oftwo",
    "locus INITIALIZING 1oftwo > TERMINATING 0oftwo",
    "locus INITIALIZING 1ofmany > ACTIVE 2ofmany",
    "locus ACTIVE 2ofmany > ACTIVE 3ofmany",
    "locus ACTIVE 3ofmany > ACTIVE 2ofmany",
    "locus TERMINATING 0ofmany > INACTIVE 0ofmany",
    "at once join and join",
    "at once join and set state",
    "join: call-over",
    "join: done, without a leg",
    "set state: call-over",
    "told ringing > answered elsewhere",
    "renew: done",
    "leg OPEN > BOUND",
    "leg BOUND > CLOSED",
    "leg OPEN > CLOSED",
    // Devices (MER).
    "socket closed > ready",
    // People and places (MAP).
    "user ACTIVE > FENCED",
    "user FENCED > GONE",
    "move: done",
    "claim: domain-claimed",
    "at once claim and claim",
    "provision: already-exists",
    "at once provision and provision",
    "resolve: user-unknown",
    "at once provision and resolve",
    // Hostile clusters (SEC).
    "trespass: wrong-audience",
    "trespass: wrong-issuer",
    "trespass: not-participant",
    "trespass: not-your-object",
    "trespass: unauthorized",
    // Nobody answers.
    "say: unreachable",
    "create: unreachable",
    "create: no answer",
];

/// Marks of what does not happen in generated worlds, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("judged index-repair", "no table is lost"),
    ("judged known-peers-are-believed", "no name is missing for longer than a minute"),
    ("judged goes-on-with-new-tokens", "nothing lasts for as long as a token is good"),
    ("judged missed-is-told", "nobody is away for longer than notifications are kept"),
    ("judged nobody-waits-for-the-slow", "no device hangs"),
    ("judged unknown-takes-as-long", "nobody asks for many strangers in a row"),
];

/// Every mark: that each judge had a case, that each fault family made a difference, and [`MARKS`].
#[must_use]
pub fn marks() -> Vec<Mark> {
    let judged = judges().into_iter().map(|judge| format!("judged {}", judge.name()));
    let faults = FAMILIES.into_iter().map(|family| format!("fault {family}"));
    let named = judged.chain(faults).chain(MARKS.iter().map(|&name| name.to_owned()));
    let exempt = |name: &str| EXEMPT.iter().find(|(of, _)| *of == name).map(|(_, why)| *why);
    named.map(|name| Mark { exempt: exempt(&name), name }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mark_has_a_name_of_its_own_and_what_is_exempt_is_one() {
        let names: BTreeSet<String> = marks().into_iter().map(|mark| mark.name).collect();
        assert_eq!(names.len(), marks().len());
        assert!(EXEMPT.iter().all(|(name, _)| names.contains(*name)));
    }
}
