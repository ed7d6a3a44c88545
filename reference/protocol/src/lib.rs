//! What goes over the wire: names, addresses, URLs, messages, problems.
//!
//! Everything here parses and prints; nothing here decides. JSON is camelCase, unknown members are
//! ignored, counters are strings, errors are RFC 9457 problems with a stable code.
//!
//! **Invariant:** this crate knows no other crate of the house.

pub mod address;
pub mod auth;
pub mod conversation;
pub mod index;
pub mod json;
pub mod locus;
pub mod map;
pub mod media;
pub mod mercury;
pub mod moving;
pub mod names;
pub mod privacy;
pub mod problem;
pub mod provisioning;

pub use address::{Address, Domain, Incarnation, UserRef};
pub use json::Count;
pub use names::{ClusterName, Service, UrlTemplate};
pub use privacy::Pii;
pub use problem::{Code, Problem};
pub use url::Url;
pub use uuid::Uuid;

/// Limits on what anybody may send (SEC-007).
pub mod limits {
    /// Octets of a request's body.
    pub const BODY_MAX: usize = 1 << 20;
    /// Octets of all request headers together.
    pub const HEADER_MAX: usize = 16 << 10;
    /// Octets of an address.
    pub const ADDRESS_MAX: usize = 254;
    /// Participants of one conversation.
    pub const PARTICIPANTS_MAX: usize = 1_000;
    /// Devices registered by one user.
    pub const DEVICES_MAX: usize = 100;
    /// Octets of one WebSocket frame.
    pub const FRAME_MAX: usize = 64 << 10;
    /// Octets of one message's text.
    pub const TEXT_MAX: usize = 16 << 10;
    /// Octets of a conversation's title.
    pub const TITLE_MAX: usize = 1 << 10;
    /// Octets of an `Idempotency-Key`.
    pub const IDEMPOTENCY_KEY_MAX: usize = 128;
    /// Activities kept as a preview in an index (RDV-004).
    pub const PREVIEW_MAX: usize = 20;
    /// Rows of one page of a list.
    pub const PAGE_MAX: usize = 200;
    /// Rows of one batch from another cluster (SEC-004).
    pub const BATCH_MAX: usize = 256;
}

/// Header names of ours.
pub mod headers {
    /// Makes a repeated POST the same POST.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// Names the cluster that answered, for humans and traces.
    pub const CLUSTER: &str = "sf-cluster";
}
