//! The call in words.

use fusion_protocol::locus::{LocusState, ParticipantState};

use super::Call;
use super::world::{Device, World};
use crate::cast::{self, Person};

impl Call {
    /// A line for the locus, each device, each list, and what is under way.
    pub(super) fn lines(&self, world: &World) -> Vec<String> {
        let parts = self.everybody().filter_map(|who| {
            let party = world.locus.parties.get(&cast::address(who))?;
            Some(format!(", {} {}", cast::person(who), part(party.state)))
        });
        let (instance, parts) = (world.locus.instance.0, parts.collect::<String>());
        let locus = format!("locus at a: call {instance} {}{parts}", state(world.locus.state));
        let counted: Vec<_> = world.leases.iter().map(|who| cast::person(*who)).collect();
        let counted = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
        let leases = format!("leases that a counts: {counted}");
        let devices = self.everybody().map(|who| {
            let device = match world.devices[who] {
                Device::Out => "in no call".to_owned(),
                Device::In(instance) => format!("in call {instance}"),
                Device::Gone => "gone for good".to_owned(),
            };
            let waits = if world.waiting[who].is_some() { ", waits for an answer" } else { "" };
            format!("{}'s device: {device}{waits}", cast::person(who))
        });
        let told =
            |who: Person| world.lists[who].map(|told| format!("{}'s active list: {told}", cast::person(who)));
        let lists = self.everybody().filter_map(told);
        let requests = world.requests.iter().map(|request| format!("under way: {request}"));
        [locus, leases].into_iter().chain(devices).chain(lists).chain(requests).collect()
    }
}

/// A state as SPEC writes it.
pub(super) fn state(state: LocusState) -> &'static str {
    match state {
        LocusState::Inactive => "INACTIVE",
        LocusState::Initializing => "INITIALIZING",
        LocusState::Active => "ACTIVE",
        LocusState::Terminating => "TERMINATING",
    }
}

/// A part as SPEC writes it.
pub(super) fn part(part: ParticipantState) -> &'static str {
    match part {
        ParticipantState::Idle => "IDLE",
        ParticipantState::Notified => "NOTIFIED",
        ParticipantState::Joined => "JOINED",
        ParticipantState::Left => "LEFT",
        ParticipantState::Declined => "DECLINED",
    }
}
