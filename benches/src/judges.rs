//! `bench judges`: all judges on a history of a million events of many stories.

use anyhow::{Result, ensure};
use fusion_history::{History, Ruling, judge_all, judges, ruling_of};

use crate::How;
use crate::measure::{Cost, Meter, Rounds, exponent};
use crate::merged::Stories;
use crate::row::{Report, Row, Target};

/// Measures what is wanted.
pub(crate) fn run(how: &How, report: &Report) -> Result<()> {
    let sizes: &[usize] = how.size(&[100_000, 300_000, 1_000_000], &[3_000, 10_000]);
    let mut stories = Stories::read()?;
    let mut points = Vec::new();
    for &size in sizes {
        report.progress(&format!("stories are played until there are {size} events"));
        let history = stories.merged(size)?;
        let costs: Vec<Cost> = (0..how.rounds()).map(|_| judge(&history)).collect::<Result<_>>()?;
        let wall = Rounds::of(costs.iter().map(|cost| cost.wall_s));
        let cpu = Rounds::of(costs.iter().map(|cost| cost.cpu_s));
        points.push((history.len() as f64, cpu.median));
        let (name, target) = match size {
            1_000_000 => ("judge_1m_events_s".to_owned(), Target::AtMost(2.0)),
            other => (format!("judge_{}k_events_s", other / 1_000), Target::Reported),
        };
        report.add(Row::new(&name, wall.median, "s", target).under(format!(
            "{} events of {} stories without faults that happen side by side in one world; every judge; CPU {:.2} s; {}; dearest by \
             themselves, with the reading of the history: {}",
            history.len(),
            stories.played(),
            cpu.median,
            wall.range(),
            slowest_of(&history)
        )));
    }
    let row = Row::new("judge_exponent", exponent(&points), "", Target::AtMost(1.15));
    report.add(row.under("of CPU time over events, between the sizes above"));
    Ok(())
}

fn judge(history: &History) -> Result<Cost> {
    let meter = Meter::start();
    let verdicts = judge_all(history);
    let cost = meter.elapsed();
    // Judges that had given up early would be fast for nothing.
    let ruling = ruling_of(&verdicts);
    let violations: Vec<_> = verdicts
        .iter()
        .flat_map(|verdict| &verdict.violations)
        .map(|violation| &violation.statement)
        .collect();
    ensure!(ruling != Ruling::Violated, "stories that hold are violated together: {violations:?}");
    ensure!(
        verdicts.iter().filter(|verdict| verdict.reached > 0).count() >= 10,
        "hardly anything was judged"
    );
    Ok(cost)
}

/// The three dearest judges, each by itself.
fn slowest_of(history: &History) -> String {
    let alone = |judge: &dyn fusion_history::Judge| {
        let meter = Meter::start();
        judge.judge(history);
        (meter.elapsed().cpu_s, judge.name())
    };
    let mut costs: Vec<_> = judges().iter().map(|judge| alone(&**judge)).collect();
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    let words: Vec<_> = costs.iter().take(3).map(|(cpu_s, name)| format!("{name} {cpu_s:.2} s")).collect();
    words.join(", ")
}
