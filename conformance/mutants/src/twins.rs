//! Wrong-reason twins: for each check that tries what must be refused, the right deployment but for the
//! reason that it gives. A check that passes there would pass wherever nothing works; it must find that it
//! can conclude nothing.
//!
//! No list is kept: which checks are negative, and which reasons they accept, is what the right deployment's
//! report shows.

use std::collections::BTreeSet;

use anyhow::Result;
use fusion_conformance::Report;
use fusion_conformance::check::{ANOTHER_REASON, Verdict};
use fusion_conformance::report::CheckReport;
use fusion_deployment::Hooks;
use fusion_protocol::Code;
use http::StatusCode;
use serde::Serialize;

use crate::wrap;

/// What became of one twin.
#[derive(Clone, Debug, Serialize)]
pub struct Twin {
    /// The check.
    pub check: String,
    /// The reasons that the twin keeps to itself.
    pub reasons: Vec<Code>,
    /// Whether the check found that it can conclude nothing, because of the reason.
    pub told_apart: bool,
    /// What it concluded instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// The checks of a report that saw something refused as it must be, with the reasons.
#[must_use]
pub(crate) fn negative(sound: &Report) -> Vec<(&CheckReport, BTreeSet<Code>)> {
    let checks = sound.checks.iter().map(|check| {
        (check, check.observations.iter().filter_map(|seen| seen.refused_with).collect::<BTreeSet<Code>>())
    });
    checks.filter(|(_, reasons)| !reasons.is_empty()).collect()
}

/// The twin of one check.
///
/// # Errors
/// When the deployment cannot be checked at all.
pub(crate) fn test(
    check: &str,
    reasons: &BTreeSet<Code>,
    run: impl FnOnce(&Hooks, Vec<String>) -> Result<Report>,
) -> Result<Twin> {
    let report = run(&for_another_reason(reasons.clone()), vec![check.to_owned()])?;
    let found = report.checks.iter().find(|found| found.id == check);
    let told_apart = found.is_some_and(|found| {
        let because = |code: &str| found.observations.iter().any(|seen| seen.code == code);
        found.verdict == Verdict::Inconclusive && because(ANOTHER_REASON)
    });
    let saw = || crate::self_test::seen(found);
    Ok(Twin {
        check: check.to_owned(),
        reasons: reasons.iter().copied().collect(),
        told_apart,
        instead: (!told_apart).then(saw),
    })
}

/// Whoever refuses for one of `reasons` refuses, and says another that nobody knows.
fn for_another_reason(reasons: BTreeSet<Code>) -> Hooks {
    let reasons = std::sync::Arc::new(reasons);
    wrap::calls_of(
        |_| true,
        |_, _| true,
        move |call| {
            let reasons = reasons.clone();
            Box::pin(async move {
                match wrap::code_of(call.play().await).await {
                    (Some(code), _) if reasons.contains(&code) => {
                        wrap::refusal_as(StatusCode::FORBIDDEN, "of-a-later-version")
                    }
                    (_, response) => response,
                }
            })
        },
    )
}
