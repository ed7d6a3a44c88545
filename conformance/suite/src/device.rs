//! One device of one user: a client that resolves, logs in and speaks by itself.
//!
//! It is written from the wire alone and shares no code with any service, so that it can find a service
//! wrong. Everything it does is in its history: each call as Invoke and Return, each delivery, each
//! change of its socket, its media.
//!
//! Not here: whether an answer is right. A [`Device`] says what it got; checks and judges decide.

mod call;
mod conversation;
mod failure;
mod locus;
mod media;
mod mercury;
pub(crate) mod scribe;
pub(crate) mod tokens;
mod trespass;
pub(crate) mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fusion_history::event::Answer;
use fusion_history::{Call, EventId, Recorder};
use fusion_protocol::map::{DomainRecord, Resolution};
use fusion_protocol::{Address, ClusterName, Domain, Service, Url};
use fusion_runtime::{Entropy, Host};
use http::Method;

pub use call::Patience;
pub use failure::{Failure, Refused};
pub use locus::{KeepAlive, expect};
pub use media::{MediaLeg, bind_with};
pub use mercury::{Acks, Heard, Received, Session};
pub(crate) use tokens::exchange_form;
pub use wire::{Ask, Reply};

use crate::Target;
use crate::transcript::Transcript;

/// A device. Clones are the same device; [`Device::named`] makes one that calls its next operation by a
/// name.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
    operation: Option<Arc<str>>,
    key: Option<Arc<str>>,
    cause: Option<EventId>,
}

/// What came of a creation: made just now (201), or there already (200).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made<T> {
    /// 201.
    New(T),
    /// 200.
    Known(T),
}

struct Inner {
    user: Address,
    wire: wire::Wire,
    scribe: scribe::Scribe,
    entropy: Entropy,
    patience: Patience,
    wallet: Mutex<tokens::Wallet>,
    /// Held while a token is fetched.
    gate: tokio::sync::Mutex<()>,
    mercury: mercury::Mercury,
    loci: Mutex<locus::Seats>,
}

impl Device {
    /// A device of `user`, not logged in. `name` is its host in the history, for example `alice/phone`.
    #[must_use]
    pub fn new(host: Host, target: Arc<Target>, user: Address, name: &str, recorder: Recorder) -> Self {
        let name: Arc<str> = name.into();
        let entropy = host.entropy.stream(&format!("device {name}"));
        let host = Host { entropy: entropy.clone(), ..host };
        let scribe = scribe::Scribe::new(recorder, host.clock.clone(), name.clone(), user.clone());
        Self {
            inner: Arc::new(Inner {
                user,
                wire: wire::Wire::new(host, target, name),
                scribe,
                entropy,
                patience: Patience::default(),
                wallet: Mutex::default(),
                gate: tokio::sync::Mutex::default(),
                mercury: mercury::Mercury::default(),
                loci: Mutex::default(),
            }),
            operation: None,
            key: None,
            cause: None,
        }
    }

    /// The device before its first use, with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        self.rebuilt(|inner| inner.patience = patience)
    }

    /// The device before its first use, writing down what it says and hears.
    #[must_use]
    pub fn with_transcript(self, transcript: Transcript) -> Self {
        self.rebuilt(|inner| inner.wire.transcript = Some(transcript))
    }

    /// The same device, which calls its next operation `operation` in the history.
    #[must_use]
    pub fn named(&self, operation: &str) -> Self {
        Self { operation: Some(operation.into()), ..self.clone() }
    }

    /// The same device, which uses `key` as its next `Idempotency-Key`.
    #[must_use]
    pub fn keyed(&self, key: &str) -> Self {
        Self { key: Some(key.into()), ..self.clone() }
    }

    /// The same device, whose next operation was caused by `event`.
    #[must_use]
    pub fn caused(&self, event: EventId) -> Self {
        Self { cause: Some(event), ..self.clone() }
    }

    /// Whose device.
    #[must_use]
    pub fn user(&self) -> &Address {
        &self.inner.user
    }

    /// Its name in the history.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.wire.name
    }

    /// The machine it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.inner.wire.host
    }

    /// The deployment it speaks to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.inner.wire.target
    }

    /// Where `user` is, as the resolver of the own cluster says (MAP-001).
    ///
    /// # Errors
    /// `user-unknown`, `resolution-incomplete` and so on.
    pub async fn resolve(&self, user: &Address) -> Result<Resolution, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        self.resolve_via(&home, user).await
    }

    /// Where `user` is, as the resolver of `via` says.
    ///
    /// # Errors
    /// As [`Device::resolve`]; foreign clusters may refuse.
    pub async fn resolve_via(&self, via: &ClusterName, user: &Address) -> Result<Resolution, Failure> {
        let invoked = self.begin(Call::Resolve { user: user.clone(), via: via.clone() });
        let url = self.service(via, Service::Users, &format!("/v1/resolve/{}", user.path_segment()));
        let tried = self.call(invoked, Ask::new(Method::GET, url)).await.json::<Resolution>();
        self.inner.scribe.end(invoked, tried, |resolution| Answer::Resolved(resolution.clone()))
    }

    /// Whose `domain` is, as the provider's map says (MAP-003). The map is told nothing but the domain.
    ///
    /// # Errors
    /// `domain-unclaimed`, or no answer.
    pub async fn read_domain(&self, domain: &Domain) -> Result<DomainRecord, Failure> {
        let invoked = self.begin(Call::ReadDomain { domain: domain.clone() });
        let template = &self.target().template;
        let url = template.provider_url("clustermap", &format!("/v1/domains/{}", domain.as_str()));
        let answer = self.send(&Ask::new(Method::GET, url)).await;
        let tried = scribe::Tried::once(answer.and_then(|reply| reply.json::<DomainRecord>()));
        self.inner.scribe.end(invoked, tried, |record| Answer::Domain(record.clone()))
    }

    /// Sends one request word for word, without token, retry or redirect of its own, and unrecorded.
    ///
    /// # Errors
    /// No answer, or a URL outside the federation (NAM-005).
    pub async fn send(&self, ask: &Ask) -> Result<Reply, Failure> {
        self.inner.wire.send(ask, self.inner.patience.timeout).await
    }

    fn begin(&self, call: Call) -> EventId {
        self.inner.scribe.begin(self.operation.as_deref(), self.cause, call)
    }

    /// The beginning of a step that another call needed: it has no name of its own.
    fn begin_caused(&self, cause: Option<EventId>, call: Call) -> EventId {
        match cause {
            Some(cause) => self.inner.scribe.begin(None, Some(cause), call),
            None => self.begin(call),
        }
    }

    fn service(&self, cluster: &ClusterName, service: Service, path: &str) -> Url {
        self.target().template.url(cluster, service, path)
    }

    /// The path of the own user below a service.
    fn own_path(&self, rest: &str) -> String {
        format!("/v1/users/{}/{rest}", self.inner.user.path_segment())
    }

    fn next_key(&self) -> String {
        self.key.as_deref().map_or_else(|| self.inner.entropy.uuid().to_string(), str::to_owned)
    }

    fn rebuilt(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = self.inner;
        if let Some(inner) = Arc::get_mut(&mut inner) {
            change(inner);
        }
        Self { inner, ..self }
    }
}

impl<T> Made<T> {
    /// What was made or found.
    pub fn it(&self) -> &T {
        match self {
            Self::New(it) | Self::Known(it) => it,
        }
    }

    /// What was made or found.
    pub fn into_it(self) -> T {
        match self {
            Self::New(it) | Self::Known(it) => it,
        }
    }

    /// Whether it was made just now.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }
}

/// What a panicking task leaves behind is sound: every change is one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
