//! For people: one line a check, verdict first, then what is wrong, then the conclusion.
//!
//! Colours are written always; [`anstream`] takes them away where nobody sees them.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{CheckReport, Conclusion, Report};
use crate::catalogue::catalogue;
use crate::check::Verdict;

/// How wide the widest verdict is.
const VERDICT_WIDTH: usize = 14;
/// How many violations of one judge are spelt out; JSON has more.
const VIOLATIONS_SHOWN: usize = 3;

/// Writes one line about a check.
///
/// # Errors
/// As the writer's.
pub fn write_line(check: &CheckReport, to: &mut impl Write) -> io::Result<()> {
    let (style, width) = (style(check.verdict), id_width());
    let took = format!("{} ms", check.took_us / 1_000);
    write!(to, "{style}{:<VERDICT_WIDTH$}{style:#} {:<width$} {took:>9}", check.verdict.as_str(), check.id)?;
    match check.observations.iter().rfind(|it| it.verdict == check.verdict && it.verdict != Verdict::Pass) {
        Some(observation) => writeln!(to, "  {}: {}", observation.code, observation.text),
        None => writeln!(to),
    }
}

/// Writes what is wrong and the conclusion; the lines of the checks have been written.
///
/// # Errors
/// As the writer's.
pub fn write_end(report: &Report, to: &mut impl Write) -> io::Result<()> {
    let bold = Style::new().bold();
    for health in &report.clusters {
        if let Some(trouble) = &health.trouble {
            writeln!(to, "cluster {} does not answer: {trouble}", health.cluster)?;
        }
    }
    if report.conclusion != Conclusion::Unreachable {
        report.troubles().into_iter().try_for_each(|check| write_trouble(check, to))?;
    }
    for judge in &report.judges {
        for violation in judge.violations.iter().take(VIOLATIONS_SHOWN) {
            writeln!(to, "\n{} by judge {}: {}", violation.requirement, judge.judge, violation.statement)?;
        }
        if judge.violated > VIOLATIONS_SHOWN as u64 {
            writeln!(to, "  and {} more", judge.violated - VIOLATIONS_SHOWN as u64)?;
        }
    }
    for left in &report.left_behind {
        writeln!(to, "left behind: {left}")?;
    }
    let counts: Vec<String> =
        report.counts().into_iter().rev().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let style = if report.exit_code() == 0 { style(Verdict::Pass) } else { style(Verdict::Fail) };
    writeln!(to)?;
    let all = catalogue().checks.len();
    let part = match report.checks.len() {
        some if some < all => format!(", as far as {some} of {all} checks can tell"),
        _ => String::new(),
    };
    writeln!(to, "{style}{}{style:#}{part}  {bold}{}{bold:#}", report.conclusion.as_str(), report.target)?;
    writeln!(
        to,
        "{} in {:.1} s; {} of {} requirements looked at",
        counts.join(", "),
        report.took_us as f64 / 1e6,
        report.requirements.iter().filter(|requirement| requirement.was_looked_at()).count(),
        report.requirements.len()
    )
}

fn write_trouble(check: &CheckReport, to: &mut impl Write) -> io::Result<()> {
    let style = style(check.verdict);
    writeln!(to, "\n{style}{}{style:#} {}", check.verdict, check.id)?;
    writeln!(to, "  expected  {}", check.title)?;
    for observation in check.observations.iter().filter(|it| it.verdict > Verdict::Slow) {
        writeln!(to, "  observed  {} ({})", observation.text, observation.code)?;
    }
    if let Some(last) = check.exchanges.last() {
        writeln!(to, "  last said {} {} -> {}", last.method, last.url, last.answer)?;
    }
    Ok(())
}

fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Warn | Verdict::Slow => AnsiColor::Yellow,
        Verdict::NotApplicable => AnsiColor::BrightBlack,
        Verdict::Blocked | Verdict::Inconclusive => AnsiColor::Magenta,
        Verdict::Error | Verdict::Fail => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

fn id_width() -> usize {
    catalogue().checks.iter().map(|check| check.id.len()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::mixed;

    #[test]
    fn a_run_in_lines() {
        let report = mixed();
        let mut written = anstream::StripStream::new(Vec::new());
        for check in &report.checks {
            write_line(check, &mut written).unwrap();
        }
        write_end(&report, &mut written).unwrap();
        insta::assert_snapshot!(String::from_utf8(written.into_inner()).unwrap());
    }
}
