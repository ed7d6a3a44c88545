//! Conversations: the rendezvous objects of chats (CNV, RDV).

use axum::Router;
use fusion_protocol::conversation::{ConversationState, Kind};
use fusion_protocol::{Address, Problem, Url, Uuid};

use crate::Cluster;

/// What the locus needs to know of its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) kind: Kind,
    pub(crate) state: ConversationState,
    /// Its members now.
    pub(crate) members: Vec<fusion_protocol::conversation::Participant>,
    /// Where it went, when it lost the race.
    pub(crate) superseded_by: Option<Url>,
}

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
}

/// Who is in a conversation of this cluster; `not-found` when there is none.
pub(crate) async fn membership(cluster: &Cluster, conversation: Uuid) -> Result<Membership, Problem> {
    let _ = (cluster, conversation);
    unimplemented!()
}

/// The URL of a conversation of this cluster.
pub(crate) fn url(cluster: &Cluster, conversation: Uuid) -> Url {
    cluster.url(fusion_protocol::Service::Conv, &format!("/v1/conversations/{conversation}"))
}

/// Whether `user` may read and write it (SEC-006).
pub(crate) fn is_member(membership: &Membership, user: &Address) -> bool {
    membership.members.iter().any(|member| member.user == *user)
}
