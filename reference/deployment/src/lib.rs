//! From a topology to a running federation, on any network.
