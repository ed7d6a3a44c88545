//! Faulty deployments that prove the checks can fail.
