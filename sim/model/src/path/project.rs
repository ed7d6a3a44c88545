//! From a history to what it says of one pair.

use std::fmt;

use fusion_history::event::World;
use fusion_history::{Body, Call, Event};
use fusion_machines::pair::{Contender, Hold};
use fusion_protocol::conversation::PairKey;
use fusion_protocol::{Address, ClusterName, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{LifeState, Observed, Projection, State};
use crate::cast::{self, Site};
use crate::pair::Pair;

/// Why a pair of a history is none of the model's, or is told in a way that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What, and where.
    pub why: String,
}

/// What the history says of each pair that has a conversation, in the order in which they came to be.
///
/// # Errors
/// [`Unfit`]: the history has no beginning, or reports something that cannot be read.
pub fn project(events: &[Event]) -> Result<Vec<Result<Projection, Unfit>>, Unfit> {
    let world = events.iter().find_map(|event| match &event.body {
        Body::World(world) => Some(world),
        _ => None,
    });
    let world = world.ok_or_else(|| unfit("the history does not say who is who: it has no beginning"))?;
    let mut pairs: Vec<(String, Vec<Made>)> = Vec::new();
    for event in events {
        let Some((key, made)) = made(event)? else { continue };
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, all)) if all.iter().any(|known| known.url == made.url) => {}
            Some((_, all)) => all.push(made),
            None => pairs.push((key, vec![made])),
        }
    }
    Ok(pairs.into_iter().map(|(key, made)| project_one(events, world, &key, &made)).collect())
}

/// A 1:1 conversation that was reported.
struct Made {
    url: Url,
    home: ClusterName,
    /// Its creator first.
    people: [Address; 2],
}

fn made(event: &Event) -> Result<Option<(String, Made)>, Unfit> {
    let Body::State { concept, subject, detail, .. } = &event.body else { return Ok(None) };
    let Some(key) = detail.get("pairKey").and_then(Value::as_str).filter(|_| concept == "conversation")
    else {
        return Ok(None);
    };
    let url = subject.parse().map_err(|_| unreadable(event, "subject"))?;
    let home = event.host.parse().map_err(|_| unreadable(event, "host"))?;
    let people: Vec<Address> = read(event, detail, "participants")?;
    let people = people.try_into().map_err(|_| unreadable(event, "participants"))?;
    Ok(Some((key.to_owned(), Made { url, home, people })))
}

/// The pair's people and clusters by number: somebody and the cluster that serves them have the same one.
struct Cast<'a> {
    people: Vec<Address>,
    sites: Vec<ClusterName>,
    made: &'a [Made],
}

fn project_one(events: &[Event], world: &World, key: &str, made: &[Made]) -> Result<Projection, Unfit> {
    let Some(first) = made.first() else { return Err(unfit("a pair without a conversation")) };
    let cast = Cast::of(events, world, &first.people, made)?;
    let mut observed: Vec<Observed> = Vec::new();
    for event in events {
        let Some(state) = cast.state(event, key)? else { continue };
        match observed.last_mut() {
            // One commit reports what it wrote together, in one moment.
            Some(last) if (last.at_us, &last.host) == (event.at_us, &event.host) => last.states.push(state),
            _ => {
                let (at, at_us, host) = (event.id, event.at_us, event.host.clone());
                observed.push(Observed { at, at_us, host, states: vec![state] });
            }
        }
    }
    let pair: PairKey = serde_json::from_value(Value::String(key.to_owned()))
        .map_err(|_| unfit("a pair whose key is none"))?;
    let role = |place: usize| {
        let (who, home) = (cast.people[place].as_str(), &cast.sites[place]);
        format!("{} in {} is {who} in {home}", cast::person(place), cast::site(place))
    };
    let title = format!("{}, {}", role(0), role(1));
    Ok(Projection { title, model: cast.model(pair), observed })
}

impl<'a> Cast<'a> {
    fn of(events: &[Event], world: &World, people: &[Address; 2], made: &'a [Made]) -> Result<Self, Unfit> {
        let home = |who: &Address| {
            let known = world.users.iter().find(|user| user.user == *who).map(|user| user.cluster.clone());
            known.ok_or_else(|| unfit("one of the pair is not among the people that the history begins with"))
        };
        let mut homes = vec![(home(&people[0])?, people[0].clone()), (home(&people[1])?, people[1].clone())];
        homes.sort();
        let (sites, people): (Vec<_>, Vec<_>) = homes.into_iter().unzip();
        let moves = |event: &Event| match &event.body {
            Body::Invoke { call: Call::Move { user, .. }, .. } => people.contains(user),
            _ => false,
        };
        if events.iter().any(moves) {
            return Err(unfit(
                "one of the pair moves to another cluster, which the projection does not follow",
            ));
        }
        if sites[0] == sites[1] {
            return Err(unfit("both are served by one cluster: there is no race"));
        }
        if made.iter().any(|made| !sites.contains(&made.home)) {
            return Err(unfit("a conversation of the pair lives in a cluster that serves neither"));
        }
        Ok(Self { people, sites, made })
    }

    /// The model in which exactly these conversations can come to be.
    fn model(&self, pair: PairKey) -> Pair {
        let place = |site: Site, creator: usize| {
            let home = self.sites[site].clone();
            let known = self.made.iter().find(|made| made.home == home);
            let known = known.filter(|made| made.people[0] == self.people[creator]);
            let url = known.map_or_else(
                || format!("https://{home}-conv.nowhere.example/{creator}").parse().expect("a URL of a name"),
                |made| made.url.clone(),
            );
            Contender::new(url, home)
        };
        let places = (0..2).map(|site| [place(site, 0), place(site, 1)]).collect();
        Pair::observed(self.sites.clone(), pair, places)
    }

    /// What an event says of the pair, if it does.
    fn state(&self, event: &Event, key: &str) -> Result<Option<State>, Unfit> {
        let Body::State { concept, subject, state, detail } = &event.body else { return Ok(None) };
        match concept.as_str() {
            "slot" if subject.split('/').next() == Some(key) => self.slot(event, state, detail).map(Some),
            "conversation" if detail.get("pairKey").and_then(Value::as_str) == Some(key) => {
                let url = subject.parse().map_err(|_| unreadable(event, "subject"))?;
                self.life(event, &url, state, detail).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn slot(&self, event: &Event, state: &str, detail: &Value) -> Result<State, Unfit> {
        let user: Address = read(event, detail, "user")?;
        let person = self.people.iter().position(|who| *who == user);
        let hold = match state {
            "BOUND" => Hold::Bound,
            "UNBOUND" => Hold::Unbound,
            _ => return Err(unreadable(event, "state")),
        };
        let merging: Option<Url> = read(event, detail, "mergingFrom")?;
        Ok(State::Slot {
            person: person.ok_or_else(|| unreadable(event, "user"))?,
            hold,
            to: self.site_of(event, &read(event, detail, "url")?)?,
            merging: merging.map(|url| self.site_of(event, &url)).transpose()?,
        })
    }

    fn life(&self, event: &Event, url: &Url, state: &str, detail: &Value) -> Result<State, Unfit> {
        let winner = || self.site_of(event, &read(event, detail, "winner")?);
        let state = match state {
            "PROVISIONAL" => LifeState::Provisional,
            "BOUND" => LifeState::Bound,
            "SEALING" => LifeState::Sealing(winner()?),
            "SUPERSEDED" => LifeState::Superseded(winner()?),
            _ => return Err(unreadable(event, "state")),
        };
        Ok(State::Life { site: self.site_of(event, url)?, state })
    }

    fn site_of(&self, event: &Event, url: &Url) -> Result<Site, Unfit> {
        let home = self.made.iter().find(|made| made.url == *url).map(|made| &made.home);
        let site = home.and_then(|home| self.sites.iter().position(|site| site == home));
        site.ok_or_else(|| unreadable(event, "conversation"))
    }
}

fn read<T: DeserializeOwned>(event: &Event, detail: &Value, member: &str) -> Result<T, Unfit> {
    let value = detail.get(member).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|_| unreadable(event, member))
}

fn unreadable(event: &Event, member: &str) -> Unfit {
    unfit(&format!("event {} of {}: its {member} cannot be understood", event.id.0, event.host))
}

fn unfit(why: &str) -> Unfit {
    Unfit { why: why.to_owned() }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unfit {}
