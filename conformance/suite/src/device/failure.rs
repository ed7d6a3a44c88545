//! Why a call brought no answer.

use fusion_history::Outcome;
use fusion_protocol::{ClusterName, Code, Problem};

/// Why a call brought no answer, by what its caller can conclude.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It was refused.
    #[error(transparent)]
    Refused(Refused),
    /// Nothing was sent: name, connection, TLS or log-in failed, or the URL may not be trusted (NAM-005).
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It was sent and no answer came: it may or may not have been done.
    #[error("no answer: {0}")]
    Unknown(String),
    /// A success was answered that cannot be read.
    #[error("status {status}, but the answer cannot be read: {reason}")]
    Garbled {
        /// The HTTP status.
        status: u16,
        /// What is wrong with the body.
        reason: String,
    },
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("refused with {status} {}", self.code.map_or("(no problem body)", Code::as_str))]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The stable code; `None` when the body was no problem.
    pub code: Option<Code>,
    /// Seconds to wait, when the answer said so.
    pub retry_after: Option<u64>,
    /// The whole problem, when the body was one.
    pub problem: Option<Box<Problem>>,
}

impl Failure {
    /// The refusal, when it is one.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// The stable code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.refused()?.code
    }

    /// How a history puts it. After `doubt` (an earlier try of the same call ended unknown) nothing but
    /// unknown can be said.
    pub(crate) fn outcome(&self, doubt: Doubt) -> Outcome {
        match (self, doubt) {
            (Self::Refused(Refused { status, code, .. }), Doubt::None) => {
                Outcome::Refused { status: *status, code: *code }
            }
            (Self::Unreachable(_), Doubt::None) => Outcome::Unreachable {},
            _ => Outcome::Unknown {},
        }
    }
}

impl Refused {
    /// MAP-005: the clusters to ask instead.
    #[must_use]
    pub fn hint(&self) -> Vec<ClusterName> {
        self.problem.as_ref().and_then(|problem| problem.member("clusters")).unwrap_or_default()
    }
}

/// Whether an earlier try of a write may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    None,
    Some,
}
