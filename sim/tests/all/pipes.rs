//! Whoever reads only the beginning has what was wanted: nobody complains, and the verdict is the same. What
//! cannot be written at all is said.

use std::process::Stdio;

use crate::{Said, program_with_scenarios};

/// What is said to somebody who does not listen.
fn unheard(arguments: &[&str]) -> Said {
    let mut command = program_with_scenarios();
    let command = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    Said::of(child.wait_with_output().unwrap())
}

#[test]
fn a_pipe_that_is_closed_is_no_mistake() {
    for arguments in [
        &["list"][..],
        &["run", "one-to-one-race", "--tell"],
        &["show", "--scenario", "one-to-one-race"],
        &["plan", "one-to-one-race"],
        &["conform", "--only", "NAM"],
        &["conform", "--only", "NAM", "--json"],
        &["history", "one-to-one-race"],
    ] {
        let Said { code, err, .. } = unheard(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_told() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = program_with_scenarios().arg("list").stdout(full).output().unwrap();
    let Said { code, err, .. } = Said::of(output);
    assert_eq!(code, 4);
    assert!(
        err.starts_with("error: what was found cannot be written to standard output: No space left"),
        "{err}"
    );
}
