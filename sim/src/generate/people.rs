//! Who there is, and who does what kind of thing.

/// First names, in the order in which they are given. Steps call people by them, so each is somebody else's.
pub(super) const NAMES: [&str; 48] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "laura",
    "mike", "nina", "oscar", "peggy", "quinn", "rosa", "sam", "tina", "ulf", "vera", "walter", "xenia",
    "yuri", "zoe", "anton", "berta", "caesar", "dora", "emil", "frieda", "gustav", "hanna", "igor", "julia",
    "konrad", "ludwig", "martha", "norbert", "otto", "paula", "richard", "sofia", "theodor", "ursula",
    "viktor", "wilma",
];

/// A device of somebody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub(super) user: String,
    pub(super) name: &'static str,
}

impl Device {
    pub(super) fn phone(user: &str) -> Self {
        Self { user: user.to_owned(), name: "phone" }
    }

    pub(super) fn other(user: &str, name: &'static str) -> Self {
        Self { user: user.to_owned(), name }
    }
}
