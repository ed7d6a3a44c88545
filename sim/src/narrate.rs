//! A history as lines for humans: who did what when, and what came of it.

use fusion_history::{Body, Event, History};

/// The lines of a run, in order; packets and searches are left out.
pub fn narrate(history: &History) -> impl Iterator<Item = String> + '_ {
    history.events().iter().filter(|event| is_told(event)).map(ToString::to_string)
}

fn is_told(event: &Event) -> bool {
    !matches!(event.body, Body::Wire { .. } | Body::World(_) | Body::Leg(_))
}
