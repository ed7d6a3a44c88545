//! What a check is, what it observes, and what is concluded from it.

use std::fmt;
use std::time::Duration;

use fusion_protocol::Code;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::catalogue::{CheckEntry, catalogue};
use crate::stage::Stage;
use crate::target::{Target, Writes};

/// One check: a short conversation with the deployment, and what must be seen in it.
#[derive(Clone, Copy)]
pub struct Check {
    /// `{requirement}.{name}`, as in the catalogue.
    pub id: &'static str,
    /// What the target must have for it to make sense.
    pub needs: &'static [Need],
    /// What it does to the deployment.
    pub safety: Safety,
    /// How long it may take, in seconds of the host's clock.
    pub limit_seconds: u64,
    /// The conversation.
    pub body: Body,
}

/// The conversation of a check.
pub type Body = for<'a> fn(&'a Stage) -> BoxFuture<'a, Checked>;

/// How a check's conversation ends; what was seen is with its stage.
pub type Checked = Result<(), Stop>;

/// The conversation cannot go on; why has been noted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop(pub(crate) ());

/// What a target must have for a check to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A cluster with test users.
    Cluster,
    /// Clusters of two different orgs, with test users.
    TwoOrgs,
    /// A cluster of a private org, with test users.
    Private,
    /// A cluster of the consumer org, with test users.
    Consumer,
    /// The keys of the orgs' identity providers: users can be made, assertions of one's own signed.
    Keys,
    /// Local files that show what the provider plane holds.
    Evidence,
}

/// What a check does to the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// It asks, and makes nothing.
    ReadOnly,
    /// It makes users only, and none where the target has ready ones.
    UsersOnly,
    /// It makes users, conversations and calls of its own.
    MakesObjects,
}

/// What is concluded of a check or a requirement. Later ones outweigh earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The target has not what the check is about.
    NotApplicable,
    /// Everything that must be seen was seen.
    Pass,
    /// Something that SHOULD be is not.
    Warn,
    /// Everything was seen, late.
    Slow,
    /// The target does not allow the check.
    Blocked,
    /// What was seen allows no conclusion.
    Inconclusive,
    /// The suite itself went wrong.
    Error,
    /// Something was seen that must not be, or was not seen that must be.
    Fail,
}

/// The observation of a negative check that met a refusal which proves nothing.
pub const ANOTHER_REASON: &str = "refused-for-another-reason";

/// One thing that a check saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// What was seen, as a stable code: mutants are known by it.
    pub code: String,
    /// What it means.
    pub verdict: Verdict,
    /// What was seen, in a sentence.
    pub text: String,
    /// When, in microseconds since the run began.
    pub at_us: u64,
    /// Something that must be refused was, for this reason: what makes its check a negative one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_with: Option<Code>,
}

impl Check {
    /// A check that makes objects and takes a minute at most.
    pub(crate) const fn new(id: &'static str, needs: &'static [Need], body: Body) -> Self {
        Self { id, needs, safety: Safety::MakesObjects, limit_seconds: 60, body }
    }

    /// The check asks, and makes nothing.
    pub(crate) const fn read_only(self) -> Self {
        Self { safety: Safety::ReadOnly, ..self }
    }

    /// The check makes users only, and nothing with them.
    pub(crate) const fn users_only(self) -> Self {
        Self { safety: Safety::UsersOnly, ..self }
    }

    /// The check may take so long.
    pub(crate) const fn within(self, limit_seconds: u64) -> Self {
        Self { limit_seconds, ..self }
    }

    /// Its entry in the catalogue.
    ///
    /// # Panics
    /// Never: a test holds the checks to the catalogue.
    #[must_use]
    pub fn entry(&self) -> &'static CheckEntry {
        catalogue().check(self.id).expect("every check is in the catalogue")
    }

    /// Why the target is not checked for this, if so.
    #[must_use]
    pub fn obstacle(&self, target: &Target) -> Option<(Verdict, String)> {
        if let Some(need) = self.needs.iter().find(|need| !need.is_met(target)) {
            return Some((Verdict::NotApplicable, format!("the target has no {need}")));
        }
        if target.limits.writes == Writes::Allowed {
            return None;
        }
        let why = match self.safety {
            Safety::ReadOnly => return None,
            Safety::UsersOnly if target.has_ready_users() => return None,
            Safety::UsersOnly => "the target is read-only and has no ready users at each org",
            Safety::MakesObjects => "the target is read-only and this makes objects",
        };
        Some((Verdict::Blocked, why.to_owned()))
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit_seconds)
    }
}

impl Need {
    /// Whether the target has it.
    #[must_use]
    pub fn is_met(self, target: &Target) -> bool {
        match self {
            Self::Cluster => !target.peopled().is_empty(),
            Self::TwoOrgs => target.peopled().len() > 1,
            Self::Private => target.peopled().iter().any(|cluster| target.is_private(cluster)),
            Self::Consumer => target.peopled().iter().any(|cluster| !target.is_private(cluster)),
            Self::Keys => target.orgs.values().all(|org| org.identity.is_some() && !org.domains.is_empty()),
            Self::Evidence => {
                let evidence = &target.evidence;
                !(evidence.stores.is_empty() && evidence.logs.is_empty() && evidence.seen.is_empty())
            }
        }
    }
}

impl Verdict {
    /// The heaviest of several; `None` of none.
    pub fn heaviest(verdicts: impl IntoIterator<Item = Self>) -> Option<Self> {
        verdicts.into_iter().max()
    }

    /// What is concluded of what a check saw: without a single thing seen as it must be, nothing.
    #[must_use]
    pub fn of(observations: &[Observation]) -> Self {
        let heaviest = Self::heaviest(observations.iter().map(|observation| observation.verdict));
        let saw_something = observations
            .iter()
            .any(|observation| matches!(observation.verdict, Self::Pass | Self::Slow | Self::Warn));
        match heaviest {
            Some(verdict) if verdict >= Self::Blocked || saw_something => verdict,
            Some(Self::NotApplicable) => Self::NotApplicable,
            _ => Self::Inconclusive,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotApplicable => "not_applicable",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Slow => "slow",
            Self::Blocked => "blocked",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "cluster with test users",
            Self::TwoOrgs => "clusters of two orgs with test users",
            Self::Private => "private cluster with test users",
            Self::Consumer => "consumer cluster with test users",
            Self::Keys => "keys of the orgs' identity providers",
            Self::Evidence => "local evidence of the provider plane",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ReadyUser;
    use crate::testing;

    fn seen(verdicts: &[Verdict]) -> Verdict {
        let observation = |&verdict| Observation {
            code: "x".to_owned(),
            verdict,
            text: String::new(),
            at_us: 0,
            refused_with: None,
        };
        Verdict::of(&verdicts.iter().map(observation).collect::<Vec<_>>())
    }

    #[test]
    fn a_check_that_saw_nothing_concludes_nothing() {
        assert_eq!(seen(&[]), Verdict::Inconclusive);
    }

    #[test]
    fn one_failure_outweighs_everything() {
        assert_eq!(seen(&[Verdict::Pass, Verdict::Fail, Verdict::Inconclusive]), Verdict::Fail);
        assert_eq!(seen(&[Verdict::Pass, Verdict::Inconclusive]), Verdict::Inconclusive);
        assert_eq!(seen(&[Verdict::Pass, Verdict::Slow]), Verdict::Slow);
        assert_eq!(seen(&[Verdict::Pass, Verdict::Warn]), Verdict::Warn);
        assert_eq!(seen(&[Verdict::Pass]), Verdict::Pass);
        assert_eq!(seen(&[Verdict::NotApplicable]), Verdict::NotApplicable);
    }

    #[test]
    fn needs_are_met_by_what_the_target_has() {
        let mut target = testing::target();
        assert!(Need::TwoOrgs.is_met(&target) && Need::Consumer.is_met(&target));
        assert!(!Need::Evidence.is_met(&target));
        target.clusters.retain(|cluster| cluster.name.as_str() == "a");
        assert!(Need::Private.is_met(&target) && Need::Cluster.is_met(&target));
        assert!(!Need::TwoOrgs.is_met(&target) && !Need::Consumer.is_met(&target));
        target.orgs.get_mut("acme").unwrap().identity = None;
        assert!(!Need::Cluster.is_met(&target) && !Need::Keys.is_met(&target));
    }

    #[test]
    fn a_read_only_target_blocks_what_makes_objects() {
        let mut target = testing::target();
        target.limits.writes = Writes::ReadOnly;
        let check = |safety| Check {
            id: "SEC-002.own-server",
            needs: &[Need::Cluster],
            safety,
            limit_seconds: 1,
            body: |_| Box::pin(async { Ok(()) }),
        };
        let blocked = |safety, target: &Target| check(safety).obstacle(target).map(|(verdict, _)| verdict);
        assert_eq!(blocked(Safety::ReadOnly, &target), None);
        assert_eq!(blocked(Safety::UsersOnly, &target), Some(Verdict::Blocked));
        assert_eq!(blocked(Safety::MakesObjects, &target), Some(Verdict::Blocked));
        for cluster in target.peopled() {
            let address = format!("probe@{cluster}.example").parse().unwrap();
            target.users.push(ReadyUser { address, cluster, assertion: String::new() });
        }
        assert_eq!(blocked(Safety::UsersOnly, &target), None);
        assert_eq!(blocked(Safety::MakesObjects, &target), Some(Verdict::Blocked));
    }
}
