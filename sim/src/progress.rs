//! How far a long piece of work has come.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps, named `prefix`: on a terminal only, and not for a single step.
pub(crate) fn bar(prefix: &str, length: u64, for_machines: bool) -> ProgressBar {
    if for_machines || !std::io::stderr().is_terminal() || length < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{prefix:<32} {bar:30} {pos}/{len} {eta} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(prefix.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
