//! When two worlds of a call are one: they can do the same, and come to the same by it.
//!
//! Left out is why somebody left, which no step asks for, and how high a revision is. All lists but the last
//! one hear of each change at once, so that the next revision is always the higher one for them; of what the
//! last one has heard and is still to hear, only the order counts. In a world of three that is a third of all
//! worlds.

use std::hash::{Hash, Hasher};

use fusion_protocol::locus::ParticipantState;

use super::Told;
use super::world::World;
use crate::cast::{self, Person};

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.essence() == other.essence()
    }
}

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.essence().hash(state);
    }
}

impl World {
    fn essence(&self) -> impl Eq + Hash + '_ {
        let (prompt, last) = self.lists.split_at(self.lists.len() - 1);
        let revs: Vec<u64> = last.iter().flatten().chain(self.under_way()).map(|told| told.rev).collect();
        let placed =
            |told: &Told| Told { rev: revs.iter().filter(|rev| **rev < told.rev).count() as u64, ..*told };
        let prompt: Vec<_> = prompt.iter().map(|told| told.map(|told| Told { rev: 0, ..told })).collect();
        let last = last.iter().flatten().map(placed).next();
        let parts: Vec<_> = (0..self.lists.len()).map(|who| self.part(who)).collect();
        (
            (self.locus.state, self.locus.instance, parts, &self.leases, self.ring),
            (prompt, last, self.telling.last().map_or(0, |told| told.len())),
            self.under_way().map(placed).collect::<Vec<_>>(),
            (&self.devices, &self.waiting, &self.requests),
            (self.calls, self.doubles, self.asked, self.went_back),
        )
    }

    /// What the last list is still to hear, and what it may hear again.
    fn under_way(&self) -> impl Iterator<Item = &Told> {
        self.telling.iter().flatten().chain(self.late.iter().map(|(_, told)| told))
    }

    /// Somebody's part in the call that goes on, or in the last one.
    fn part(&self, who: Person) -> Option<ParticipantState> {
        self.locus.parties.get(&cast::address(who)).map(|party| party.state)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no world is left out that could do something else. Method: worlds are visited as they are, why
    //! and revisions included, and those that count as one are held against each other.

    use std::collections::{BTreeMap, BTreeSet};
    use std::hash::DefaultHasher;

    use crate::locus::{Bug, Call};
    use crate::model::Model as _;

    use super::*;

    /// How many worlds are looked at.
    const WORLDS: usize = 20_000;

    #[test]
    fn worlds_that_count_as_one_can_do_the_same_and_come_to_the_same() {
        for (people, bug) in [(2, None), (3, None), (2, Some(Bug::ListGoesBack))] {
            let model = Call::new(people, bug);
            let worlds = raw(&model);
            let mut by_essence: BTreeMap<u64, &World> = BTreeMap::new();
            let mut merged = 0;
            for world in &worlds {
                let other = *by_essence.entry(number(world)).or_insert(world);
                if std::ptr::eq(other, world) {
                    continue;
                }
                merged += 1;
                assert!(other == world, "two worlds of one fingerprint");
                assert_eq!(future(&model, world), future(&model, other), "{world:#?}\n{other:#?}");
            }
            assert!(merged > WORLDS / 20, "{merged} of {WORLDS} worlds were another one");
        }
    }

    /// The first worlds, breadth first, each as it is.
    fn raw(model: &Call) -> Vec<World> {
        let mut worlds = model.starts();
        let mut seen: BTreeSet<String> = worlds.iter().map(|world| format!("{world:?}")).collect();
        let mut at = 0;
        while worlds.len() < WORLDS {
            for step in model.steps(&worlds[at]) {
                let world = model.after(&worlds[at], &step);
                if seen.insert(format!("{world:?}")) {
                    worlds.push(world);
                }
            }
            at += 1;
        }
        worlds
    }

    /// What holds in a world, and to which worlds each of its steps leads.
    fn future(model: &Call, world: &World) -> (Vec<bool>, Vec<u64>) {
        let holds = model.properties().iter().map(|property| (property.so)(model, world)).collect();
        let steps = model.steps(world);
        (holds, steps.iter().map(|step| number(&model.after(world, step))).collect())
    }

    fn number(world: &World) -> u64 {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    }
}
