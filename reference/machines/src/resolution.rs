//! Where a user is: the four steps of SPEC section 3, as questions and answers (MAP).
//!
//! The shell asks what [`Resolver::start`] and [`Resolver::step`] want to know, from a cache, a replica
//! or another cluster, and hands the answer in. Not here: caches, time-outs, whom to trust on the wire.

use std::collections::BTreeSet;

use fusion_protocol::map::UserRecord;
use fusion_protocol::{Address, ClusterName, Domain};

/// How many clusters are asked in one step: the one that hints lead to, and its neighbours (MAP-005: at
/// most 3 hops after the first).
pub const ASKED_MAX: usize = 4;

/// One resolution under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    user: Address,
    consumer: Vec<ClusterName>,
    state: State,
}

/// Where a resolution stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Step 1: whose is the domain?
    Domain,
    /// Steps 2 and 3: the user maps of the org that claimed it.
    Org(Asking),
    /// Step 4: the consumer user map.
    Consumer(Asking),
    /// It has ended.
    Done,
}

/// The clusters of one org, being asked in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asking {
    /// Only these speak for the org.
    all: Vec<ClusterName>,
    /// Next first.
    waiting: Vec<ClusterName>,
    asked: BTreeSet<ClusterName>,
}

/// What the resolver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look the domain up in the domain map, or its replica.
    AskDomain(Domain),
    /// Ask the user map in this cluster.
    AskUser(ClusterName),
    /// The user is in the record's cluster.
    Found(UserRecord),
    /// There is no such user.
    Unknown,
    /// A step cannot be executed now: 503, never `user-unknown`, never cached.
    Incomplete,
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The domain is claimed by an org with these clusters (MAP-003).
    Claimed(Vec<ClusterName>),
    /// Nobody has claimed the domain.
    Unclaimed,
    /// The user map holds this user.
    Found(UserRecord),
    /// The user map, which answers for its whole org, does not hold the user.
    Unknown,
    /// 421: these clusters are to be asked instead.
    Elsewhere(Vec<ClusterName>),
    /// No answer.
    Silent,
}

impl Resolver {
    /// Starts a resolution. `consumer` are the clusters of the consumer org; `public_mail` says that the
    /// domain is one that nobody can claim, so that step 1 need not ask.
    #[must_use]
    pub fn start(user: Address, consumer: Vec<ClusterName>, public_mail: bool) -> (Self, Next) {
        let mut resolver = Self { user, consumer, state: State::Domain };
        let next =
            if public_mail { resolver.ask_consumer() } else { Next::AskDomain(resolver.user.domain()) };
        (resolver, next)
    }

    /// Takes the answer to the last question.
    pub fn step(&mut self, answer: Answer) -> Next {
        let next = match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Domain, Answer::Claimed(clusters)) => self.ask_org(clusters),
            (State::Domain, Answer::Unclaimed) => self.ask_consumer(),
            // Step 3: a claimed domain may still have consumer users.
            (State::Org(_), Answer::Unknown) => self.ask_consumer(),
            (State::Org(asking), answer) => self.asked(asking, answer, State::Org),
            (State::Consumer(asking), answer) => self.asked(asking, answer, State::Consumer),
            (State::Domain | State::Done, _) => Next::Incomplete,
        };
        if !matches!(next, Next::AskDomain(_) | Next::AskUser(_)) {
            self.state = State::Done;
        }
        next
    }

    fn ask_org(&mut self, clusters: Vec<ClusterName>) -> Next {
        self.ask_next(Asking::of(clusters), State::Org)
    }

    fn ask_consumer(&mut self) -> Next {
        if self.consumer.is_empty() {
            return Next::Unknown;
        }
        let asking = Asking::of(self.consumer.clone());
        self.ask_next(asking, State::Consumer)
    }

    fn asked(&mut self, mut asking: Asking, answer: Answer, state: fn(Asking) -> State) -> Next {
        match answer {
            Answer::Found(record) if record.user == self.user && asking.all.contains(&record.cluster) => {
                Next::Found(record)
            }
            Answer::Unknown => Next::Unknown,
            Answer::Elsewhere(clusters) => {
                asking.go_to(&clusters);
                self.ask_next(asking, state)
            }
            Answer::Silent => self.ask_next(asking, state),
            // Somebody who speaks for others, or who answers what was not asked, has not answered.
            Answer::Found(_) | Answer::Claimed(_) | Answer::Unclaimed => self.ask_next(asking, state),
        }
    }

    fn ask_next(&mut self, mut asking: Asking, state: fn(Asking) -> State) -> Next {
        match asking.next() {
            Some(cluster) => {
                self.state = state(asking);
                Next::AskUser(cluster)
            }
            None => Next::Incomplete,
        }
    }
}

impl Asking {
    fn of(clusters: Vec<ClusterName>) -> Self {
        let waiting = clusters.iter().rev().cloned().collect();
        Self { all: clusters, waiting, asked: BTreeSet::new() }
    }

    /// MAP-005: hints come first, as far as they are clusters of the org.
    fn go_to(&mut self, hints: &[ClusterName]) {
        let ours = hints.iter().rev().filter(|hint| self.all.contains(hint));
        self.waiting.extend(ours.cloned());
    }

    fn next(&mut self) -> Option<ClusterName> {
        if self.asked.len() >= ASKED_MAX {
            return None;
        }
        while let Some(cluster) = self.waiting.pop() {
            if self.asked.insert(cluster.clone()) {
                return Some(cluster);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use fusion_protocol::{Count, Incarnation, Uuid};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ClusterName {
        text.parse().unwrap()
    }

    fn names(texts: &[&str]) -> Vec<ClusterName> {
        texts.iter().map(|text| name(text)).collect()
    }

    fn alice() -> Address {
        "alice@a.example".parse().unwrap()
    }

    fn record(cluster: &str) -> UserRecord {
        UserRecord {
            user: alice(),
            incarnation: Incarnation(Uuid::nil()),
            cluster: name(cluster),
            version: Count(1),
        }
    }

    fn resolver() -> Resolver {
        Resolver::start(alice(), names(&["c", "d"]), false).0
    }

    #[test]
    fn a_user_of_a_claimed_domain_is_found_in_the_orgs_cluster() {
        let (mut resolver, next) = Resolver::start(alice(), names(&["c"]), false);
        assert_eq!(next, Next::AskDomain("a.example".parse().unwrap()));
        assert_eq!(resolver.step(Answer::Claimed(names(&["a"]))), Next::AskUser(name("a")));
        assert_eq!(resolver.step(Answer::Found(record("a"))), Next::Found(record("a")));
    }

    #[test]
    fn a_user_that_the_org_does_not_know_may_be_a_consumer_user() {
        let mut resolver = resolver();
        resolver.step(Answer::Claimed(names(&["a"])));
        assert_eq!(resolver.step(Answer::Unknown), Next::AskUser(name("c")));
        assert_eq!(resolver.step(Answer::Found(record("c"))), Next::Found(record("c")));
    }

    #[test]
    fn a_public_mail_domain_goes_straight_to_the_consumer_org() {
        let (_, next) = Resolver::start(alice(), names(&["c"]), true);
        assert_eq!(next, Next::AskUser(name("c")));
    }

    #[test]
    fn a_silent_org_is_never_a_consumer_user_nor_unknown() {
        let mut resolver = resolver();
        resolver.step(Answer::Claimed(names(&["a", "b"])));
        assert_eq!(resolver.step(Answer::Silent), Next::AskUser(name("b")));
        assert_eq!(resolver.step(Answer::Silent), Next::Incomplete);
    }

    #[test]
    fn a_hint_is_followed_inside_the_org_only() {
        let mut resolver = resolver();
        resolver.step(Answer::Claimed(names(&["a", "b", "e"])));
        assert_eq!(resolver.step(Answer::Elsewhere(names(&["c", "e"]))), Next::AskUser(name("e")));
        assert_eq!(resolver.step(Answer::Elsewhere(names(&["a"]))), Next::AskUser(name("b")));
        assert_eq!(resolver.step(Answer::Elsewhere(names(&["a"]))), Next::Incomplete);
    }

    #[test]
    fn an_org_does_not_speak_for_other_clusters_nor_other_users() {
        let mut resolver = resolver();
        resolver.step(Answer::Claimed(names(&["a"])));
        assert_eq!(resolver.clone().step(Answer::Found(record("c"))), Next::Incomplete);
        let other = UserRecord { user: "bob@a.example".parse().unwrap(), ..record("a") };
        assert_eq!(resolver.step(Answer::Found(other)), Next::Incomplete);
    }

    /// Who is where, and who answers.
    #[derive(Clone, Debug)]
    struct World {
        org: Vec<ClusterName>,
        consumer: Vec<ClusterName>,
        home: Option<ClusterName>,
        silent: BTreeSet<ClusterName>,
    }

    impl World {
        /// What SPEC's four steps say when everybody answers.
        fn truth(&self) -> Next {
            match &self.home {
                Some(home) => Next::Found(record(home.as_str())),
                None => Next::Unknown,
            }
        }

        fn answer(&self, next: &Next, hints: bool) -> Answer {
            match next {
                Next::AskDomain(_) if self.org.is_empty() => Answer::Unclaimed,
                Next::AskDomain(_) => Answer::Claimed(self.org.clone()),
                Next::AskUser(cluster) => self.user_map(cluster, hints),
                _ => unreachable!("a resolver that has ended asks nothing"),
            }
        }

        fn user_map(&self, cluster: &ClusterName, hints: bool) -> Answer {
            let org = if self.org.contains(cluster) { &self.org } else { &self.consumer };
            match &self.home {
                _ if self.silent.contains(cluster) => Answer::Silent,
                Some(home) if home == cluster => Answer::Found(record(home.as_str())),
                Some(home) if org.contains(home) && hints => Answer::Elsewhere(vec![home.clone()]),
                Some(home) if org.contains(home) => Answer::Found(record(home.as_str())),
                _ => Answer::Unknown,
            }
        }

        fn resolve(&self, hints: bool) -> Next {
            let (mut resolver, mut next) = Resolver::start(alice(), self.consumer.clone(), false);
            while matches!(next, Next::AskDomain(_) | Next::AskUser(_)) {
                next = resolver.step(self.answer(&next, hints));
            }
            next
        }
    }

    fn worlds() -> impl Strategy<Value = World> {
        let org = proptest::sample::subsequence(names(&["a", "b", "e"]), 0..=3);
        let consumer = proptest::sample::subsequence(names(&["c", "d"]), 0..=2);
        (org, consumer).prop_flat_map(|(org, consumer)| {
            let all: Vec<_> = org.iter().chain(&consumer).cloned().collect();
            let homes: Vec<_> = all.iter().cloned().map(Some).chain([None]).collect();
            let silent = proptest::sample::subsequence(all.clone(), 0..=all.len());
            (Just(org), Just(consumer), proptest::sample::select(homes), silent).prop_map(
                |(org, consumer, home, silent)| World {
                    org,
                    consumer,
                    home,
                    silent: silent.into_iter().collect(),
                },
            )
        })
    }

    proptest! {
        /// MAP-001: whoever asks, in whatever order clusters are listed, by hints or by answers for the
        /// whole org, gets the same answer once everybody answers.
        #[test]
        fn the_four_steps_give_the_same_answer_to_everybody(
            world in worlds(),
            hints: bool,
            reversed: bool,
        ) {
            let mut world = World { silent: BTreeSet::new(), ..world };
            if reversed {
                world.org.reverse();
                world.consumer.reverse();
            }
            prop_assert_eq!(world.resolve(hints), world.truth());
        }

        /// Silence never makes a wrong answer: the truth, or 503.
        #[test]
        fn silence_never_makes_somebody_unknown_or_somewhere_else(world in worlds(), hints: bool) {
            let resolved = world.resolve(hints);
            prop_assert!(
                resolved == world.truth() || resolved == Next::Incomplete,
                "{:?} instead of {:?}", resolved, world.truth()
            );
        }

        /// Whatever is answered, a resolution ends after a bounded number of questions.
        #[test]
        fn every_resolution_ends(answers in proptest::collection::vec(answers(), 0..40)) {
            let (mut resolver, mut next) = Resolver::start(alice(), names(&["c", "d"]), false);
            let mut questions = 0;
            for answer in answers {
                if !matches!(next, Next::AskDomain(_) | Next::AskUser(_)) {
                    break;
                }
                questions += 1;
                next = resolver.step(answer);
            }
            prop_assert!(questions <= 1 + 2 * ASKED_MAX);
        }
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let some = || proptest::sample::subsequence(names(&["a", "b", "c", "d", "e"]), 0..=5);
        prop_oneof![
            some().prop_map(Answer::Claimed),
            Just(Answer::Unclaimed),
            Just(Answer::Unknown),
            Just(Answer::Silent),
            some().prop_map(Answer::Elsewhere),
            proptest::sample::select(vec!["a", "c", "f"]).prop_map(|cluster| Answer::Found(record(cluster))),
        ]
    }
}
