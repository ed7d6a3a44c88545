//! Loci: one call object per conversation, one call at a time (LOC).

mod at_home;
mod calling;
mod ghosts;
mod glare;
mod group;
mod one_active;
mod one_url;
mod register;
mod revisions;
mod ringing;

use fusion_protocol::locus::Locus;

use crate::event::Answer;
use crate::facts::Asked;

pub(super) use at_home::DecidedAtHome;
pub(super) use calling::CallingIsJoining;
pub(super) use ghosts::Ghosts;
pub(super) use glare::GlareIsOneCall;
pub(super) use group::GroupCallsHold;
pub(super) use one_active::OneActiveCall;
pub(super) use one_url::OneLocusUrl;
pub(super) use register::CallsInOneOrder;
pub(super) use revisions::RevisionsOnlyRise;
pub(super) use ringing::RingingEnds;

/// The locus that a call was answered with, read or joined.
fn locus_of<'h>(asked: &Asked<'h>) -> Option<&'h Locus> {
    match asked.answer()? {
        Answer::Locus { locus } | Answer::Joined { locus, .. } => Some(locus),
        _ => None,
    }
}
