//! Media of one device: binding a leg, sending RTP, counting what comes (MED).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_history::event::{Answer, Media, MediaSource, Silence};
use fusion_history::{Body, Call};
use fusion_protocol::locus::Joined;
use fusion_protocol::media::{self, DATAGRAM_MAX, Datagram, Leg};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Code, Count, Url};
use fusion_runtime::net::Udp;
use fusion_runtime::tasks::Task;
use fusion_runtime::{Entropy, Host};

use super::mercury::EVER;
use super::scribe::Tried;
use super::{Device, Failure, lock};

/// How often a binding request is sent before the relay counts as silent.
const BIND_TRIES: u32 = 5;
/// How long an answer to a binding request is awaited; UDP loses, so it is short.
const BIND_WAIT: Duration = Duration::from_millis(500);
/// Samples of a packet at 8 kHz and 20 ms.
const SAMPLES: u32 = 160;
/// Octets of a packet's payload (G.711, 20 ms).
const PAYLOAD: [u8; SAMPLES as usize] = [0xff; SAMPLES as usize];

/// From which length on a time without packets is written down.
const SILENCE: Duration = Duration::from_millis(500);
/// How many of them are.
const SILENCES_MAX: usize = 64;
/// How often a device asks for its new leg when its call has changed its relay.
const MOVE_TRIES: u32 = 12;
/// The pause between two of these tries.
const MOVE_PAUSE: Duration = Duration::from_millis(250);

/// A bound leg. It counts what arrives until it is dropped. When its call changes the relay it is bound
/// there, with a new source (MED-004).
pub struct MediaLeg {
    device: Device,
    locus: Url,
    instance: Count,
    line: Arc<Mutex<Line>>,
    seen: Arc<Mutex<Seen>>,
    follower: Task<()>,
}

/// A leg at the relay that has it now.
struct Line {
    leg: Leg,
    socket: Arc<dyn Udp>,
    /// Packets sent with the leg's source.
    sent: u64,
    listener: Task<()>,
}

#[derive(Default)]
struct Seen {
    sources: BTreeMap<u32, Source>,
    last: Option<Duration>,
    silences: Vec<(Duration, Duration)>,
}

#[derive(Default)]
struct Source {
    last: Duration,
    packets: u64,
    out_of_order: u64,
    duplicates: u64,
    /// The highest sequence number so far, with its cycles (RFC 3550, appendix A.1).
    highest: u64,
    /// Which of the last 64 numbers have come: bit 0 is the highest.
    window: u64,
}

impl Device {
    /// Binds the leg of a join to a socket of this device.
    ///
    /// # Errors
    /// [`Failure::Unknown`] when the relay does not answer, or the join came without a leg.
    pub async fn bind(&self, joined: &Joined) -> Result<MediaLeg, Failure> {
        let leg = joined.leg.clone().ok_or_else(|| Failure::Garbled {
            status: 200,
            reason: "the join has no media leg".to_owned(),
        })?;
        let seen = Arc::default();
        let line = Arc::new(Mutex::new(Line::open(self.host(), leg, &seen).await?));
        let device = Self { operation: None, key: None, cause: None, ..self.clone() };
        let (locus, instance) = (joined.locus.url.clone(), joined.locus.instance);
        let follower = Follower {
            device: device.clone(),
            locus: locus.clone(),
            instance,
            line: Arc::clone(&line),
            seen: Arc::clone(&seen),
        };
        let follower = self.host().tasks.spawn(follower.follow(joined.locus.rev));
        Ok(MediaLeg { device, locus, instance, line, seen, follower })
    }
}

/// Binds a fresh socket to a relay with any token; the answer proves that the relay took it (MED-001).
///
/// # Errors
/// [`Failure::Unknown`] when the relay does not answer: a relay says nothing to a wrong token.
pub async fn bind_with(host: &Host, relay: SocketAddr, token: &str) -> Result<Arc<dyn Udp>, Failure> {
    let any: SocketAddr = match relay {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = host.net.udp(any).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let transaction = transaction(&host.entropy);
    let request = media::binding_request(transaction, token);
    for _ in 0..BIND_TRIES {
        let sent = socket.send_to(&request, relay).await;
        sent.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let answer = async {
            let mut buffer = [0; DATAGRAM_MAX];
            loop {
                let Ok((length, _)) = socket.recv_from(&mut buffer).await else { return };
                let parsed = media::parse(&buffer[..length]);
                if matches!(parsed, Datagram::Bound { transaction: of, .. } if of == transaction) {
                    return;
                }
            }
        };
        if host.clock.timeout(BIND_WAIT, answer).await.is_ok() {
            return Ok(socket);
        }
    }
    Err(Failure::Unknown("the relay does not answer the binding request".to_owned()))
}

impl Line {
    async fn open(host: &Host, leg: Leg, seen: &Arc<Mutex<Seen>>) -> Result<Self, Failure> {
        let socket = bind_with(host, leg.udp_address, &leg.token).await?;
        let listener = host.tasks.spawn(listen(host.clone(), socket.clone(), Arc::clone(seen)));
        Ok(Self { leg, socket, sent: 0, listener })
    }

    /// What was sent and received, as the history puts it.
    fn account(&self, locus: &Url, instance: Count, seen: &Mutex<Seen>) -> Media {
        let seen = lock(seen);
        let received = seen.sources.iter().map(|(&ssrc, source)| MediaSource {
            ssrc,
            packets: source.packets,
            out_of_order: source.out_of_order,
            duplicates: source.duplicates,
            last_us: source.last.as_micros() as u64,
        });
        let silence = |(from, until): &(Duration, Duration)| Silence {
            from_us: from.as_micros() as u64,
            until_us: until.as_micros() as u64,
        };
        Media {
            leg: self.leg.id,
            locus: locus.clone(),
            instance,
            ssrc: self.leg.ssrc,
            bound: true,
            sent: self.sent,
            received: received.collect(),
            last_received_us: seen.last.map(|at| at.as_micros() as u64),
            silences: seen.silences.iter().map(silence).collect(),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Goes with the call when it changes its relay (MED-004).
struct Follower {
    device: Device,
    locus: Url,
    instance: Count,
    line: Arc<Mutex<Line>>,
    seen: Arc<Mutex<Seen>>,
}

impl Follower {
    /// `rev` is the locus's at the join: what happened before is known.
    async fn follow(self, mut rev: Count) {
        let mut resyncs = self.device.resyncs();
        loop {
            (rev, resyncs) = self.device.relay_changed(&self.locus, self.instance, rev, resyncs).await;
            for _ in 0..MOVE_TRIES {
                match self.go_along().await {
                    Ok(()) => break,
                    Err(Failure::Refused(refused)) if refused.code == Some(Code::CallOver) => return,
                    Err(_) => self.device.host().clock.sleep(MOVE_PAUSE).await,
                }
            }
        }
    }

    /// Joins the call that the device is in, which rings nobody, and binds the leg that it is given.
    async fn go_along(&self) -> Result<(), Failure> {
        let expect = Count(self.instance.0.saturating_sub(1));
        let joined = self.device.join(&self.locus, expect).await?;
        let none = || Failure::Unknown("no relay is there".to_owned());
        let leg = joined.leg.ok_or_else(none)?;
        if leg == lock(&self.line).leg {
            return Ok(());
        }
        let opened = Line::open(self.device.host(), leg, &self.seen).await?;
        let mut line = lock(&self.line);
        let account = line.account(&self.locus, self.instance, &self.seen);
        self.device.inner.scribe.write(None, Body::Media(account));
        *line = opened;
        Ok(())
    }
}

impl Device {
    /// Waits until this device is told that the call has changed its relay, or that it may have missed
    /// such news; answers up to where it knows then.
    async fn relay_changed(&self, locus: &Url, instance: Count, rev: Count, resyncs: u64) -> (Count, u64) {
        loop {
            let news = self.wait_for(EVER, |event| {
                let count = |name| {
                    let member = event.data.get(name)?;
                    serde_json::from_value::<Count>(member.clone()).ok()
                };
                event.event_type == EventType::LocusRelayChanged
                    && event.resource == *locus
                    && count("instance") == Some(instance)
                    && count("rev").is_some_and(|news| news > rev)
            });
            tokio::select! {
                biased;
                news = news => {
                    if let Some(news) = news {
                        return (news.member("rev").unwrap_or(rev), resyncs);
                    }
                }
                missed = self.resynced(resyncs) => return (rev, missed),
            }
        }
    }
}

impl MediaLeg {
    /// Sends `packets` RTP packets, one `every` so often, and writes down what was sent and received.
    ///
    /// # Errors
    /// That the socket cannot send.
    pub async fn talk(&mut self, packets: u64, every: Duration) -> Result<(), Failure> {
        let call = Call::Talk { leg: self.leg().id, packets };
        let invoked = self.device.begin(call);
        let mut result = Ok(());
        for _ in 0..packets {
            let (packet, socket, to) = {
                let mut line = lock(&self.line);
                let sent = line.sent;
                line.sent += 1;
                let timestamp = (sent as u32).wrapping_mul(SAMPLES);
                let packet = media::rtp(line.leg.ssrc, sent as u16, timestamp, &PAYLOAD);
                (packet, line.socket.clone(), line.leg.udp_address)
            };
            if let Err(error) = socket.send_to(&packet, to).await {
                result = Err(Failure::Unreachable(error.to_string()));
                break;
            }
            self.device.host().clock.sleep(every).await;
        }
        self.device.inner.scribe.write(Some(invoked), Body::Media(self.account()));
        self.device.inner.scribe.end(invoked, Tried::once(result), |()| Answer::Nothing {})
    }

    /// The name of the next [`MediaLeg::talk`] in the history.
    pub fn name(&mut self, operation: &str) {
        self.device = self.device.named(operation);
    }

    /// What was sent with the leg's present source and received so far, as the history puts it.
    #[must_use]
    pub fn account(&self) -> Media {
        lock(&self.line).account(&self.locus, self.instance, &self.seen)
    }

    /// Writes the account into the history.
    pub fn record(&self) {
        self.device.inner.scribe.write(None, Body::Media(self.account()));
    }

    /// Packets received so far, from all sources.
    #[must_use]
    pub fn received(&self) -> u64 {
        lock(&self.seen).sources.values().map(|source| source.packets).sum()
    }

    /// Packets sent so far with the leg's present source.
    #[must_use]
    pub fn sent(&self) -> u64 {
        lock(&self.line).sent
    }

    /// The leg, at the relay that has it now.
    #[must_use]
    pub fn leg(&self) -> Leg {
        lock(&self.line).leg.clone()
    }

    /// Waits until at least `packets` have been received, for at most `limit`; says whether they were.
    pub async fn wait_received(&self, packets: u64, limit: Duration) -> bool {
        let clock = &self.device.host().clock;
        let until = clock.now() + limit;
        while self.received() < packets {
            if clock.now() >= until {
                return false;
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

impl Drop for MediaLeg {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn listen(host: Host, socket: Arc<dyn Udp>, seen: Arc<Mutex<Seen>>) {
    let mut buffer = [0; DATAGRAM_MAX];
    while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
        if let Datagram::Rtp { ssrc, sequence } = media::parse(&buffer[..length]) {
            lock(&seen).take(host.clock.now(), ssrc, sequence);
        }
    }
}

impl Seen {
    fn take(&mut self, now: Duration, ssrc: u32, sequence: u16) {
        let before = self.last.replace(now);
        if let Some(before) = before.filter(|before| now >= *before + SILENCE)
            && self.silences.len() < SILENCES_MAX
        {
            self.silences.push((before, now));
        }
        let source = self.sources.entry(ssrc).or_default();
        source.last = now;
        source.take(sequence);
    }
}

fn transaction(entropy: &Entropy) -> [u8; 12] {
    let mut transaction = [0; 12];
    entropy.fill(&mut transaction);
    transaction
}

impl Source {
    fn take(&mut self, sequence: u16) {
        let first = self.packets == 0;
        self.packets += 1;
        if first {
            // One cycle of room, so that packets before the first have a number.
            (self.highest, self.window) = (1 << 16 | u64::from(sequence), 1);
            return;
        }
        let forward = sequence.wrapping_sub(self.highest as u16);
        if forward != 0 && forward < 1 << 15 {
            self.highest += u64::from(forward);
            self.window = if forward < 64 { self.window << forward | 1 } else { 1 };
            return;
        }
        let back = forward.wrapping_neg();
        let bit = if back < 64 { 1 << back } else { 0 };
        if self.window & bit != 0 {
            self.duplicates += 1;
        } else {
            self.out_of_order += 1;
            self.window |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(sequences: &[u16]) -> (u64, u64, u64) {
        let mut source = Source::default();
        sequences.iter().for_each(|&sequence| source.take(sequence));
        (source.packets, source.out_of_order, source.duplicates)
    }

    #[test]
    fn packets_in_order_are_just_counted_also_over_the_wrap() {
        assert_eq!(counted(&[65_533, 65_534, 65_535, 0, 1]), (5, 0, 0));
    }

    #[test]
    fn late_and_repeated_packets_are_told_apart() {
        assert_eq!(counted(&[1, 3, 2, 2, 4]), (5, 1, 1));
        assert_eq!(counted(&[7, 7]), (2, 0, 1));
        assert_eq!(counted(&[5, 4]), (2, 1, 0));
    }
}
