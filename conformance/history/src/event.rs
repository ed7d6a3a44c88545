//! What can be observed: the contract between those who record (engines, devices) and those who read
//! (judges, reports).
//!
//! Not responsible for order or integrity ([`crate::history`]), nor for what it means ([`crate::judge`]).

use fusion_protocol::conversation::{Activity, Conversation, Kind, PeerLookup};
use fusion_protocol::index::IndexEntry;
use fusion_protocol::locus::{ActiveLocus, Locus, ParticipantState};
use fusion_protocol::map::{DomainRecord, Resolution};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Domain, Incarnation, Url, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The place of an event in its history, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub u64);

/// Something observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its place in the history.
    pub id: EventId,
    /// When, in microseconds since the run began (virtual in a simulation).
    pub at_us: u64,
    /// Where: a cluster, `provider`, a relay, or a device such as `alice/phone`.
    pub host: String,
    /// The event that led to it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// What. Nested in JSON, for several bodies have an `id` of their own.
    pub body: Body,
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "event")]
pub enum Body {
    /// Who is who; the first event of every history.
    World(World),
    /// A client or an admin asks for something.
    Invoke {
        /// The operation's stable id in the plan or the check.
        operation: String,
        /// Who asks.
        actor: Address,
        /// What for.
        call: Call,
    },
    /// What became of it; `cause` is the invocation. An invocation without a return was cut off: it may
    /// or may not have happened.
    Return {
        /// The outcome.
        outcome: Outcome,
    },
    /// An event reached a device over its WebSocket. `host` is the device.
    Deliver {
        /// Whose device.
        user: Address,
        /// The socket's session (MER-005).
        session: Count,
        /// The event's id.
        id: Uuid,
        /// Its place in the device's stream.
        seq: Count,
        /// What happened.
        event_type: EventType,
        /// To which object.
        resource: Url,
        /// What it carried.
        data: Value,
    },
    /// A device's socket became ready, was told to re-sync, or ended. `host` is the device.
    Socket {
        /// Whose device.
        user: Address,
        /// Which.
        what: SocketChange,
        /// The base after it: the next event's `seq` is one more.
        base: Count,
        /// The socket's session.
        session: Count,
    },
    /// A service committed a new state of an object (evidence `State`).
    State {
        /// The kind of object: `conversation`, `slot`, `index`, `locus`, `leg`, `user`, `domain`, `token`.
        concept: String,
        /// Which object.
        subject: String,
        /// The state, in SPEC's word where there is one.
        state: String,
        /// What a judge needs besides.
        detail: Value,
    },
    /// A fault began or ended.
    Fault {
        /// Its stable id in the plan.
        fault: String,
        /// Its family, for example `partition`.
        family: String,
        /// Whether it begins or ends.
        phase: FaultPhase,
        /// Its parameters.
        detail: Value,
    },
    /// The network carried, held or lost something (evidence `Wire`).
    Wire {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
        /// `tcp` or `udp`.
        protocol: String,
        /// `open`, `close`, `reset`, `deliver`, `drop`.
        what: String,
        /// How many bytes.
        bytes: u64,
    },
    /// A service wrote a log line.
    Log {
        /// `debug`, `info`, `warn` or `error`.
        level: String,
        /// The line's target.
        target: String,
        /// Its fields.
        fields: Value,
    },
    /// A place was searched for private bytes (PRI-001).
    Sink(Sink),
    /// A device sent or received media. `host` is the device.
    Media(Media),
    /// A relay's account of one leg (MED-005).
    Leg(fusion_protocol::media::LegCounters),
    /// The run enters a phase.
    Phase {
        /// Which.
        phase: Phase,
    },
}

/// Who is who in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Where the run takes place: `fabric`, `live` and so on.
    pub engine: String,
    /// The provider's domain.
    pub provider: Option<Domain>,
    /// The template of service URLs, as written in SPEC.
    pub template: String,
    /// Every cluster.
    pub clusters: Vec<WorldCluster>,
    /// Every claimed domain with its org.
    pub domains: Vec<(Domain, String)>,
    /// Every user known beforehand.
    pub users: Vec<WorldUser>,
    /// The hosts of the provider plane (PRI).
    pub provider_hosts: Vec<String>,
}

/// A cluster of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldCluster {
    /// Its name.
    pub name: ClusterName,
    /// Its org; `consumer` for the consumer org.
    pub org: String,
    /// Its data centre.
    pub data_center: String,
    /// Its hosts as events name them (cluster and relays).
    pub hosts: Vec<String>,
    /// Clusters of other orgs whose relays it may use while none of its own org's is there (MED-003).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overflow: Vec<ClusterName>,
}

/// A user of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldUser {
    /// The address.
    pub user: Address,
    /// The cluster that serves them.
    pub cluster: ClusterName,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "call")]
#[expect(missing_docs, reason = "the fields are the arguments of the call, by SPEC's names")]
pub enum Call {
    /// An admin provisions a user at a cluster (PRO-002).
    Provision { user: Address, cluster: ClusterName },
    /// An admin deletes a user.
    Deprovision { user: Address, cluster: ClusterName },
    /// An admin moves a user to another cluster of the org, and waits until it is done (MAP-007).
    Move { user: Address, from: ClusterName, to: ClusterName },
    /// An org claims a domain, naming its clusters (MAP-002).
    Claim { domain: Domain, org: String, clusters: Vec<ClusterName> },
    /// A domain is looked up in the provider's map (MAP-003).
    ReadDomain { domain: Domain },
    /// A user logs in at a cluster (SEC-002).
    LogIn { cluster: ClusterName },
    /// A user exchanges the token for one of another cluster (SEC-003).
    Exchange { cluster: ClusterName },
    /// An address is resolved through a cluster (MAP-001).
    Resolve { user: Address, via: ClusterName },
    /// A device registers and opens its socket (MER).
    Connect { device: String },
    /// A device closes its socket on purpose.
    Disconnect { device: String },
    /// A conversation is created at a cluster.
    Create { kind: Kind, others: Vec<Address>, at: ClusterName, key: String },
    /// The conversation with a peer is looked up.
    LookUp { other: Address },
    /// An activity is posted; `text` for a message.
    Post { conversation: Url, key: String, verb: String, text: Option<String> },
    /// A conversation is read from after a `seq` on.
    Read { conversation: Url, after: Count },
    /// A conversation's state is read.
    ReadConversation { conversation: Url },
    /// The own index is read.
    ReadIndex { after: Count },
    /// A locus is read.
    ReadLocus { locus: Url },
    /// What is new in a locus since a revision (LOC-008).
    ReadLocusSince { locus: Url, since: Count },
    /// A locus is joined.
    Join { locus: Url, expect: Count, device: String },
    /// The own state in a locus is set.
    SetState { locus: Url, state: ParticipantState, instance: Count },
    /// A lease is renewed.
    Renew { locus: Url, instance: Count, device: String },
    /// The own active loci are listed.
    ListLoci {},
    /// A device binds its leg and sends and receives media for a while.
    Talk { leg: Uuid, packets: u64 },
    /// Something that must be refused is tried; `expect` says by which code (SEC).
    Trespass { what: String, requirement: String, expect: Code },
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// It was done.
    Done {
        /// What was answered.
        answer: Answer,
    },
    /// It was refused, with a status and a stable code.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code; `None` when the body was no problem.
        code: Option<Code>,
    },
    /// Nothing was sent: name, connection or TLS failed.
    Unreachable {},
    /// It was sent and no answer came: it may or may not have been done.
    Unknown {},
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "answer")]
#[expect(missing_docs, reason = "the fields are the members of the wire message, by SPEC's names")]
pub enum Answer {
    /// Only that it was done.
    Nothing {},
    /// A user was provisioned.
    Provisioned { incarnation: Option<Incarnation> },
    /// A token was issued.
    Token { audience: String },
    /// A domain was claimed, or looked up.
    Domain(DomainRecord),
    /// An address was resolved.
    Resolved(Resolution),
    /// A device is connected.
    Connected { id: String },
    /// A conversation; `created` tells 201 from 200.
    Conversation { created: bool, conversation: Box<Conversation> },
    /// The conversation of a pair.
    Peer(PeerLookup),
    /// An activity is accepted; `created` tells 201 from 200. `redirected_to` is the conversation that
    /// answered when it was not the one asked (308 of a superseded one).
    Accepted {
        created: bool,
        activity: Box<Activity>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        redirected_to: Option<Url>,
    },
    /// A page of a conversation. `redirected_to` as above: its `seq`s are those of that conversation.
    Activities {
        activities: Vec<Activity>,
        last_seq: Count,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        redirected_to: Option<Url>,
    },
    /// A page of an index.
    Index { entries: Vec<IndexEntry>, cursor: Count },
    /// A locus.
    Locus { locus: Box<Locus> },
    /// Nothing is new in a locus, whose revision this is.
    LocusUnchanged { rev: Count },
    /// A locus was joined.
    Joined { locus: Box<Locus>, leg: Option<Uuid> },
    /// The active loci.
    Loci { loci: Vec<ActiveLocus> },
}

/// What happened to a device's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SocketChange {
    /// Authenticated and ready.
    Ready,
    /// Told to re-sync.
    Resync,
    /// Ended.
    Closed,
}

/// Whether a fault begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultPhase {
    /// It begins.
    Began,
    /// It ends.
    Ended,
}

/// The phases of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Users, devices and claims are set up.
    SetUp,
    /// People act, faults happen: safety is judged.
    Act,
    /// Everything is healed; no new operations.
    Heal,
    /// Nothing moves any more; what is read now is what liveness is judged by.
    Quiescent,
    /// The run is over.
    End,
}

/// A place that was searched for private bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// `store`, `log`, `wire` and so on.
    pub place: String,
    /// How many bytes were searched.
    pub searched_bytes: u64,
    /// How many canaries were looked for, in all encodings.
    pub canaries: u64,
    /// What was found.
    pub hits: Vec<SinkHit>,
}

/// A private thing found where it must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkHit {
    /// Which canary.
    pub canary: String,
    /// In which encoding.
    pub encoding: String,
    /// Where in the place, in bytes from its start.
    pub offset: u64,
    /// What stands around it, printable.
    pub context: String,
}

/// Media as a device saw it, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// The device's leg.
    pub leg: Uuid,
    /// The locus.
    pub locus: Url,
    /// The call.
    pub instance: Count,
    /// The SSRC it sent with.
    pub ssrc: u32,
    /// Whether the relay had answered its binding request (MED-001); an intruder's is `false`.
    pub bound: bool,
    /// Packets sent on the leg.
    pub sent: u64,
    /// Packets received, by SSRC: how many, how many out of order, how many twice.
    pub received: Vec<MediaSource>,
    /// When the last packet came from any source, in microseconds since the run began.
    pub last_received_us: Option<u64>,
    /// The times without any packet between two that came, half a second and longer, the first few of
    /// them (MED-004).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<Silence>,
}

/// A time without any packet, in microseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// When the packet before it came.
    pub from_us: u64,
    /// When the packet after it came.
    pub until_us: u64,
}

/// Media from one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaSource {
    /// The source.
    pub ssrc: u32,
    /// Packets received.
    pub packets: u64,
    /// Those that came after a later one.
    pub out_of_order: u64,
    /// Those that came more than once.
    pub duplicates: u64,
    /// When the last one came, in microseconds since the run began.
    pub last_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;
    use crate::testing::{self, Story};
    use fusion_protocol::conversation::{ConversationState, PeerState};
    use fusion_protocol::locus::LocusState;
    use fusion_protocol::media::LegCounters;

    /// Some bodies have members of the same name as the event's own, so each is tried.
    #[test]
    fn every_body_and_every_answer_is_read_as_it_was_written() {
        let url = testing::conversation_url("a", 1);
        let locus = testing::locus(&url, LocusState::Active, 1, &[("alice", ParticipantState::Joined)]);
        let message = testing::message("alice", "hello", 1);
        let mut story = Story::new();
        story.creates("alice", "bob", &url, ConversationState::Bound);
        story.posts("alice", &url, &message);
        story.reads("alice", &url, std::slice::from_ref(&message));
        story.does("alice", testing::read(&url, 0), testing::page_at(&url, &[message]));
        story.does(
            "alice",
            Call::LookUp { other: testing::user("bob") },
            testing::peer(&url, PeerState::Merging),
        );
        story.has_in_index("alice", &[&url]);
        story.joins("alice", 0, &locus);
        story.does("alice", Call::ReadLocus { locus: locus.url.clone() }, testing::locus_read(&locus));
        let loci = vec![testing::active(&locus, ParticipantState::Joined)];
        story.does("alice", Call::ListLoci {}, Answer::Loci { loci });
        story.does("alice", Call::LogIn { cluster: testing::cluster("a") }, Answer::Nothing {});
        let set = Call::SetState { locus: locus.url, state: ParticipantState::Left, instance: Count(1) };
        story.is_refused("alice", set, Code::CallOver);
        let resolve = Call::Resolve { user: testing::user("bob"), via: testing::cluster("a") };
        let asked = story.asks("alice", resolve);
        story.answers(asked, testing::resolved("bob", "b"));
        for outcome in [Outcome::Unknown {}, Outcome::Unreachable {}] {
            let asked = story.asks("alice", Call::Connect { device: "alice1".into() });
            story.returns(asked, outcome);
        }
        story.is_online("bob");
        story.is_told_of("bob", &url, 7);
        story.state("a", "conversation", url.as_str(), "BOUND");
        story.is_searched("provider", "log", vec![]);
        story.comes_to_rest();
        let media = Media {
            leg: Uuid::from_u128(1),
            locus: url,
            instance: Count(1),
            ssrc: 1,
            bound: true,
            sent: 1,
            received: vec![MediaSource { ssrc: 2, packets: 1, out_of_order: 0, duplicates: 0, last_us: 5 }],
            last_received_us: Some(5),
            silences: vec![Silence { from_us: 1, until_us: 5 }],
        };
        story.happens("alice1", None, Body::Media(media));
        story.happens("a-relay", None, Body::Leg(LegCounters { open: true, ..LegCounters::default() }));
        let detail = serde_json::json!({ "loss": 0.25 });
        let (fault, family, phase) = ("f-1".into(), "loss".into(), FaultPhase::Began);
        story.happens("engine", None, Body::Fault { fault, family, phase, detail });
        let (from, to, protocol, what) = ("a".into(), "b".into(), "tcp".into(), "open".into());
        story.happens("engine", None, Body::Wire { from, to, protocol, what, bytes: 3 });

        let read = History::from_lines(&story.told().to_lines()).expect("a history");
        assert_eq!(read.events(), story.told().events());
        assert_eq!(read.hash(), story.told().hash());
    }
}
