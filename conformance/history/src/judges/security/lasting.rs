//! OPS-003: whoever was let in stays so, though the clusters that let them in are killed.

use fusion_protocol::{Address, ClusterName, Url};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Back, Facts, Fault, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

/// OPS-003, SEC-003: a token outlives the process that issued it and the one that it is shown to. What it
/// is checked by, the keys of its issuer, is in the store and nowhere else.
///
/// A case is a token, and the first call with it after its cluster or its issuer was started anew. The call
/// is answered; it does not make the device get another token first, before this one has run out.
pub(in crate::judges) struct TokensOutliveRestarts;

/// So long a token is good at least: the ten minutes of SEC-003, less the half that a careful client leaves.
const GOOD_US: u64 = 570_000_000;
/// Families of faults that start a process anew.
const KILLS: [&str; 3] = ["crash", "power_off", "restart"];
/// Families of faults after which a good token is refused, and rightly: a clock that goes wrong says that it
/// has run out, and a lost row may be the account.
pub(super) const EXCUSES: [&str; 4] = ["skew", "drift", "jump", "lose_rows"];

/// A token that a device holds.
#[derive(Clone, Copy)]
struct Held {
    id: EventId,
    got_us: u64,
}

/// What is known while the history is read on.
struct Reading<'f, 'h> {
    facts: &'f Facts<'h>,
    /// Who may have another account by now.
    unsettled: Set<&'h Address>,
    homes: Table<&'h str, &'h ClusterName>,
    held: Table<(&'h str, ClusterName), Held>,
    /// The tokens that were judged, with the restart that they outlived or did not.
    judged: Set<(EventId, EventId)>,
}

impl Judge for TokensOutliveRestarts {
    fn name(&self) -> &'static str {
        "tokens-outlive-restarts"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["OPS-003", "SEC-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        if !facts.faults().iter().any(|fault| KILLS.contains(&fault.family)) {
            return;
        }
        let (homes, held, judged) = (Table::default(), Table::default(), Set::default());
        let mut reading = Reading { facts, unsettled: unsettled(facts), homes, held, judged };
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) => reading.begins(asked, case),
                Moment::Returned(asked, back) => reading.ends(asked, back, case),
                Moment::Seen(_) => {}
            }
        }
    }
}

/// The call for whose sake something was asked; nothing when that was meant to be asked.
pub(super) fn cause_of(facts: &Facts<'_>, asked: &Asked<'_>) -> Option<EventId> {
    facts.history().event(asked.id)?.cause
}

/// Those whose account has ended or has moved, or whose address is claimed: what they were let in with may
/// be refused.
pub(super) fn unsettled<'h>(facts: &Facts<'h>) -> Set<&'h Address> {
    let claims: Vec<_> = facts
        .asked_to(Verb::Claim)
        .filter_map(|asked| match asked.call {
            Call::Claim { domain, .. } => Some(domain),
            _ => None,
        })
        .collect();
    let moved = facts.clusters_of_users().iter().filter(|(_, clusters)| clusters.len() > 1);
    let claimed = facts.calls().iter().map(|asked| asked.actor);
    let claimed = claimed.filter(|user| claims.iter().any(|domain| **domain == user.domain()));
    let deleted = facts.deprovisioned().iter().copied();
    moved.map(|(user, _)| *user).chain(claimed).chain(deleted).collect()
}

impl<'f, 'h> Reading<'f, 'h> {
    /// A device gets a token though it has one, for the sake of a call that it is about to make: the one it
    /// has was refused.
    fn begins(&mut self, asked: &Asked<'h>, case: &mut Casebook) {
        let Some(cluster) = token_of(asked.call) else { return };
        if cause_of(self.facts, asked).is_none() {
            return;
        }
        let Some((held, restart)) = self.outlived(asked, cluster, asked.at_us) else { return };
        if !self.judged.insert((held.id, restart.began)) {
            return;
        }
        case.reached();
        let (who, age_s) = (asked.host, (asked.at_us - held.got_us) / 1_000_000);
        let statement = format!(
            "{who} had a token for {cluster} of {age_s} s ago, which was good no more after a restart"
        );
        let shown = [Some(held.id), Some(restart.began), restart.ended];
        case.violated("let-in-no-more", statement, shown.into_iter().flatten().chain(asked.events()));
    }

    fn ends(&mut self, asked: &Asked<'h>, back: Back<'h>, case: &mut Casebook) {
        let Some(answer) = asked.answer() else { return };
        if let Some(cluster) = token_of(asked.call) {
            if let Call::LogIn { cluster } = asked.call {
                self.homes.insert(asked.host, cluster);
            }
            let held = Held { id: back.id, got_us: back.at_us };
            self.held.insert((asked.host, cluster.clone()), held);
            return;
        }
        let Some(cluster) = self.answered_by(asked, answer) else { return };
        if let Some((held, restart)) = self.outlived(asked, &cluster, back.at_us)
            && self.judged.insert((held.id, restart.began))
        {
            case.reached();
        }
    }

    /// The token for `cluster` that a device had when it asked, and the last restart since of a process that
    /// has to know it; nothing when that token need not be good any more.
    fn outlived(
        &self,
        asked: &Asked<'h>,
        cluster: &ClusterName,
        at_us: u64,
    ) -> Option<(Held, &'f Fault<'h>)> {
        let held = *self.held.get(&(asked.host, cluster.clone()))?;
        let home = *self.homes.get(asked.host)?;
        let faults = self.facts.faults();
        let strike = |fault: &Fault<'h>, families: &[&str]| {
            families.contains(&fault.family)
                && fault.from_us < at_us
                && [home, cluster].iter().any(|cluster| faults.strikes(fault, cluster.as_str()))
        };
        if held.id > asked.id
            || at_us > held.got_us + GOOD_US
            || self.unsettled.contains(asked.actor)
            || faults.iter().any(|fault| strike(fault, &EXCUSES))
        {
            return None;
        }
        let restarts = faults.iter().filter(|fault| fault.from_us >= held.got_us && strike(fault, &KILLS));
        restarts.max_by_key(|fault| fault.began).map(|restart| (held, restart))
    }

    /// Who has answered a call, if that needed a token: the cluster of an object, or the own one.
    fn answered_by(&self, asked: &Asked<'h>, answer: &Answer) -> Option<ClusterName> {
        let moved = matches!(
            answer,
            Answer::Accepted { redirected_to: Some(_), .. }
                | Answer::Activities { redirected_to: Some(_), .. }
        );
        if moved {
            return None;
        }
        match object_of(asked.call) {
            Some(url) => self.facts.cluster_of(url),
            None if matches!(asked.verb, Verb::ReadIndex | Verb::ListLoci | Verb::LookUp) => {
                self.homes.get(asked.host).map(|home| (*home).clone())
            }
            None => None,
        }
    }
}

/// The cluster that a token is asked for.
pub(super) fn token_of(call: &Call) -> Option<&ClusterName> {
    match call {
        Call::LogIn { cluster } | Call::Exchange { cluster } => Some(cluster),
        _ => None,
    }
}

/// The object that a call is made to.
fn object_of(call: &Call) -> Option<&Url> {
    match call {
        Call::Post { conversation, .. }
        | Call::Read { conversation, .. }
        | Call::ReadConversation { conversation } => Some(conversation),
        Call::ReadLocus { locus } | Call::Join { locus, .. } | Call::SetState { locus, .. } => Some(locus),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::judges::security::testing::{is_let_in_anew, log_in, logged_in, old_enough, strikes, token};
    use crate::testing::{Story, cluster, conversation_url, message, user};
    use fusion_protocol::Code;

    fn judged(story: &Story) -> Verdict {
        TokensOutliveRestarts.judge(story.told())
    }

    #[test]
    fn whoever_goes_on_with_the_token_they_have_shows_that_it_holds() {
        let mut story = logged_in();
        strikes(&mut story, "crash", "a");
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "hello", 1));
        story.posts("alice", &url, &message("alice", "and more", 2));
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn whoever_must_log_in_again_after_a_restart_shows_a_violation() {
        let mut story = logged_in();
        strikes(&mut story, "crash", "a");
        is_let_in_anew(&mut story);
        let verdict = judged(&story);
        let kind = "tokens-outlive-restarts/OPS-003/let-in-no-more";
        assert_eq!((verdict.violated, verdict.violations[0].fingerprint.as_str()), (1, kind));
    }

    #[test]
    fn a_token_that_has_run_out_and_a_clock_that_says_so_accuse_nobody() {
        let mut old = logged_in();
        strikes(&mut old, "crash", "a");
        is_let_in_anew(old_enough(&mut old));
        let mut by_the_clock = logged_in();
        strikes(&mut by_the_clock, "jump", "a");
        strikes(&mut by_the_clock, "crash", "a");
        is_let_in_anew(&mut by_the_clock);
        for story in [old, by_the_clock] {
            assert!(judged(&story).had_no_case());
        }
    }

    #[test]
    fn who_logs_in_unasked_or_beside_a_restart_of_somebody_else_is_no_case() {
        let mut unasked = logged_in();
        strikes(&mut unasked, "crash", "a");
        unasked.does("alice", log_in(), token());
        let mut elsewhere = logged_in();
        strikes(&mut elsewhere, "crash", "b");
        is_let_in_anew(&mut elsewhere);
        let mut refused = logged_in();
        strikes(&mut refused, "crash", "a");
        refused.is_refused("alice", crate::testing::read(&conversation_url("a", 1), 0), Code::Forbidden);
        for story in [unasked, elsewhere, refused] {
            assert!(judged(&story).had_no_case());
        }
    }

    #[test]
    fn whose_account_has_ended_or_moved_may_be_refused() {
        let [a, b] = ["a", "b"].map(cluster);
        let ended = [
            Call::Deprovision { user: user("alice"), cluster: a.clone() },
            Call::Move { user: user("alice"), from: a, to: b },
        ];
        for call in ended {
            let mut story = logged_in();
            story.does("admin", call, Answer::Nothing {});
            strikes(&mut story, "crash", "a");
            is_let_in_anew(&mut story);
            assert!(judged(&story).had_no_case());
        }
    }
}
