//! The federation: orgs with one or several clusters, hosted ones beside the consumer org's, relays that lend
//! and borrow, people everywhere.

use fusion_deployment::Topology;
use fusion_deployment::topology::{ClusterSpec, OrgRole, OrgSpec, TEMPLATE, UserSpec};
use fusion_protocol::{Address, ClusterName, Domain};

use super::dice::Dice;
use super::people::NAMES;

/// How many people a world of few clusters has at most, besides those who come in the story.
const PEOPLE_MAX: u64 = 12;
/// Where people of the consumer org live: claimed by nobody.
pub(super) const UNCLAIMED: [&str; 3] = ["mail.example", "post.example", "letters.example"];
/// The provider's own data centre: the consumer org's and hosted clusters may stand there.
const PROVIDERS: &str = "provider";

/// A federation of at most `clusters_max` clusters, with those who have an account from the beginning.
pub(super) fn draw(dice: &Dice, clusters_max: u32) -> Topology {
    let clusters = size(&dice.stream("size")).min(u64::from(clusters_max));
    let mut orgs = orgs(&dice.stream("orgs"), clusters);
    lend(&dice.stream("overflow"), &mut orgs);
    let mut topology = Topology {
        provider: domain("provider.example"),
        template: dice
            .stream("template")
            .weighted(&[
                (80, TEMPLATE),
                (10, "https://{service}-{cluster}.{provider}"),
                (10, "https://{cluster}.{provider}/{service}"),
            ])
            .to_owned(),
        data_center: PROVIDERS.to_owned(),
        orgs,
        users: Vec::new(),
    };
    settle(&dice.stream("people"), &mut topology);
    topology
}

/// Somebody with an account at a cluster of `org`; the address is of a domain that fits.
pub(super) fn user(dice: &Dice, topology: &Topology, org: &OrgSpec, name: &str) -> Option<UserSpec> {
    let cluster = dice.one_of(&org.clusters)?.name.clone();
    let domain = match org.role {
        OrgRole::Private => dice.one_of(&org.domains)?.as_str(),
        OrgRole::Consumer => consumer_domain(dice, topology),
    };
    Some(UserSpec { address: address(name, domain), cluster, display_name: None })
}

pub(super) fn address(name: &str, domain: &str) -> Address {
    format!("{name}@{domain}").parse().expect("plain names and domains")
}

pub(super) fn domain(name: &str) -> Domain {
    name.parse().expect("a plain domain")
}

/// Most worlds are small: what goes wrong between two clusters is found there, and soon.
fn size(dice: &Dice) -> u64 {
    let (low, high) =
        dice.weighted(&[(7, (1, 1)), (64, (2, 5)), (19, (6, 10)), (7, (11, 20)), (3, (21, 30))]);
    dice.between(low, high)
}

fn orgs(dice: &Dice, clusters: u64) -> Vec<OrgSpec> {
    let mut orgs = Vec::new();
    let mut left = clusters;
    let mut named = 0;
    // Where there is only one cluster, it is either somebody's or everybody's.
    if dice.percent(if clusters == 1 { 50 } else { 92 }) {
        let of_it = dice.few(1, 4).min(left.div_ceil(2));
        orgs.push(consumer(&dice.stream("consumer"), of_it));
        left -= of_it;
    }
    while left > 0 {
        named += 1;
        let dice = dice.stream(&named.to_string());
        let of_it = dice.few(1, 4).min(left);
        orgs.push(private(&dice, named, of_it));
        left -= of_it;
    }
    orgs
}

fn consumer(dice: &Dice, clusters: u64) -> OrgSpec {
    OrgSpec {
        name: "public".to_owned(),
        role: OrgRole::Consumer,
        domains: UNCLAIMED.map(domain).to_vec(),
        clusters: (1..=clusters)
            .map(|n| cluster(&dice.stream(&n.to_string()), format!("p{n}"), 60))
            .collect(),
    }
}

fn private(dice: &Dice, number: u64, clusters: u64) -> OrgSpec {
    let mut domains = vec![domain(&format!("org{number}.example"))];
    if dice.percent(25) {
        domains.push(domain(&format!("labs{number}.example")));
    }
    OrgSpec {
        name: format!("org{number}"),
        role: OrgRole::Private,
        domains,
        clusters: (1..=clusters)
            .map(|n| cluster(&dice.stream(&n.to_string()), format!("o{number}c{n}"), 15))
            .collect(),
    }
}

/// A cluster that is hosted by the provider in `hosted` of 100 cases.
fn cluster(dice: &Dice, name: String, hosted: u64) -> ClusterSpec {
    let data_center = if dice.percent(hosted) {
        Some(PROVIDERS)
    } else {
        dice.weighted(&[(5, None), (2, Some("north")), (2, Some("south")), (1, Some("far"))])
    };
    ClusterSpec {
        name: name.parse().expect("letters and digits"),
        data_center: data_center.map(str::to_owned),
        relays: dice.weighted(&[(25, 0), (55, 1), (15, 2), (5, 3)]),
        overflow: Vec::new(),
    }
}

/// Some clusters may use the relays of another org's.
fn lend(dice: &Dice, orgs: &mut [OrgSpec]) {
    let all: Vec<(usize, ClusterName)> = orgs
        .iter()
        .enumerate()
        .flat_map(|(n, org)| org.clusters.iter().map(move |cluster| (n, cluster.name.clone())))
        .collect();
    for (n, org) in orgs.iter_mut().enumerate() {
        for cluster in &mut org.clusters {
            let dice = dice.stream(cluster.name.as_str());
            let others: Vec<_> = all.iter().filter(|(of, _)| *of != n).map(|(_, name)| name).collect();
            if dice.percent(20) {
                cluster.overflow.extend(dice.one_of(&others).map(|name| (*name).clone()));
            }
        }
    }
}

/// Everybody who is there from the beginning: in large worlds about one for each cluster.
fn settle(dice: &Dice, topology: &mut Topology) {
    let clusters = topology.clusters().count() as u64;
    let people = dice.few(2, (2 * clusters + 2).min(PEOPLE_MAX)).max(clusters.min(PEOPLE_MAX + clusters / 3));
    for name in NAMES.iter().take(people as usize) {
        let dice = dice.stream(name);
        let Some(org) = dice.one_of(&topology.orgs) else { return };
        let user = user(&dice, topology, org, name);
        topology.users.extend(user);
    }
}

/// A claimed domain may have people with the consumer org, too.
fn consumer_domain<'a>(dice: &Dice, topology: &'a Topology) -> &'a str {
    let claimed: Vec<&Domain> = topology
        .orgs
        .iter()
        .filter(|org| org.role == OrgRole::Private)
        .flat_map(|org| &org.domains)
        .collect();
    match dice.one_of(&claimed) {
        Some(claimed) if dice.percent(25) => claimed.as_str(),
        _ => dice.one_of(&UNCLAIMED).copied().unwrap_or(UNCLAIMED[0]),
    }
}
