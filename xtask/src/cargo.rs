//! Building and running the programs of the workspace.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// Builds a program in release and runs it in place of this one: its exit code is ours.
pub(crate) fn run(program: &str, arguments: &[String]) -> Result<ExitCode> {
    let path = build(program)?;
    // Returns only when it fails. Every signal is the program's own from here on.
    Err(Command::new(&path).args(arguments).exec()).with_context(|| format!("cannot run {program}"))
}

/// Builds what a bench measures, in release, and runs it in place of this one; `micro` is criterion's.
pub(crate) fn bench(arguments: &[String]) -> Result<ExitCode> {
    let bench = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
    if bench == "micro" {
        let rest: Vec<_> = arguments.iter().filter(|argument| *argument != "micro").collect();
        // In quick, each bench runs once and measures nothing.
        let quick = rest.iter().any(|argument| *argument == "--quick");
        let mut command = cargo();
        command.args(["bench", "--workspace", "--bench", "micro", "--"]);
        let status = if quick { command.arg("--test").status()? } else { command.args(rest).status()? };
        return Ok(code(status));
    }
    if ["load", "relay", "conform"].contains(&bench) {
        build("stack-fusion")?;
    }
    if bench == "conform" {
        build("fusion-mutants")?;
    }
    let mut arguments = arguments.to_vec();
    if bench == "scale" && compares_engines(&arguments) {
        let madsim = build_madsim("madsim-bench")?;
        arguments.extend(["--madsim".to_owned(), madsim.display().to_string()]);
    }
    run("fusion-benches", &arguments)
}

/// Whether a bench of engines is a measurement, and nobody says which madsim it is to be compared with.
fn compares_engines(arguments: &[String]) -> bool {
    let others = ["--quick", "--help", "-h", "--version", "--madsim"];
    !arguments.iter().any(|argument| others.contains(&argument.as_str()) || argument.starts_with("--madsim="))
}

/// Builds the fuzzer on madsim and runs it in place of this one.
pub(crate) fn madsim(arguments: &[String]) -> Result<ExitCode> {
    let path = build_madsim("madsim")?;
    Err(Command::new(&path).args(arguments).exec()).with_context(|| format!("cannot run {}", path.display()))
}

/// Builds the program on madsim and returns its path.
///
/// `--cfg madsim` is for every crate, so the build has a folder of its own; a target named outright, even
/// this machine's, keeps the flag away from build scripts and macros, which run here and now.
fn build_madsim(profile: &str) -> Result<PathBuf> {
    const PROGRAM: &str = "fusion-madsim";
    let (host, folder) = (host()?, target_folder().join("madsim"));
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut build = cargo();
    build
        .env("RUSTFLAGS", format!("{flags} --cfg madsim"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["build", "--profile", profile, "--package", "fusion-bugs", "--bin", PROGRAM])
        .args(["--target", &host, "--target-dir"])
        .arg(&folder);
    if !build_told(&mut build).status()?.success() {
        bail!("{PROGRAM} does not build");
    }
    Ok(folder.join(&host).join(profile).join(PROGRAM))
}

/// Builds a program in release and returns its path.
///
/// Chosen from the whole workspace, not from its package: so every program is built with the features that
/// all of them together ask for, and what they share is built once.
pub(crate) fn build(program: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--workspace", "--bin", program]);
    if !build_told(&mut build).status()?.success() {
        bail!("{program} does not build");
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

/// On a terminal a build shows how far it is; elsewhere only what is wrong.
fn build_told(build: &mut Command) -> &mut Command {
    if std::io::stderr().is_terminal() { build } else { build.arg("--quiet") }
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The triple of this machine, as the compiler says.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output().context("cannot ask rustc for its host")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its host")
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}

/// The folder that xtask lies in has the workspace as its parent.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}
