//! The events of a history by what they are about, so that no judge looks through all of them for its own.

use crate::event::{Body, Call, Event};

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the call of this name")]
pub enum Verb {
    Post,
    Read,
    ReadConversation,
    Create,
    LookUp,
    ReadIndex,
    Join,
    SetState,
    Renew,
    ReadLocus,
    ListLoci,
    Resolve,
    Provision,
    Deprovision,
    Move,
    Claim,
    ReadDomain,
    LogIn,
    Connect,
    Disconnect,
    Talk,
    Trespass,
    /// What no judge looks for by itself.
    Other,
}

/// What was observed that is no call and no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// A device was told something, or its socket changed.
    Device,
    /// A service committed a state.
    State,
    /// A fault began or ended.
    Fault,
    /// A place was searched.
    Sink,
    /// What a device sent and received, or a relay's account of a leg.
    Media,
    /// A phase began.
    Phase,
}

/// How many verbs and sights there are.
pub(super) const VERBS: usize = Verb::Other as usize + 1;
pub(super) const SIGHTS: usize = Sight::Phase as usize + 1;

impl Verb {
    pub(super) fn of(call: &Call) -> Self {
        match call {
            Call::Post { .. } => Self::Post,
            Call::Read { .. } => Self::Read,
            Call::ReadConversation { .. } => Self::ReadConversation,
            Call::Create { .. } => Self::Create,
            Call::LookUp { .. } => Self::LookUp,
            Call::ReadIndex { .. } => Self::ReadIndex,
            Call::Join { .. } => Self::Join,
            Call::SetState { .. } => Self::SetState,
            Call::Renew { .. } => Self::Renew,
            Call::ReadLocus { .. } => Self::ReadLocus,
            Call::ListLoci {} => Self::ListLoci,
            Call::Resolve { .. } => Self::Resolve,
            Call::Provision { .. } => Self::Provision,
            Call::Deprovision { .. } => Self::Deprovision,
            Call::Move { .. } => Self::Move,
            Call::Claim { .. } => Self::Claim,
            Call::ReadDomain { .. } => Self::ReadDomain,
            Call::LogIn { .. } => Self::LogIn,
            Call::Connect { .. } => Self::Connect,
            Call::Disconnect { .. } => Self::Disconnect,
            Call::Talk { .. } => Self::Talk,
            Call::Trespass { .. } => Self::Trespass,
            Call::Exchange { .. } | Call::ReadLocusSince { .. } => Self::Other,
        }
    }
}

impl Sight {
    /// `None`: a call or a return, or what no judge reads.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match &event.body {
            Body::Deliver { .. } | Body::Socket { .. } => Some(Self::Device),
            Body::State { .. } => Some(Self::State),
            Body::Fault { .. } => Some(Self::Fault),
            Body::Sink(_) => Some(Self::Sink),
            Body::Media(_) | Body::Leg(_) => Some(Self::Media),
            Body::Phase { .. } => Some(Self::Phase),
            Body::World(_) | Body::Invoke { .. } | Body::Return { .. } => None,
            Body::Wire { .. } | Body::Log { .. } => None,
        }
    }
}
