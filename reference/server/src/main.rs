//! Serves a provider, a cluster, a relay or a whole federation.

fn main() {}
