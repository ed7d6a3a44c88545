//! One device's connection: who it is, what it is owed, whether it lives.
//!
//! A connection server holds nothing that matters: events are durable before it hears of them, and a
//! device that connects elsewhere goes on where it was (MER-005). Each socket reads the store at its own
//! pace, so that a slow device delays nobody (MER-004).

use std::time::Duration;

use fusion_machines::device_queue::{AckError, Delivery, Next};
use fusion_protocol::mercury::{ClientFrame, DEAD_SECONDS, PING_SECONDS, ServerFrame};
use fusion_protocol::{Code, Count, Problem, UserRef, Uuid};
use fusion_runtime::bus::Subscription;
use fusion_runtime::store::Batch;
use fusion_runtime::ws::{Frame, Socket, WsError};
use futures_util::FutureExt as _;

use super::{Hint, store, subject};
use crate::rows::{self, Committed};
use crate::{Cluster, moves};

/// How long a socket may take to say who it is.
const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(10);
/// How many events are sent before the first of them must be acknowledged.
const WINDOW: usize = 64;
/// How many acknowledgements are made durable together,
const FLUSH_EVENTS: usize = 32;
/// and how long one waits for the others. Losing some only repeats events to a device that has forgotten
/// where it was.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(PING_SECONDS);
const DEAD_AFTER: Duration = Duration::from_secs(DEAD_SECONDS);
/// RFC 6455, section 7.4.1: the endpoint is going away, and the policy forbids.
const CLOSE_AWAY: u16 = 1001;
const CLOSE_POLICY: u16 = 1008;

/// Why a session ends.
enum End {
    /// The connection is gone, or the device is silent.
    Gone,
    /// The device is told why.
    Closing(Code),
}

/// One authenticated socket.
struct Session {
    cluster: Cluster,
    device: Uuid,
    owner: UserRef,
    socket: Socket,
    number: u64,
    delivery: Delivery<(u64, Uuid)>,
    /// Taken by the device, not yet durably.
    taken: Vec<(u64, Uuid)>,
    acked: u64,
    flush_at: Option<Duration>,
    ping_at: Duration,
    heard_at: Duration,
}

enum Event {
    Frame(Option<Result<Frame, WsError>>),
    Hint(Hint),
    Time,
    Drain,
}

/// Serves a socket of `device` until it ends.
pub(super) async fn serve(cluster: Cluster, device: Uuid, mut socket: Socket) {
    let (owner, resume) = match authenticate(&cluster, device, &mut socket).await {
        Ok(known) => known,
        Err(End::Gone) => return,
        Err(End::Closing(code)) => return goodbye(&cluster, &mut socket, code).await,
    };
    // Before the queue is read: what comes after that is heard.
    let mut hints = cluster.host.bus.subscribe(&subject(&owner.user));
    let mut session = Session::new(cluster, device, owner, socket);
    let end = match session.open(resume).await {
        Ok(()) => session.run(&mut hints).await,
        Err(end) => end,
    };
    if let End::Closing(code) = end {
        let code = why(&session.cluster, &session.owner, code).await;
        goodbye(&session.cluster, &mut session.socket, code).await;
    }
    let _ = session.flush().await;
}

/// The first frame says who it is, and only the device's owner may be that.
async fn authenticate(
    cluster: &Cluster,
    device: Uuid,
    socket: &mut Socket,
) -> Result<(UserRef, Option<Count>), End> {
    let first = cluster.host.clock.timeout(AUTHENTICATE_WITHIN, socket.recv_text()).await;
    let text = first.map_err(|_| End::Closing(Code::Unauthorized))?.ok_or(End::Gone)?.map_err(broken)?;
    let Ok(ClientFrame::Authenticate { token, resume }) = serde_json::from_str(&text) else {
        return Err(End::Closing(Code::BadRequest));
    };
    let caller = cluster.verifier.user(cluster, &token).await.map_err(closing)?;
    let row = store::device(cluster, device).await.map_err(closing)?.value.ok_or(End::Closing(Code::Gone))?;
    if caller.home != *cluster.name() || caller.user != row.owner {
        return Err(End::Closing(Code::Forbidden));
    }
    Ok((row.owner, resume))
}

async fn goodbye(cluster: &Cluster, socket: &mut Socket, code: Code) {
    let said = async {
        let frame = ServerFrame::Closing { code };
        socket.send(&serde_json::to_string(&frame).expect("a frame is plain data")).await?;
        let close = if code == Code::Unavailable { CLOSE_AWAY } else { CLOSE_POLICY };
        socket.close(close, code.as_str()).await
    };
    // A peer that does not listen is left alone.
    let _ = cluster.host.clock.timeout(PING_EVERY, said).await;
}

impl Session {
    fn new(cluster: Cluster, device: Uuid, owner: UserRef, socket: Socket) -> Self {
        let now = cluster.host.clock.now();
        Self {
            delivery: Delivery::new(0, WINDOW),
            taken: Vec::new(),
            acked: 0,
            number: 0,
            flush_at: None,
            ping_at: now + PING_EVERY,
            heard_at: now,
            cluster,
            device,
            owner,
            socket,
        }
    }

    /// MER-005: takes the device over from older sockets, and says where its stream goes on.
    async fn open(&mut self, resume: Option<Count>) -> Result<(), End> {
        let resume = resume.map(|count| count.0);
        let opened = loop {
            let opening = store::opening(&self.cluster, self.device).await.map_err(closing)?;
            let mut head = opening.head.value.clone().unwrap_or_default();
            let after = resume.unwrap_or(head.acked).min(opening.last);
            let events = store::events(&self.cluster, self.device, after, 1).await.map_err(closing)?;
            let opened = head.open(resume, events.first().map(|event| event.seq), opening.last);
            let mut batch = Batch::default();
            opening.device.unchanged(&mut batch);
            opening.head.save(&mut batch, &head);
            if rows::commit(&*self.cluster.host.store, batch).await.map_err(closing)? == Committed::Yes {
                self.acked = head.acked;
                break opened;
            }
        };
        self.number = opened.session;
        Hint::Opened { device: self.device, session: opened.session }
            .publish(&self.cluster, &self.owner.user);
        self.delivery = Delivery::new(self.acked, WINDOW);
        self.send(&ServerFrame::Ready { session: Count(opened.session), base: Count(opened.base) }).await?;
        if let Some(base) = opened.resync {
            self.send(&ServerFrame::Resync { base: Count(base) }).await?;
        }
        if !opened.drop.is_empty() {
            store::purge(&self.cluster, self.device, self.acked).await.map_err(closing)?;
        }
        self.deliver().await
    }

    async fn run(&mut self, hints: &mut Subscription) -> End {
        loop {
            let event = self.next(hints).await;
            if let Err(end) = self.step(event, hints).await {
                return end;
            }
        }
    }

    async fn next(&mut self, hints: &mut Subscription) -> Event {
        let clock = self.cluster.host.clock.clone();
        // Between two pings, too: how long a dead device holds its socket does not hang on when it died.
        let due = self.ping_at.min(self.heard_at + DEAD_AFTER);
        let due = self.flush_at.map_or(due, |at| at.min(due));
        tokio::select! {
            biased;
            () = self.cluster.sockets.drain.opened() => Event::Drain,
            frame = self.socket.recv() => Event::Frame(frame),
            hint = next_hint(hints) => Event::Hint(hint),
            () = clock.sleep_until(due) => Event::Time,
        }
    }

    async fn step(&mut self, event: Event, hints: &mut Subscription) -> Result<(), End> {
        match event {
            Event::Frame(None | Some(Ok(Frame::Close { .. }))) => Err(End::Gone),
            Event::Frame(Some(Err(error))) => Err(broken(error)),
            Event::Frame(Some(Ok(frame))) => self.heard(frame).await,
            Event::Hint(Hint::Events) => {
                // One look answers all the hints that have come.
                while let Some(Some(message)) = hints.next().now_or_never() {
                    self.obey(Hint::read(&message))?;
                }
                self.deliver().await
            }
            Event::Hint(hint) => self.obey(hint),
            Event::Time => self.time().await,
            Event::Drain => Err(End::Closing(Code::Unavailable)),
        }
    }

    async fn heard(&mut self, frame: Frame) -> Result<(), End> {
        self.heard_at = self.cluster.host.clock.now();
        let Frame::Text(text) = frame else { return Ok(()) };
        let Ok(ClientFrame::Ack { seq }) = serde_json::from_str(&text) else {
            return Err(End::Closing(Code::BadRequest));
        };
        let taken = self.delivery.ack(seq.0).map_err(|_| End::Closing(Code::Unprocessable))?;
        self.taken.extend(taken);
        self.acked = self.acked.max(seq.0);
        if self.taken.len() >= FLUSH_EVENTS {
            self.flush().await?;
        } else if !self.taken.is_empty() && self.flush_at.is_none() {
            self.flush_at = Some(self.heard_at + FLUSH_AFTER);
        }
        self.deliver().await
    }

    fn obey(&self, hint: Hint) -> Result<(), End> {
        match hint {
            Hint::Opened { device, session } if device == self.device && session > self.number => {
                Err(End::Closing(Code::Conflict))
            }
            Hint::Removed { device } if device == self.device => Err(End::Closing(Code::Gone)),
            Hint::Events | Hint::Opened { .. } | Hint::Removed { .. } => Ok(()),
        }
    }

    /// MER-004: pings, and looks by itself at what a lost hint would have told.
    async fn time(&mut self) -> Result<(), End> {
        let now = self.cluster.host.clock.now();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush().await?;
        }
        if now >= self.heard_at + DEAD_AFTER {
            return Err(End::Gone);
        }
        if self.ping_at > now {
            return Ok(());
        }
        self.ping_at = now + PING_EVERY;
        self.still_ours().await?;
        let ping = self.cluster.host.clock.timeout(DEAD_AFTER, self.socket.ping()).await;
        ping.map_err(|_| End::Gone)?.map_err(broken)?;
        self.deliver().await
    }

    async fn still_ours(&mut self) -> Result<(), End> {
        match store::head(&self.cluster, self.device).await.map_err(closing)?.value {
            None => Err(End::Closing(Code::Gone)),
            Some(head) if head.session != self.number => Err(End::Closing(Code::Conflict)),
            Some(_) => Ok(()),
        }
    }

    /// Sends what the device is owed, as far as the window allows.
    async fn deliver(&mut self) -> Result<(), End> {
        loop {
            let room = self.delivery.room();
            if room == 0 {
                return Ok(());
            }
            let events = store::events(&self.cluster, self.device, self.delivery.sent(), room);
            let events = events.await.map_err(closing)?;
            let all = events.len() < room;
            for event in events {
                if let Next::Resync(base) = self.delivery.send(event.seq, (event.seq, event.id)) {
                    self.send(&ServerFrame::Resync { base: Count(base) }).await?;
                }
                self.send(&ServerFrame::Event(event.into_event())).await?;
            }
            if all {
                return Ok(());
            }
        }
    }

    /// Makes acknowledgements durable, and removes what has been taken.
    async fn flush(&mut self) -> Result<(), End> {
        self.flush_at = None;
        while !self.taken.is_empty() {
            let loaded = store::head(&self.cluster, self.device).await.map_err(closing)?;
            let mut head = loaded.value.clone().ok_or(End::Closing(Code::Gone))?;
            match head.ack(self.number, self.acked) {
                Ok(_) => {}
                Err(AckError::Fenced) => {
                    self.taken.clear();
                    return Err(End::Closing(Code::Conflict));
                }
                Err(AckError::Ahead) => return Err(End::Closing(Code::Unprocessable)),
            }
            let mut batch = Batch::default();
            store::take(&mut batch, self.device, self.taken.iter().copied());
            loaded.save(&mut batch, &head);
            if rows::commit(&*self.cluster.host.store, batch).await.map_err(closing)? == Committed::Yes {
                self.taken.clear();
            }
        }
        Ok(())
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame).expect("a frame is plain data");
        let sent = self.cluster.host.clock.timeout(DEAD_AFTER, self.socket.send(&text)).await;
        sent.map_err(|_| End::Gone)?.map_err(broken)
    }
}

/// A device that is not here any more has moved with its user (MAP-007), or is gone for good.
async fn why(cluster: &Cluster, owner: &UserRef, code: Code) -> Code {
    if code != Code::Gone {
        return code;
    }
    match moves::gone_to(cluster, &owner.user).await {
        Ok(Some(_)) => Code::WrongCluster,
        Ok(None) => Code::Gone,
        Err(_) => Code::Unavailable,
    }
}

/// The next hint. A bus that is gone says nothing more: the pings look at the store.
async fn next_hint(hints: &mut Subscription) -> Hint {
    match hints.next().await {
        Some(message) => Hint::read(&message),
        None => std::future::pending().await,
    }
}

/// Whatever cannot be done now is one code, on which a device comes back.
fn closing(problem: Problem) -> End {
    End::Closing(if problem.status >= 500 { Code::Unavailable } else { problem.code })
}

fn broken(error: WsError) -> End {
    match error {
        WsError::Gone(_) => End::Gone,
        WsError::TooLarge => End::Closing(Code::TooLarge),
        WsError::Invalid(_) => End::Closing(Code::BadRequest),
    }
}
