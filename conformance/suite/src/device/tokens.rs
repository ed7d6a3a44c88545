//! Getting in: discovery, log-in at the own cluster, and exchange for every other one (SEC-002, SEC-003).

use std::collections::BTreeMap;
use std::time::Duration;

use fusion_history::event::Answer;
use fusion_history::{Call, EventId};
use fusion_protocol::auth::{GRANT_ASSERTION, GRANT_EXCHANGE, TOKEN_TYPE_ACCESS, TokenAnswer, issuer};
use fusion_protocol::map::DomainRecord;
use fusion_protocol::{ClusterName, Code, Service};
use http::Method;

use super::scribe::Tried;
use super::wire::{Ask, Wire};
use super::{Device, Failure, lock};

/// A token is got anew this long before it ends.
const MARGIN: Duration = Duration::from_secs(30);
/// MAP-005: log-in follows at most this many hints.
const HINTS_MAX: usize = 3;

/// The tokens that a device holds.
#[derive(Default)]
pub(crate) struct Wallet {
    pub(crate) home: Option<ClusterName>,
    tokens: BTreeMap<ClusterName, Held>,
}

struct Held {
    text: String,
    /// On the host's monotonic clock.
    good_until: Duration,
}

impl Device {
    /// Finds the own cluster, giving the provider the domain only (MAP-012), and logs in there.
    ///
    /// # Errors
    /// The refusal of the cluster that should have known the user, or that nobody could be reached.
    pub async fn log_in(&self) -> Result<ClusterName, Failure> {
        let _gate = self.inner.gate.lock().await;
        self.log_in_gated(None).await
    }

    /// The cluster that the device is logged in at.
    #[must_use]
    pub fn home(&self) -> Option<ClusterName> {
        lock(&self.inner.wallet).home.clone()
    }

    /// A token good for `cluster`, got by log-in or exchange when none is at hand.
    ///
    /// # Errors
    /// As [`Device::log_in`].
    pub async fn token_for(&self, cluster: &ClusterName) -> Result<String, Failure> {
        self.token_caused(None, cluster).await
    }

    /// Exchanges the own token for one of `cluster`, anew (SEC-003).
    ///
    /// # Errors
    /// The refusal of the own cluster.
    pub async fn exchange(&self, cluster: &ClusterName) -> Result<TokenAnswer, Failure> {
        let home = self.home_or_log_in(None).await?;
        let subject = self.token_for(&home).await?;
        self.exchange_at(None, &home, cluster, &subject).await
    }

    pub(crate) fn forget_token(&self, cluster: &ClusterName) {
        lock(&self.inner.wallet).tokens.remove(cluster);
    }

    pub(crate) async fn home_or_log_in(&self, cause: Option<EventId>) -> Result<ClusterName, Failure> {
        if let Some(home) = self.home() {
            return Ok(home);
        }
        let _gate = self.inner.gate.lock().await;
        match self.home() {
            Some(home) => Ok(home),
            None => self.log_in_gated(cause).await,
        }
    }

    pub(crate) async fn token_caused(
        &self,
        cause: Option<EventId>,
        cluster: &ClusterName,
    ) -> Result<String, Failure> {
        if let Some(token) = self.held(cluster) {
            return Ok(token);
        }
        // One at a time: what a sibling has fetched meanwhile is good for all.
        let _gate = self.inner.gate.lock().await;
        if let Some(token) = self.held(cluster) {
            return Ok(token);
        }
        let home = match self.home() {
            Some(home) => home,
            None => self.log_in_gated(cause).await?,
        };
        match self.fetch(cause, &home, cluster).await {
            // The own cluster serves the user no more, and says who does (MAP-007).
            Err(failure) if failure.code() == Some(Code::WrongCluster) => {
                let home = self.move_home_gated(cause, &hints_of(&failure)).await?;
                self.fetch(cause, &home, cluster).await
            }
            fetched => fetched,
        }
    }

    /// MAP-007: the own cluster has said where the user is served now: logs in there.
    ///
    /// # Errors
    /// As [`Device::log_in`].
    pub(crate) async fn move_home(
        &self,
        cause: Option<EventId>,
        hints: &[ClusterName],
    ) -> Result<ClusterName, Failure> {
        let _gate = self.inner.gate.lock().await;
        match self.home().filter(|home| hints.contains(home)) {
            // A sibling was here before.
            Some(home) => Ok(home),
            None => self.move_home_gated(cause, hints).await,
        }
    }

    async fn move_home_gated(
        &self,
        cause: Option<EventId>,
        hints: &[ClusterName],
    ) -> Result<ClusterName, Failure> {
        *lock(&self.inner.wallet) = Wallet::default();
        match hints.first() {
            Some(hint) => self.follow(cause, hint).await,
            None => self.log_in_gated(cause).await,
        }
    }

    async fn fetch(
        &self,
        cause: Option<EventId>,
        home: &ClusterName,
        cluster: &ClusterName,
    ) -> Result<String, Failure> {
        if self.held(home).is_none() {
            self.log_in_at(cause, home).await?;
        }
        if let Some(token) = self.held(cluster) {
            return Ok(token);
        }
        let subject = self.held(home).unwrap_or_default();
        match self.exchange_at(cause, home, cluster, &subject).await {
            // The own token holds no more: once more with a new one.
            Err(failure) if matches!(failure.code(), Some(Code::InvalidGrant | Code::TokenExpired)) => {
                let fresh = self.log_in_at(cause, home).await?.access_token;
                Ok(self.exchange_at(cause, home, cluster, &fresh).await?.access_token)
            }
            exchanged => Ok(exchanged?.access_token),
        }
    }

    async fn log_in_gated(&self, cause: Option<EventId>) -> Result<ClusterName, Failure> {
        let mut first = None;
        for start in self.discover().await? {
            let failure = match self.follow(cause, &start).await {
                Ok(home) => return Ok(home),
                Err(failure) => failure,
            };
            // Only "not here" lets the next cluster be asked: a user must not be shown to the consumer
            // org because the own cluster is down (PRI-001).
            let elsewhere =
                matches!(failure.code(), Some(Code::UserUnknown | Code::WrongCluster | Code::InvalidGrant));
            let first_failure = first.get_or_insert(failure);
            if !elsewhere {
                return Err(first_failure.clone());
            }
        }
        Err(first.unwrap_or_else(|| Failure::Unreachable("the target names no cluster to log in at".into())))
    }

    /// Logs in at `start`, or where hints lead from there (MAP-005).
    async fn follow(&self, cause: Option<EventId>, start: &ClusterName) -> Result<ClusterName, Failure> {
        let (mut cluster, mut asked) = (start.clone(), Vec::new());
        loop {
            let failure = match self.log_in_at(cause, &cluster).await {
                Ok(_) => return Ok(cluster),
                Err(failure) => failure,
            };
            asked.push(cluster);
            match hints_of(&failure).into_iter().find(|hint| !asked.contains(hint)) {
                Some(hint) if asked.len() <= HINTS_MAX => cluster = hint,
                _ => return Err(failure),
            }
        }
    }

    /// The clusters to log in at, in order (MAP, steps 1, 2 and 4). The provider being away does not
    /// keep anybody out: the device knows its own org's clusters (OPS-001).
    async fn discover(&self) -> Result<Vec<ClusterName>, Failure> {
        let (wire, domain) = (&self.inner.wire, self.inner.user.domain());
        let path = format!("/v1/domains/{}", domain.as_str());
        let ask = Ask::new(Method::GET, wire.target.template.provider_url("clustermap", &path));
        let answer = wire.send(&ask, self.inner.patience.timeout).await;
        let mut clusters = match answer.and_then(|reply| reply.json::<DomainRecord>()) {
            Ok(record) => record.clusters,
            Err(failure) if failure.code() == Some(Code::DomainUnclaimed) => Vec::new(),
            Err(_) => wire.target.clusters_of_domain(&domain),
        };
        for consumer in wire.target.consumer_clusters() {
            if !clusters.contains(&consumer.name) {
                clusters.push(consumer.name.clone());
            }
        }
        Ok(clusters)
    }

    async fn log_in_at(&self, cause: Option<EventId>, cluster: &ClusterName) -> Result<TokenAnswer, Failure> {
        let wire = &self.inner.wire;
        let call = Call::LogIn { cluster: cluster.clone() };
        let invoked = self.begin_caused(cause, call);
        let result = match wire.target.user_assertion(&wire.host, cluster, &self.inner.user) {
            Some(assertion) => {
                let form = [("grant_type", GRANT_ASSERTION), ("assertion", &assertion)];
                ask_token(wire, cluster, &form, &self.inner.patience).await
            }
            None => Err(Failure::Unreachable(format!("the target has no key of the org of {cluster}"))),
        };
        let answer = self.keep_token(invoked, cluster, result)?;
        lock(&self.inner.wallet).home = Some(cluster.clone());
        Ok(answer)
    }

    async fn exchange_at(
        &self,
        cause: Option<EventId>,
        home: &ClusterName,
        cluster: &ClusterName,
        subject: &str,
    ) -> Result<TokenAnswer, Failure> {
        let wire = &self.inner.wire;
        let invoked = self.begin_caused(cause, Call::Exchange { cluster: cluster.clone() });
        let resource = issuer(&wire.target.template, cluster);
        let result = ask_token(wire, home, &exchange_form(subject, &resource), &self.inner.patience).await;
        self.keep_token(invoked, cluster, result)
    }

    fn keep_token(
        &self,
        invoked: EventId,
        cluster: &ClusterName,
        result: Result<TokenAnswer, Failure>,
    ) -> Result<TokenAnswer, Failure> {
        let audience = issuer(&self.inner.wire.target.template, cluster);
        let answer = self.inner.scribe.end(invoked, Tried::once(result), |_| Answer::Token { audience })?;
        let now = self.inner.wire.host.clock.now();
        let good_until = now + Duration::from_secs(answer.expires_in).saturating_sub(MARGIN);
        let held = Held { text: answer.access_token.clone(), good_until };
        lock(&self.inner.wallet).tokens.insert(cluster.clone(), held);
        Ok(answer)
    }

    fn held(&self, cluster: &ClusterName) -> Option<String> {
        let now = self.inner.wire.host.clock.now();
        let wallet = lock(&self.inner.wallet);
        wallet.tokens.get(cluster).filter(|held| held.good_until > now).map(|held| held.text.clone())
    }
}

fn hints_of(failure: &Failure) -> Vec<ClusterName> {
    failure.refused().map(super::Refused::hint).unwrap_or_default()
}

/// The form of an exchange of `subject` for a token good for `resource` (RFC 8693).
pub(crate) fn exchange_form<'a>(subject: &'a str, resource: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("grant_type", GRANT_EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", TOKEN_TYPE_ACCESS),
        ("resource", resource),
    ]
}

/// Asks the authorisation server of `cluster` for a token. Asking again is harmless, so silence is.
pub(crate) async fn ask_token(
    wire: &Wire,
    cluster: &ClusterName,
    form: &[(&str, &str)],
    patience: &super::Patience,
) -> Result<TokenAnswer, Failure> {
    let ask =
        Ask::new(Method::POST, wire.target.template.url(cluster, Service::Auth, "/v1/token")).form(form);
    let mut tries = 1;
    loop {
        let answer = wire.send(&ask, patience.timeout).await;
        let pause = match &answer {
            Err(_) => patience.backoff * (1 << tries.min(8)),
            Ok(reply) if matches!(reply.status, 429 | 503) => {
                Duration::from_secs(reply.refusal().retry_after.unwrap_or(1)).min(patience.wait_max)
            }
            Ok(reply) => return reply.json(),
        };
        if tries >= patience.tries_max {
            return answer?.json();
        }
        tries += 1;
        wire.host.clock.sleep(pause).await;
    }
}
