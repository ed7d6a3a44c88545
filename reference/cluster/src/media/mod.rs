//! Media legs from the cluster's relays (MED).
