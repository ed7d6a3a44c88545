//! Goal: one call at a time, nobody left ringing, no ghost. Method: the stories of SPEC section 8, then
//! random lives of a locus with every invariant checked after every step.

use std::collections::BTreeSet;

use fusion_protocol::locus::ActiveLocus;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ALICE: u8 = 0;
const BOB: u8 = 1;
const CAROL: u8 = 2;

fn user(number: u8) -> Address {
    format!("user{number}@example.test").parse().unwrap()
}

fn url(path: &str) -> Url {
    Url::parse(&format!("https://a-conv.provider.example/v1/conversations/{path}")).unwrap()
}

fn relay(number: u8) -> Url {
    Url::parse(&format!("https://a-relay.provider.example/r{number}")).unwrap()
}

fn joining(kind: Kind, who: u8, device: u8, expect: u64) -> Event {
    let people = if kind == Kind::OneToOne { 2 } else { 3 };
    Event::Join(Join {
        user: user(who),
        device: format!("device{device}"),
        expect: Count(expect),
        leg: Uuid::from_u128(u128::from(who) << 8 | u128::from(device)),
        setting: setting(people, kind),
    })
}

fn setting(people: u8, kind: Kind) -> Setting {
    Setting { relay: Some(relay(0)), kind, members: (0..people).map(user).collect() }
}

/// Call `instance` of a lost conversation is taken over; these were in it.
fn take_over(instance: u64, joined: &[u8]) -> Event {
    let moved = |who: &u8| MovedParticipant { user: user(*who), devices: vec!["moved".to_owned()] };
    let call = Replaces {
        locus_url: url("loser/locus"),
        instance: Count(instance),
        joined: joined.iter().map(moved).collect(),
    };
    Event::TakeOver(TakeOver { call, seed: Uuid::from_u128(9), setting: setting(2, Kind::OneToOne) })
}

/// What readers are shown of it.
fn shown(instance: u64) -> Replaces {
    Replaces { locus_url: url("loser/locus"), instance: Count(instance), joined: vec![] }
}

fn join(who: u8, expect: u64) -> Event {
    joining(Kind::OneToOne, who, 0, expect)
}

fn hang_up(who: u8, instance: u64) -> Event {
    Event::Leave { user: user(who), instance: Count(instance), device: None }
}

fn decline(who: u8, instance: u64) -> Event {
    Event::Decline { user: user(who), instance: Count(instance) }
}

/// A locus after `events`, none of which is refused, and the effects of the last.
fn after(events: impl IntoIterator<Item = Event>) -> (Locus, Vec<Effect>) {
    let mut locus = Locus::default();
    let mut effects = Vec::new();
    for event in events {
        effects = locus.step(event).unwrap();
    }
    (locus, effects)
}

fn part(locus: &Locus, who: u8) -> (ParticipantState, Option<Reason>) {
    let party = &locus.parties[&user(who)];
    (party.state, party.reason)
}

fn told(effects: &[Effect], who: u8) -> Option<Option<EventType>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Tell { user: whom, event } if *whom == user(who) => Some(*event),
        _ => None,
    })
}

#[test]
fn calling_is_joining_and_rings_the_other() {
    let (locus, effects) = after([join(ALICE, 0)]);
    assert_eq!((locus.state, locus.instance), (LocusState::Initializing, Count(1)));
    assert_eq!(part(&locus, ALICE).0, ParticipantState::Joined);
    assert_eq!(part(&locus, BOB).0, ParticipantState::Notified);
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusRinging)));
    assert_eq!(told(&effects, ALICE), Some(Some(EventType::LocusChanged)), "nothing rings at the caller's");
    assert!(effects.contains(&Effect::OpenLeg(Uuid::from_u128(0))));
}

#[test]
fn an_answer_connects_and_stops_the_ringing_on_the_other_devices() {
    let (locus, effects) = after([join(ALICE, 0), join(BOB, 0)]);
    assert_eq!(locus.state, LocusState::Active);
    assert_eq!(told(&effects, ALICE), Some(Some(EventType::LocusChanged)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusAnsweredElsewhere)));
}

#[test]
fn calling_each_other_at_once_ends_in_one_call() {
    for (first, second) in [(ALICE, BOB), (BOB, ALICE)] {
        let (locus, _) = after([join(first, 0), join(second, 0)]);
        assert_eq!((locus.state, locus.instance), (LocusState::Active, Count(1)));
        assert!(!locus.rings());
    }
}

#[test]
fn a_retried_join_never_rings_again() {
    let (mut locus, _) = after([join(ALICE, 0), join(BOB, 0)]);
    let before = locus.clone();
    assert_eq!(locus.step(join(ALICE, 0)).unwrap(), [Effect::OpenLeg(Uuid::from_u128(0))]);
    assert_eq!(locus, before);
    locus.step(hang_up(BOB, 1)).unwrap();
    assert_eq!(locus.step(join(ALICE, 0)), Err(Refusal::CallOver));
}

#[test]
fn a_hang_up_ends_a_one_to_one_call_for_both() {
    let (locus, effects) = after([join(ALICE, 0), join(BOB, 0), hang_up(ALICE, 1)]);
    assert_eq!(locus.state, LocusState::Inactive);
    assert_eq!(part(&locus, ALICE), (ParticipantState::Left, Some(Reason::Hangup)));
    assert_eq!(part(&locus, BOB), (ParticipantState::Left, Some(Reason::Alone)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusEnded)));
    assert!(effects.contains(&Effect::EndInstance(Count(1))));
    let states: Vec<LocusState> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Entered { state, .. } => Some(*state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [LocusState::Terminating, LocusState::Inactive]);
}

#[test]
fn a_caller_who_gives_up_leaves_a_missed_call() {
    let (locus, _) = after([join(ALICE, 0), hang_up(ALICE, 1)]);
    assert_eq!(locus.state, LocusState::Inactive);
    assert_eq!(part(&locus, BOB), (ParticipantState::Left, Some(Reason::Missed)));
}

#[test]
fn declining_on_one_device_declines_the_user_and_ends_the_call() {
    let (mut locus, effects) = after([join(ALICE, 0), decline(BOB, 1)]);
    assert_eq!(part(&locus, BOB), (ParticipantState::Declined, Some(Reason::Hangup)));
    assert_eq!(part(&locus, ALICE), (ParticipantState::Left, Some(Reason::Alone)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusEnded)));
    assert_eq!(locus.step(decline(BOB, 1)), Ok(Vec::new()), "declining twice is declining");
}

#[test]
fn declining_after_another_device_answered_is_refused() {
    let (mut locus, _) = after([join(ALICE, 0), join(BOB, 0)]);
    assert_eq!(locus.step(decline(BOB, 1)), Err(Refusal::NotNow));
}

#[test]
fn a_ring_that_nobody_answers_ends_as_missed() {
    let (locus, effects) = after([join(ALICE, 0), Event::RingTimeout { instance: Count(1) }]);
    assert_eq!(locus.state, LocusState::Inactive);
    assert_eq!(part(&locus, BOB), (ParticipantState::Left, Some(Reason::Missed)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusEnded)));
}

#[test]
fn a_late_ring_timeout_changes_nothing() {
    let (mut locus, _) = after([join(ALICE, 0), join(BOB, 0)]);
    assert_eq!(locus.step(Event::RingTimeout { instance: Count(1) }), Ok(Vec::new()));
}

#[test]
fn a_crashed_client_leaves_by_lease() {
    let expired = Event::LeaseExpired { user: user(BOB), instance: Count(1), device: "device0".into() };
    let (locus, _) = after([join(ALICE, 0), join(BOB, 0), expired]);
    assert_eq!(locus.state, LocusState::Inactive);
    assert_eq!(part(&locus, BOB), (ParticipantState::Left, Some(Reason::Lease)));
}

#[test]
fn one_device_may_leave_while_another_of_the_user_stays() {
    let second = joining(Kind::OneToOne, BOB, 1, 0);
    let leaving = Event::Leave { user: user(BOB), instance: Count(1), device: Some("device0".into()) };
    let (locus, effects) = after([join(ALICE, 0), join(BOB, 0), second, leaving]);
    assert_eq!(locus.state, LocusState::Active);
    assert!(effects.contains(&Effect::CloseLeg(Uuid::from_u128(1 << 8))));
    assert!(!effects.contains(&Effect::CloseLeg(Uuid::from_u128(1 << 8 | 1))));
}

#[test]
fn a_group_call_goes_on_without_the_caller() {
    let group = |who| joining(Kind::Group, who, 0, 0);
    let (locus, _) = after([group(ALICE), group(BOB), hang_up(ALICE, 1)]);
    assert_eq!(locus.state, LocusState::Active);
    assert_eq!(part(&locus, CAROL).0, ParticipantState::Notified);
}

#[test]
fn a_removed_member_is_out_of_the_call_at_once_and_of_the_active_list() {
    let group = |who| joining(Kind::Group, who, 0, 0);
    let left = Event::Members(vec![user(ALICE), user(CAROL)]);
    let (mut locus, effects) = after([group(ALICE), group(BOB), left.clone()]);
    assert_eq!(part(&locus, BOB), (ParticipantState::Left, Some(Reason::Removed)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusEnded)));
    let entry = locus.entry(&user(BOB), &url("x/locus"), &url("x"));
    assert_eq!(entry.state, LocusState::Inactive);
    assert_eq!(locus.step(left), Ok(Vec::new()), "removing twice is removing");
}

#[test]
fn the_loser_of_a_race_hands_its_call_on_and_takes_no_more() {
    let (mut locus, effects) = after([join(ALICE, 0), join(BOB, 0), Event::Move]);
    let moved = |who| MovedParticipant { user: user(who), devices: vec!["device0".to_owned()] };
    assert_eq!(locus.place, Place::Moved { call: Some(Count(1)), joined: vec![moved(ALICE), moved(BOB)] });
    assert_eq!(locus.state, LocusState::Inactive);
    assert_eq!(told(&effects, ALICE), Some(Some(EventType::LocusEnded)));
    assert_eq!(locus.step(join(ALICE, 1)), Err(Refusal::Moved));
}

#[test]
fn those_whose_call_moves_to_the_winner_end_connected() {
    let (locus, effects) = after([join(BOB, 0), take_over(1, &[ALICE])]);
    assert_eq!((locus.state, locus.instance), (LocusState::Active, Count(1)));
    assert_eq!(part(&locus, ALICE).0, ParticipantState::Joined);
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusChanged)));
    let (locus, _) = after([take_over(1, &[ALICE, BOB])]);
    assert_eq!((locus.state, locus.instance), (LocusState::Active, Count(1)));
    assert!(!locus.rings());
}

#[test]
fn a_call_that_moves_to_a_winner_at_rest_rings_the_other_there() {
    let (locus, effects) = after([take_over(1, &[ALICE])]);
    assert_eq!(locus.state, LocusState::Initializing);
    assert_eq!(told(&effects, ALICE), Some(Some(EventType::LocusChanged)));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusRinging)));
    assert_eq!(locus.replaces, [shown(1)]);
}

#[test]
fn a_call_is_taken_over_once_even_when_it_is_over_by_then() {
    let (mut locus, _) = after([join(ALICE, 0), join(BOB, 0), take_over(4, &[ALICE])]);
    assert_eq!(locus.replaces, [shown(4)]);
    assert_eq!(locus.step(take_over(4, &[ALICE])), Ok(Vec::new()), "told twice is told once");
    locus.step(hang_up(ALICE, 1)).unwrap();
    assert_eq!(locus.replaces, []);
    assert_eq!(locus.step(take_over(4, &[ALICE])), Ok(Vec::new()), "it does not come back to life");
    assert!(!locus.is_active());
}

#[test]
fn nobody_is_moved_into_a_conversation_that_is_not_theirs() {
    let (locus, _) = after([take_over(1, &[CAROL])]);
    assert!(!locus.is_active());
    assert!(!locus.parties.contains_key(&user(CAROL)));
}

#[test]
fn a_failed_relay_is_replaced_once_however_many_devices_notice() {
    let failed = Event::RelayFailed { instance: Count(1), from: relay(0), to: relay(1) };
    let (mut locus, effects) = after([join(ALICE, 0), join(BOB, 0), failed.clone()]);
    assert_eq!((locus.relay(), locus.instance), (Some(&relay(1)), Count(1)));
    assert_eq!(told(&effects, ALICE), Some(Some(EventType::LocusRelayChanged)));
    assert_eq!(locus.step(failed), Ok(Vec::new()));
}

#[test]
fn a_relay_that_was_started_anew_is_asked_for_legs_again() {
    let anew = Event::RelayFailed { instance: Count(1), from: relay(0), to: relay(0) };
    let (locus, effects) = after([join(ALICE, 0), join(BOB, 0), anew]);
    assert_eq!((locus.relay(), locus.relays.len()), (Some(&relay(0)), 1));
    assert_eq!(told(&effects, BOB), Some(Some(EventType::LocusRelayChanged)));
}

#[test]
fn a_participant_keeps_one_id_in_one_locus() {
    let id = participant_id(&url("x/locus"), &user(ALICE));
    assert_eq!(id, participant_id(&url("x/locus"), &user(ALICE)));
    assert_ne!(id, participant_id(&url("y/locus"), &user(ALICE)));
    assert_ne!(id, participant_id(&url("x/locus"), &user(BOB)));
}

fn any_event(kind: Kind) -> impl Strategy<Value = Event> {
    let who = 0..if kind == Kind::OneToOne { 2_u8 } else { 3 };
    let instance = 0..4_u64;
    let device = |device: u8| format!("device{device}");
    prop_oneof![
        6 => (who.clone(), 0..2_u8, 0..4_u64).prop_map(move |(who, device, expect)| joining(kind, who, device, expect)),
        1 => (who.clone(), instance.clone()).prop_map(|(who, instance)| decline(who, instance)),
        2 => (who.clone(), instance.clone(), proptest::option::of(0..2_u8)).prop_map(move |(who, instance, number)| {
            Event::Leave { user: user(who), instance: Count(instance), device: number.map(device) }
        }),
        1 => instance.clone().prop_map(|instance| Event::RingTimeout { instance: Count(instance) }),
        1 => (who.clone(), instance.clone(), 0..2_u8).prop_map(move |(who, instance, number)| {
            Event::LeaseExpired { user: user(who), instance: Count(instance), device: device(number) }
        }),
        1 => vec(who, 0..4).prop_map(|members| Event::Members(members.into_iter().map(user).collect())),
        1 => (instance.clone(), vec(0..2_u8, 0..3)).prop_map(|(instance, joined)| take_over(instance, &joined)),
        1 => (instance, 0..2_u8, 0..2_u8).prop_map(|(instance, from, to)| {
            Event::RelayFailed { instance: Count(instance), from: relay(from), to: relay(to) }
        }),
    ]
}

/// A life: random events, an instance number now and then the right one, perhaps a lost race at the end.
fn any_life(kind: Kind) -> impl Strategy<Value = (Vec<(Event, bool)>, bool)> {
    (vec((any_event(kind), any::<bool>()), 0..40), any::<bool>())
}

/// Turns the event's instance into the one that is meant now, so that lives get somewhere.
fn aim(event: Event, at: &Locus) -> Event {
    let current = at.instance;
    match event {
        Event::Join(join) => {
            let expect = if at.is_active() { Count(current.0 - 1) } else { current };
            Event::Join(Join { expect, ..join })
        }
        Event::Decline { user, .. } => Event::Decline { user, instance: current },
        Event::Leave { user, device, .. } => Event::Leave { user, instance: current, device },
        Event::RingTimeout { .. } => Event::RingTimeout { instance: current },
        Event::LeaseExpired { user, device, .. } => Event::LeaseExpired { user, instance: current, device },
        other => other,
    }
}

fn legs_of(locus: &Locus) -> BTreeSet<Uuid> {
    locus.parties.values().flat_map(|party| party.devices.values().copied()).collect()
}

fn parts(locus: &Locus) -> BTreeMap<Address, ParticipantState> {
    locus.parties.iter().map(|(user, party)| (user.clone(), party.state)).collect()
}

fn check_step(before: &Locus, now: &Locus, result: &Result<Vec<Effect>, Refusal>) {
    let effects = result.as_deref().unwrap_or_default();
    if before == now {
        assert!(effects.iter().all(|effect| matches!(effect, Effect::OpenLeg(_))));
        return;
    }
    assert!(result.is_ok(), "a refusal changes nothing");
    assert!(now.rev > before.rev, "LOC-008: every change has a new revision");
    let starts = !before.is_active() && now.is_active();
    assert_eq!(now.instance.0, before.instance.0 + u64::from(starts), "one instance a call");
    let mut seen = before.rev;
    for effect in effects {
        if let Effect::Entered { rev, .. } = effect {
            assert_eq!(*rev, seen.next());
            seen = *rev;
        }
    }
    assert_eq!(seen, now.rev, "every revision is reported");
    let whom: Vec<&Address> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Tell { user, .. } => Some(user),
            _ => None,
        })
        .collect();
    assert_eq!(whom.iter().collect::<BTreeSet<_>>().len(), whom.len(), "everybody is told once");
    if now.is_active() || before.is_active() {
        let (old, new) = (parts(before), parts(now));
        for (user, state) in &new {
            assert!(starts || old.get(user) == Some(state) || whom.contains(&user), "who changes is told");
        }
    }
}

fn check_state(locus: &Locus) {
    let in_state = |state| locus.parties.values().filter(|party| party.state == state).count();
    let (joined, rung) = (in_state(ParticipantState::Joined), in_state(ParticipantState::Notified));
    for party in locus.parties.values() {
        assert_eq!(party.state == ParticipantState::Joined, !party.devices.is_empty());
    }
    match locus.state {
        LocusState::Inactive => assert_eq!((joined, rung), (0, 0), "nobody is left in a call that is over"),
        LocusState::Initializing | LocusState::Active => {
            assert!(joined > 0, "an empty locus ends");
            let two = locus.kind == Kind::OneToOne;
            assert!(!two || joined > 1 || rung > 0, "a 1:1 with one left ends");
        }
        LocusState::Terminating => panic!("the end is one step"),
    }
}

fn live(kind: Kind, events: Vec<(Event, bool)>, moves: bool) {
    let mut locus = Locus::default();
    let mut open = BTreeSet::new();
    let mut lists: BTreeMap<Address, ActiveLocus> = BTreeMap::new();
    let last = moves.then_some((Event::Move, false));
    for (event, aimed) in events.into_iter().chain(last) {
        let before = locus.clone();
        let event = if aimed { aim(event, &locus) } else { event };
        let result = locus.step(event);
        check_step(&before, &locus, &result);
        check_state(&locus);
        for effect in result.unwrap_or_default() {
            match effect {
                Effect::OpenLeg(leg) => drop(open.insert(leg)),
                Effect::CloseLeg(leg) => assert!(open.remove(&leg), "a leg that was never opened is closed"),
                Effect::EndInstance(_) => open.clear(),
                Effect::Tell { user, event } => {
                    let rung =
                        locus.parties.get(&user).is_some_and(|p| p.state == ParticipantState::Notified);
                    assert!(event != Some(EventType::LocusRinging) || rung, "only who is called is rung");
                    let entry = locus.entry(&user, &url("x/locus"), &url("x"));
                    assert!(register_takes(lists.get(&user), &entry), "an active list never goes back");
                    lists.insert(user, entry);
                }
                Effect::Entered { .. } => {}
            }
        }
        assert_eq!(open, legs_of(&locus), "MED-001: the legs are those of the devices in the call");
    }
    let ghosts = lists.values().filter(|entry| entry.state != LocusState::Inactive).count();
    assert!(locus.is_active() || ghosts == 0, "LOC-007: no ghost call in any list of kind {kind:?}");
}

proptest! {
    #[test]
    fn a_one_to_one_locus_keeps_its_promises((events, moves) in any_life(Kind::OneToOne)) {
        live(Kind::OneToOne, events, moves);
    }

    #[test]
    fn a_group_locus_keeps_its_promises((events, moves) in any_life(Kind::Group)) {
        live(Kind::Group, events, moves);
    }

    #[test]
    fn an_active_list_ends_the_same_in_whatever_order_it_is_written(
        (events, _) in any_life(Kind::OneToOne),
        shuffle in any::<u64>(),
    ) {
        let mut locus = Locus::default();
        let mut writes = Vec::new();
        for (event, _) in events {
            let event = aim(event, &locus);
            for effect in locus.step(event).unwrap_or_default() {
                if let Effect::Tell { user, .. } = effect {
                    writes.push((locus.entry(&user, &url("x/locus"), &url("x")), user));
                }
            }
        }
        let apply = |writes: &[(ActiveLocus, Address)]| {
            let mut lists: BTreeMap<Address, ActiveLocus> = BTreeMap::new();
            for (entry, user) in writes {
                if register_takes(lists.get(user), entry) {
                    lists.insert(user.clone(), entry.clone());
                }
            }
            lists
        };
        let in_order = apply(&writes);
        let length = writes.len() as u64;
        if length > 1 {
            for place in 0..length {
                let other = shuffle.rotate_left(place as u32) % length;
                writes.swap(place as usize, other as usize);
            }
        }
        prop_assert_eq!(apply(&writes), in_order);
    }
}

/// LOC-009: up to a thousand are in one call, and it ends with the last of them.
#[test]
fn a_thousand_are_in_one_call_and_it_ends_when_the_last_one_leaves() {
    let crowd: Vec<Address> = (0..1_000).map(|n| format!("user{n}@example.test").parse().unwrap()).collect();
    let setting = Setting { relay: Some(relay(0)), kind: Kind::Group, members: crowd.clone() };
    let mut locus = Locus::default();
    for (n, user) in crowd.iter().enumerate() {
        let (device, leg) = ("phone".to_owned(), Uuid::from_u128(n as u128));
        let join = Join { user: user.clone(), device, expect: Count(0), leg, setting: setting.clone() };
        let effects = locus.step(Event::Join(join)).unwrap();
        assert!(effects.contains(&Effect::OpenLeg(leg)));
    }
    assert_eq!(locus.instance, Count(1));
    assert!(crowd.iter().all(|user| locus.holds(user, Count(1), "phone")));
    for user in &crowd {
        assert!(locus.is_active());
        locus.step(Event::Leave { user: user.clone(), instance: Count(1), device: None }).unwrap();
    }
    assert!(!locus.is_active());
}
