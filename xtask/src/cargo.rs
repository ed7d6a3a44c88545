//! Building and running the programs of the workspace.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// Builds a program in release and runs it in place of this one: its exit code is ours.
pub(crate) fn run(package: &str, program: &str, arguments: &[String]) -> Result<ExitCode> {
    let path = build(package, program)?;
    // Returns only when it fails. Every signal is the program's own from here on.
    Err(Command::new(&path).args(arguments).exec()).with_context(|| format!("cannot run {program}"))
}

/// Builds a program in release and returns its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf> {
    let status =
        cargo().args(["build", "--release", "--package", package, "--bin", program, "--quiet"]).status()?;
    if !status.success() {
        bail!("{package} does not build");
    }
    Ok(target_folder().join("release").join(program))
}

/// Runs all tests, with nextest where it is installed.
pub(crate) fn test(arguments: &[String]) -> Result<ExitCode> {
    let nextest = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if nextest.is_ok_and(|status| status.success()) {
        let status = cargo().args(["nextest", "run", "--workspace"]).args(arguments).status()?;
        if !status.success() || !arguments.is_empty() {
            return Ok(code(status));
        }
        return Ok(code(cargo().args(["test", "--workspace", "--doc"]).status()?));
    }
    Ok(code(cargo().args(["test", "--workspace"]).args(arguments).status()?))
}

/// Formatting and lints, as CI demands them.
pub(crate) fn lint() -> Result<ExitCode> {
    let checks: [&[&str]; 2] =
        [&["fmt", "--all", "--check"], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]];
    for check in checks {
        let status = cargo().args(check).status()?;
        if !status.success() {
            return Ok(code(status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal counts as an incomplete run.
pub(crate) fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(3))
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}

/// The folder that xtask lies in has the workspace as its parent.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}
