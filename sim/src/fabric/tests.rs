//! Whole worlds, seen from outside.
