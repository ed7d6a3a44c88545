//! How searches are put before people and machines.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::println;
use anstyle::{AnsiColor, Style};
use fusion_model::model::Kind;
use fusion_model::{Judged, Limits, Named, Report, Trace, Unknown, Verdict};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Where results are put before people or machines.
pub(crate) struct Desk {
    json: bool,
    limits: Limits,
    worst: Verdict,
}

impl Desk {
    /// The desk of a command line; Ctrl-C is handled from here on.
    pub(crate) fn new(json: bool, states_max: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        // The first Ctrl-C ends the search and keeps what was found, the second ends the program.
        let _ = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        Self { json, limits: Limits { states_max, stop }, worst: Verdict::Holds }
    }

    /// Tells of a model and what can be planted in it.
    pub(crate) fn list(&self, model: Named) {
        let plants = model.plants();
        if self.json {
            let plants = plants.iter().map(|plant| json!({ "name": plant.name, "what": plant.what }));
            let plants: Vec<_> = plants.collect();
            println!("{}", json!({ "model": model.name(), "story": model.story(), "plants": plants }));
            return;
        }
        println!("{:<14} {}", model.name(), model.story());
        plants.iter().for_each(|plant| println!("    --plant {:<20} {}", plant.name, plant.what));
    }

    /// Searches a model and tells what was found.
    pub(crate) fn search(
        &mut self,
        model: Named,
        clusters: usize,
        plant: Option<&str>,
    ) -> Result<(), Unknown> {
        if self.limits.stop.load(Ordering::Relaxed) {
            self.worst = self.worst.max(Verdict::Open);
            return Ok(());
        }
        let bar = ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let report = model.search(clusters, plant, &self.limits, |steps, worlds| {
            bar.set_message(format!(
                "{} in {clusters} clusters: {} worlds, {} steps",
                model.name(),
                grouped(worlds as u64),
                grouped(steps as u64)
            ));
            bar.tick();
        })?;
        bar.finish_and_clear();
        self.worst = self.worst.max(report.verdict());
        if self.json {
            let mut object = json!({ "model": model.name(), "clusters": clusters, "plant": plant });
            if let (Some(all), Some(found)) = (object.as_object_mut(), report.to_json().as_object()) {
                all.extend(found.clone());
            }
            println!("{object}");
        } else {
            tell(model, clusters, plant, &report);
        }
        Ok(())
    }

    /// The exit code of everything that was told.
    pub(crate) fn close(self) -> ExitCode {
        match self.worst {
            Verdict::Holds | Verdict::Seen => ExitCode::SUCCESS,
            Verdict::Violated | Verdict::NeverSeen => ExitCode::from(1),
            Verdict::Open => ExitCode::from(3),
        }
    }
}

fn tell(model: Named, clusters: usize, plant: Option<&str>, report: &Report) {
    let verdict = report.verdict();
    let planted = plant.map(|name| format!(", planted: {name}")).unwrap_or_default();
    println!("{}  {} in {clusters} clusters{planted}", painted(verdict), model.name());
    println!("            {}", model.story());
    let scope = if report.whole { "every world within the bounds" } else { "not every world" };
    println!(
        "            {} worlds in {} steps, {} deep, {:.1} s: {scope}",
        grouped(report.worlds as u64),
        grouped(report.transitions as u64),
        report.depth.saturating_sub(1),
        report.elapsed.as_secs_f64(),
    );
    println!("            bounds: {}", report.bounds);
    let steps = report.steps.iter().filter(|(_, count)| *count > 0);
    let steps: Vec<_> = steps.map(|(sort, count)| format!("{} {}", grouped(*count), sort.plural())).collect();
    println!("            steps: {}", steps.join(", "));
    report.properties.iter().for_each(tell_property);
    if report.whole && !report.missing.is_empty() {
        let missing: Vec<_> = report.missing.iter().map(|sort| sort.plural()).collect();
        println!("            never happened: {}", missing.join(", "));
    }
    if let Some((judged, story)) = report.violated() {
        println!("\n  A shortest story in which not {}: {}", judged.kind.name(), judged.words);
        tell_story(story);
        if judged.kind == Kind::Eventually {
            println!("          from here on nothing is lost any more, and yet it does not come to that");
        }
    }
    println!();
}

fn tell_property(judged: &Judged) {
    let seen = match (&judged.story, judged.verdict) {
        (Some(story), Verdict::Seen) => format!(", first after {} steps", story.steps.len()),
        _ => String::new(),
    };
    println!("  {}  {:<10} {}{seen}", painted(judged.verdict), judged.kind.name(), judged.words);
}

fn tell_story(story: &Trace) {
    story.start.iter().for_each(|line| println!("          {line}"));
    for (place, (step, after)) in story.steps.iter().enumerate() {
        println!("    {:>3}.  {step}", place + 1);
        after.iter().for_each(|line| println!("            {line}"));
    }
}

fn painted(verdict: Verdict) -> String {
    let (word, colour) = match verdict {
        Verdict::Holds => ("holds", AnsiColor::Green),
        Verdict::Seen => ("seen", AnsiColor::Green),
        Verdict::Open => ("open", AnsiColor::Yellow),
        Verdict::Violated => ("violated", AnsiColor::Red),
        Verdict::NeverSeen => ("never", AnsiColor::Red),
    };
    let style = Style::new().fg_color(Some(colour.into())).bold();
    format!("{style}{word:<8}{style:#}")
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let places = digits.len();
    let each = digits.chars().enumerate();
    let spaced = each.flat_map(|(at, digit)| {
        let gap = (at > 0 && (places - at).is_multiple_of(3)).then_some(' ');
        gap.into_iter().chain([digit])
    });
    spaced.collect()
}
