//! The judges, one file per area of SPEC.

mod conversation;
mod floor;
mod locus;
mod mapping;
mod media;
mod privacy;
mod rendezvous;
mod security;

use crate::judge::Judge;

/// Every judge, in the order of SPEC's areas.
#[must_use]
pub fn judges() -> Vec<Box<dyn Judge>> {
    vec![
        Box::new(mapping::SameResolutionEverywhere),
        Box::new(rendezvous::OneHome),
        Box::new(rendezvous::IndexBeforeNotification),
        Box::new(rendezvous::FoundBothWays),
        Box::new(conversation::GaplessOrder),
        Box::new(conversation::OnePerPair),
        Box::new(conversation::LowerRankWins),
        Box::new(conversation::Convergence),
        Box::new(locus::OneLocusUrl),
        Box::new(locus::CallingIsJoining),
        Box::new(locus::GlareIsOneCall),
        Box::new(locus::OneActiveCall),
        Box::new(media::MediaEndsWithTheCall),
        Box::new(security::TokenForOneCluster),
        Box::new(privacy::NoPrivateByteAtTheProvider),
    ]
}
