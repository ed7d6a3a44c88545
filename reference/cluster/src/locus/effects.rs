//! What leaves with a step, and after it.

use fusion_machines::locus::{Effect, Locus};
use fusion_protocol::locus::LocusState;
use fusion_protocol::{Problem, Uuid};
use fusion_runtime::probe::StateChange;
use fusion_runtime::store::Batch;
use serde_json::json;

use super::store::Home;
use crate::{media, outbox};

/// Adds to the step's own commit what others are to hear: an outbox row for every told user, wherever
/// they are (RDV-005, LOC-007).
pub(super) fn add(
    home: &Home<'_>,
    batch: &mut Batch,
    locus: &Locus,
    effects: &[Effect],
) -> Result<(), Problem> {
    for effect in effects {
        if let Effect::Tell { user, event } = effect {
            let entry = Box::new(locus.entry(user, &home.url, &home.conversation));
            let effect = outbox::Effect::Active { user: user.clone(), entry, event: *event };
            outbox::post(home.cluster, batch, home.url.as_str(), effect)?;
        }
        if let Effect::Entered { state: LocusState::Initializing, .. } = effect {
            home.mark_live(batch, locus.instance);
        }
    }
    Ok(())
}

/// Does what follows a durable step.
pub(super) fn after(home: &Home<'_>, locus: &Locus, effects: &[Effect]) {
    outbox::wake(home.cluster);
    report(home, locus, effects);
    home.cluster.leases.follow(home.cluster, home.id, locus);
    for effect in effects {
        match effect {
            Effect::CloseLeg(leg) => close_leg(home, locus, *leg),
            Effect::EndInstance(instance) => home.cluster.leases.close(home.cluster, home.id, *instance),
            Effect::Entered { .. } | Effect::Tell { .. } | Effect::OpenLeg(_) => {}
        }
    }
}

/// Posts the entries of everybody in the call again: whoever missed the last word has it now, and none
/// is hidden while the call goes on (LOC-007).
pub(super) fn renew(home: &Home<'_>, batch: &mut Batch, locus: &Locus) -> Result<(), Problem> {
    for user in locus.parties.keys() {
        let entry = Box::new(locus.entry(user, &home.url, &home.conversation));
        let effect = outbox::Effect::Active { user: user.clone(), entry, event: None };
        outbox::post(home.cluster, batch, home.url.as_str(), effect)?;
    }
    Ok(())
}

fn close_leg(home: &Home<'_>, locus: &Locus, leg: Uuid) {
    let Some(relay) = locus.relay().cloned() else { return };
    let cluster = home.cluster.clone();
    home.cluster.host.tasks.spawn(async move { media::close_leg(&cluster, &relay, leg).await });
}

fn report(home: &Home<'_>, locus: &Locus, effects: &[Effect]) {
    let probe = &home.cluster.host.probe;
    if !probe.watches_state() {
        return;
    }
    let mut view = locus.view(&home.url, &home.conversation, std::iter::empty());
    for effect in effects {
        if let Effect::Entered { state, rev } = effect {
            view.state = *state;
            view.rev = *rev;
            let word = json!(state).as_str().unwrap_or_default().to_owned();
            let subject = home.url.to_string();
            probe.state(StateChange { concept: "locus", subject, state: word, detail: json!(view) });
        }
    }
}
