//! How a service is made faulty from outside: its requests, its answers, its rows, its datagrams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fusion_deployment::{Hooks, Role};
use fusion_protocol::auth::AccessClaims;
use fusion_protocol::{Address, Code, Problem};
use fusion_runtime::Host;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use http::{Method, StatusCode, header, request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest body that a wrapper looks at, in octets: more than a service would.
const BODY_MAX: usize = 8 << 20;

/// What a wrapper does with a request: answers it, or lets it pass.
pub enum Verdict {
    /// This is the answer; the service never sees the request.
    Answer(Response),
    /// The service answers.
    Pass(Request),
}

/// A request, and the service that waits for it.
pub struct Call {
    /// The machine of the service.
    pub host: Host,
    head: request::Parts,
    /// The request's body.
    pub body: Bytes,
    next: Next,
}

/// What a wrapper makes of a call.
pub type Played = Pin<Box<dyn Future<Output = Response> + Send>>;
/// What a wrapper decides about a request.
pub type Judged = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// Wraps what every cluster serves.
pub fn clusters(decide: fn(Host, Request) -> Judged) -> Hooks {
    roles(is_cluster, decide)
}

/// Wraps what the hosts of some roles serve.
pub fn roles(which: fn(&Role) -> bool, decide: fn(Host, Request) -> Judged) -> Hooks {
    let wrap = move |role: &Role, host: &Host, router: Router| {
        if which(role) { wrapped(router, host.clone(), decide) } else { router }
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A router in front of which `decide` stands.
pub fn wrapped(router: Router, host: Host, decide: fn(Host, Request) -> Judged) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let host = host.clone();
        async move {
            match decide(host, request).await {
                Verdict::Answer(response) => response,
                Verdict::Pass(request) => next.run(request).await,
            }
        }
    }))
}

/// Stands in for every cluster's services where `concerns` says so; the service is asked by
/// [`Call::play`], as often as `play` likes.
pub fn calls<F>(concerns: fn(&Method, &str) -> bool, play: F) -> Hooks
where
    F: Fn(Call) -> Played + Clone + Send + Sync + 'static,
{
    calls_of(is_cluster, concerns, play)
}

/// The same for the hosts of some roles.
pub fn calls_of<F>(which: fn(&Role) -> bool, concerns: fn(&Method, &str) -> bool, play: F) -> Hooks
where
    F: Fn(Call) -> Played + Clone + Send + Sync + 'static,
{
    let wrap = move |role: &Role, host: &Host, router: Router| match which(role) {
        true => played(router, host, concerns, play.clone()),
        false => router,
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// The same with a memory: each machine has its own, from its start to its end.
pub fn calls_remembering<S>(
    which: fn(&Role) -> bool,
    concerns: fn(&Method, &str) -> bool,
    play: fn(Arc<S>, Call) -> Played,
) -> Hooks
where
    S: Default + Send + Sync + 'static,
{
    let wrap = move |role: &Role, host: &Host, router: Router| {
        if !which(role) {
            return router;
        }
        let memory = Arc::<S>::default();
        played(router, host, concerns, move |call| play(memory.clone(), call))
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A router in whose place `play` answers where `concerns` says so.
fn played<F>(router: Router, host: &Host, concerns: fn(&Method, &str) -> bool, play: F) -> Router
where
    F: Fn(Call) -> Played + Clone + Send + Sync + 'static,
{
    let host = host.clone();
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (host, play) = (host.clone(), play.clone());
        async move {
            if !concerns(request.method(), request.uri().path()) {
                return next.run(request).await;
            }
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, BODY_MAX).await.unwrap_or_default();
            play(Call { host, head, body, next }).await
        }
    }))
}

/// Changes what every cluster answers in JSON, where `concerns` says so.
pub fn answers(concerns: fn(&Method, &str) -> bool, edit: fn(&Call, &mut Value)) -> Hooks {
    calls(concerns, move |call| {
        Box::pin(async move {
            let response = call.play().await;
            edited(response, |value| edit(&call, value)).await
        })
    })
}

/// Wraps where clusters keep their rows.
pub fn stores(wrap: fn(Arc<dyn Store>) -> Arc<dyn Store>) -> Hooks {
    let wrap = move |role: &Role, store: Arc<dyn Store>| if is_cluster(role) { wrap(store) } else { store };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A store that takes rows of these concepts and does not keep them.
pub fn not_kept(store: Arc<dyn Store>, concepts: &'static [&'static str]) -> Arc<dyn Store> {
    Arc::new(NotKept { store, concepts })
}

/// Whether a row is of one of these concepts.
pub fn is_of(key: &Key, concepts: &[&str]) -> bool {
    key.parts().first().is_some_and(|first| concepts.iter().any(|concept| concept.as_bytes() == first))
}

/// Whether the host is a cluster's.
pub fn is_cluster(role: &Role) -> bool {
    matches!(role, Role::Cluster(_))
}

impl Call {
    /// The path that is asked for.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// What follows the path.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// The host that is asked, without a port.
    pub fn authority(&self) -> &str {
        let asked = self.head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        asked.split(':').next().unwrap_or("")
    }

    /// The cluster that is asked, by its host's name.
    pub fn cluster(&self) -> &str {
        self.authority().split(['-', '.']).next().unwrap_or("")
    }

    /// What is to be done.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The key by which a repeated call is known.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.head.headers.get(fusion_protocol::headers::IDEMPOTENCY_KEY)?.to_str().ok()
    }

    /// Whether somebody says who they are.
    pub fn has_token(&self) -> bool {
        self.head.headers.contains_key(header::AUTHORIZATION)
    }

    /// Who the caller's token says they are, if they are a person.
    pub fn claims(&self) -> Option<AccessClaims> {
        let token = self.head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        claims(token.split_once(' ')?.1)
    }

    /// The body, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What the service says.
    pub async fn play(&self) -> Response {
        self.play_with(self.body.clone()).await
    }

    /// What the service says to another body.
    pub async fn play_with(&self, body: impl Into<Bytes>) -> Response {
        let mut head = self.head.clone();
        head.headers.remove(header::CONTENT_LENGTH);
        self.next.clone().run(Request::from_parts(head, Body::from(body.into()))).await
    }

    /// What the service says to other JSON.
    pub async fn play_json(&self, body: &Value) -> Response {
        self.play_with(serde_json::to_vec(body).unwrap_or_default()).await
    }

    /// What the service says when it is asked to read `path` by the same caller.
    pub async fn read(&self, path: &str) -> Response {
        let mut head = self.head.clone();
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
        if let Ok(uri) = path.parse() {
            head.uri = uri;
        }
        self.next.clone().run(Request::from_parts(head, Body::empty())).await
    }

    /// The same call with an idempotency key that nobody has used.
    pub fn keyed_anew(mut self) -> Self {
        if let Ok(key) = self.host.entropy.uuid().to_string().parse() {
            self.head.headers.insert(fusion_protocol::headers::IDEMPOTENCY_KEY, key);
        }
        self
    }
}

/// What a token says, believed as it is.
pub fn claims(token: &str) -> Option<AccessClaims> {
    payload(token)
}

/// What any token says, believed as it is.
pub fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// The address in one part of a path.
pub fn address_in(part: &str) -> Option<Address> {
    spelt_in(part)?.parse().ok()
}

/// What stands in one part of a path, letter for letter.
pub fn spelt_in(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The body of a request, and the request as it was.
pub async fn body_of(request: Request) -> (Bytes, Request) {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, fusion_protocol::limits::BODY_MAX).await.unwrap_or_default();
    (bytes.clone(), Request::from_parts(parts, Body::from(bytes)))
}

/// An answer in JSON.
pub fn json(body: &impl Serialize) -> Response {
    json_with(StatusCode::OK, body)
}

/// An answer in JSON with this status.
pub fn json_with(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// A refusal.
pub fn refusal(code: Code) -> Response {
    refusal_of(&Problem::new(code))
}

/// A refusal with all that it says.
pub fn refusal_of(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, fusion_protocol::problem::MEDIA_TYPE)], bytes).into_response()
}

/// A refusal with a code that this version does not know.
pub fn refusal_as(status: StatusCode, code: &str) -> Response {
    let mut problem = serde_json::json!(Problem::new(Code::Unknown));
    problem["code"] = code.into();
    problem["status"] = status.as_u16().into();
    let bytes = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, fusion_protocol::problem::MEDIA_TYPE)], bytes).into_response()
}

/// What a refusal has in every form: as a problem (RFC 9457) and as an error of SCIM (RFC 7644).
#[derive(serde::Deserialize)]
struct Coded {
    code: Code,
}

/// The code of a refusal, and the answer as it was.
pub async fn code_of(response: Response) -> (Option<Code>, Response) {
    if response.status().is_success() {
        return (None, response);
    }
    let (bytes, response) = taken(response).await;
    (serde_json::from_slice::<Coded>(&bytes).ok().map(|refusal| refusal.code), response)
}

/// An answer's body, and the answer as it was.
pub async fn taken(response: Response) -> (Bytes, Response) {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, BODY_MAX).await.unwrap_or_default();
    (bytes.clone(), Response::from_parts(head, Body::from(bytes)))
}

/// The answer with its JSON changed; any other is as it was.
pub async fn edited(response: Response, edit: impl FnOnce(&mut Value)) -> Response {
    let (bytes, response) = taken(response).await;
    let Ok(mut value) = serde_json::from_slice(&bytes) else { return response };
    edit(&mut value);
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(serde_json::to_vec(&value).unwrap_or_default()))
}

/// Done, and nothing to say.
pub fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

struct NotKept {
    store: Arc<dyn Store>,
    concepts: &'static [&'static str],
}

#[async_trait]
impl Store for NotKept {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        batch.puts.retain(|(key, _)| !is_of(key, self.concepts));
        self.store.commit(batch).await
    }
}
