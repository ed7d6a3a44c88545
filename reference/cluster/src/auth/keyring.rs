//! The public keys of the federation's clusters, and what is proved with them alone: that a cluster
//! signed a call (SEC-004).
//!
//! Keys come from `{issuer}/v1/jwks`, whose host the template names (NAM-005). They are kept in memory
//! and in the store, so that clusters that know each other go on without anybody's help (OPS-001).
//! Used by clusters and by the provider's hosts. Not here: users (`verifier.rs`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fusion_protocol::auth::{self as wire, CLUSTER_TOKEN_SECONDS, ClusterClaims, Jwk, Jwks};
use fusion_protocol::{ClusterName, Code, Problem, Service, Url, UrlTemplate};
use fusion_runtime::store::{Batch, Key};
use fusion_runtime::{Host, http::Client};
use http::Request;
use jsonwebtoken::DecodingKey;
use sha2::{Digest as _, Sha256};

use super::replays::Replays;
use super::tokens::{self, Token};
use crate::locks::Locks;
use crate::rows;

/// How many keys of one cluster are looked at.
const KEYS_MAX: usize = 16;
/// How many names of clusters are remembered before those without keys are forgotten.
const CLUSTERS_MAX: usize = 4_096;
/// How long keys are used before they are asked for again; kept longer when nobody answers.
const FRESH: Duration = Duration::from_secs(3_600);
/// How often one cluster that answers is asked for its keys at most, whatever tokens arrive.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often one that does not answer is: it may be a cluster whose first call is faster than its server.
const ASK_AGAIN_SILENT: Duration = Duration::from_millis(250);
/// How long a cluster may take to answer with its keys.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Knows the keys of the clusters of one federation.
pub struct Keyring {
    host: Host,
    http: Client,
    template: UrlTemplate,
    known: Mutex<BTreeMap<ClusterName, Known>>,
    fetching: Locks,
    replays: Mutex<Replays>,
}

/// A call as its receiver sees it, to be compared with what its token is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The absolute URL.
    pub url: &'a str,
    /// The body.
    pub body: &'a [u8],
}

#[derive(Default)]
struct Known {
    keys: BTreeMap<String, DecodingKey>,
    fetched: Option<Duration>,
    asked: Option<Duration>,
    own: bool,
}

impl Keyring {
    /// An empty keyring.
    #[must_use]
    pub fn new(host: &Host, http: &Client, template: &UrlTemplate) -> Self {
        Self {
            host: host.clone(),
            http: http.clone(),
            template: template.clone(),
            known: Mutex::default(),
            fetching: Locks::default(),
            replays: Mutex::default(),
        }
    }

    /// The same keyring, knowing its owner's key: nobody is asked for it.
    #[must_use]
    pub fn with_own(self, cluster: &ClusterName, jwk: &Jwk) -> Self {
        let own = Known { keys: usable([jwk.clone()]), own: true, ..Known::default() };
        self.known().insert(cluster.clone(), own);
        self
    }

    /// SEC-004: the cluster that signed `call` for `audience`, once.
    ///
    /// # Errors
    /// `forbidden` for a user's token, `unauthorized` and `token-expired` for one that does not hold or
    /// comes again, `wrong-audience`, and `peer-unreachable` when the caller's key cannot be had now.
    pub async fn caller(&self, audience: &str, token: &str, call: Call<'_>) -> Result<ClusterName, Problem> {
        let token = Token::of_type(token, wire::TYP_CLUSTER)?;
        let claims: ClusterClaims = token.claims()?;
        let cluster = wire::issuer_cluster(&self.template, &claims.iss).ok_or(Code::WrongIssuer)?;
        if claims.aud != audience {
            return Err(Code::WrongAudience.into());
        }
        let now = self.host.clock.wall();
        tokens::in_time(now, claims.iat, claims.exp)?;
        if claims.exp.saturating_sub(claims.iat) > CLUSTER_TOKEN_SECONDS {
            return Err(unauthorized("a cluster's call is good for a minute at most"));
        }
        bound_to(&claims, call)?;
        self.signed(&cluster, &token).await?;
        let fresh = lock(&self.replays).first(&claims.iss, &claims.jti, claims.exp, now.seconds());
        if fresh { Ok(cluster) } else { Err(unauthorized("this call was made before")) }
    }

    /// Whether a key of `cluster` signed `token`.
    pub(super) async fn signed(&self, cluster: &ClusterName, token: &Token<'_>) -> Result<(), Problem> {
        let key = self.key(cluster, token.kid()).await?;
        if token.known_to_be_signed_by(&key, &self.host.proofs) { Ok(()) } else { token.signed_by(&key) }
    }

    async fn key(&self, cluster: &ClusterName, kid: &str) -> Result<DecodingKey, Problem> {
        let now = self.host.clock.now();
        if let Some(key) = self.fresh(cluster, kid, now) {
            return Ok(key);
        }
        // One asks, the others wait for what it learns.
        let _asking = self.fetching.hold(cluster.as_str()).await;
        if let Some(key) = self.fresh(cluster, kid, now) {
            return Ok(key);
        }
        self.recall(cluster).await?;
        let answered = self.ask(cluster).await;
        let known = self.known();
        let of_cluster = known.get(cluster);
        match of_cluster.and_then(|of_cluster| of_cluster.keys.get(kid)) {
            Some(key) => Ok(key.clone()),
            None if answered => Err(unauthorized("the issuer has no such key")),
            None => Err(Problem::new(Code::PeerUnreachable).detail("the issuer's keys cannot be had now")),
        }
    }

    fn fresh(&self, cluster: &ClusterName, kid: &str, now: Duration) -> Option<DecodingKey> {
        let known = self.known();
        let of_cluster = known.get(cluster)?;
        let fresh = of_cluster.own || of_cluster.fetched.is_some_and(|then| now < then + FRESH);
        of_cluster.keys.get(kid).filter(|_| fresh).cloned()
    }

    /// Reads what an earlier life knew.
    async fn recall(&self, cluster: &ClusterName) -> Result<(), Problem> {
        if self.known().contains_key(cluster) {
            return Ok(());
        }
        let row = rows::load::<Jwks>(&*self.host.store, row_key(cluster)).await?;
        let keys = usable(row.value.into_iter().flat_map(|jwks| jwks.keys));
        let mut known = self.known();
        if known.len() >= CLUSTERS_MAX {
            // Anybody can name clusters that do not exist; those that do have keys.
            known.retain(|_, of_cluster| !of_cluster.keys.is_empty());
        }
        known.entry(cluster.clone()).or_default().keys = keys;
        Ok(())
    }

    /// Asks the cluster for its keys, at most every [`ASK_AGAIN`]. Whether what is known is its answer.
    async fn ask(&self, cluster: &ClusterName) -> bool {
        let now = self.host.clock.now();
        {
            let mut known = self.known();
            let of_cluster = known.entry(cluster.clone()).or_default();
            let answered = of_cluster.own || of_cluster.fetched.is_some();
            let pause = if answered { ASK_AGAIN } else { ASK_AGAIN_SILENT };
            if of_cluster.own || of_cluster.asked.is_some_and(|then| now < then + pause) {
                return answered;
            }
            of_cluster.asked = Some(now);
        }
        let url = self.template.url(cluster, Service::Auth, "/v1/jwks");
        let Some(jwks) = self.fetch(&url).await else { return false };
        self.remember(cluster, &jwks).await;
        let mut known = self.known();
        let of_cluster = known.entry(cluster.clone()).or_default();
        of_cluster.keys = usable(jwks.keys);
        of_cluster.fetched = Some(now);
        true
    }

    async fn fetch(&self, url: &Url) -> Option<Jwks> {
        let request = Request::get(url.as_str()).body(Bytes::new()).ok()?;
        let response = self.http.with_timeout(TIMEOUT).send(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        serde_json::from_slice(response.body()).ok()
    }

    /// Keeps the keys for the next life. Without it they would only be asked for again.
    async fn remember(&self, cluster: &ClusterName, jwks: &Jwks) {
        let mut batch = Batch::default();
        rows::put(&mut batch, row_key(cluster), jwks);
        let _ = self.host.store.commit(batch).await;
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Known>> {
        lock(&self.known)
    }
}

/// The digest that a call's token is bound to.
#[must_use]
pub fn digest(body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(body))
}

fn bound_to(claims: &ClusterClaims, call: Call<'_>) -> Result<(), Problem> {
    let same_url = claims.htu == call.url || same(&claims.htu, call.url);
    if claims.htm == call.method && same_url && claims.digest == digest(call.body) {
        return Ok(());
    }
    Err(unauthorized("the token is bound to another call"))
}

/// Two spellings of one URL, such as with and without the default port.
fn same(a: &str, b: &str) -> bool {
    matches!((Url::parse(a), Url::parse(b)), (Ok(a), Ok(b)) if a == b)
}

fn usable(keys: impl IntoIterator<Item = Jwk>) -> BTreeMap<String, DecodingKey> {
    let ed25519 = |jwk: &Jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519" && jwk.kid.len() <= 128;
    keys.into_iter()
        .take(KEYS_MAX)
        .filter(ed25519)
        .filter_map(|jwk| Some((jwk.kid, DecodingKey::from_ed_components(&jwk.x).ok()?)))
        .collect()
}

fn row_key(cluster: &ClusterName) -> Key {
    rows::key("jwks", &[cluster.as_str()])
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized).detail(detail)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
