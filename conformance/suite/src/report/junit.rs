//! For CI: JUnit's XML. A failed check is a failure, a broken suite an error; what could not be concluded
//! is a failure too, because a green page must not hide it. Only what is not applicable is skipped.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};

use super::{CheckReport, Report};
use crate::check::Verdict;

/// The report as XML.
///
/// # Errors
/// When a text cannot be written as XML.
pub fn render(report: &Report) -> io::Result<String> {
    let mut xml = Xml::new(format!("conformance of {}", report.target));
    xml.set_time(Duration::from_micros(report.took_us));
    let mut areas: Vec<&str> = report.checks.iter().map(area).collect();
    areas.dedup();
    for name in areas {
        let mut suite = TestSuite::new(name);
        suite.add_test_cases(report.checks.iter().filter(|check| area(check) == name).map(case));
        xml.add_test_suite(suite);
    }
    xml.to_string().map_err(io::Error::other)
}

fn area(check: &CheckReport) -> &str {
    check.id.split('-').next().unwrap_or_default()
}

fn case(check: &CheckReport) -> TestCase {
    let status = match check.verdict {
        Verdict::Pass | Verdict::Warn | Verdict::Slow => TestCaseStatus::success(),
        Verdict::NotApplicable => TestCaseStatus::skipped(),
        Verdict::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::Blocked | Verdict::Inconclusive | Verdict::Fail => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
    };
    let mut case = TestCase::new(check.id.clone(), status);
    case.set_classname(area(check));
    case.set_time(Duration::from_micros(check.took_us));
    let seen: Vec<String> = check
        .observations
        .iter()
        .filter(|observation| observation.verdict != Verdict::Pass)
        .map(|observation| format!("{} {}: {}", observation.verdict, observation.code, observation.text))
        .collect();
    if !seen.is_empty() {
        case.status.set_message(seen.last().map_or("", String::as_str));
        case.status.set_description(seen.join("\n"));
    }
    case
}

#[cfg(test)]
mod tests {
    use crate::report::tests::mixed;

    #[test]
    fn what_is_not_green_is_not_green_in_xml() {
        let xml = super::render(&mixed()).unwrap();
        insta::assert_snapshot!(xml);
    }
}
