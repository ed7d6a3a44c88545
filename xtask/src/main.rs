//! The command line of everything.

fn main() {}
