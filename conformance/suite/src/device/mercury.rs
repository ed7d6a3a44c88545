//! The device's WebSocket: registration, ready, events, acknowledgement, resume, re-sync, reconnection
//! (MER).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_history::event::{Answer, SocketChange};
use fusion_history::{Body, Call};
use fusion_protocol::mercury::{
    ClientFrame, DEAD_SECONDS, Device as Registration, Event, RegisterDevice, ServerFrame,
};
use fusion_protocol::{Code, Count, Service, Url};
use fusion_runtime::Latch;
use fusion_runtime::http::ClientError;
use fusion_runtime::tasks::Task;
use fusion_runtime::ws;
use http::Method;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::scribe::Tried;
use super::wire::Ask;
use super::{Device, Failure, Made, Refused, lock};

/// How many received events are kept for [`Device::wait_for`]: the last ones. The history has all.
const INBOX_MAX: usize = 4_096;
/// How long the first pause before a reconnection is; twice as long each further time.
const BACKOFF: Duration = Duration::from_millis(200);
/// The longest pause before a reconnection.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long [`Device::connect`] waits for the socket to be ready.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Longer than anybody waits for anything.
pub(crate) const EVER: Duration = Duration::from_secs(24 * 3_600);
/// How long a socket may take from its opening to `ready`.
const READY_MAX: Duration = Duration::from_secs(10);

/// An event as the device received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// What was delivered.
    pub event: Event,
    /// The socket's session.
    pub session: Count,
    /// When, on the host's monotonic clock.
    pub at: Duration,
}

/// One opened and authenticated WebSocket, driven by hand: no acknowledgement, no reconnection, nothing
/// in the history. [`Device::connect`] is what people use.
pub struct Session {
    socket: ws::Socket,
}

/// What came over a [`Session`].
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A frame.
    Frame(ServerFrame),
    /// A ping: the server lives.
    Ping,
    /// Something that is no frame of ours.
    Garbage(String),
    /// The end.
    Ended,
}

/// Whether the device acknowledges what it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// At once.
    #[default]
    Sent,
    /// Not at all: everything unacknowledged must come again after a reconnection.
    Held,
}

#[derive(Default)]
pub(crate) struct Mercury {
    state: Mutex<State>,
    /// Tells every change of the state, to those who wait in the order in which they came.
    changed: Notify,
}

#[derive(Default)]
struct State {
    registration: Option<Registration>,
    /// The key that it was registered by.
    key: Option<String>,
    status: Status,
    inbox: VecDeque<Received>,
    /// The last `seq` that was taken: what the next socket resumes after.
    taken: Option<Count>,
    resyncs: u64,
    acks: Acks,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Closed,
    Ready,
    /// A newer socket of the device has taken over, or the registration is gone.
    Fenced,
}

struct Running {
    stop: Arc<Latch>,
    task: Task<()>,
}

/// How one socket ended.
enum Ended {
    Stopped,
    Fenced,
    Lost { was_ready: bool },
}

impl Mercury {
    pub(crate) fn device_id(&self) -> Option<String> {
        lock(&self.state).registration.as_ref().map(|registration| registration.id.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut lock(&self.state));
        self.changed.notify_waiters();
        changed
    }
}

impl Device {
    /// Registers the device, opens its socket and waits until it is ready. From then on it acknowledges
    /// what it receives, reconnects with back-off and resumes, until [`Device::disconnect`].
    ///
    /// # Errors
    /// That the registration is refused, or that no socket is ready in 30 s; it is tried on in that case.
    pub async fn connect(&self) -> Result<(), Failure> {
        self.home_or_log_in(self.cause).await?;
        let invoked = self.begin(Call::Connect { device: self.name().to_owned() });
        let result = self.connected(invoked).await;
        self.inner
            .scribe
            .end(invoked, Tried::once(result), |id| Answer::Connected { id: id.clone() })
            .map(drop)
    }

    /// Closes the socket; events wait for the next [`Device::connect`].
    pub async fn disconnect(&self) {
        let invoked = self.begin(Call::Disconnect { device: self.name().to_owned() });
        if let Some(running) = self.inner.mercury.change(|state| state.running.take()) {
            running.stop.open();
            running.task.join().await;
        }
        let _ = self.inner.scribe.end(invoked, Tried::once(Ok(())), |()| Answer::Nothing {});
    }

    /// Drops the socket without a word, as a crash does. The registration and what was taken are kept.
    pub fn sever(&self) {
        if let Some(running) = self.inner.mercury.change(|state| state.running.take()) {
            running.task.abort();
            self.socket_event(SocketChange::Closed, Count(0));
        }
        self.inner.mercury.change(|state| state.status = Status::Closed);
    }

    /// Whether the socket is ready now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        lock(&self.inner.mercury.state).status == Status::Ready
    }

    /// The registration, once there is one.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        lock(&self.inner.mercury.state).registration.clone()
    }

    /// Whether the device acknowledges from now on.
    pub fn set_acks(&self, acks: Acks) {
        self.inner.mercury.change(|state| state.acks = acks);
    }

    /// What has been received, oldest first.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.inner.mercury.state).inbox.iter().cloned().collect()
    }

    /// How often the device was told to re-sync.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        lock(&self.inner.mercury.state).resyncs
    }

    /// Waits until the device has been told to re-sync more often than `before`; answers how often.
    pub(crate) async fn resynced(&self, before: u64) -> u64 {
        let more = |state: &mut State| (state.resyncs > before).then_some(state.resyncs);
        loop {
            if let Some(resyncs) = self.wait(EVER, more).await {
                return resyncs;
            }
        }
    }

    /// The first event that `wanted` takes, whether it is here already or comes within `limit`.
    pub async fn wait_for(&self, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Received> {
        self.wait(limit, |state| state.inbox.iter().find(|received| wanted(&received.event)).cloned()).await
    }

    /// Registers the device and nothing else; known registrations are kept.
    ///
    /// # Errors
    /// As the own cluster refuses.
    pub async fn register(&self) -> Result<Registration, Failure> {
        self.register_by_key().await.map(Made::into_it)
    }

    /// Registers by the device's own key: where it is known it stays the same device, with its queue, also
    /// in the cluster that its user has moved to (MAP-007).
    async fn register_by_key(&self) -> Result<Made<Registration>, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        let url = self.service(&home, Service::Mercury, "/v1/devices");
        let body = RegisterDevice { name: Some(self.name().into()) };
        let known = lock(&self.inner.mercury.state).key.clone();
        let key = known.unwrap_or_else(|| self.inner.entropy.uuid().to_string());
        let ask = Ask::new(Method::POST, url).key(key.clone()).json(&body);
        let made = self.call(self.cause, ask).await.made::<Registration>().result?;
        let registration = made.it().clone();
        self.inner.mercury.change(|state| {
            state.key = Some(key);
            state.registration = Some(registration);
        });
        Ok(made)
    }

    /// Opens one socket by hand and authenticates it with the own token.
    ///
    /// # Errors
    /// That the socket cannot be opened.
    pub async fn open_session(&self, at: &Url, resume: Option<Count>) -> Result<Session, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        if self.target().cluster_of(&secured(at)).as_ref() != Some(&home) {
            return Err(Failure::Unreachable("the WebSocket is not of the own cluster (NAM-005)".to_owned()));
        }
        let token = self.token_for(&home).await?;
        let mut socket = ws::connect(self.host(), at).await.map_err(|error| match error {
            ClientError::Refused(status) => {
                Failure::Refused(Refused { status, code: None, retry_after: None, problem: None })
            }
            error => Failure::Unreachable(error.to_string()),
        })?;
        let first = ClientFrame::Authenticate { token, resume };
        socket.send(&frame(&first)).await.map_err(|error| Failure::Unknown(error.to_string()))?;
        Ok(Session { socket })
    }

    async fn connected(&self, invoked: fusion_history::EventId) -> Result<String, Failure> {
        let registration = match self.registration() {
            Some(registration) => registration,
            None => self.caused(invoked).register().await?,
        };
        self.start();
        let ready = |state: &mut State| match state.status {
            Status::Closed => None,
            status => Some(status),
        };
        match self.wait(CONNECT_MAX, ready).await {
            Some(Status::Ready) => Ok(registration.id),
            Some(_) => Err(Failure::Unknown("another socket of this device took over".to_owned())),
            None => Err(Failure::Unknown("the socket was not ready in time".to_owned())),
        }
    }

    fn start(&self) {
        let device = Self { operation: None, key: None, cause: None, ..self.clone() };
        let tasks = self.host().tasks.clone();
        self.inner.mercury.change(|state| {
            if state.running.is_none() {
                state.status = Status::Closed;
                let stop = Arc::<Latch>::default();
                state.running = Some(Running { stop: stop.clone(), task: tasks.spawn(device.run(stop)) });
            }
        });
    }

    /// Keeps a socket open until told to stop.
    async fn run(self, stop: Arc<Latch>) {
        let mut pause = BACKOFF;
        loop {
            let ended = self.live(&stop).await;
            let status = if matches!(ended, Ended::Fenced) { Status::Fenced } else { Status::Closed };
            self.inner.mercury.change(|state| state.status = status);
            match ended {
                Ended::Stopped => return,
                Ended::Fenced => return self.inner.mercury.change(|state| state.running = None),
                Ended::Lost { was_ready } if was_ready => pause = BACKOFF,
                Ended::Lost { .. } => pause = (pause * 2).min(BACKOFF_MAX),
            }
            let pause = self.jittered(pause);
            tokio::select! {
                biased;
                () = stop.opened() => return,
                () = self.host().clock.sleep(pause) => {}
            }
        }
    }

    /// One socket from its opening to its end.
    async fn live(&self, stop: &Latch) -> Ended {
        let opening = async {
            let (at, resume) = {
                let state = lock(&self.inner.mercury.state);
                (state.registration.as_ref()?.web_socket_url.clone(), state.taken)
            };
            // The user has moved, and the device with them (MAP-007).
            if self.home().is_some_and(|home| self.target().cluster_of(&secured(&at)) != Some(home)) {
                return self.register_anew().await;
            }
            match self.open_session(&at, resume).await {
                Err(Failure::Refused(Refused { status: 404 | 410 | 421, .. })) => self.register_anew().await,
                opened => opened.ok(),
            }
        };
        let opened = tokio::select! {
            biased;
            () = stop.opened() => return Ended::Stopped,
            opened = opening => opened,
        };
        let Some(mut session) = opened else { return Ended::Lost { was_ready: false } };
        let mut number = None;
        loop {
            let limit = if number.is_some() { Duration::from_secs(DEAD_SECONDS) } else { READY_MAX };
            let heard = tokio::select! {
                biased;
                () = stop.opened() => None,
                heard = self.host().clock.timeout(limit, session.hear()) => Some(heard.unwrap_or(Heard::Ended)),
            };
            let ended = match heard {
                Some(Heard::Ping | Heard::Garbage(_)) => continue,
                Some(Heard::Frame(ServerFrame::Closing { code })) => match code {
                    Code::Unauthorized | Code::TokenExpired | Code::WrongAudience | Code::WrongIssuer => {
                        self.home().iter().for_each(|home| self.forget_token(home));
                        Ended::Lost { was_ready: number.is_some() }
                    }
                    Code::WrongCluster => {
                        let _: Option<Session> = self.register_anew().await;
                        Ended::Lost { was_ready: number.is_some() }
                    }
                    Code::Unavailable | Code::Fenced | Code::Internal | Code::TooMany => {
                        Ended::Lost { was_ready: number.is_some() }
                    }
                    _ => Ended::Fenced,
                },
                Some(Heard::Frame(frame)) => {
                    if self.take(frame, &mut number, &mut session).await.is_some() {
                        continue;
                    }
                    Ended::Lost { was_ready: number.is_some() }
                }
                Some(Heard::Ended) => Ended::Lost { was_ready: number.is_some() },
                None => {
                    let _ = session.socket.close(1000, "").await;
                    Ended::Stopped
                }
            };
            if let Some(number) = number {
                self.socket_event(SocketChange::Closed, number);
            }
            return ended;
        }
    }

    /// The cluster does not know the device: it is with its user in another one, where it goes on, or it
    /// becomes a new one with an empty queue. At the next try.
    async fn register_anew(&self) -> Option<Session> {
        if self.register_by_key().await.ok()?.is_new() {
            self.inner.mercury.change(|state| state.taken = None);
        }
        None
    }

    /// Takes one frame in; `None` when the socket is of no more use.
    async fn take(
        &self,
        frame: ServerFrame,
        number: &mut Option<Count>,
        session: &mut Session,
    ) -> Option<()> {
        let mercury = &self.inner.mercury;
        match frame {
            ServerFrame::Ready { session, base } => {
                *number = Some(session);
                mercury.change(|state| state.taken = Some(base));
                self.socket_event(SocketChange::Ready, session);
                mercury.change(|state| state.status = Status::Ready);
            }
            ServerFrame::Event(event) => {
                let seq = event.seq;
                let acks = self.deliver(event, number.unwrap_or_default());
                if acks == Acks::Sent {
                    session.ack(seq).await.ok()?;
                }
            }
            ServerFrame::Resync { base } => {
                mercury.change(|state| {
                    state.taken = Some(base);
                    state.resyncs += 1;
                });
                let cause = self.socket_event(SocketChange::Resync, number.unwrap_or_default());
                // MER-003: the notifications are gone, the truth is not.
                let reader = self.caused(cause);
                self.host().tasks.spawn(async move { reader.read_index().await });
            }
            ServerFrame::Closing { .. } => {}
        }
        Some(())
    }

    fn deliver(&self, event: Event, session: Count) -> Acks {
        let user = self.inner.user.clone();
        let Event { id, seq, event_type, resource, data } = event.clone();
        self.inner.scribe.write(None, Body::Deliver { user, session, id, seq, event_type, resource, data });
        let received = Received { event, session, at: self.host().clock.now() };
        self.inner.mercury.change(|state| {
            if state.acks == Acks::Sent {
                state.taken = state.taken.max(Some(seq));
            }
            if state.inbox.len() == INBOX_MAX {
                state.inbox.pop_front();
            }
            state.inbox.push_back(received);
            state.acks
        })
    }

    fn socket_event(&self, what: SocketChange, session: Count) -> fusion_history::EventId {
        let base = lock(&self.inner.mercury.state).taken.unwrap_or_default();
        let user = self.inner.user.clone();
        self.inner.scribe.write(None, Body::Socket { user, what, base, session })
    }

    /// Waits until `look` finds something in the state.
    async fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mercury = &self.inner.mercury;
        let waiting = async {
            loop {
                // Before the look, so that a change after it is heard.
                let changed = mercury.changed.notified();
                if let Some(found) = look(&mut lock(&mercury.state)) {
                    return found;
                }
                changed.await;
            }
        };
        self.host().clock.timeout(limit, waiting).await.ok()
    }
}

impl Received {
    /// A member of the event's data, when it is there and is a `T`.
    #[must_use]
    pub fn member<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(self.event.data.get(name)?.clone()).ok()
    }
}

impl Session {
    /// The next thing that comes.
    pub async fn hear(&mut self) -> Heard {
        match self.socket.recv().await {
            Some(Ok(ws::Frame::Text(text))) => match serde_json::from_str(&text) {
                Ok(frame) => Heard::Frame(frame),
                Err(error) => Heard::Garbage(error.to_string()),
            },
            Some(Ok(ws::Frame::Ping | ws::Frame::Pong)) => Heard::Ping,
            Some(Ok(ws::Frame::Close { .. }) | Err(_)) | None => Heard::Ended,
        }
    }

    /// Acknowledges everything up to `seq`.
    ///
    /// # Errors
    /// That the socket has ended.
    pub async fn ack(&mut self, seq: Count) -> Result<(), Failure> {
        let sent = self.socket.send(&frame(&ClientFrame::Ack { seq })).await;
        sent.map_err(|error| Failure::Unknown(error.to_string()))
    }
}

fn frame(frame: &ClientFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// The `https` twin of a `wss` URL, which the template knows.
fn secured(url: &Url) -> Url {
    let mut url = url.clone();
    if url.scheme() == "wss" {
        let _ = url.set_scheme("https");
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wss_url_is_located_as_its_https_twin_and_a_plain_one_is_not() {
        let wss: Url = "wss://a-mercury.provider.example:8443/v1/sockets/1".parse().unwrap();
        assert_eq!(secured(&wss).as_str(), "https://a-mercury.provider.example:8443/v1/sockets/1");
        let plain: Url = "ws://a-mercury.provider.example/".parse().unwrap();
        assert_eq!(secured(&plain).scheme(), "ws");
    }
}
