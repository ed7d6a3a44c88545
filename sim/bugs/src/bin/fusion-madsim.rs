//! The schedule-race fuzzer, with bugs to plant. `cargo xtask sim madsim` builds and runs it: it is a program
//! only under `--cfg madsim`, which puts another executor under everything.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    fusion_sim::fuzz::main(fusion_sim::plant::Plants(fusion_bugs::BUGS))
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    anstream::eprintln!("made for another executor only: `cargo xtask sim madsim` builds and runs it");
    std::process::ExitCode::from(4)
}
