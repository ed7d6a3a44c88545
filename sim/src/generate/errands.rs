//! What is about people and places rather than chats: errands, moves, new accounts, claims, hostile clusters.

use std::time::Duration;

use fusion_deployment::topology::{OrgRole, OrgSpec, UserSpec};
use fusion_protocol::ClusterName;

use super::chats::{creates, finds, pause};
use super::dice::Dice;
use super::people::Device;
use super::script::{Script, Thread};
use super::topology::{UNCLAIMED, address, domain, user};
use crate::scenario::{Act, Deed};

const AT_ONCE: Duration = Duration::ZERO;

impl Script {
    /// Somebody looks others up, reads, logs in, and shows a token where it must be refused.
    pub(super) fn errands(&mut self, n: u64, dice: &Dice) {
        let Some(who) = dice.one_of(&self.residents).cloned() else { return };
        let mut thread = self.thread(n, Device::phone(&who), self.begins(dice));
        let known: Vec<String> =
            self.topology.users.iter().map(|user| user.address.local_part().to_owned()).collect();
        for _ in 0..dice.between(1, 4) {
            let act = match dice.weighted(&[(60, 0), (15, 1), (15, 2), (10, 3)]) {
                0 => dice.one_of(&known).map(|who| Act::Resolve { who: who.clone() }),
                1 => Some(Act::ReadIndex {}),
                2 => Some(Act::LogIn {}),
                _ => self.elsewhere(dice, &who).map(|at| Act::ReplayToken { at: at.to_string() }),
            };
            if let Some(act) = act {
                thread.does(self, pause(dice), AT_ONCE, act);
            }
        }
    }

    /// MAP-007: somebody moves to another cluster of the org, in the middle of everything.
    pub(super) fn moving(&mut self, n: u64, dice: &Dice) {
        let can = |name: &&String| {
            !self.settled.contains(*name) && !self.movers.contains(*name) && !self.sisters(name).is_empty()
        };
        let can: Vec<String> = self.residents.iter().filter(can).cloned().collect();
        let Some(who) = dice.one_of(&can) else { return };
        let Some(to) = dice.one_of(&self.sisters(who)).map(ToString::to_string) else { return };
        let at = self.begins(dice);
        self.thread(n, Device::phone(who), at).does(self, pause(dice), AT_ONCE, Act::Move { to });
        self.movers.insert(who.clone());
        self.moves_people = true;
    }

    /// Somebody gets an account in the story. Before that, the address leads nowhere.
    pub(super) fn somebody_comes(&mut self, n: u64, dice: &Dice) {
        let Some(friend) = dice.one_of(&self.residents).cloned() else { return };
        let Some(org) = dice.one_of(&self.topology.orgs).cloned() else { return };
        let Some(who) = self.newcomer(|topology, name| user(dice, topology, &org, name)) else { return };
        let Some(home) = self.home_of(&who) else { return };
        let at = self.begins(dice);
        let mut old = self.thread(n, Device::phone(&friend), at);
        let mut new = self.thread(n, Device::phone(&who), at);
        old.does(self, pause(dice), AT_ONCE, Act::Resolve { who: who.clone() });
        let there = new.does(self, dice.millis(0, 3_000), AT_ONCE, Act::Provision { at: home.to_string() });
        self.meet(n, dice, (&mut new, &who), (&mut old, &friend), &there);
    }

    /// MAP-004: one address is given an account at two clusters of an org at once.
    pub(super) fn made_twice(&mut self, n: u64, dice: &Dice) {
        let large: Vec<OrgSpec> =
            self.topology.orgs.iter().filter(|org| org.clusters.len() > 1).cloned().collect();
        let Some(org) = dice.one_of(&large) else { return };
        let Some(who) = self.newcomer(|topology, name| user(dice, topology, org, name)) else { return };
        let Some(home) = self.home_of(&who) else { return };
        let others: Vec<ClusterName> = org.cluster_names().into_iter().filter(|name| *name != home).collect();
        let Some(other) = dice.one_of(&others) else { return };
        let at = self.begins(dice);
        let mut forms = Vec::new();
        for (device, cluster) in [("phone", &home), ("laptop", other)] {
            let mut thread = self.thread(n, Device::other(&who, device), at);
            let act = Act::Provision { at: cluster.to_string() };
            forms.push(thread.does(self, Duration::from_millis(dice.few(0, 100)), AT_ONCE, act));
        }
        if let Some(friend) = dice.one_of(&self.residents).cloned() {
            let mut thread = self.thread(n, Device::phone(&friend), at);
            thread.waits_for(&forms);
            thread.does(self, pause(dice), AT_ONCE, Act::Resolve { who });
        }
    }

    /// MAP-004: an org gives somebody an address that the consumer org has given somebody else.
    pub(super) fn taken_over(&mut self, n: u64, dice: &Dice) {
        let (consumer, private): (Vec<OrgSpec>, Vec<OrgSpec>) =
            self.topology.orgs.iter().cloned().partition(|org| org.role == OrgRole::Consumer);
        let (Some(consumer), Some(org)) = (consumer.first(), dice.one_of(&private)) else { return };
        let (Some(old_home), Some(domain)) = (dice.one_of(&consumer.clusters), dice.one_of(&org.domains))
        else {
            return;
        };
        let Some(new_home) = dice.one_of(&org.clusters).map(|cluster| cluster.name.to_string()) else {
            return;
        };
        let cluster = old_home.name.clone();
        let old =
            |name: &str| UserSpec { address: address(name, domain.as_str()), cluster, display_name: None };
        let (Some(who), Some(friend)) =
            (self.newcomer(|_, name| Some(old(name))), dice.one_of(&self.residents).cloned())
        else {
            return;
        };
        let at = self.begins(dice);
        let mut friend_thread = self.thread(n, Device::phone(&friend), at);
        let mut new = self.thread(n, Device::other(&who, "desk"), at);
        friend_thread.does(self, pause(dice), AT_ONCE, Act::Resolve { who: who.clone() });
        let delay = dice.millis(200, 3_000);
        let there = new.does(self, delay, AT_ONCE, Act::Provision { at: new_home });
        self.meet(n, dice, (&mut new, &who), (&mut friend_thread, &friend), &there);
    }

    /// MAP-002: one or several orgs claim a domain at once; who has lost may try again.
    pub(super) fn claims(&mut self, n: u64, dice: &Dice) {
        let domain = match dice.percent(25) {
            true => domain(dice.one_of(&UNCLAIMED).copied().unwrap_or(UNCLAIMED[0])),
            false => domain(&format!("claimed{n}.example")),
        };
        let mut claimants = self.several(dice, dice.few(1, 4) as usize);
        claimants.retain(|name| self.is_private(name) || dice.percent(30));
        let at = self.begins(dice);
        for name in &claimants {
            let dice = dice.stream(name);
            let mut thread = self.thread(n, Device::phone(name), at);
            let claim = || Act::Claim { domain: domain.clone() };
            thread.does(self, Duration::from_millis(dice.few(0, 60)), AT_ONCE, claim());
            if dice.percent(30) {
                thread.does(self, dice.millis(100, 2_000), AT_ONCE, claim());
            }
            self.settled.insert(name.clone());
            self.moves_people = true;
        }
    }

    /// SEC: a cluster turns hostile; others have a chat that is none of its business.
    pub(super) fn hostile(&mut self, n: u64, dice: &Dice) {
        let stays: Vec<String> =
            self.residents.iter().filter(|name| !self.movers.contains(*name)).cloned().collect();
        let Some(villain) = dice.one_of(&stays).cloned() else { return };
        let Some(lair) = self.home_of(&villain) else { return };
        let mut elsewhere: Vec<String> =
            stays.into_iter().filter(|name| self.home_of(name).is_some_and(|home| home != lair)).collect();
        let (Some(victim), Some(friend)) = (dice.take(&mut elsewhere), dice.take(&mut elsewhere)) else {
            return;
        };
        let Some(at) = self.home_of(&victim).map(|home| home.to_string()) else { return };
        self.settled.extend([villain.clone(), victim.clone(), friend.clone()]);
        let (chat, begins) = (format!("ours{n}"), self.begins(dice));
        let mut first = self.thread(n, Device::phone(&friend), begins);
        let made = first.does(self, AT_ONCE, AT_ONCE, creates(&chat, &[&victim], false));
        let mut second = self.thread(n, Device::phone(&victim), begins);
        second.waits_for(std::slice::from_ref(&made));
        let found = second.does(self, pause(dice), AT_ONCE, finds(dice, &chat, &friend));
        let mut thread = self.thread(n, Device::phone(&villain), begins);
        thread.waits_for(&[made, found]);
        let deeds =
            [Deed::ReplayGuest, Deed::ReplayCall, Deed::ForeignObject, Deed::Intrude, Deed::MintToken];
        for deed in deeds.into_iter().filter(|_| dice.percent(50)) {
            let needs = |what| deed.needs().contains(&what);
            let act = Act::Trespass {
                deed,
                at: needs("at_cluster").then(|| at.clone()),
                who: needs("who").then(|| victim.clone()),
                chat: needs("chat").then(|| chat.clone()),
            };
            thread.does(self, pause(dice), AT_ONCE, act);
        }
        self.chatter(dice, &chat, &mut [first, second], false);
    }

    /// Two who find each other once one of them has an account: the one or the other begins.
    fn meet(
        &mut self,
        n: u64,
        dice: &Dice,
        (new, who): (&mut Thread, &str),
        (old, friend): (&mut Thread, &str),
        there: &str,
    ) {
        let chat = format!("hello{n}");
        old.waits_for(&[there.to_owned()]);
        let (delay, who, friend) = (dice.millis(0, 1_000), who.to_owned(), friend.to_owned());
        if dice.percent(50) {
            let made = new.does(self, delay, AT_ONCE, creates(&chat, &[&friend], false));
            old.waits_for(&[made]);
            old.does(self, pause(dice), AT_ONCE, finds(dice, &chat, &who));
        } else {
            old.does(self, delay, AT_ONCE, creates(&chat, &[&who], false));
            new.does(self, pause(dice), AT_ONCE, finds(dice, &chat, &friend));
        }
        for thread in [new, old] {
            let text = format!("Good to meet you. No. {}.", dice.between(100_000, 999_999));
            thread.does(self, pause(dice), AT_ONCE, Act::Say { chat: chat.clone(), text });
        }
    }

    /// The other clusters of somebody's org.
    fn sisters(&self, who: &str) -> Vec<ClusterName> {
        let Some(home) = self.home_of(who) else { return Vec::new() };
        let org = self.topology.org_of(&home).map(OrgSpec::cluster_names).unwrap_or_default();
        org.into_iter().filter(|name| *name != home).collect()
    }

    /// A cluster that somebody is not at, now or later: who shows a token there does not move.
    fn elsewhere(&mut self, dice: &Dice, who: &str) -> Option<ClusterName> {
        if self.movers.contains(who) {
            return None;
        }
        let home = self.home_of(who)?;
        let others: Vec<ClusterName> =
            self.topology.clusters().map(|(_, one)| one.name.clone()).filter(|name| *name != home).collect();
        let at = dice.one_of(&others).cloned();
        if at.is_some() {
            self.settled.insert(who.to_owned());
        }
        at
    }
}
