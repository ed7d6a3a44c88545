//! Faulty deployments: wrappers round the reference's services, never shipped with them.
//!
//! Each mutant is a deployment with one thing wrong. The catalogue of the suite names, for each, the check
//! that must fail and the code of the observation; any other failure counts as missed. With the mutant
//! switched off the same check is green.
//!
//! **Invariant:** no product binary depends on this crate.

mod conversation;
pub mod fault_table;
mod index;
mod locus;
mod mapping;
pub mod matrix;
mod media;
mod mercury;
mod moving;
mod naming;
mod privacy;
mod provisioning;
pub mod requirements;
mod rules;
mod security;
pub mod self_test;
mod survivability;
mod tokens;
pub mod twins;
pub mod wrap;

use fusion_deployment::Hooks;

/// A faulty deployment.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// Makes it.
    pub hooks: fn() -> Hooks,
}

/// Every mutant, in the order of the catalogue.
pub const MUTANTS: &[Mutant] = &[
    naming::BARE_IDS,
    naming::FOREIGN_URL,
    naming::SPELLING_MATTERS,
    tokens::LOOK_ALIKE,
    mapping::EVERYBODY_HERE,
    mapping::NOBODY_FOUND,
    mapping::UNKNOWN_IS_UNAVAILABLE,
    mapping::NO_FALL_THROUGH,
    mapping::NO_HINT,
    mapping::MAP_TELLS_UNKNOWN,
    mapping::MAP_OPEN,
    mapping::MAP_LISTS,
    mapping::KNOWN_TAKES_LONGER,
    mapping::LOGIN_TELLS,
    mapping::DOMAIN_WITHOUT_CLUSTERS,
    mapping::SISTERS_UNKNOWN,
    mapping::FOUND_ONCE,
    mapping::FIRST_CLUSTER_ONLY,
    mapping::BOTH_WIN,
    mapping::CLAIMED_BY_TURNS,
    mapping::PLACE_FOR_ALL,
    mapping::NEVER_FORGETS,
    mapping::MAP_NOT_KEPT,
    mapping::OLD_AS_NEW,
    moving::INDEX_LEFT_BEHIND,
    moving::INDEX_COUNTED_ANEW,
    moving::FENCE_FORGOTTEN,
    moving::OLD_MAP_REMEMBERS,
    provisioning::NOT_DELETED,
    provisioning::MADE_AGAIN,
    tokens::FOREIGN_ADMIN,
    tokens::USER_AS_ADMIN,
    tokens::FOREIGN_KEYS,
    tokens::FORGED_ASSERTION,
    tokens::SENT_AWAY,
    tokens::FOREIGN_TOKEN,
    tokens::OWN_USERS_ANYHOW,
    tokens::LONG_EXCHANGE,
    tokens::EXCHANGED_AGAIN,
    tokens::FOREIGN_POINTER,
    tokens::ANY_CALL,
    tokens::ANY_HOME,
    tokens::ANY_ISSUER,
    security::CACHE_FOR_ALL,
    security::URL_IS_ENOUGH,
    security::LEFT_AND_IN,
    security::CUT_TO_LENGTH,
    security::INDEX_FOR_ALL,
    security::CALLS_WITHOUT_TOKEN,
    mercury::ONE_DEVICE_ONLY,
    mercury::LAST_LEFT_OUT,
    mercury::EVENT_DROPPED,
    mercury::NUMBER_SKIPPED,
    mercury::IDS_CHANGE,
    mercury::ORDER_CHANGES,
    mercury::NUMBERED_LATE,
    mercury::IN_STEP,
    mercury::SENT_IS_TAKEN,
    mercury::NOT_FENCED,
    mercury::OLDER_STAYS_OPEN,
    mercury::EPOCHS_FORGOTTEN,
    index::SECOND_HOME,
    index::ALL_AT_HOME,
    index::INDEX_BEHIND,
    index::PLACE_NOT_KEPT,
    index::LEFT_FOR_LATER,
    index::NOT_WRITTEN,
    index::NOBODY_TOLD,
    index::PREVIEW_BACKWARDS,
    index::PREVIEW_CUT,
    index::OUTBOX_FORGOTTEN,
    index::ALWAYS_THERE,
    index::NEVER_DIGESTED,
    conversation::REORDERED,
    conversation::DOUBLED,
    conversation::ACTIVITY_NOT_KEPT,
    conversation::NUMBER_OF_THE_LAST,
    conversation::SECOND_ONE_TO_ONE,
    conversation::THIRD_TAKEN_IN,
    conversation::GRANTED_UNSEEN,
    moving::FROM_NOW_ON,
    conversation::BY_LOT,
    conversation::LOSER_DROPPED,
    conversation::IMPORTS_REFUSED,
    rules::LOWER_TIMESTAMP,
    rules::LOWER_ID,
    rules::EMPTIED,
    conversation::NO_HISTORY,
    conversation::LOCALS_ADD,
    locus::URL_CHANGES,
    locus::OTHER_URL_KEPT,
    locus::NEVER_RINGS,
    locus::NOT_TAKEN_IN,
    locus::TWO_CALLS,
    locus::GLARE_REFUSED,
    locus::COUNTED_AHEAD,
    locus::LATE_JOIN_RINGS,
    locus::RINGS_AFTER_JOINING,
    locus::CALLS_COUNTED_ANEW,
    locus::READ_FROM_A_COPY,
    locus::ASKS_FIRST,
    locus::DECLINE_IGNORED,
    locus::OTHERS_RING_ON,
    locus::RINGS_ON,
    locus::GHOST_CALLS,
    locus::LEASE_FOR_EVER,
    locus::LEASE_NOT_KEPT,
    locus::THROWN_OUT,
    locus::END_NOT_POSTED,
    locus::REV_RESTARTS,
    locus::REV_OF_THE_CALL,
    locus::GROUP_OF_TWO,
    media::NOTHING_FORWARDED,
    media::ECHO,
    media::HALF_A_TOKEN,
    media::LEGS_STAY_OPEN,
    media::LEG_OUTLIVES,
    media::LENT_FOR_OWN,
    media::FARTHEST_RELAY,
    media::DEAD_RELAY_KEPT,
    media::PACKETS_FROM_NOWHERE,
    media::PACKETS_SWALLOWED,
    privacy::ADDRESS_IN_PROVIDER_LOG,
    privacy::ADDRESS_IN_PROVIDER_STORE,
    privacy::ADDRESS_TOLD_TO_PROVIDER,
    privacy::ERRORS_QUOTE,
    privacy::PATHS_IN_LOG,
    survivability::ASKS_PROVIDER_FIRST,
    survivability::WAITS_FOR_EVERYBODY,
    survivability::ANSWERS_BEFORE_DURABLE,
    tokens::OWN_CLOCK_ONLY,
    tokens::KEY_NOT_KEPT,
    tokens::LET_IN_ONCE,
    tokens::PEER_KEYS_NOT_KEPT,
];
