//! Circles: people who, in one history, had to do with each other and with nobody else, and everything that
//! is about them.
//!
//! Most requirements speak of a user, a conversation or a call, and nobody of another circle can change
//! whether they hold. So circles are judged one after another: however long a history is, what a judge
//! remembers stays small, and several can be judged at a time. Not responsible for which judge may
//! ([`crate::judge::Scope`]).

use fusion_protocol::{Address, Url};

use crate::event::{Answer, Body, Call, Event};
use crate::history::History;
use crate::table::Table;

/// The places of the events of one or several circles, with those that are about everybody, in order.
pub(crate) type Part = Vec<u32>;

/// The circles of a history in the order of their first events, packed into parts of at least `least` events.
/// What no judge of circles hears is in none: look-ups of domains, sinks, packets, relays' own accounts.
pub(crate) fn parts(history: &History, least: usize) -> Vec<Part> {
    let mut circles = Circles::default();
    history.events().iter().for_each(|event| circles.take(event));
    circles.packed(least)
}

#[derive(Default)]
struct Circles<'h> {
    /// Users and conversations, by what they are called.
    numbers: Table<&'h str, u32>,
    /// Of each one of the same circle, nearer to the one that stands for all; that one names itself.
    towards: Vec<u32>,
    about: Vec<About>,
}

/// Whom an event is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Everybody,
    Nobody,
    One(u32),
}

impl<'h> Circles<'h> {
    fn take(&mut self, event: &'h Event) {
        let about = match &event.body {
            Body::World(_) | Body::Fault { .. } | Body::Phase { .. } => About::Everybody,
            Body::Invoke { actor, call, .. } => self.asked(actor, call),
            Body::Return { .. } => self.returned(event),
            Body::Deliver { user, resource, .. } => {
                self.joined([user.as_str(), conversation(resource.as_str())])
            }
            Body::Socket { user, .. } => self.joined([user.as_str()]),
            Body::Media(media) => self.joined([conversation(media.locus.as_str())]),
            Body::State { concept, subject, .. } => match concept.as_str() {
                "conversation" | "index" | "locus" => self.joined([conversation(subject)]),
                _ => About::Nobody,
            },
            Body::Wire { .. } | Body::Log { .. } | Body::Sink(_) | Body::Leg(_) => About::Nobody,
        };
        self.about.push(about);
    }

    /// An admin has to do with everybody, and is nobody's company.
    fn asked(&mut self, actor: &'h Address, call: &'h Call) -> About {
        let actor = actor.as_str();
        match call {
            Call::Provision { user, .. } | Call::Deprovision { user, .. } | Call::Move { user, .. } => {
                self.joined([user.as_str()])
            }
            Call::Claim { .. } => About::Everybody,
            Call::ReadDomain { .. } => About::Nobody,
            Call::Resolve { user: other, .. } | Call::LookUp { other } => {
                self.joined([actor, other.as_str()])
            }
            Call::Create { others, .. } => {
                self.joined([actor].into_iter().chain(others.iter().map(Address::as_str)))
            }
            Call::Post { conversation: url, .. }
            | Call::Read { conversation: url, .. }
            | Call::ReadConversation { conversation: url }
            | Call::ReadLocus { locus: url }
            | Call::ReadLocusSince { locus: url, .. }
            | Call::Join { locus: url, .. }
            | Call::SetState { locus: url, .. }
            | Call::Renew { locus: url, .. } => self.joined([actor, conversation(url.as_str())]),
            Call::LogIn { .. }
            | Call::Exchange { .. }
            | Call::Connect { .. }
            | Call::Disconnect { .. }
            | Call::ReadIndex { .. }
            | Call::ListLoci {}
            | Call::Talk { .. }
            | Call::Trespass { .. } => self.joined([actor]),
        }
    }

    fn returned(&mut self, event: &'h Event) -> About {
        let question = event.cause.and_then(|cause| usize::try_from(cause.0).ok());
        let about = question.and_then(|at| self.about.get(at)).copied().unwrap_or(About::Nobody);
        if let (About::One(asker), Some(answer)) = (about, answer(event)) {
            for url in urls(answer) {
                let named = self.number(conversation(url.as_str()));
                self.join(asker, named);
            }
        }
        about
    }

    /// What is about all of these.
    fn joined(&mut self, names: impl IntoIterator<Item = &'h str>) -> About {
        let mut about = About::Nobody;
        for name in names {
            let number = self.number(name);
            match about {
                About::One(first) => self.join(first, number),
                _ => about = About::One(number),
            }
        }
        about
    }

    fn number(&mut self, name: &'h str) -> u32 {
        let next = self.towards.len() as u32;
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            self.towards.push(next);
        }
        number
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.head(one), self.head(other));
        self.towards[one.max(other) as usize] = one.min(other);
    }

    /// Who stands for the circle of `one`.
    fn head(&mut self, mut one: u32) -> u32 {
        while self.towards[one as usize] != one {
            let next = self.towards[one as usize];
            self.towards[one as usize] = self.towards[next as usize];
            one = next;
        }
        one
    }

    fn packed(mut self, least: usize) -> Vec<Part> {
        let sizes = self.settle();
        let (part_of, count) = self.assign(&sizes, least);
        let mut parts = vec![Part::new(); count.max(1)];
        for (place, about) in self.about.iter().enumerate() {
            match about {
                About::Nobody => {}
                About::Everybody => parts.iter_mut().for_each(|part| part.push(place as u32)),
                About::One(head) => parts[part_of[*head as usize]].push(place as u32),
            }
        }
        parts
    }

    /// From now on events are about whoever stands for a circle. Answers how many are about each.
    fn settle(&mut self) -> Vec<usize> {
        let mut sizes = vec![0; self.towards.len()];
        for at in 0..self.about.len() {
            if let About::One(name) = self.about[at] {
                let head = self.head(name);
                self.about[at] = About::One(head);
                sizes[head as usize] += 1;
            }
        }
        sizes
    }

    /// Of whoever stands for a circle its part, and how many parts there are.
    fn assign(&self, sizes: &[usize], least: usize) -> (Vec<usize>, usize) {
        const NONE: usize = usize::MAX;
        let (mut part_of, mut count, mut room) = (vec![NONE; sizes.len()], 0, 0);
        for about in &self.about {
            let About::One(head) = *about else { continue };
            let part = &mut part_of[head as usize];
            if *part != NONE {
                continue;
            }
            if room == 0 {
                (count, room) = (count + 1, least.max(1));
            }
            *part = count - 1;
            room = usize::saturating_sub(room, sizes[head as usize]);
        }
        (part_of, count)
    }
}

/// A locus is called after its conversation (LOC-001).
fn conversation(url: &str) -> &str {
    url.strip_suffix("/locus").unwrap_or(url)
}

fn answer(event: &Event) -> Option<&Answer> {
    match &event.body {
        Body::Return { outcome: crate::event::Outcome::Done { answer } } => Some(answer),
        _ => None,
    }
}

/// The conversations and loci that an answer names.
fn urls(answer: &Answer) -> Vec<&Url> {
    match answer {
        Answer::Conversation { conversation, .. } => {
            [Some(&conversation.url), conversation.superseded_by.as_ref()].into_iter().flatten().collect()
        }
        Answer::Peer(peer) => vec![&peer.url],
        Answer::Accepted { redirected_to, .. } | Answer::Activities { redirected_to, .. } => {
            redirected_to.iter().collect()
        }
        Answer::Index { entries, .. } => entries
            .iter()
            .flat_map(|entry| [Some(&entry.url), entry.superseded_by.as_ref()])
            .flatten()
            .collect(),
        Answer::Locus { locus } | Answer::Joined { locus, .. } => {
            [&locus.url].into_iter().chain(locus.replaces.iter().map(|call| &call.locus_url)).collect()
        }
        Answer::Loci { loci } => loci.iter().map(|active| &active.locus_url).collect(),
        Answer::Nothing {}
        | Answer::Provisioned { .. }
        | Answer::Token { .. }
        | Answer::Domain(_)
        | Answer::Resolved(_)
        | Answer::Connected { .. }
        | Answer::LocusUnchanged { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, cluster, conversation_url, message, page_at, read};

    fn sizes(history: &History, least: usize) -> Vec<usize> {
        parts(history, least).iter().map(Vec::len).collect()
    }

    /// Two pairs who never meet, talking in turns.
    fn two_pairs() -> Story {
        let mut story = Story::new();
        let (one, other) = (conversation_url("a", 1), conversation_url("b", 2));
        for n in 1..=3 {
            story.posts("alice", &one, &message("alice", "one", n));
            story.posts("carol", &other, &message("carol", "two", n));
            story.reads("bob", &one, &[]);
        }
        story
    }

    #[test]
    fn who_never_met_is_in_another_circle() {
        let story = two_pairs();
        let (all, shared) = (story.told().len(), story.told().len() - 18);
        assert_eq!(sizes(story.told(), 1), [shared + 12, shared + 6]);
        assert_eq!(sizes(story.told(), 12), [shared + 12, shared + 6]);
        assert_eq!(sizes(story.told(), 13), [all]);
    }

    /// Whose address is claimed is whoever has it, and nobody says who that is.
    #[test]
    fn a_claim_is_about_everybody() {
        let mut story = two_pairs();
        let before = sizes(story.told(), 1);
        let (domain, clusters) = ("corp.example".parse().unwrap(), vec![cluster("a")]);
        story.does("alice", Call::Claim { domain, org: "acme".to_owned(), clusters }, Answer::Nothing {});
        assert_eq!(sizes(story.told(), 1), before.iter().map(|size| size + 2).collect::<Vec<_>>());
    }

    #[test]
    fn one_word_brings_two_circles_together() {
        let mut story = two_pairs();
        story.reads("bob", &conversation_url("b", 2), &[]);
        assert_eq!(sizes(story.told(), 1), [story.told().len()]);
    }

    #[test]
    fn a_lost_conversation_is_in_the_circle_of_the_winner() {
        let mut story = two_pairs();
        let (lost, won) = (conversation_url("a", 1), conversation_url("b", 2));
        story.does("bob", read(&lost, 0), page_at(&won, &[]));
        assert_eq!(sizes(story.told(), 1), [story.told().len()]);
    }

    #[test]
    fn places_are_in_order_and_each_circle_is_whole() {
        let story = two_pairs();
        for part in parts(story.told(), 1) {
            assert!(part.is_sorted());
            let of_part = |id: u64| part.contains(&(id as u32));
            for event in part.iter().map(|place| &story.told().events()[*place as usize]) {
                assert!(event.cause.is_none_or(|cause| of_part(cause.0)), "{event}");
            }
        }
    }
}
