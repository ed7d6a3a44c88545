//! For people with time: one page, complete in itself, that opens on what is wrong.

use std::fmt::Write as _;

use fusion_history::Ruling;

use super::{CheckReport, Report, RequirementReport};
use crate::catalogue::catalogue;
use crate::check::Verdict;
use crate::transcript::Exchange;

/// The report as a page. It loads nothing from anywhere.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("{}: {}", escape(&report.target), report.conclusion.as_str());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<main>\n"
    );
    head(report, &mut page);
    troubles(report, &mut page);
    matrix(report, &mut page);
    all_checks(report, &mut page);
    judges(report, &mut page);
    page.push_str("</main>\n</html>\n");
    page
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.facts, .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); }
code, pre { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; margin: .2rem 0; }
details { margin: .3rem 0; } summary { cursor: pointer; }
article { border: 1px solid var(--line); border-left: .4rem solid #c33; border-radius: .3rem; padding: .6rem 1rem; margin: .8rem 0; }
.v { font-weight: 600; white-space: nowrap; }
.pass { color: #197a2d; } .warn, .slow { color: #97690a; } .not_applicable, .none { color: var(--soft); }
.blocked, .inconclusive { color: #8a3ab9; } .fail, .error { color: #c2281d; }
.grid { display: flex; flex-wrap: wrap; gap: .25rem; margin: .2rem 0 .6rem; }
.grid a { display: inline-block; padding: .05rem .45rem; border: 1px solid var(--line); border-radius: .3rem; text-decoration: none; }
@media (prefers-color-scheme: dark) { .pass { color: #5ec476; } .warn, .slow { color: #e0b352; } .blocked, .inconclusive { color: #c794e8; } .fail, .error { color: #f4796f; } }
";

fn head(report: &Report, page: &mut String) {
    let class = if report.exit_code() == 0 { "pass" } else { "fail" };
    let counts: Vec<String> = report
        .counts()
        .into_iter()
        .rev()
        .map(|(verdict, count)| format!("<span class=\"v {verdict}\">{count} {verdict}</span>"))
        .collect();
    let _ = write!(
        page,
        "<h1><span class=\"{class}\">{}</span> &middot; {}</h1>\n<p>{}</p>\n\
         <p class=\"facts\">run {} &middot; {} &middot; {:.1} s &middot; suite {}</p>\n",
        report.conclusion.as_str(),
        escape(&report.target),
        counts.join(" &middot; "),
        escape(&report.run),
        escape(&report.started),
        report.took_us as f64 / 1e6,
        escape(&report.suite),
    );
    for health in &report.clusters {
        if let Some(trouble) = &health.trouble {
            let _ = writeln!(
                page,
                "<p class=\"fail\">Cluster {} does not answer: {}</p>",
                escape(&health.cluster),
                escape(trouble)
            );
        }
    }
    for left in &report.left_behind {
        let _ = writeln!(page, "<p class=\"fail\">Left behind: {}</p>", escape(left));
    }
}

fn troubles(report: &Report, page: &mut String) {
    let troubles = report.troubles();
    if troubles.is_empty() {
        return;
    }
    page.push_str("<h2>What is wrong</h2>\n");
    for check in troubles {
        let _ = writeln!(
            page,
            "<article id=\"wrong-{id}\"><p><span class=\"v {v}\">{v}</span> <code>{id}</code></p>\n\
             <p>Expected: {title}</p>",
            id = escape(&check.id),
            v = check.verdict,
            title = escape(&check.title),
        );
        observations(check, page);
        if !check.exchanges.is_empty() {
            let _ = writeln!(page, "<details><summary>{} exchanges</summary>", check.exchanges.len());
            check.exchanges.iter().for_each(|exchange| write_exchange(exchange, page));
            page.push_str("</details>\n");
        }
        page.push_str("</article>\n");
    }
}

fn observations(check: &CheckReport, page: &mut String) {
    page.push_str("<table>\n");
    for seen in &check.observations {
        // A code says what is wrong; of what is right it would say the contrary.
        let code = if seen.verdict == Verdict::Pass { "" } else { &seen.code };
        let _ = writeln!(
            page,
            "<tr><td class=\"v {v}\">{v}<td><code>{}</code><td>{}<td class=\"soft\">{:.3} s",
            escape(code),
            escape(&seen.text),
            seen.at_us as f64 / 1e6,
            v = seen.verdict,
        );
    }
    page.push_str("</table>\n");
}

fn write_exchange(exchange: &Exchange, page: &mut String) {
    let _ = writeln!(
        page,
        "<details><summary><code>{} {} &rarr; {}</code> <span class=\"soft\">{} at {:.3} s, {:.1} ms</span></summary>\
         <pre>{}</pre><pre>{}</pre></details>",
        escape(&exchange.method),
        escape(&exchange.url),
        escape(&exchange.answer),
        escape(&exchange.client),
        exchange.at_us as f64 / 1e6,
        exchange.took_us as f64 / 1e3,
        escape(&exchange.request),
        escape(&exchange.response),
    );
}

/// Every requirement as one mark in its area's row, each leading to its line.
fn matrix(report: &Report, page: &mut String) {
    page.push_str("<h2>Requirements</h2>\n");
    for area in catalogue().areas() {
        page.push_str("<div class=\"grid\">\n");
        for it in report.requirements.iter().filter(|it| it.id.starts_with(area)) {
            let _ = writeln!(page, "<a class=\"{}\" href=\"#{1}\">{1}</a>", class(it), escape(&it.id));
        }
        page.push_str("</div>\n");
    }
    page.push_str("<details><summary>What each asks for, and who looks at it</summary>\n<table>\n");
    for it in &report.requirements {
        let seen_by: Vec<String> = it.checks.iter().chain(&it.judges).map(|name| escape(name)).collect();
        let seen_by = match (&it.unchecked, seen_by.is_empty()) {
            (Some(why), true) => format!("<span class=\"soft\">not looked at: {}</span>", escape(why)),
            (None, true) => "<span class=\"soft\">not part of this run</span>".to_owned(),
            _ => format!("<code>{}</code>", seen_by.join("<br>")),
        };
        let _ = writeln!(
            page,
            "<tr id=\"{id}\"><td class=\"v {class}\">{verdict}<td><code>{id}</code><td>{}<td>{}<td>{seen_by}",
            it.level,
            escape(&it.title),
            id = escape(&it.id),
            class = class(it),
            verdict = it.verdict.map_or("not seen", Verdict::as_str),
        );
    }
    page.push_str("</table></details>\n");
}

fn all_checks(report: &Report, page: &mut String) {
    page.push_str("<h2>Checks</h2>\n<table>\n");
    for check in &report.checks {
        let _ = writeln!(
            page,
            "<tr><td class=\"v {v}\">{v}<td><details><summary><code>{}</code> {}</summary>",
            escape(&check.id),
            escape(&check.title),
            v = check.verdict,
        );
        observations(check, page);
        let _ = writeln!(page, "</details><td class=\"soft\">{} ms", check.took_us / 1_000);
    }
    page.push_str("</table>\n");
}

fn judges(report: &Report, page: &mut String) {
    let had_a_case: Vec<_> = report.judges.iter().filter(|judge| !judge.had_no_case()).collect();
    if had_a_case.is_empty() {
        return;
    }
    page.push_str("<h2>Judges of the whole run</h2>\n<table>\n");
    for judge in had_a_case {
        let class = match judge.ruling {
            Ruling::Holds => "pass",
            Ruling::Unknown => "inconclusive",
            Ruling::Violated => "fail",
        };
        let _ = write!(
            page,
            "<tr><td class=\"v {class}\">{}<td><code>{}</code><td>{}<td>{} cases",
            judge.ruling,
            escape(&judge.judge),
            escape(&judge.requirements.join(", ")),
            judge.reached,
        );
        for violation in &judge.violations {
            let _ = write!(page, "<br>{}", escape(&violation.statement));
        }
        page.push('\n');
    }
    page.push_str("</table>\n");
}

fn class(requirement: &RequirementReport) -> &'static str {
    requirement.verdict.map_or("none", Verdict::as_str)
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::mixed;

    #[test]
    fn the_page_opens_on_what_is_wrong_and_loads_nothing() {
        let page = render(&mixed());
        let wrong = page.find("What is wrong").unwrap();
        assert!(page.find("CNV-002.create-twice").unwrap() > wrong);
        assert!(wrong < page.find("<h2>Requirements").unwrap());
        for outside in ["src=", "url(", "@import", "<script", "<link", "http-equiv"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn nothing_that_was_said_becomes_markup() {
        let page = render(&mixed());
        assert!(page.contains("what was seen &lt;&amp;&gt;"));
        assert!(!page.contains("<&>"));
    }

    #[test]
    fn a_page_without_trouble_has_no_section_for_it() {
        let report = crate::report::tests::report(&[("SEC-002.own-server", Verdict::Pass)]);
        assert!(!render(&report).contains("What is wrong"));
    }

    #[test]
    fn every_requirement_has_its_mark_and_its_line() {
        let page = render(&mixed());
        for requirement in &catalogue().requirements {
            assert!(page.contains(&format!("href=\"#{}\"", requirement.id)));
            assert!(page.contains(&format!("id=\"{}\"", requirement.id)));
        }
    }
}
