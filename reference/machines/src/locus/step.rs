//! What one step of a locus does, while it is taken.

use std::collections::BTreeMap;

use fusion_protocol::Address;
use fusion_protocol::mercury::EventType;

use super::{Effect, Party};

/// What a step does, gathered: everybody is told at most one thing.
#[derive(Default)]
pub(super) struct Step {
    pub(super) told: BTreeMap<Address, Option<EventType>>,
    pub(super) entered: Vec<Effect>,
    pub(super) legs: Vec<Effect>,
}

impl Step {
    /// Tells `user`, unless there is something weightier to tell them.
    pub(super) fn tell(&mut self, user: &Address, event: Option<EventType>) {
        let weight = |event: Option<EventType>| match event {
            None => 0,
            Some(EventType::LocusChanged) => 1,
            Some(_) => 2,
        };
        let told = self.told.entry(user.clone()).or_default();
        if weight(event) >= weight(*told) {
            *told = event;
        }
    }

    pub(super) fn close_legs(&mut self, party: &Party) {
        self.legs.extend(party.devices.values().map(|leg| Effect::CloseLeg(*leg)));
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        let told = self.told.into_iter().map(|(user, event)| Effect::Tell { user, event });
        self.entered.into_iter().chain(told).chain(self.legs).collect()
    }
}
