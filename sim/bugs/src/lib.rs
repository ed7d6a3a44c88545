//! Planted bugs: deployments with one known thing wrong, by which the simulator is measured.
//!
//! Each is written from the specification alone, before reading the judge that should catch it. Half of
//! them are held out: nobody looks at them while judges are tuned. Which half, nobody chooses: those whose
//! name has an odd number of letters, hyphens counted. One more bug moves no other to the other half.
//!
//! What a bug remembers, it remembers of one machine from its start to its end: worlds are played side by
//! side, and the same plan gives the same history with the same bug.
//!
//! **Invariant:** no product binary depends on this crate.

mod conversation;
mod disk;
mod index;
mod locus;
mod mapping;
mod media;
mod mercury;
mod privacy;
mod survival;
mod tokens;

use std::sync::{Mutex, MutexGuard, PoisonError};

use fusion_sim::plant::Plant;

/// Every bug, in order of areas.
pub const BUGS: &[Plant] = &[
    mapping::ARRIVAL_IN_STEPS,
    mapping::CLAIMS_CHECKED_LATE,
    mapping::CREATION_GIVEN_UP,
    mapping::EVENTS_LEFT_BEHIND,
    mapping::INCARNATION_OF_ADDRESS,
    mapping::MAP_CACHED,
    mapping::NEWER_MAP_NOT_KEPT,
    mapping::OUTAGE_REMEMBERED,
    mapping::SLOTS_LEFT_BEHIND,
    mapping::UNKNOWN_TAKES_LONGER,
    conversation::ACKNOWLEDGED_WHILE_SEALING,
    conversation::CREATION_KEY_FORGOTTEN,
    conversation::HIDING_EMPTIES,
    conversation::KEYS_KEPT_TOO_BRIEFLY,
    conversation::LOOKUP_CACHED,
    conversation::MEMBERS_CACHED,
    conversation::MERGE_CUT,
    conversation::READ_MISSES_OWN_WRITE,
    conversation::REDIRECT_FORGETS,
    conversation::REPEATED_AFTER_RESTART,
    conversation::RULE_DIFFERS,
    conversation::SORTED_BY_TIME,
    index::CREATIONS_ONE_AT_A_TIME,
    index::LAST_OF_GROUP_NEVER_TOLD,
    index::LOSER_NOT_MARKED,
    index::NOTIFIED_BEFORE_INDEXED,
    index::ONE_REFUSED_BLOCKS_ALL,
    index::OUTBOX_FORGETS_WHAT_IS_SENT,
    index::PAGE_FROM_THE_PAST,
    index::PREVIEW_ONE_BEHIND,
    index::REPAIR_SKIPS_MISSING,
    index::UNREACHABLE_FOR_EVER,
    locus::ACTIVE_CALL_HIDDEN_EARLY,
    locus::JOIN_FROM_CACHE,
    locus::LAST_WORD_WINS,
    locus::LEASE_RENEWED_BY_ANYBODY,
    locus::LEFT_AND_STILL_IN,
    locus::LISTED_AS_RINGING,
    locus::LIVE_CALLS_FORGOTTEN,
    locus::REV_AS_TEXT,
    mercury::COALESCED,
    mercury::FAN_OUT_IN_STEPS,
    mercury::QUEUE_CLEARED_ON_CONNECT,
    mercury::QUEUES_IN_MEMORY,
    mercury::SWAPPED_IN_ONE_BATCH,
    mercury::TAIL_NOT_CHECKED,
    mercury::TAKEN_BY_ONE,
    media::EVERY_FIFTIETH_LATE,
    media::FORWARDED_AND_NOT_SENT,
    media::INSTANCE_CLOSED_LATE,
    media::LEG_STAYS,
    media::LIFE_IS_THE_NAME,
    tokens::ACCEPTS_WHOM_IT_CANNOT_RESOLVE,
    tokens::NO_LEEWAY,
    tokens::PEER_KEYS_FORGOTTEN,
    tokens::RIGHTS_BY_ADDRESS,
    tokens::SIGNING_KEY_ANEW,
    privacy::ASKS_BY_ORDER_OF_NAMES,
    privacy::SLOW_REQUESTS_LOGGED,
    privacy::UNRESOLVED_REPORTED,
    survival::CIRCUIT_NEVER_CLOSES,
    survival::WAITS_FOR_THE_PROVIDER,
];

fn lock<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under a lock can panic half-way through a change.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
