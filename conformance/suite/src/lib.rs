//! Checks any deployment against the numbered requirements.
