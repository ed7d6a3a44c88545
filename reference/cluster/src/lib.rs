//! The services of a cluster.
