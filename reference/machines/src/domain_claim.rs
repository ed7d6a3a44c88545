//! Who may claim a domain, and what becomes of a claim (MAP-002, MAP-003).
//!
//! Not here: the proof that an org controls the domain, and the store whose precondition lets exactly one
//! of two racing claims through.

use std::collections::BTreeSet;

use fusion_protocol::{ClusterName, Code, Domain};
use serde::{Deserialize, Serialize};

/// How many clusters one domain may name.
pub const CLUSTERS_MAX: usize = 64;

/// Mail domains that anybody can have an address at: nobody can claim them, and resolution skips step 1.
/// A short list; the longer it is, the fewer look-ups, but no answer depends on its length.
const PUBLIC_MAIL: [&str; 16] = [
    "aol.com",
    "fastmail.com",
    "free.fr",
    "gmail.com",
    "gmx.de",
    "gmx.net",
    "hotmail.com",
    "icloud.com",
    "live.com",
    "mail.ru",
    "outlook.com",
    "proton.me",
    "protonmail.com",
    "web.de",
    "yahoo.com",
    "yandex.ru",
];

/// Second-level public suffixes that are met most. Single labels are no [`Domain`] at all.
const PUBLIC_SUFFIXES: [&str; 20] = [
    "ac.uk",
    "appspot.com",
    "co.in",
    "co.jp",
    "co.kr",
    "co.nz",
    "co.uk",
    "co.za",
    "com.au",
    "com.br",
    "com.cn",
    "com.mx",
    "com.tr",
    "github.io",
    "gov.uk",
    "net.au",
    "or.jp",
    "org.au",
    "org.uk",
    "web.app",
];

/// Whether anybody can have an address at this domain.
#[must_use]
pub fn is_public_mail(domain: &Domain) -> bool {
    PUBLIC_MAIL.contains(&domain.as_str())
}

/// What the map holds of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Claim {
    /// Nobody has ever claimed it.
    #[default]
    None,
    /// An org has it.
    #[serde(rename_all = "camelCase")]
    Claimed {
        /// The org.
        org: String,
        /// Its clusters.
        clusters: Vec<ClusterName>,
    },
    /// Somebody had it.
    Released,
}

/// What an org's admin wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// To have the domain, or to change its clusters.
    Claim {
        /// The org.
        org: String,
        /// Its clusters.
        clusters: Vec<ClusterName>,
    },
    /// To give it up.
    Release {
        /// The org.
        org: String,
    },
}

/// Who asks about which domain.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// The provider's own domain.
    pub provider: &'a Domain,
    /// The clusters that the asking org has.
    pub clusters_of_org: &'a BTreeSet<ClusterName>,
    /// The consumer org's clusters, which no claim may name.
    pub consumer_clusters: &'a [ClusterName],
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The map has changed: a new version.
    Changed,
    /// It was so already.
    Nothing,
}

/// Why a step was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A public mail domain, a public suffix, or the provider's own.
    #[error("this domain cannot be claimed")]
    Public,
    /// Another org has it (MAP-002).
    #[error("another organisation has claimed this domain")]
    Claimed,
    /// The clusters are none, too many, or not the org's.
    #[error("a claim names 1 to {CLUSTERS_MAX} clusters of the claiming organisation")]
    Clusters,
    /// It is not the org's to release.
    #[error("the domain is not this organisation's")]
    NotYours,
}

impl Claim {
    /// Takes one wish.
    ///
    /// # Errors
    /// See [`Refusal`]; the claim is as it was.
    pub fn step(&mut self, rules: &Rules<'_>, event: Event) -> Result<Effect, Refusal> {
        match event {
            Event::Claim { org, clusters } => self.claim(rules, org, clusters),
            Event::Release { org } => match self {
                Self::Claimed { org: owner, .. } if *owner == org => {
                    *self = Self::Released;
                    Ok(Effect::Changed)
                }
                Self::None | Self::Released | Self::Claimed { .. } => Err(Refusal::NotYours),
            },
        }
    }

    fn claim(
        &mut self,
        rules: &Rules<'_>,
        org: String,
        clusters: Vec<ClusterName>,
    ) -> Result<Effect, Refusal> {
        rules.allow_domain()?;
        rules.allow_clusters(&clusters)?;
        let wanted = Self::Claimed { org, clusters };
        match (&*self, &wanted) {
            (Self::Claimed { org, .. }, Self::Claimed { org: asking, .. }) if org != asking => {
                Err(Refusal::Claimed)
            }
            (held, wanted) if held == wanted => Ok(Effect::Nothing),
            _ => {
                *self = wanted;
                Ok(Effect::Changed)
            }
        }
    }
}

impl Rules<'_> {
    fn allow_domain(&self) -> Result<(), Refusal> {
        let public = is_public_mail(self.domain) || PUBLIC_SUFFIXES.contains(&self.domain.as_str());
        // OPS-008: what is below the provider's domain is reserved.
        let reserved = self.domain.is_within(self.provider) || self.provider.is_within(self.domain);
        if public || reserved { Err(Refusal::Public) } else { Ok(()) }
    }

    /// The consumer org never claims (MAP-002).
    fn allow_clusters(&self, clusters: &[ClusterName]) -> Result<(), Refusal> {
        let distinct: BTreeSet<_> = clusters.iter().collect();
        let counted = !clusters.is_empty() && clusters.len() <= CLUSTERS_MAX;
        let theirs = clusters.iter().all(|cluster| {
            self.clusters_of_org.contains(cluster) && !self.consumer_clusters.contains(cluster)
        });
        if counted && theirs && distinct.len() == clusters.len() { Ok(()) } else { Err(Refusal::Clusters) }
    }
}

impl Refusal {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Public | Self::Clusters => Code::Unprocessable,
            Self::Claimed => Code::DomainClaimed,
            Self::NotYours => Code::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    fn name(text: &str) -> ClusterName {
        text.parse().unwrap()
    }

    fn claim(org: &str, clusters: &[&str]) -> Event {
        Event::Claim { org: org.to_owned(), clusters: clusters.iter().map(|text| name(text)).collect() }
    }

    fn step(state: &mut Claim, asked: &str, event: Event) -> Result<Effect, Refusal> {
        let clusters = BTreeSet::from([name("a"), name("b"), name("c")]);
        let rules = Rules {
            domain: &domain(asked),
            provider: &domain("provider.example"),
            clusters_of_org: &clusters,
            consumer_clusters: &[name("c")],
        };
        state.step(&rules, event)
    }

    #[test]
    fn the_first_claim_stands_and_the_second_is_refused() {
        let mut state = Claim::None;
        assert_eq!(step(&mut state, "a.example", claim("a", &["a"])), Ok(Effect::Changed));
        assert_eq!(step(&mut state, "a.example", claim("b", &["b"])), Err(Refusal::Claimed));
        assert_eq!(step(&mut state, "a.example", claim("a", &["a"])), Ok(Effect::Nothing));
        assert_eq!(step(&mut state, "a.example", claim("a", &["a", "b"])), Ok(Effect::Changed));
    }

    #[test]
    fn a_released_domain_can_be_claimed_by_another() {
        let mut state = Claim::None;
        step(&mut state, "a.example", claim("a", &["a"])).unwrap();
        assert_eq!(step(&mut state, "a.example", Event::Release { org: "b".into() }), Err(Refusal::NotYours));
        assert_eq!(step(&mut state, "a.example", Event::Release { org: "a".into() }), Ok(Effect::Changed));
        assert_eq!(step(&mut state, "a.example", claim("b", &["b"])), Ok(Effect::Changed));
    }

    #[test]
    fn what_belongs_to_everybody_cannot_be_claimed() {
        for public in ["gmail.com", "co.uk", "provider.example", "a.probe.provider.example"] {
            assert_eq!(step(&mut Claim::None, public, claim("a", &["a"])), Err(Refusal::Public), "{public}");
        }
    }

    #[test]
    fn the_consumer_org_never_claims() {
        assert_eq!(step(&mut Claim::None, "a.example", claim("c", &["c"])), Err(Refusal::Clusters));
        assert_eq!(step(&mut Claim::None, "a.example", claim("a", &[])), Err(Refusal::Clusters));
        assert_eq!(step(&mut Claim::None, "a.example", claim("a", &["x"])), Err(Refusal::Clusters));
    }

    proptest! {
        /// MAP-002: whatever orgs wish in whatever order, a claimed domain changes hands only by its
        /// owner's release.
        #[test]
        fn a_domain_changes_hands_only_by_its_owners_release(
            wishes in proptest::collection::vec((any::<bool>(), 0_usize..3), 0..20),
        ) {
            let orgs = ["a", "b", "d"];
            let mut state = Claim::None;
            for (release, who) in wishes {
                let org = orgs[who];
                let before = state.clone();
                let event = if release { Event::Release { org: org.into() } } else { claim(org, &["a"]) };
                let result = step(&mut state, "a.example", event);
                match &before {
                    Claim::Claimed { org: owner, .. } if owner != org => {
                        prop_assert!(result.is_err() && state == before);
                    }
                    _ => prop_assert!(result.is_ok() || state == before),
                }
            }
        }
    }
}
