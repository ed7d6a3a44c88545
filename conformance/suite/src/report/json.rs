//! For machines: one object a line. Checks first, then requirements, then judges, then the summary.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::Report;

/// Writes the report.
///
/// # Errors
/// As the writer's.
pub fn write(report: &Report, to: &mut impl Write) -> io::Result<()> {
    for check in &report.checks {
        line(to, "check", check)?;
    }
    for requirement in &report.requirements {
        line(to, "requirement", requirement)?;
    }
    for judge in &report.judges {
        line(to, "judge", judge)?;
    }
    let counts: serde_json::Map<_, _> =
        report.counts().into_iter().map(|(verdict, count)| (verdict.to_string(), json!(count))).collect();
    let summary = json!({
        "target": report.target, "run": report.run, "suite": report.suite, "started": report.started,
        "tookUs": report.took_us, "clusters": report.clusters, "counts": counts,
        "leftBehind": report.left_behind, "interrupted": report.interrupted,
        "conclusion": report.conclusion, "exitCode": report.exit_code(),
    });
    line(to, "summary", &summary)
}

fn line(to: &mut impl Write, kind: &str, row: &impl Serialize) -> io::Result<()> {
    let mut object = json!({ "kind": kind });
    if let (Some(object), serde_json::Value::Object(row)) =
        (object.as_object_mut(), serde_json::to_value(row)?)
    {
        object.extend(row);
    }
    writeln!(to, "{object}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::mixed;

    #[test]
    fn every_line_is_an_object_and_the_last_one_sums_up() {
        let mut written = Vec::new();
        write(&mixed(), &mut written).unwrap();
        let text = String::from_utf8(written).unwrap();
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.iter().filter(|row| row["kind"] == "check").count(), 5);
        assert_eq!(rows.iter().filter(|row| row["kind"] == "requirement").count(), 87);
        insta::assert_json_snapshot!([&rows[1], &rows[5], rows.last().unwrap()]);
    }
}
