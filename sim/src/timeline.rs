//! A run as one page: lanes of hosts, arrows of messages, bands of faults, states of objects over time.
//!
//! The page is complete in itself and asks nobody for anything; `timeline/page.html` draws what is
//! gathered here.

use std::collections::BTreeMap;

use fusion_history::event::{Call, FaultPhase, World};
use fusion_history::{Body, Event, EventId, History};
use fusion_protocol::{Url, UrlTemplate};
use serde::Serialize;
use serde_json::Value;

use crate::outcome::Outcome;

const PAGE: &str = include_str!("timeline/page.html");
/// How many characters of an object's name are shown.
const OBJECT_NAME_CHARS: usize = 28;
/// How many characters of an event's body the page carries.
const BODY_MAX_CHARS: usize = 2_000;

/// The page of a run.
#[must_use]
pub fn page(outcome: &Outcome) -> String {
    let data = Data::of(outcome);
    // Within a script element nothing but `</` could end it.
    let json = serde_json::to_string(&data).unwrap_or_default().replace("</", "<\\/");
    PAGE.replace("/*DATA*/", &json)
}

#[derive(Serialize)]
struct Data {
    title: String,
    verdict: String,
    about: String,
    lanes: Vec<Lane>,
    events: Vec<Shown>,
    arrows: Vec<Arrow>,
    faults: Vec<Band>,
    objects: Vec<Object>,
    phases: Vec<Mark>,
    violations: Vec<Wrong>,
}

/// A host.
#[derive(Serialize)]
struct Lane {
    host: String,
    group: String,
}

/// An event; `lane` is -1 for one of no host.
#[derive(Serialize)]
struct Shown {
    id: u64,
    at: u64,
    lane: i64,
    kind: &'static str,
    area: &'static str,
    text: String,
    body: String,
}

/// A message: it leaves one lane and arrives at another with an event.
#[derive(Serialize)]
struct Arrow {
    event: u64,
    from: usize,
    to: usize,
    kind: &'static str,
}

#[derive(Serialize)]
struct Band {
    name: String,
    from: u64,
    to: u64,
}

/// An object's states, as its service committed them.
#[derive(Serialize)]
struct Object {
    name: String,
    states: Vec<Stated>,
}

#[derive(Serialize)]
struct Stated {
    at: u64,
    state: String,
}

#[derive(Serialize)]
struct Mark {
    at: u64,
    name: String,
}

#[derive(Serialize)]
struct Wrong {
    requirement: String,
    statement: String,
    excerpt: Vec<u64>,
}

impl Data {
    fn of(outcome: &Outcome) -> Self {
        let history = &outcome.history;
        let places = Places::of(history);
        let end = history.events().last().map_or(0, |event| event.at_us);
        Self {
            title: format!("{}, seed {}", outcome.scenario, outcome.seed),
            verdict: outcome.ruling.to_string(),
            about: format!(
                "{} events in {:.1} s on {}, history {}",
                outcome.events,
                outcome.simulated.as_secs_f64(),
                outcome.engine,
                &outcome.hash[..16.min(outcome.hash.len())]
            ),
            events: history
                .events()
                .iter()
                .filter(|event| is_shown(event))
                .map(|it| places.shown(it))
                .collect(),
            arrows: history.events().iter().filter_map(|event| places.arrow(event, history)).collect(),
            faults: faults(history, end),
            objects: objects(history),
            phases: phases(history),
            violations: violations(outcome),
            lanes: places.lanes,
        }
    }
}

fn is_shown(event: &Event) -> bool {
    !matches!(event.body, Body::World(_) | Body::Phase { .. } | Body::Wire { .. })
}

/// Where hosts are drawn, and who is served where.
struct Places<'h> {
    lanes: Vec<Lane>,
    lane: BTreeMap<String, usize>,
    template: Option<UrlTemplate>,
    /// The first host of each cluster.
    front: BTreeMap<&'h str, &'h str>,
    /// The cluster of each user, by the local part of the address, as devices are named.
    home: BTreeMap<&'h str, &'h str>,
}

impl<'h> Places<'h> {
    fn of(history: &'h History) -> Self {
        let world = history.events().iter().find_map(|event| match &event.body {
            Body::World(world) => Some(world),
            _ => None,
        });
        let mut places = Self {
            lanes: Vec::new(),
            lane: BTreeMap::new(),
            template: world.and_then(template),
            front: BTreeMap::new(),
            home: BTreeMap::new(),
        };
        if let Some(world) = world {
            places.take(world);
        }
        for event in history.events().iter().filter(|event| is_shown(event)) {
            let user = event.host.split('/').next().unwrap_or_default();
            if event.host != "engine" && !places.lane.contains_key(&event.host) {
                let served = places.home.get(user).map(|cluster| format!("devices at {cluster}"));
                places.add(&event.host, &served.unwrap_or_default());
            }
        }
        places
    }

    fn take(&mut self, world: &'h World) {
        world.provider_hosts.iter().for_each(|host| self.add(host, "provider"));
        for cluster in &world.clusters {
            let group = format!("{} in {}", cluster.org, cluster.data_center);
            cluster.hosts.iter().for_each(|host| self.add(host, &group));
            if let Some(front) = cluster.hosts.first() {
                self.front.insert(cluster.name.as_str(), front);
            }
        }
        // Devices of one cluster stand together.
        let mut users: Vec<_> = world.users.iter().collect();
        users.sort_by_key(|user| user.cluster.as_str());
        self.home.extend(users.iter().map(|user| (user.user.local_part(), user.cluster.as_str())));
    }

    fn add(&mut self, host: &str, group: &str) {
        self.lane.insert(host.to_owned(), self.lanes.len());
        self.lanes.push(Lane { host: host.to_owned(), group: group.to_owned() });
    }

    fn shown(&self, event: &Event) -> Shown {
        let body = serde_json::to_string_pretty(&event.body).unwrap_or_default();
        Shown {
            id: event.id.0,
            at: event.at_us,
            lane: self.lane.get(&event.host).and_then(|&lane| i64::try_from(lane).ok()).unwrap_or(-1),
            kind: kind(&event.body),
            area: area(&event.body),
            text: event.to_string(),
            body: body.chars().take(BODY_MAX_CHARS).collect(),
        }
    }

    /// The message that an event is the sending or the arrival of.
    fn arrow(&self, event: &Event, history: &History) -> Option<Arrow> {
        let device = *self.lane.get(&event.host)?;
        let (from, to) = match &event.body {
            Body::Invoke { call, .. } => (device, self.asked(&event.host, call)?),
            Body::Return { .. } => {
                let Body::Invoke { call, .. } = &history.event(event.cause?)?.body else { return None };
                (self.asked(&event.host, call)?, device)
            }
            Body::Deliver { .. } => (self.home_of(&event.host)?, device),
            _ => return None,
        };
        (from != to).then(|| Arrow { event: event.id.0, from, to, kind: kind(&event.body) })
    }

    /// The lane of the cluster that a call goes to: the one it names, or the user's own.
    fn asked(&self, host: &str, call: &Call) -> Option<usize> {
        let named = serde_json::to_value(call).ok().and_then(|call| self.named(&call));
        named.or_else(|| self.home_of(host))
    }

    fn named(&self, call: &Value) -> Option<usize> {
        let members = call.as_object()?;
        let cluster = ["cluster", "via", "at"].iter().find_map(|name| members.get(*name)?.as_str());
        let url = members.values().filter_map(Value::as_str).find_map(|text| text.parse::<Url>().ok());
        let located = url.and_then(|url| Some(self.template.as_ref()?.locate(&url).ok()?.cluster));
        self.front_of(cluster.or(located.as_ref().map(|cluster| cluster.as_str()))?)
    }

    fn home_of(&self, host: &str) -> Option<usize> {
        self.front_of(self.home.get(host.split('/').next()?)?)
    }

    fn front_of(&self, cluster: &str) -> Option<usize> {
        self.lane.get(*self.front.get(cluster)?).copied()
    }
}

fn template(world: &World) -> Option<UrlTemplate> {
    UrlTemplate::parse(&world.template, world.provider.clone()?).ok()
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Invoke { .. } => "call",
        Body::Return { outcome: fusion_history::Outcome::Done { .. } } => "answer",
        Body::Return { .. } => "refused",
        Body::Deliver { .. } | Body::Socket { .. } => "told",
        Body::State { .. } => "state",
        Body::Fault { .. } => "fault",
        Body::Log { .. } => "log",
        Body::Media(_) | Body::Leg(_) => "media",
        _ => "other",
    }
}

/// The area of SPEC that an event speaks of; empty for an answer, which its call speaks for.
fn area(body: &Body) -> &'static str {
    match body {
        Body::Invoke { call, .. } => area_of(call),
        Body::Deliver { .. } | Body::Socket { .. } => "MER",
        Body::State { concept, .. } => match concept.as_str() {
            "conversation" | "slot" => "CNV",
            "index" => "RDV",
            "locus" => "LOC",
            "leg" => "MED",
            "token" => "SEC",
            _ => "MAP",
        },
        Body::Media(_) | Body::Leg(_) => "MED",
        Body::Sink(_) => "PRI",
        _ => "",
    }
}

fn area_of(call: &Call) -> &'static str {
    let name = serde_json::to_value(call).ok();
    let name = name.as_ref().and_then(|call| call["call"].as_str()).unwrap_or_default();
    match name {
        "provision" | "deprovision" => "PRO",
        "logIn" | "exchange" | "trespass" => "SEC",
        "connect" | "disconnect" => "MER",
        "create" | "post" | "read" | "readConversation" => "CNV",
        "lookUp" | "readIndex" => "RDV",
        "talk" => "MED",
        "readLocus" | "readLocusSince" | "join" | "setState" | "renew" | "listLoci" => "LOC",
        _ => "MAP",
    }
}

fn faults(history: &History, end: u64) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for event in history.events() {
        let Body::Fault { fault, family, phase, .. } = &event.body else { continue };
        match phase {
            FaultPhase::Began => {
                open.insert(fault, bands.len());
                bands.push(Band { name: format!("{family} ({fault})"), from: event.at_us, to: end });
            }
            FaultPhase::Ended => {
                if let Some(band) = open.remove(fault.as_str()).and_then(|at| bands.get_mut(at)) {
                    band.to = event.at_us;
                }
            }
        }
    }
    bands
}

fn objects(history: &History) -> Vec<Object> {
    let mut objects: BTreeMap<(&str, &str, &str), Vec<Stated>> = BTreeMap::new();
    for event in history.events() {
        let Body::State { concept, subject, state, .. } = &event.body else { continue };
        if matches!(concept.as_str(), "conversation" | "locus" | "slot") {
            let states = objects.entry((concept, subject, &event.host)).or_default();
            states.push(Stated { at: event.at_us, state: state.clone() });
        }
    }
    let named = |((concept, subject, host), states): ((&str, &str, &str), Vec<Stated>)| {
        // Of a URL what tells it from others: the path after the service.
        let short = subject.rsplit_once("/v1/").map_or(subject, |(_, path)| path);
        let short = short.strip_prefix("conversations/").unwrap_or(short);
        let short: String = short.chars().take(OBJECT_NAME_CHARS).collect();
        Object { name: format!("{concept} at {host}: {short}"), states }
    };
    objects.into_iter().map(named).collect()
}

fn phases(history: &History) -> Vec<Mark> {
    let events = history.events().iter();
    let marks = events.filter_map(|event| match &event.body {
        Body::Phase { .. } => Some(Mark { at: event.at_us, name: event.body.to_string() }),
        _ => None,
    });
    marks.collect()
}

fn violations(outcome: &Outcome) -> Vec<Wrong> {
    let violations = outcome.verdicts.iter().flat_map(|verdict| &verdict.violations);
    let shown = |id: &&EventId| outcome.history.event(**id).is_some_and(is_shown);
    violations
        .map(|violation| Wrong {
            requirement: violation.requirement.clone(),
            statement: violation.statement.clone(),
            excerpt: violation.excerpt.iter().filter(shown).map(|id| id.0).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::fabric::{Options, hosts};
    use crate::library::Library;
    use crate::outcome::judged;
    use crate::plan::{Mode, Plan};

    fn race() -> Outcome {
        let scenario = Library::nearest().unwrap().find("one-to-one-race").unwrap();
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 3, Mode::Swarm);
        judged(&plan, &Options::default())
    }

    #[test]
    fn a_page_holds_every_event_lane_fault_and_state_of_its_run() {
        let outcome = race();
        let data = Data::of(&outcome);
        let shown = outcome.history.events().iter().filter(|event| is_shown(event)).count();
        assert_eq!(data.events.len(), shown);
        assert_eq!(data.faults.len(), outcome.plan.faults.len());
        for host in ["provider", "a", "b", "alice/phone", "bob/phone"] {
            assert!(data.lanes.iter().any(|lane| lane.host == host), "{host}");
        }
        let slots = data.objects.iter().filter(|object| object.name.starts_with("slot at"));
        assert!(slots.count() >= 2);
        assert!(data.arrows.iter().all(|arrow| arrow.from != arrow.to));
    }

    #[test]
    fn nothing_in_a_run_ends_the_script_that_carries_it() {
        let mut outcome = race();
        outcome.scenario = "</script><script>alert(1)</script>".to_owned();
        let page = page(&outcome);
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
    }
}
