//! A small language for made-up histories, for the tests of judges and of whoever reads histories.
//!
//! In its world Alice and Ann live on cluster `a` (org acme), Bob on `b` (org bravo), Carol on `c` (the
//! consumer org); `{name}1` is everybody's first device.

use std::collections::BTreeMap;
use std::time::Duration;

use fusion_protocol::conversation::{
    Act, Activity, ActivityId, Conversation, ConversationState, Kind, Participant, PeerLookup, PeerState,
};
use fusion_protocol::index::{IndexEntry, Membership};
use fusion_protocol::locus::{ActiveLocus, Locus, LocusParticipant, LocusState, ParticipantState};
use fusion_protocol::map::{Resolution, UserRecord};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Pii, Url, Uuid};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::event::{
    Answer, Body, Call, EventId, FaultPhase, Outcome, Phase, Sink, SinkHit, SocketChange, World,
    WorldCluster, WorldUser,
};
use crate::history::History;

/// The template of the made-up world.
pub const TEMPLATE: &str = "https://{cluster}-{service}.{provider}";

/// A history being made up. Time goes on by a millisecond with every event, and by [`Story::wait`].
#[derive(Debug)]
pub struct Story {
    history: History,
    now: Duration,
    /// How many notifications each user's first device has had.
    told: BTreeMap<String, u64>,
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Story {
    /// The made-up world, in which nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::on("story")
    }

    /// The same on an engine.
    #[must_use]
    pub fn on(engine: &str) -> Self {
        let mut story = Self { history: History::new(), now: Duration::ZERO, told: BTreeMap::new() };
        story.happens("engine", None, Body::World(World { engine: engine.to_owned(), ..world() }));
        story
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// Anything happens at a host.
    pub fn happens(&mut self, host: &str, cause: Option<EventId>, body: Body) -> EventId {
        self.now += Duration::from_millis(1);
        self.history.append(self.now, host, cause, body)
    }

    /// Somebody asks for something, with the first device.
    pub fn asks(&mut self, who: &str, call: Call) -> EventId {
        let operation = format!("op-{}", self.history.len());
        self.happens(&format!("{who}1"), None, Body::Invoke { operation, actor: user(who), call })
    }

    /// The call is done.
    pub fn answers(&mut self, asked: EventId, answer: Answer) -> EventId {
        self.returns(asked, Outcome::Done { answer })
    }

    /// The call is refused.
    pub fn refuses(&mut self, asked: EventId, code: Code) -> EventId {
        self.returns(asked, Outcome::Refused { status: code.status(), code: Some(code) })
    }

    /// The call ends somehow.
    pub fn returns(&mut self, asked: EventId, outcome: Outcome) -> EventId {
        let host = self.history.event(asked).map(|event| event.host.clone()).unwrap_or_default();
        self.happens(&host, Some(asked), Body::Return { outcome })
    }

    /// Somebody asks and is answered at once. Answers the return.
    pub fn does(&mut self, who: &str, call: Call, answer: Answer) -> EventId {
        let asked = self.asks(who, call);
        self.answers(asked, answer)
    }

    /// Somebody asks and is refused at once.
    pub fn is_refused(&mut self, who: &str, call: Call, code: Code) -> EventId {
        let asked = self.asks(who, call);
        self.refuses(asked, code)
    }

    /// A service commits a state.
    pub fn state(&mut self, cluster: &str, concept: &str, subject: &str, state: &str) -> EventId {
        let (concept, subject, state) = (concept.to_owned(), subject.to_owned(), state.to_owned());
        self.happens(cluster, None, Body::State { concept, subject, state, detail: Value::Null })
    }

    /// A fault begins or ends.
    pub fn fault(&mut self, fault: &str, family: &str, phase: FaultPhase, detail: Value) -> EventId {
        let (fault, family) = (fault.to_owned(), family.to_owned());
        self.happens("engine", None, Body::Fault { fault, family, phase, detail })
    }

    /// The first device of a user becomes ready.
    pub fn is_online(&mut self, who: &str) -> EventId {
        self.socket(who, SocketChange::Ready)
    }

    /// Something happens to the socket of a user's first device.
    pub fn socket(&mut self, who: &str, what: SocketChange) -> EventId {
        let body = Body::Socket { user: user(who), what, base: Count(0), session: Count(1) };
        self.happens(&format!("{who}1"), None, body)
    }

    /// The first device of a user is told something.
    pub fn is_told(&mut self, who: &str, event_type: EventType, resource: &Url, data: Value) -> EventId {
        let id = Uuid::from_u128(self.history.len() as u128);
        let seq = self.told.entry(who.to_owned()).or_default();
        *seq += 1;
        let seq = Count(*seq);
        let (user, resource) = (user(who), resource.clone());
        let body = Body::Deliver { user, session: Count(1), id, seq, event_type, resource, data };
        self.happens(&format!("{who}1"), None, body)
    }

    /// The first device of a user is told of a conversation, with the index cursor.
    pub fn is_told_of(&mut self, who: &str, resource: &Url, cursor: u64) -> EventId {
        let data = json!({ "indexCursor": cursor.to_string() });
        self.is_told(who, EventType::ConversationCreated, resource, data)
    }

    /// From here on nothing moves any more.
    pub fn comes_to_rest(&mut self) -> EventId {
        self.happens("engine", None, Body::Phase { phase: Phase::Quiescent })
    }

    /// A place is searched for three canaries.
    pub fn is_searched(&mut self, host: &str, place: &str, hits: Vec<SinkHit>) -> EventId {
        let sink = Sink { place: place.to_owned(), searched_bytes: 1_000, canaries: 3, hits };
        self.happens(host, None, Body::Sink(sink))
    }

    /// The history as it is now.
    #[must_use]
    pub fn told(&self) -> &History {
        &self.history
    }

    // What people do, with the answer that a right system gives.

    /// Creates a 1:1 at the own cluster and is answered 201 with `url`.
    pub fn creates(&mut self, who: &str, other: &str, url: &Url, state: ConversationState) -> EventId {
        let answer = created(true, conversation(url, &[who, other], state));
        self.does(who, create(who, other), answer)
    }

    /// Posts `activity` to `url` and is answered 201.
    pub fn posts(&mut self, who: &str, url: &Url, activity: &Activity) -> EventId {
        let key = activity.id.to_string();
        self.does(who, post(url, &key, &text_of(activity)), accepted(activity))
    }

    /// Reads `url` from the start and finds all of `activities`.
    pub fn reads(&mut self, who: &str, url: &Url, activities: &[Activity]) -> EventId {
        self.does(who, read(url, 0), page(activities))
    }

    /// Looks up the conversation with `other` and finds `url`, at rest.
    pub fn finds(&mut self, who: &str, other: &str, url: &Url) -> EventId {
        self.does(who, Call::LookUp { other: user(other) }, peer(url, PeerState::Live))
    }

    /// Reads the own index from the start and finds the 1:1 conversations `urls`.
    pub fn has_in_index(&mut self, who: &str, urls: &[&Url]) -> EventId {
        let entries: Vec<IndexEntry> =
            urls.iter().zip(1..).map(|(url, cursor)| index_entry(url, cursor)).collect();
        let cursor = Count(entries.len() as u64);
        self.does(who, Call::ReadIndex { after: Count(0) }, Answer::Index { entries, cursor })
    }

    /// Joins a locus and is answered with `locus`.
    pub fn joins(&mut self, who: &str, expect: u64, locus: &Locus) -> EventId {
        self.does(who, join(&locus.url, expect, who), joined(locus))
    }
}

/// `alice` and `ann` of acme.example, `bob` of bravo.example, anybody else of mail.example.
#[must_use]
pub fn user(name: &str) -> Address {
    let domain = match name {
        "alice" | "ann" => "acme.example",
        "bob" => "bravo.example",
        _ => "mail.example",
    };
    format!("{name}@{domain}").parse().expect("a made-up address")
}

/// Everybody's incarnation, always the same.
#[must_use]
pub fn incarnation(name: &str) -> Incarnation {
    let digest = Sha256::digest(name);
    Incarnation(Uuid::from_slice(&digest[..16]).expect("16 octets"))
}

/// The cluster that serves somebody.
#[must_use]
pub fn home_of(name: &str) -> ClusterName {
    cluster(match name {
        "alice" | "ann" => "a",
        "bob" => "b",
        _ => "c",
    })
}

/// A cluster's name.
#[must_use]
pub fn cluster(name: &str) -> ClusterName {
    name.parse().expect("a made-up cluster")
}

/// The `n`th conversation of a cluster.
#[must_use]
pub fn conversation_url(cluster: &str, n: u128) -> Url {
    let id = Uuid::from_u128(n);
    let url = format!("https://{cluster}-conv.provider.example/v1/conversations/{id}");
    Url::parse(&url).expect("a made-up URL")
}

/// The locus of a conversation.
#[must_use]
pub fn locus_url(conversation: &Url) -> Url {
    Url::parse(&format!("{conversation}/locus")).expect("a made-up URL")
}

/// A 1:1 between two, a group between more.
#[must_use]
pub fn conversation(url: &Url, members: &[&str], state: ConversationState) -> Conversation {
    let participant = |name: &&str| Participant {
        user: user(name),
        incarnation: Some(incarnation(name)),
        cluster: Some(home_of(name)),
        joined_seq: Count(0),
        unreachable: None,
    };
    Conversation {
        id: url.path().to_owned(),
        url: url.clone(),
        locus_url: locus_url(url),
        kind: if members.len() == 2 { Kind::OneToOne } else { Kind::Group },
        state,
        participants: members.iter().map(participant).collect(),
        title: None,
        last_seq: Count(0),
        membership_seq: Count(0),
        created: String::new(),
        superseded_by: None,
    }
}

/// A message of `author`, identified by its text, at a place.
#[must_use]
pub fn message(author: &str, text: &str, seq: u64) -> Activity {
    let id = ActivityId(Sha256::digest(format!("{author} {text}")).into());
    let act = Act::Message { text: Pii::from(text) };
    let (author, incarnation) = (user(author), incarnation(author));
    Activity { id, seq: Count(seq), author, incarnation, published: String::new(), act, attested_by: None }
}

/// A locus in a call: who, and their state.
#[must_use]
pub fn locus(
    conversation: &Url,
    state: LocusState,
    instance: u64,
    members: &[(&str, ParticipantState)],
) -> Locus {
    let participant = |(name, state): &(&str, ParticipantState)| LocusParticipant {
        id: incarnation(name).0,
        user: user(name),
        state: *state,
        reason: None,
        devices: Vec::new(),
    };
    Locus {
        url: locus_url(conversation),
        conversation_url: conversation.clone(),
        state,
        instance: Count(instance),
        rev: Count(instance),
        participants: members.iter().map(participant).collect(),
        replaces: Vec::new(),
    }
}

/// An entry of somebody's active list.
#[must_use]
pub fn active(locus: &Locus, own: ParticipantState) -> ActiveLocus {
    ActiveLocus {
        locus_url: locus.url.clone(),
        conversation_url: locus.conversation_url.clone(),
        instance: locus.instance,
        rev: locus.rev,
        state: locus.state,
        participant_state: own,
    }
}

/// An entry of somebody's index.
#[must_use]
pub fn index_entry(url: &Url, cursor: u64) -> IndexEntry {
    let home = url.host_str().and_then(|host| host.split('-').next()).unwrap_or_default();
    IndexEntry {
        url: url.clone(),
        locus_url: locus_url(url),
        kind: Kind::OneToOne,
        home: cluster(home),
        title: None,
        membership: Membership::Member,
        membership_seq: Count(0),
        last_seq: Count(0),
        preview: Vec::new(),
        hidden: false,
        superseded_by: None,
        cursor: Count(cursor),
        reachable: true,
    }
}

/// Creates a 1:1 at the creator's own cluster.
#[must_use]
pub fn create(who: &str, other: &str) -> Call {
    Call::Create { kind: Kind::OneToOne, others: vec![user(other)], at: home_of(who), key: String::new() }
}

/// Posts a message.
#[must_use]
pub fn post(url: &Url, key: &str, text: &str) -> Call {
    let (conversation, key, text) = (url.clone(), key.to_owned(), Some(text.to_owned()));
    Call::Post { conversation, key, verb: "message".to_owned(), text }
}

/// Reads a conversation.
#[must_use]
pub fn read(url: &Url, after: u64) -> Call {
    Call::Read { conversation: url.clone(), after: Count(after) }
}

/// Joins a locus with the first device.
#[must_use]
pub fn join(locus: &Url, expect: u64, who: &str) -> Call {
    Call::Join { locus: locus.clone(), expect: Count(expect), device: format!("{who}1") }
}

/// A conversation as an answer.
#[must_use]
pub fn created(created: bool, conversation: Conversation) -> Answer {
    Answer::Conversation { created, conversation: Box::new(conversation) }
}

/// An accepted activity.
#[must_use]
pub fn accepted(activity: &Activity) -> Answer {
    Answer::Accepted { created: true, activity: Box::new(activity.clone()), redirected_to: None }
}

/// A page that ends where the conversation ends.
#[must_use]
pub fn page(activities: &[Activity]) -> Answer {
    let last_seq = activities.last().map_or(Count(0), |activity| activity.seq);
    Answer::Activities { activities: activities.to_vec(), last_seq, redirected_to: None }
}

/// A page that a superseded conversation redirected to its winner.
#[must_use]
pub fn page_at(winner: &Url, activities: &[Activity]) -> Answer {
    let last_seq = activities.last().map_or(Count(0), |activity| activity.seq);
    Answer::Activities { activities: activities.to_vec(), last_seq, redirected_to: Some(winner.clone()) }
}

/// A look-up's answer.
#[must_use]
pub fn peer(url: &Url, state: PeerState) -> Answer {
    Answer::Peer(PeerLookup { url: url.clone(), locus_url: locus_url(url), state })
}

/// A joined locus.
#[must_use]
pub fn joined(locus: &Locus) -> Answer {
    Answer::Joined { locus: Box::new(locus.clone()), leg: None }
}

/// A locus as read.
#[must_use]
pub fn locus_read(locus: &Locus) -> Answer {
    Answer::Locus { locus: Box::new(locus.clone()) }
}

/// A user, as found on a cluster.
#[must_use]
pub fn resolved(name: &str, at: &str) -> Answer {
    let (user, incarnation) = (user(name), incarnation(name));
    let record = UserRecord { user, incarnation, cluster: cluster(at), version: Count(1) };
    Answer::Resolved(Resolution { record, stale: false, map_version: Count(1) })
}

fn text_of(activity: &Activity) -> String {
    match &activity.act {
        Act::Message { text } => text.expose().clone(),
        _ => String::new(),
    }
}

fn world() -> World {
    let cluster = |name: &str, org: &str| WorldCluster {
        name: cluster(name),
        org: org.to_owned(),
        data_center: format!("{name}-dc"),
        hosts: vec![name.to_owned(), format!("{name}-relay")],
        overflow: vec![],
    };
    let domain = |name: &str, org: &str| (name.parse().expect("a made-up domain"), org.to_owned());
    let person = |name: &&str| WorldUser { user: user(name), cluster: home_of(name) };
    World {
        engine: "story".to_owned(),
        provider: Some("provider.example".parse().expect("a made-up domain")),
        template: TEMPLATE.to_owned(),
        clusters: vec![cluster("a", "acme"), cluster("b", "bravo"), cluster("c", "consumer")],
        domains: vec![domain("acme.example", "acme"), domain("bravo.example", "bravo")],
        users: ["alice", "ann", "bob", "carol"].iter().map(person).collect(),
        provider_hosts: vec!["provider".to_owned()],
    }
}
