//! The schedule-race fuzzer. `cargo xtask sim madsim` builds and runs it: it is a program only under
//! `--cfg madsim`, which puts another executor under everything.

#[cfg(madsim)]
mod fuzz;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    fuzz::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    anstream::eprintln!("made for another executor only: `cargo xtask sim madsim` builds and runs it");
    std::process::ExitCode::from(4)
}
