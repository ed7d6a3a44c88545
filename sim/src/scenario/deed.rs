//! What a cluster that has turned hostile does, with its own key and with what others have shown it.

use serde::{Deserialize, Serialize};

/// What must be refused. The user who does it lives on the hostile cluster; `at_cluster` is where it is
/// tried, `who` is the victim, `chat` a conversation that is none of the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Shows a guest's token, as it was given, to another cluster (SEC-003).
    ReplayGuest,
    /// Uses signed calls for what they were not signed for (SEC-004).
    ReplayCall,
    /// Writes and notifies about an object that is not its own (SEC-005).
    ForeignObject,
    /// Reads and writes an object to which it has nothing but the pointer (SEC-006).
    Intrude,
    /// Mints a token for somebody whom it does not serve (SEC-009).
    MintToken,
}

impl Deed {
    /// The keys that a step with this deed needs.
    pub(crate) fn needs(self) -> &'static [&'static str] {
        match self {
            Self::ReplayGuest => &["at_cluster", "who"],
            Self::ReplayCall => &["at_cluster"],
            Self::ForeignObject => &["at_cluster", "who", "chat"],
            Self::Intrude => &["chat"],
            Self::MintToken => &["who", "chat"],
        }
    }
}
