//! What leaves with a step, and after it.

use std::collections::BTreeMap;

use fusion_machines::locus::{Effect, Locus};
use fusion_protocol::locus::{ActiveBatch, ActiveWrite, LocusState};
use fusion_protocol::map::Resolution;
use fusion_protocol::{ClusterName, Problem, Service, Uuid, limits};
use fusion_runtime::probe::StateChange;
use fusion_runtime::store::Batch;
use http::Method;
use serde_json::json;

use super::active;
use super::store::Home;
use crate::{Cluster, media, outbox, peers, users};

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
    home.cluster.relays.follow(home.cluster, home.id, locus);
    for effect in effects {
        match effect {
            Effect::CloseLeg(leg) => close_leg(home, locus, *leg),
            Effect::EndInstance(instance) => home.cluster.leases.close(home.cluster, home.id, *instance),
            Effect::Entered { .. } | Effect::Tell { .. } | Effect::OpenLeg(_) => {}
        }
    }
}

/// Says again what the active lists of everybody in the call are to say, so that none is hidden while the
/// call goes on (LOC-007). Not by the outbox: what is said again every minute need not outlive a crash,
/// nor pile up for a cluster that is away.
pub(super) async fn renew(home: &Home<'_>, locus: &Locus) {
    let cluster = home.cluster;
    let mut writes: BTreeMap<ClusterName, Vec<ActiveWrite>> = BTreeMap::new();
    for user in locus.parties.keys() {
        let Ok(Resolution { record, .. }) = users::resolve(cluster, user).await else { continue };
        writes.entry(record.cluster).or_default().push(ActiveWrite {
            id: cluster.host.entropy.uuid(),
            user: user.clone(),
            incarnation: record.incarnation,
            epoch: record.version,
            entry: locus.entry(user, &home.url, &home.conversation),
            event: None,
        });
    }
    for (peer, mut rows) in writes {
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(limits::BATCH_MAX));
            let batch = ActiveBatch { rows: std::mem::replace(&mut rows, rest) };
            let (cluster, peer) = (cluster.clone(), peer.clone());
            home.cluster.host.tasks.spawn(async move { send(&cluster, &peer, batch).await });
        }
    }
}

/// Whatever becomes of it: the next renewal is a minute away.
async fn send(cluster: &Cluster, peer: &ClusterName, batch: ActiveBatch) {
    if peer == cluster.name() {
        for write in &batch.rows {
            let _ = active::write_active(cluster, write).await;
        }
    } else {
        let url = cluster.config.template.url(peer, Service::Locus, "/v1/loci");
        let _ = peers::call(cluster, Method::POST, &url, &batch).await;
    }
}

/// At every relay that the call has used: one that was given up may be alive all the same.
fn close_leg(home: &Home<'_>, locus: &Locus, leg: Uuid) {
    for relay in locus.relays.clone() {
        let cluster = home.cluster.clone();
        home.cluster.host.tasks.spawn(async move { media::close_leg(&cluster, &relay, leg).await });
    }
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
