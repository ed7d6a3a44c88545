//! Loci: one call object per conversation, one call at a time (LOC).

mod calling;
mod glare;
mod one_active;
mod one_url;

use fusion_protocol::locus::Locus;

use crate::event::Answer;
use crate::facts::Asked;

pub(super) use calling::CallingIsJoining;
pub(super) use glare::GlareIsOneCall;
pub(super) use one_active::OneActiveCall;
pub(super) use one_url::OneLocusUrl;

/// The locus that a call was answered with, read or joined.
fn locus_of<'h>(asked: &Asked<'h>) -> Option<&'h Locus> {
    match asked.answer()? {
        Answer::Locus { locus } | Answer::Joined { locus, .. } => Some(locus),
        _ => None,
    }
}
