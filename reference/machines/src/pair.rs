//! The one conversation of a pair of people, and the race for it (CNV-002, CNV-003).
//!
//! Two small machines. A [`Slot`] belongs to one user and says which conversation is the pair's; it is
//! kept with the user's index. A [`Life`] belongs to one conversation and says whether it is the pair's
//! for ever, or moving into the one that is. Both are pure: who is served where, and what must be
//! written besides, is the caller's affair.
//!
//! Not here: activities (`conversation`), and how claims and imports travel (`outbox`).

mod rule;

use fusion_protocol::conversation::{ConversationState, PairKey};
use fusion_protocol::{ClusterName, Count, Url, UserRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use rule::{Rank, Rule, rank};

/// A 1:1 conversation as a contender for its pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contender {
    /// Its URL.
    pub url: Url,
    /// The cluster it lives in.
    pub home: ClusterName,
    /// The rule that it contends by.
    #[serde(default, skip_serializing_if = "Rule::is_shipped")]
    pub rule: Rule,
    /// When it was made by its home's wall clock, in microseconds; only [`Rule::LowerTimestamp`] looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Count>,
}

/// Whether a slot can still be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// By the user's own creation, not confirmed by the peer's cluster.
    Unbound,
    /// For ever.
    Bound,
}

/// What a user's cluster knows of the pair of the user and one peer. Never emptied: not by hiding, not
/// by retention, not by deletion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// The pair's conversation.
    #[serde(flatten)]
    pub conversation: Contender,
    /// Whether that is final.
    pub hold: Hold,
    /// The loser whose activities are still moving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merging_from: Option<Url>,
}

/// Whether the claimed user is here, and who that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// Served by another cluster.
    Elsewhere,
    /// Served here, as another incarnation than the one meant.
    AnotherPerson,
    /// Served here.
    Here {
        /// The pair as this cluster computes it.
        pair: PairKey,
        /// The rule by which this cluster decides.
        rule: Rule,
    },
}

/// What happens to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotEvent {
    /// A conversation asks to be the pair's. Sent until answered, so it may come late and twice.
    Claim {
        /// The conversation.
        claimant: Contender,
        /// The pair as its home computes it.
        pair: PairKey,
        /// The rule by which its home ranks.
        rule: String,
        /// Who is asked.
        callee: Callee,
    },
}

/// What a cluster answers to a claim, and what it writes in the same transaction.
#[expect(clippy::large_enum_variant, reason = "one for each claim, read at once and never kept")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotDecision {
    /// 421.
    WrongCluster,
    /// 410.
    IncarnationGone,
    /// 409, alarm: nobody seals.
    RuleMismatch,
    /// 409: another conversation is the pair's, as far as this cluster can know.
    Taken {
        /// That one.
        winner: Contender,
    },
    /// 200.
    Granted {
        /// The slot from now on.
        slot: Slot,
        /// The conversation that it held before: [`LifeEvent::Outranked`] if it lives here.
        outranked: Option<Contender>,
    },
}

/// The life of a 1:1 conversation. Groups are [`Life::Bound`] from the start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Life {
    /// Usable, and not yet confirmed by the peer's cluster.
    Provisional,
    /// The pair's conversation for ever: nothing unseats it.
    Bound,
    /// Lost. Takes no more writes; its activities are moving.
    Sealing {
        /// Where to.
        winner: Contender,
    },
    /// Lost, and everything in it is in the winner.
    Superseded {
        /// Which is here.
        winner: Contender,
    },
}

/// What happens to a 1:1 conversation at its home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeEvent {
    /// Its claim was answered with 200.
    Granted,
    /// Its claim was answered with 409 and a winner.
    Taken {
        /// The winner.
        winner: Contender,
    },
    /// Its own cluster, as the callee of the rival's claim, gave the slot to the rival.
    Outranked {
        /// The rival.
        winner: Contender,
    },
    /// A loser sends its activities.
    Imported {
        /// The loser's home, which is the caller.
        loser_home: ClusterName,
    },
    /// The winner has everything.
    Exported,
}

/// What must be written in the transaction of a [`LifeEvent`].
#[expect(clippy::large_enum_variant, reason = "a few for each event, carried out at once and never kept")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeEffect {
    /// The creator's slot is bound to this conversation.
    BindSlot,
    /// The creator's slot is this one, if it is kept here.
    YieldSlot(Slot),
    /// The activities are to be sent to the winner, until acknowledged.
    Export,
    /// Nothing of this conversation is merging any more: slots that say so, and the winner's index
    /// entry that waited for it, are settled.
    Settle,
}

/// Why an event does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifeRefusal {
    /// The named winner does not win by this cluster's own computation: alarm, and nobody seals.
    #[error("the named winner does not outrank this conversation")]
    Disagreement,
    /// A bound conversation is never unseated.
    #[error("a bound conversation is never unseated")]
    Seated,
    /// Only the winner takes a loser's activities.
    #[error("this conversation did not win against the sender's")]
    NotTheWinner,
    /// There is nothing to export.
    #[error("this conversation is not being merged")]
    NotSealing,
}

/// CNV-003: what identifies a pair. The pair is unordered.
#[must_use]
pub fn pair_key(one: &UserRef, other: &UserRef) -> PairKey {
    let (one, other) = (one.octets(), other.octets());
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    PairKey(Sha256::new().chain_update(low).chain_update([0]).chain_update(high).finalize().into())
}

impl Contender {
    /// A contender by the rule that ships.
    #[must_use]
    pub fn new(url: Url, home: ClusterName) -> Self {
        Self { url, home, rule: Rule::default(), made: None }
    }
}

impl Slot {
    /// The slot of a user who has just created `conversation`.
    #[must_use]
    pub fn own(conversation: Contender) -> Self {
        Self { conversation, hold: Hold::Unbound, merging_from: None }
    }

    /// A slot that is final from the start: both users are served by one cluster.
    #[must_use]
    pub fn bound(conversation: Contender) -> Self {
        Self { conversation, hold: Hold::Bound, merging_from: None }
    }

    /// The slot after `loser` is superseded by `winner`. The loser's home may be the first to say so: then
    /// the slot still holds the loser, and the winner's claim finds it settled.
    #[must_use]
    pub fn settled(&self, loser: &Url, winner: &Contender) -> Self {
        if self.conversation.url == *loser {
            return Self::bound(winner.clone());
        }
        let merging_from = self.merging_from.clone().filter(|from| from != loser);
        Self { merging_from, ..self.clone() }
    }

    /// What a look-up answers: the loser while its activities are moving, so that its author keeps
    /// reading what was written there.
    #[must_use]
    pub fn answer(&self) -> &Url {
        self.merging_from.as_ref().unwrap_or(&self.conversation.url)
    }
}

/// CNV-003: the table of the callee.
#[must_use]
pub fn decide(slot: Option<&Slot>, event: &SlotEvent) -> SlotDecision {
    let SlotEvent::Claim { claimant, pair, rule, callee } = event;
    let own_rule = match callee {
        Callee::Elsewhere => return SlotDecision::WrongCluster,
        Callee::AnotherPerson => return SlotDecision::IncarnationGone,
        Callee::Here { pair: own, rule: here } if own != pair || rule != here.name() => {
            return SlotDecision::RuleMismatch;
        }
        Callee::Here { rule, .. } => *rule,
    };
    let Some(held) = slot else {
        return SlotDecision::Granted { slot: Slot::bound(claimant.clone()), outranked: None };
    };
    if held.conversation.url == claimant.url {
        return SlotDecision::Granted { slot: Slot { hold: Hold::Bound, ..held.clone() }, outranked: None };
    }
    let held_wins = own_rule.prefers(pair, &held.conversation, claimant);
    match held.hold {
        Hold::Unbound | Hold::Bound if !held_wins && (held.hold == Hold::Unbound || !own_rule.settles()) => {
            SlotDecision::Granted {
                slot: Slot::taken_over(claimant.clone(), held.conversation.url.clone()),
                outranked: Some(held.conversation.clone()),
            }
        }
        Hold::Bound | Hold::Unbound => SlotDecision::Taken { winner: held.conversation.clone() },
    }
}

impl Life {
    /// The state as it goes over the wire.
    #[must_use]
    pub fn state(&self) -> ConversationState {
        match self {
            Self::Provisional => ConversationState::Provisional,
            Self::Bound => ConversationState::Bound,
            Self::Sealing { .. } => ConversationState::Sealing,
            Self::Superseded { .. } => ConversationState::Superseded,
        }
    }

    /// The conversation that won, once that is known.
    #[must_use]
    pub fn winner(&self) -> Option<&Contender> {
        match self {
            Self::Provisional | Self::Bound => None,
            Self::Sealing { winner } | Self::Superseded { winner } => Some(winner),
        }
    }

    /// CNV-003: the life of the conversation `own` of `pair` after `event`, and what to write with it.
    ///
    /// Answers to old claims come late and twice: what no longer matters changes nothing.
    ///
    /// # Errors
    /// See [`LifeRefusal`]; nothing changes then.
    pub fn step(
        &self,
        own: &Contender,
        pair: &PairKey,
        event: LifeEvent,
    ) -> Result<(Self, Vec<LifeEffect>), LifeRefusal> {
        let loses_to = |winner: &Contender| own.rule.prefers(pair, winner, own);
        match (self, event) {
            (Self::Provisional, LifeEvent::Granted) => Ok((Self::Bound, vec![LifeEffect::BindSlot])),
            (Self::Provisional, LifeEvent::Taken { winner }) if loses_to(&winner) => {
                let slot = Slot::taken_over(winner.clone(), own.url.clone());
                Ok((Self::Sealing { winner }, vec![LifeEffect::YieldSlot(slot), LifeEffect::Export]))
            }
            (Self::Provisional, LifeEvent::Taken { .. }) => Err(LifeRefusal::Disagreement),
            (Self::Provisional, LifeEvent::Outranked { winner }) => {
                Ok((Self::Sealing { winner }, vec![LifeEffect::Export]))
            }
            (Self::Bound, LifeEvent::Outranked { winner }) if !own.rule.settles() => {
                Ok((Self::Sealing { winner }, vec![LifeEffect::Export]))
            }
            (Self::Bound, LifeEvent::Outranked { .. }) => Err(LifeRefusal::Seated),
            (Self::Provisional | Self::Bound, LifeEvent::Imported { loser_home }) => {
                if !own.rule.beats_home(pair, own, &loser_home) {
                    return Err(LifeRefusal::NotTheWinner);
                }
                Ok((Self::Bound, vec![LifeEffect::BindSlot]))
            }
            (Self::Sealing { .. } | Self::Superseded { .. }, LifeEvent::Imported { .. }) => {
                Err(LifeRefusal::NotTheWinner)
            }
            (Self::Sealing { winner }, LifeEvent::Exported) => {
                Ok((Self::Superseded { winner: winner.clone() }, vec![LifeEffect::Settle]))
            }
            (Self::Provisional | Self::Bound, LifeEvent::Exported) => Err(LifeRefusal::NotSealing),
            (Self::Bound, LifeEvent::Granted | LifeEvent::Taken { .. })
            | (Self::Superseded { .. }, LifeEvent::Exported)
            | (
                Self::Sealing { .. } | Self::Superseded { .. },
                LifeEvent::Granted | LifeEvent::Taken { .. } | LifeEvent::Outranked { .. },
            ) => Ok((self.clone(), Vec::new())),
        }
    }
}

impl Slot {
    fn taken_over(winner: Contender, loser: Url) -> Self {
        Self { conversation: winner, hold: Hold::Bound, merging_from: Some(loser) }
    }
}

#[cfg(test)]
mod tests {
    use fusion_protocol::conversation::RULE;
    use fusion_protocol::{Incarnation, Uuid};

    use super::*;

    fn user(address: &str, incarnation: u128) -> UserRef {
        UserRef { user: address.parse().unwrap(), incarnation: Incarnation(Uuid::from_u128(incarnation)) }
    }

    fn contender(cluster: &str) -> Contender {
        let url = format!("https://{cluster}-conv.provider.example/v1/conversations/1").parse().unwrap();
        Contender::new(url, cluster.parse().unwrap())
    }

    fn pair() -> PairKey {
        pair_key(&user("alice@a.example", 1), &user("bob@b.example", 2))
    }

    /// The contenders of two clusters, the winner first.
    fn ranked() -> (Contender, Contender) {
        let (a, b) = (contender("a"), contender("b"));
        if rank(&pair(), &a.home) < rank(&pair(), &b.home) { (a, b) } else { (b, a) }
    }

    fn here() -> Callee {
        Callee::Here { pair: pair(), rule: Rule::HomeRank }
    }

    fn claim(claimant: Contender) -> SlotEvent {
        SlotEvent::Claim { claimant, pair: pair(), rule: RULE.into(), callee: here() }
    }

    #[test]
    fn a_pair_is_unordered_and_means_two_persons() {
        let (alice, bob) = (user("alice@a.example", 1), user("bob@b.example", 2));
        assert_eq!(pair_key(&alice, &bob), pair_key(&bob, &alice));
        assert_ne!(pair_key(&alice, &bob), pair_key(&alice, &user("bob@b.example", 3)));
    }

    #[test]
    fn the_formulas_are_those_of_the_specification() {
        // Computed outside this program, with printf and sha256sum.
        let key = "0039cf5c93d01388426054b7f2b984eb30cad1e2af6ca8bd65647ba2156b890a";
        let rank_of_a = "8d37e31313f5cde884a3557f59ff5981c77c457b21e3bfbc0bc507cba74d217f";
        let rank_of_b = "4d530a743e3adacc5ed6612782c6a145fce57db5f3d846835fcc06d139a37c21";
        assert_eq!(pair().to_string(), key);
        let in_hex = |cluster: &str| rule::in_hex(&pair(), &contender(cluster).home);
        assert_eq!((in_hex("a").as_str(), in_hex("b").as_str()), (rank_of_a, rank_of_b));
    }

    #[test]
    fn an_empty_slot_takes_the_first_claim() {
        let (winner, _) = ranked();
        let decision = decide(None, &claim(winner.clone()));
        assert_eq!(decision, SlotDecision::Granted { slot: Slot::bound(winner), outranked: None });
    }

    #[test]
    fn a_repeated_claim_is_granted_again_and_changes_nothing() {
        let (winner, loser) = ranked();
        let slot = Slot::taken_over(winner.clone(), loser.url);
        assert_eq!(
            decide(Some(&slot), &claim(winner)),
            SlotDecision::Granted { slot: slot.clone(), outranked: None }
        );
    }

    #[test]
    fn of_two_unbound_conversations_the_lower_rank_wins() {
        let (winner, loser) = ranked();
        let granted = decide(Some(&Slot::own(loser.clone())), &claim(winner.clone()));
        let slot = Slot::taken_over(winner.clone(), loser.url.clone());
        assert_eq!(granted, SlotDecision::Granted { slot, outranked: Some(loser.clone()) });
        let taken = decide(Some(&Slot::own(winner.clone())), &claim(loser));
        assert_eq!(taken, SlotDecision::Taken { winner });
    }

    #[test]
    fn a_bound_slot_is_not_unseated_by_a_better_rank() {
        let (winner, loser) = ranked();
        let taken = decide(Some(&Slot::bound(loser.clone())), &claim(winner));
        assert_eq!(taken, SlotDecision::Taken { winner: loser });
    }

    #[test]
    fn clusters_that_compute_differently_never_seal() {
        let (winner, loser) = ranked();
        let slot = Slot::own(loser);
        let other_pair = PairKey([7; 32]);
        let other_rule = SlotEvent::Claim {
            claimant: winner.clone(),
            pair: pair(),
            rule: "sf-1to1-v2".into(),
            callee: here(),
        };
        let other_key = SlotEvent::Claim {
            claimant: winner,
            pair: pair(),
            rule: RULE.into(),
            callee: Callee::Here { pair: other_pair, rule: Rule::HomeRank },
        };
        assert_eq!(decide(Some(&slot), &other_rule), SlotDecision::RuleMismatch);
        assert_eq!(decide(Some(&slot), &other_key), SlotDecision::RuleMismatch);
    }

    #[test]
    fn a_user_who_is_elsewhere_or_somebody_else_has_no_slot_here() {
        let (winner, _) = ranked();
        for (callee, expected) in [
            (Callee::Elsewhere, SlotDecision::WrongCluster),
            (Callee::AnotherPerson, SlotDecision::IncarnationGone),
        ] {
            let event =
                SlotEvent::Claim { claimant: winner.clone(), pair: pair(), rule: RULE.into(), callee };
            assert_eq!(decide(None, &event), expected);
        }
    }

    #[test]
    fn a_bound_conversation_stays_bound() {
        let (winner, loser) = ranked();
        let late = LifeEvent::Taken { winner: winner.clone() };
        assert_eq!(Life::Bound.step(&loser, &pair(), late), Ok((Life::Bound, vec![])));
        let outranked = LifeEvent::Outranked { winner };
        assert_eq!(Life::Bound.step(&loser, &pair(), outranked), Err(LifeRefusal::Seated));
    }

    #[test]
    fn a_refusal_is_obeyed_only_when_the_own_computation_agrees() {
        let (winner, loser) = ranked();
        let wrong = LifeEvent::Taken { winner: loser.clone() };
        assert_eq!(Life::Provisional.step(&winner, &pair(), wrong), Err(LifeRefusal::Disagreement));
        let right = LifeEvent::Taken { winner: winner.clone() };
        let (life, effects) = Life::Provisional.step(&loser, &pair(), right).unwrap();
        assert_eq!(life, Life::Sealing { winner: winner.clone() });
        let slot = Slot::taken_over(winner, loser.url);
        assert_eq!(effects, [LifeEffect::YieldSlot(slot), LifeEffect::Export]);
    }

    #[test]
    fn an_import_binds_the_winner_and_is_refused_by_the_loser() {
        let (winner, loser) = ranked();
        let from_loser = LifeEvent::Imported { loser_home: loser.home.clone() };
        let (life, effects) = Life::Provisional.step(&winner, &pair(), from_loser).unwrap();
        assert_eq!((life, effects), (Life::Bound, vec![LifeEffect::BindSlot]));
        let from_winner = LifeEvent::Imported { loser_home: winner.home.clone() };
        assert_eq!(
            Life::Provisional.step(&loser, &pair(), from_winner.clone()),
            Err(LifeRefusal::NotTheWinner)
        );
        let sealing = Life::Sealing { winner };
        assert_eq!(sealing.step(&loser, &pair(), from_winner), Err(LifeRefusal::NotTheWinner));
    }

    #[test]
    fn what_is_exported_is_superseded_for_ever() {
        let (winner, loser) = ranked();
        let sealing = Life::Sealing { winner: winner.clone() };
        let (life, effects) = sealing.step(&loser, &pair(), LifeEvent::Exported).unwrap();
        assert_eq!((&life, effects), (&Life::Superseded { winner }, vec![LifeEffect::Settle]));
        for late in [LifeEvent::Granted, LifeEvent::Exported] {
            assert_eq!(life.step(&loser, &pair(), late), Ok((life.clone(), vec![])));
        }
    }

    /// A conversation of `cluster` by a literal rule, made at this time of its clock with this identifier.
    fn literal(rule: Rule, cluster: &str, made: u64, id: u128) -> Contender {
        let id = Uuid::from_u128(id);
        let url = format!("https://{cluster}-conv.provider.example/v1/conversations/{id}").parse().unwrap();
        Contender { rule, made: rule.stamp(made), ..Contender::new(url, cluster.parse().unwrap()) }
    }

    fn claimed(slot: &Slot, by: &Contender) -> SlotDecision {
        let callee = Callee::Here { pair: pair(), rule: by.rule };
        let rule = by.rule.name().to_owned();
        decide(Some(slot), &SlotEvent::Claim { claimant: by.clone(), pair: pair(), rule, callee })
    }

    #[test]
    fn by_the_literal_rules_a_clock_or_a_lucky_identifier_unseats_what_was_settled() {
        for rule in [Rule::LowerTimestamp, Rule::LowerId { draws: 1 }] {
            let (old, new) = (literal(rule, "a", 2_000, 2), literal(rule, "b", 1_000, 1));
            let granted = claimed(&Slot::bound(old.clone()), &new);
            assert!(matches!(granted, SlotDecision::Granted { outranked: Some(_), .. }), "{rule:?}");
            let unseated = Life::Bound.step(&old, &pair(), LifeEvent::Outranked { winner: new.clone() });
            assert_eq!(unseated.unwrap().0, Life::Sealing { winner: new.clone() });
            let taken = claimed(&Slot::bound(new.clone()), &old);
            assert_eq!(taken, SlotDecision::Taken { winner: new });
        }
        let shipped = |cluster| literal(Rule::HomeRank, cluster, 0, 0);
        let (one, other) = (shipped("a"), shipped("b"));
        assert_eq!(claimed(&Slot::bound(one.clone()), &other), SlotDecision::Taken { winner: one.clone() });
        assert_eq!(claimed(&Slot::bound(other.clone()), &one), SlotDecision::Taken { winner: other });
    }

    #[test]
    fn redirects_never_end_where_nothing_is_settled() {
        let rule = Rule::LowerId { draws: 1 };
        let places: Vec<_> =
            (0..4).map(|n| literal(rule, if n % 2 == 0 { "a" } else { "b" }, 0, 9 - n)).collect();
        let mut hops = 0;
        for (old, new) in places.iter().zip(&places[1..]) {
            let event = LifeEvent::Outranked { winner: new.clone() };
            let (sealing, _) = Life::Bound.step(old, &pair(), event).unwrap();
            let (gone, _) = sealing.step(old, &pair(), LifeEvent::Exported).unwrap();
            assert_eq!(gone.winner(), Some(new));
            hops += 1;
        }
        assert_eq!(hops, 3, "the first URL leads to the last conversation over all others");
    }

    #[test]
    fn clusters_with_different_rules_never_seal() {
        let all = [Rule::HomeRank, Rule::LowerTimestamp, Rule::LowerId { draws: 1 }, Rule::EmptiedSlots];
        for (claims, decides) in all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other))) {
            let callee = Callee::Here { pair: pair(), rule: decides };
            let claimant = literal(claims, "a", 1, 1);
            let event = SlotEvent::Claim { claimant, pair: pair(), rule: claims.name().into(), callee };
            let mismatch = decide(None, &event) == SlotDecision::RuleMismatch;
            assert_eq!(mismatch, claims != decides, "{claims:?} {decides:?}");
        }
    }

    #[test]
    fn what_ships_is_written_without_a_word_about_rules() {
        let json = serde_json::to_string(&contender("a")).unwrap();
        assert!(!json.contains("rule") && !json.contains("made"), "{json}");
        assert_eq!(serde_json::from_str::<Contender>(&json).unwrap(), contender("a"));
    }
}
