//! SEC-003: whose token has run out gets another.

use fusion_protocol::ClusterName;

use super::lasting::{EXCUSES, cause_of, token_of, unsettled};
use crate::event::{Call, EventId};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

/// SEC-003: a token that has run out is replaced by another, and the person goes on.
///
/// A case is a token that a device got for the sake of a call, though it had had one for the same cluster.
pub(in crate::judges) struct GoesOnWithNewTokens;

impl Judge for GoesOnWithNewTokens {
    fn name(&self) -> &'static str {
        "goes-on-with-new-tokens"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["SEC-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let unsettled = unsettled(facts);
        let mut homes: Table<&str, &ClusterName> = Table::default();
        let mut had: Set<(&str, &ClusterName)> = Set::default();
        for asked in facts.calls() {
            let Some(cluster) = token_of(asked.call) else { continue };
            let home = homes.get(asked.host).copied().unwrap_or(cluster);
            let again = had.contains(&(asked.host, cluster)) && !unsettled.contains(asked.actor);
            if let Some(cause) = cause_of(facts, asked)
                && again
                && clocks_agree(facts, asked, [home.as_str(), cluster.as_str(), asked.host])
            {
                judge_renewal(facts, asked, cause, cluster, case);
            }
            if asked.answer().is_some() {
                had.insert((asked.host, cluster));
                if let Call::LogIn { cluster } = asked.call {
                    homes.insert(asked.host, cluster);
                }
            }
        }
    }
}

/// Whether every clock that was ever wrong was so for all of these: what one signs is of their time.
fn clocks_agree(facts: &Facts<'_>, asked: &Asked<'_>, machines: [&str; 3]) -> bool {
    let faults = facts.faults();
    let mut wrong = faults.iter().filter(|it| EXCUSES.contains(&it.family) && it.from_us < asked.at_us);
    wrong.all(|fault| {
        let struck = machines.map(|machine| faults.strikes(fault, machine));
        struck.iter().all(|it| *it == struck[0]) && (fault.family != "lose_rows" || !struck[0])
    })
}

fn judge_renewal(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    cause: EventId,
    cluster: &ClusterName,
    case: &mut Casebook,
) {
    let calls = facts.calls();
    let meant = calls.get(calls.partition_point(|call| call.id < cause)).filter(|call| call.id == cause);
    let who = asked.host;
    // An exchange is refused when what is exchanged has run out as well: then that is got again first.
    let logs_in = asked.verb == Verb::LogIn;
    if logs_in && asked.refusal().is_some_and(|(status, _)| status < 500 && status != 429) {
        case.reached();
        let statement = format!("{who} had a token for {cluster}, and was refused another");
        case.violated("not-let-in-again", statement, asked.events());
    } else if let (Some(_), Some(meant)) = (asked.answer(), meant)
        && let Some(back) = meant.back
    {
        case.reached();
        if meant.refusal().is_some_and(|(status, _)| status == 401) {
            let statement = format!("{who} got another token for {cluster}, which was not good either");
            case.violated("let-in-in-vain", statement, asked.events().chain([meant.id, back.id]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::judge::Ruling;
    use crate::judges::security::testing::*;
    use crate::testing::Story;
    use fusion_protocol::Code;

    /// Alice's token has run out; what comes of her asking for another, and of what she says.
    fn run_out(again: Outcome, said: Outcome) -> Story {
        let mut story = logged_in();
        asks_again(old_enough(&mut story), again, said);
        story
    }

    fn renewed(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = GoesOnWithNewTokens.judge(story.told());
        let prints = verdict.violations.into_iter().map(|violation| violation.fingerprint);
        (verdict.ruling, verdict.reached, prints.collect())
    }

    #[test]
    fn whose_token_has_run_out_gets_another_and_goes_on() {
        let mut story = logged_in();
        is_let_in_anew(old_enough(&mut story));
        assert_eq!(renewed(&story), (Ruling::Holds, 1, vec![]));
        let unavailable = run_out(Outcome::Done { answer: token() }, refused(503, Code::Unavailable));
        assert_eq!(renewed(&unavailable), (Ruling::Holds, 1, vec![]), "refused for another reason");
    }

    #[test]
    fn who_gets_no_other_token_or_none_that_is_good_shows_a_violation() {
        let print = |kind| vec![format!("goes-on-with-new-tokens/SEC-003/{kind}")];
        let none = run_out(refused(400, Code::InvalidGrant), refused(401, Code::TokenExpired));
        assert_eq!(renewed(&none).2, print("not-let-in-again"));
        let vain = run_out(Outcome::Done { answer: token() }, refused(401, Code::TokenExpired));
        assert_eq!(renewed(&vain).2, print("let-in-in-vain"));
    }

    #[test]
    fn a_clock_that_is_wrong_for_some_only_accuses_nobody_and_one_wrong_for_all_excuses_nobody() {
        let vain = |struck: &str| {
            let mut story = logged_in();
            strikes(&mut story, "jump", struck);
            asks_again(&mut story, Outcome::Done { answer: token() }, refused(401, Code::TokenExpired));
            renewed(&story).0
        };
        assert_eq!(vain("a"), Ruling::Unknown);
        assert_eq!(vain("*"), Ruling::Violated);
    }
}
