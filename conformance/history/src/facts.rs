//! A history, sorted once for all judges: who asked what and got which answer, what is known of each
//! conversation, and what was read when nothing moved any more.
//!
//! Not responsible for what must hold ([`mod@crate::judges`]).

mod asked;
mod devices;
mod faults;
mod finals;
mod known;
mod sights;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;

use fusion_protocol::locus::Locus;
use fusion_protocol::{Address, ClusterName, Service, Url, UrlTemplate};

use crate::circles::Part;
use crate::event::{Answer, Body, Call, Event, EventId, Outcome, Phase, World};
use crate::history::History;
use crate::judge::Evidence;
use crate::table::{Set, Table};
use sights::{SIGHTS, VERBS};

pub use asked::{Asked, Back, Moment};
pub use devices::{Device, Devices, Told};
pub use faults::{Fault, Faults};
pub use finals::{FinalIndex, FinalRead, Finals};
pub(crate) use known::pair_of;
pub use known::{Conversations, Known, Pair, PairCase};
pub use sights::{Sight, Verb};

/// A history, sorted.
#[derive(Debug)]
pub struct Facts<'h> {
    history: &'h History,
    common: Common<'h>,
    calls: Vec<Asked<'h>>,
    /// Those that nothing has come back from yet.
    open: Table<EventId, u32>,
    /// The calls by verb, and those that came back in the order of their returns.
    by_verb: [Vec<u32>; VERBS],
    returned: Vec<u32>,
    /// Those that came back with a locus, in the same order.
    loci: Vec<(u32, &'h Locus)>,
    /// The events of each sight, by their places.
    by_sight: [Vec<u32>; SIGHTS],
    /// What clients asked, were answered and were told: each place with its call, or [`NO_CALL`].
    moments: Vec<(u32, u32)>,
    /// Of the beginnings of URLs that were looked at: the clusters that they name.
    clusters: RefCell<Table<String, Option<ClusterName>>>,
    conversations: OnceCell<Conversations<'h>>,
    finals: OnceCell<Finals<'h>>,
    standing: OnceCell<Set<&'h str>>,
    devices: OnceCell<Devices<'h>>,
    faults: OnceCell<Faults<'h>>,
    clusters_of_users: OnceCell<Table<&'h Address, BTreeSet<&'h ClusterName>>>,
    deprovisioned: OnceCell<BTreeSet<&'h Address>>,
}

/// What is so for every part of a history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common<'h> {
    world: Option<&'h World>,
    template: Option<UrlTemplate>,
    evidence: BTreeSet<Evidence>,
    quiescent: Option<EventId>,
}

const NO_CALL: u32 = u32::MAX;
/// The org of the consumer clusters, as worlds call it.
pub(crate) const CONSUMER: &str = "consumer";

impl<'h> Facts<'h> {
    /// Sorts a history.
    #[must_use]
    pub fn of(history: &'h History) -> Self {
        let mut facts = Self::none(history, Common::default());
        history.events().iter().enumerate().for_each(|(at, event)| facts.take(at, event));
        facts
    }

    /// Sorts a part of a history, of whose whole this is `common`.
    pub(crate) fn of_part(history: &'h History, common: Common<'h>, part: &Part) -> Self {
        let mut facts = Self::none(history, common);
        let events =
            part.iter().filter_map(|place| Some((*place as usize, history.events().get(*place as usize)?)));
        events.for_each(|(at, event)| facts.take(at, event));
        facts
    }

    /// What the parts of this history have in common.
    pub(crate) fn common(&self) -> &Common<'h> {
        &self.common
    }

    /// The history itself.
    #[must_use]
    pub fn history(&self) -> &'h History {
        self.history
    }

    /// Who is who.
    #[must_use]
    pub fn world(&self) -> Option<&'h World> {
        self.common.world
    }

    /// Whether the history has any of this evidence.
    #[must_use]
    pub fn has(&self, evidence: Evidence) -> bool {
        self.common.evidence.contains(&evidence)
    }

    /// Every call, in the order of invocation.
    #[must_use]
    pub fn calls(&self) -> &[Asked<'h>] {
        &self.calls
    }

    /// The calls made when nothing moved any more: after the last [`Phase::Quiescent`] began.
    pub fn final_calls(&self) -> impl Iterator<Item = &Asked<'h>> {
        let from = self.common.quiescent.map(|id| self.calls.partition_point(|asked| asked.id < id));
        self.calls[from.unwrap_or(self.calls.len())..].iter()
    }

    /// When nothing moved any more; `None`: the run never came to rest.
    #[must_use]
    pub fn quiescent(&self) -> Option<EventId> {
        self.common.quiescent
    }

    /// The calls with a verb, in the order of invocation.
    pub fn asked_to(&self, verb: Verb) -> impl Iterator<Item = &Asked<'h>> {
        self.by_verb[verb as usize].iter().map(|&call| &self.calls[call as usize])
    }

    /// The calls that came back, in the order of their returns.
    pub fn returned(&self) -> impl Iterator<Item = (&Asked<'h>, Back<'h>)> {
        let calls = self.returned.iter().map(|&call| &self.calls[call as usize]);
        calls.filter_map(|asked| Some((asked, asked.back?)))
    }

    /// The calls that came back with a locus, in the order of their returns.
    pub fn loci(&self) -> impl Iterator<Item = (&Asked<'h>, Back<'h>, &'h Locus)> {
        let calls = self.loci.iter().map(|&(call, locus)| (&self.calls[call as usize], locus));
        calls.filter_map(|(asked, locus)| Some((asked, asked.back?, locus)))
    }

    /// What clients asked, were answered and were told, step by step.
    pub fn moments(&self) -> impl Iterator<Item = Moment<'_, 'h>> {
        self.moments.iter().map(|&(at, call)| {
            let Some(asked) = self.calls.get(call as usize) else {
                return Moment::Seen(&self.history.events()[at as usize]);
            };
            match asked.back {
                Some(back) if back.id.0 == u64::from(at) => Moment::Returned(asked, back),
                _ => Moment::Asked(asked),
            }
        })
    }

    /// What was seen of one kind, in order.
    pub fn seen(&self, sight: Sight) -> impl Iterator<Item = &'h Event> {
        let events = self.history.events();
        self.by_sight[sight as usize].iter().map(move |&at| &events[at as usize])
    }

    /// The cluster that a URL names (NAM-001); `None` for a URL that fits not, or without a [`World`].
    #[must_use]
    pub fn cluster_of(&self, url: &Url) -> Option<ClusterName> {
        let template = self.common.template.as_ref()?;
        // The host and the first word of the path say it all, and there are few of them.
        let text = url.as_str();
        let end = text.match_indices('/').nth(3).map_or(text.len(), |(at, _)| at);
        let mut clusters = self.clusters.borrow_mut();
        if let Some(known) = clusters.get(&text[..end]) {
            return known.clone();
        }
        let cluster = template.locate(url).ok().map(|located| located.cluster);
        clusters.insert(text[..end].to_owned(), cluster.clone());
        cluster
    }

    /// The name in DNS at which a service of a cluster answers; `None` without a [`World`].
    #[must_use]
    pub fn name_of(&self, cluster: &ClusterName, service: Service) -> Option<String> {
        let url = self.common.template.as_ref()?.url(cluster, service, "/");
        url.host_str().map(str::to_owned)
    }

    /// Whether a cluster is one of the consumer org's.
    #[must_use]
    pub fn is_consumer(&self, cluster: &ClusterName) -> bool {
        self.org_of(cluster) == Some(CONSUMER)
    }

    /// The org of a cluster, as the world knows it.
    #[must_use]
    pub fn org_of(&self, cluster: &ClusterName) -> Option<&'h str> {
        let clusters = &self.common.world?.clusters;
        clusters.iter().find(|known| known.name == *cluster).map(|known| known.org.as_str())
    }

    /// Whether URLs can be told apart at all.
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.common.template.is_some()
    }

    /// What is known of each conversation.
    #[must_use]
    pub fn conversations(&self) -> &Conversations<'h> {
        self.conversations.get_or_init(|| Conversations::of(self))
    }

    /// What was read when nothing moved any more.
    #[must_use]
    pub fn finals(&self) -> &Finals<'h> {
        self.finals.get_or_init(|| Finals::of(self))
    }

    /// The conversations that nobody may overlook: all but those that lost a race, or may have.
    #[must_use]
    pub fn standing(&self) -> &Set<&'h str> {
        self.standing.get_or_init(|| self.finals().standing(self.conversations()))
    }

    /// Who had which device, and what it was told.
    #[must_use]
    pub fn devices(&self) -> &Devices<'h> {
        self.devices.get_or_init(|| Devices::sorted(self))
    }

    /// What went wrong when.
    #[must_use]
    pub fn faults(&self) -> &Faults<'h> {
        self.faults.get_or_init(|| Faults::of(self))
    }

    /// The clusters at which each user was served at some time: the world's, and those where they were
    /// provisioned or moved to.
    #[must_use]
    pub fn clusters_of_users(&self) -> &Table<&'h Address, BTreeSet<&'h ClusterName>> {
        self.clusters_of_users.get_or_init(|| {
            let mut clusters: Table<&Address, BTreeSet<&ClusterName>> = Table::default();
            for user in self.common.world.iter().flat_map(|world| &world.users) {
                clusters.entry(&user.user).or_default().insert(&user.cluster);
            }
            for asked in self.asked_to(Verb::Provision).chain(self.asked_to(Verb::Move)) {
                if let Call::Provision { user, cluster } | Call::Move { user, to: cluster, .. } = asked.call {
                    clusters.entry(user).or_default().insert(cluster);
                }
            }
            clusters
        })
    }

    /// Users that somebody deleted, or tried to.
    #[must_use]
    pub fn deprovisioned(&self) -> &BTreeSet<&'h Address> {
        self.deprovisioned.get_or_init(|| {
            let deleted = |asked: &Asked<'h>| match asked.call {
                Call::Deprovision { user, .. } => Some(user),
                _ => None,
            };
            self.asked_to(Verb::Deprovision).filter_map(deleted).collect()
        })
    }

    fn none(history: &'h History, common: Common<'h>) -> Self {
        Self {
            history,
            common,
            calls: Vec::new(),
            open: Table::default(),
            by_verb: Default::default(),
            returned: Vec::new(),
            loci: Vec::new(),
            by_sight: Default::default(),
            moments: Vec::new(),
            clusters: RefCell::default(),
            conversations: OnceCell::new(),
            finals: OnceCell::new(),
            standing: OnceCell::new(),
            devices: OnceCell::new(),
            faults: OnceCell::new(),
            clusters_of_users: OnceCell::new(),
            deprovisioned: OnceCell::new(),
        }
    }

    fn take(&mut self, at: usize, event: &'h Event) {
        if let Some(sight) = Sight::of(event) {
            self.by_sight[sight as usize].push(at as u32);
            if sight == Sight::Device {
                self.moments.push((at as u32, NO_CALL));
            }
        }
        match &event.body {
            Body::World(world) => {
                self.common.world = Some(world);
                let provider = world.provider.clone();
                self.common.template =
                    provider.and_then(|name| UrlTemplate::parse(&world.template, name).ok());
            }
            Body::Invoke { actor, call, .. } => {
                let (number, verb) = (self.calls.len() as u32, Verb::of(call));
                self.open.insert(event.id, number);
                self.by_verb[verb as usize].push(number);
                self.moments.push((at as u32, number));
                let (id, at_us, host) = (event.id, event.at_us, event.host.as_str());
                self.calls.push(Asked { id, at_us, host, actor, call, verb, back: None });
            }
            Body::Return { outcome } => self.take_return(at, event, outcome),
            Body::Phase { phase: Phase::Quiescent } => self.common.quiescent = Some(event.id),
            Body::State { .. } => drop(self.common.evidence.insert(Evidence::State)),
            Body::Wire { .. } => drop(self.common.evidence.insert(Evidence::Wire)),
            Body::Sink(_) => drop(self.common.evidence.insert(Evidence::Sink)),
            Body::Deliver { .. } | Body::Socket { .. } | Body::Media(_) => {
                self.common.evidence.insert(Evidence::Client);
            }
            Body::Fault { .. } | Body::Log { .. } | Body::Leg(_) | Body::Phase { .. } => {}
        }
    }

    fn take_return(&mut self, at: usize, event: &'h Event, outcome: &'h Outcome) {
        self.common.evidence.insert(Evidence::Client);
        let call = event.cause.and_then(|question| self.open.swap_remove(&question)).unwrap_or(NO_CALL);
        if let Some(asked) = self.calls.get_mut(call as usize) {
            asked.back = Some(Back { id: event.id, at_us: event.at_us, outcome });
            self.returned.push(call);
            self.moments.push((at as u32, call));
            if let Some(Answer::Locus { locus } | Answer::Joined { locus, .. }) = asked.answer() {
                self.loci.push((call, locus));
            }
        }
    }
}
