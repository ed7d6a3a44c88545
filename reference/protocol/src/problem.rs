//! Errors on the wire: RFC 9457 problems with a stable code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error as it goes over the wire. It never quotes an address, a path or content (PRI-005).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:stack-fusion:problem:{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code that programs decide on.
    pub code: Code,
    /// What happened here, and what to do, without private content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Further members, such as `winner` or `clusters`.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl Problem {
    /// The problem that `code` names.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("urn:stack-fusion:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: None,
            members: Map::new(),
        }
    }

    /// Adds what happened here.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.members.insert(member.to_owned(), value);
        }
        self
    }

    /// Reads a member.
    #[must_use]
    pub fn member<T: serde::de::DeserializeOwned>(&self, member: &str) -> Option<T> {
        serde_json::from_value(self.members.get(member)?.clone()).ok()
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $status:literal $code:literal $title:literal;)*) => {
        /// The stable codes. A code is never renamed and never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
            /// A code of a later version.
            #[serde(other, rename = "unknown-code")]
            Unknown,
        }

        impl Code {
            /// Every code of this version.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* Self::Unknown => "unknown-code" }
            }

            /// The HTTP status it goes with.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* Self::Unknown => 500 }
            }

            /// The code in words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* Self::Unknown => "Unknown problem" }
            }
        }
    };
}

codes! {
    /// The body, a parameter or a header is malformed.
    BadRequest 400 "bad-request" "The request is malformed";
    /// No token, or one that does not hold.
    Unauthorized 401 "unauthorized" "A valid token is needed";
    /// The token is for another cluster (SEC-003).
    WrongAudience 401 "wrong-audience" "The token is for another cluster";
    /// The token's issuer does not speak for its subject (SEC-009).
    WrongIssuer 401 "wrong-issuer" "The issuer does not speak for this subject";
    /// The token has expired, or is not valid yet.
    TokenExpired 401 "token-expired" "The token is not valid now";
    /// OAuth: the assertion or the subject token does not hold (RFC 6749, 5.2).
    InvalidGrant 400 "invalid-grant" "The grant is invalid";
    /// OAuth: this grant type is not served (RFC 6749, 5.2).
    UnsupportedGrant 400 "unsupported-grant-type" "The grant type is not supported";
    /// The token does not allow this (SEC-010).
    Forbidden 403 "forbidden" "The token does not allow this";
    /// Only participants may (SEC-006).
    NotParticipant 403 "not-participant" "Only participants may do this";
    /// A cluster may write only of its own objects (SEC-005).
    NotYourObject 403 "not-your-object" "A cluster may announce only its own objects";
    /// There is nothing at this URL.
    NotFound 404 "not-found" "There is nothing here";
    /// No org has claimed this domain.
    DomainUnclaimed 404 "domain-unclaimed" "No organisation has claimed this domain";
    /// The map knows no such user.
    UserUnknown 404 "user-unknown" "There is no such user";
    /// The method is not served here.
    MethodNotAllowed 405 "method-not-allowed" "The method is not allowed here";
    /// It exists already.
    AlreadyExists 409 "already-exists" "It exists already";
    /// A 1:1 conversation has fixed members (CNV-002).
    FixedMembership 409 "fixed-membership" "A one-to-one conversation has fixed members";
    /// Another conversation holds the pair; member `winner` (CNV-003).
    PairTaken 409 "pair-taken" "Another conversation holds this pair";
    /// The clusters do not agree on the rule of the race (CNV-003).
    RuleMismatch 409 "rule-mismatch" "The clusters do not agree on the rule";
    /// The call that was to be joined is over (LOC-003).
    CallOver 409 "call-over" "The call is over";
    /// The object is not in a state that allows this.
    Conflict 409 "conflict" "The object is not in a state that allows this";
    /// The domain is claimed by another org (MAP-002).
    DomainClaimed 409 "domain-claimed" "Another organisation has claimed this domain";
    /// A new person is at this address (NAM-004).
    IncarnationGone 410 "incarnation-gone" "The person at this address is another one now";
    /// The user was here and is no longer.
    Gone 410 "gone" "It is gone";
    /// The body is too large (SEC-007).
    TooLarge 413 "too-large" "The body is too large";
    /// The user is served elsewhere; member `clusters` (MAP-005).
    WrongCluster 421 "wrong-cluster" "The user is served by another cluster";
    /// A value is out of its range (SEC-007).
    Unprocessable 422 "unprocessable" "A value is out of range";
    /// Both addresses of a 1:1 are equal (CNV-002).
    SamePerson 422 "same-person" "A one-to-one conversation needs two people";
    /// A URL handed over by somebody does not fit the template (NAM-005).
    UntrustedUrl 422 "untrusted-url" "The URL is not one of this federation";
    /// Too many requests; see Retry-After.
    TooMany 429 "too-many" "Too many requests";
    /// The headers are too large (SEC-007).
    HeadersTooLarge 431 "headers-too-large" "The headers are too large";
    /// A bug or a broken disk.
    Internal 500 "internal" "Something is wrong here";
    /// A step of the resolution cannot be executed now (MAP).
    ResolutionIncomplete 503 "resolution-incomplete" "The address cannot be resolved now";
    /// The conversation is being merged; see Retry-After (CNV-003).
    Sealing 503 "sealing" "The conversation is being merged";
    /// The user is being moved; see Retry-After (MAP-007).
    Fenced 503 "fenced" "The user is being moved";
    /// The service cannot do it now; see Retry-After.
    Unavailable 503 "unavailable" "The service is unavailable";
    /// Another cluster could not be reached.
    PeerUnreachable 503 "peer-unreachable" "Another cluster cannot be reached";
}
