//! `bench conform`: how long one waits for the suite.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fusion_conformance::report::Conclusion;
use fusion_conformance::{Options, Progress, Report as Conformance, run as check};
use fusion_deployment::Hooks;
use fusion_sim::engines::fabric::{checked, conform};
use fusion_sim::stopwatch::Stopwatch;

use crate::How;
use crate::measure::{Meter, Rounds};
use crate::processes::{Federation, Security};
use crate::row::{Report, Row, Target};

/// Measures what is wanted.
pub(crate) fn run(how: &How, report: &Report) -> Result<()> {
    if how.wants("suite_simulated_s") {
        simulated(how, report)?;
    }
    if how.wants("suite_sockets_s") || how.wants("suite_first_result_s") {
        over_sockets(how, report)?;
    }
    if how.wants("self_test_s") {
        self_test(how, report)?;
    }
    Ok(())
}

fn simulated(how: &How, report: &Report) -> Result<()> {
    let (mut walls, mut checks) = (Vec::new(), 0);
    for round in 0..how.rounds() {
        report.progress(&format!("all checks against a simulated deployment, round {}", round + 1));
        let meter = Meter::start();
        let found = conform(&checked(), u64::from(round) + 1, Hooks::default(), &Options::default())?;
        walls.push(meter.elapsed().wall_s);
        checks = conformant(&found)?;
    }
    let walls = Rounds::of(walls);
    let row = Row::new("suite_simulated_s", walls.median, "s", Target::AtMost(2.0));
    report.add(row.under(format!("{checks} checks on fabric, judges included; {}", walls.range())));
    Ok(())
}

fn over_sockets(how: &How, report: &Report) -> Result<()> {
    report.progress("a deployment of processes starts");
    let federation = Federation::start(how, None, Security::Tls, None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut walls, mut firsts, mut checks) = (Vec::new(), Vec::new(), 0);
    for round in 0..how.rounds() {
        report.progress(&format!("all checks over sockets, round {}", round + 1));
        let (watch, first) = (Stopwatch::start(), Mutex::new(None));
        let progress = |progress| {
            if let (Progress::Finished(_), Ok(mut first)) = (progress, first.lock()) {
                first.get_or_insert_with(|| watch.elapsed());
            }
        };
        let found = runtime.block_on(async {
            let host = federation.host()?;
            anyhow::Ok(check(&host, federation.target.clone(), &Options::default(), progress).await)
        })?;
        walls.push(watch.elapsed().as_secs_f64());
        checks = conformant(&found)?;
        let first: Option<Duration> = first.into_inner().ok().flatten();
        firsts.push(first.context("no check has ended")?.as_secs_f64());
    }
    runtime.shutdown_background();
    let (walls, firsts) = (Rounds::of(walls), Rounds::of(firsts));
    let conditions = format!("{checks} checks, separate processes, TLS, durable stores, clean-up included");
    let row = Row::new("suite_sockets_s", walls.median, "s", Target::AtMost(10.0));
    report.add(row.under(format!("{conditions}; {}", walls.range())));
    let row = Row::new("suite_first_result_s", firsts.median, "s", Target::AtMost(0.3));
    report.add(row.under(format!("{conditions}; from the start of the run; {}", firsts.range())));
    Ok(())
}

/// In its own process, as it is run by people; with `--quick` one mutant.
fn self_test(how: &How, report: &Report) -> Result<()> {
    let program = how.program("fusion-mutants")?;
    let (mut walls, mut said) = (Vec::new(), serde_json::Value::Null);
    for round in 0..how.rounds() {
        report.progress(&format!("the self-test, round {}", round + 1));
        let mut command = Command::new(&program);
        command.arg("--json").stderr(Stdio::inherit());
        if how.quick {
            command.args(["--only", "bare-ids"]);
        }
        let watch = Stopwatch::start();
        let output = command.output()?;
        walls.push(watch.elapsed().as_secs_f64());
        ensure!(output.status.success(), "the self-test fails: {}", output.status);
        let last = output.stdout.split(|&byte| byte == b'\n').rfind(|line| !line.is_empty());
        said = serde_json::from_slice(last.context("the self-test says nothing")?)?;
    }
    let walls = Rounds::of(walls);
    let row = Row::new("self_test_s", walls.median, "s", Target::AtMost(60.0));
    report.add(row.under(format!(
        "{} of {} mutants caught, on every core; {}",
        said["caught"],
        said["mutants"],
        walls.range()
    )));
    Ok(())
}

/// A suite that finds fault, or has not looked, is fast for nothing. Answers how many checks there are.
fn conformant(found: &Conformance) -> Result<usize> {
    ensure!(found.conclusion == Conclusion::Conformant, "the suite concludes {:?}", found.conclusion);
    Ok(found.checks.len())
}
