//! Who plays: the same clusters and people in every model.

use std::sync::LazyLock;

use fusion_protocol::{Address, ClusterName, Incarnation, UserRef, Uuid};

/// A cluster, by number.
pub(crate) type Site = usize;
/// A person, by number.
pub(crate) type Person = usize;

const SITES: [&str; 3] = ["a", "b", "c"];
const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
/// Parsed once: they are asked for in every step.
static ADDRESSES: LazyLock<[Address; 3]> = LazyLock::new(|| {
    PEOPLE.map(|name| format!("{name}@{name}.example").parse().expect("names and domains above are fine"))
});

/// What a cluster is called.
pub(crate) fn site(site: Site) -> &'static str {
    SITES[site]
}

/// What somebody is called.
pub(crate) fn person(person: Person) -> &'static str {
    PEOPLE[person]
}

pub(crate) fn cluster(number: Site) -> ClusterName {
    site(number).parse().expect("the names above are names of clusters")
}

pub(crate) fn address(number: Person) -> Address {
    ADDRESSES[number].clone()
}

pub(crate) fn user(number: Person, incarnation: u128) -> UserRef {
    UserRef { user: address(number), incarnation: Incarnation(Uuid::from_u128(incarnation)) }
}
