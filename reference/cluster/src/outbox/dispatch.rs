//! Decides what is due: takes in posted rows, resolves users, starts senders. One task; it sleeps until
//! something is posted or a time comes.

use std::time::Duration;

use fusion_machines::outbox::RowId;
use fusion_protocol::map::Resolution;
use fusion_protocol::{Address, Code, Problem};
use fusion_runtime::store::Batch;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{Arriving, send, store};
use crate::{Cluster, rows, users};

/// How long after posting the dispatcher looks by itself whether a row was committed.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// A row that is not in the store after this was never committed.
const FORGET_AFTER: Duration = Duration::from_secs(60);

type Resolving = FuturesUnordered<BoxFuture<'static, (Address, Result<Resolution, Problem>)>>;

/// Runs until the machine stops.
pub(super) async fn run(cluster: Cluster) {
    let mut resolving = Resolving::new();
    loop {
        let due = cluster.outbox.due.notified();
        take_in_posted(&cluster).await;
        start_what_is_due(&cluster, &mut resolving);
        let next = next_look(&cluster);
        let sleep = async {
            match next {
                Some(moment) => cluster.host.clock.sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((user, found)) = resolving.next() => resolved(&cluster, &user, found).await,
            () = due => {}
            () = sleep => {}
        }
    }
}

/// Posted rows that are in the store are there to be sent.
async fn take_in_posted(cluster: &Cluster) {
    let now = cluster.host.clock.now();
    let ids: Vec<RowId> = {
        let mut state = cluster.outbox.state();
        let old = state.posted.values().any(|posted| posted.at + LOOK_AFTER <= now);
        let look = std::mem::take(&mut state.committed) || old;
        if look { state.posted.keys().copied().collect() } else { Vec::new() }
    };
    if ids.is_empty() {
        return;
    }
    // When the store cannot say, it is asked again later.
    let Ok(present) = store::present(cluster, &ids).await else { return };
    let mut pointless = Batch::default();
    for (id, present) in ids.into_iter().zip(present) {
        let taken = {
            let mut state = cluster.outbox.state();
            let forget = state.posted.get(&id).is_some_and(|posted| posted.at + FORGET_AFTER <= now);
            if present || forget { state.posted.remove(&id) } else { None }
        };
        let arriving =
            taken.filter(|_| present).map(|posted| Arriving { id, octets: posted.octets, row: posted.row });
        if arriving.is_some_and(|arriving| !cluster.outbox.add(arriving)) {
            store::delete(&mut pointless, id);
        }
    }
    if !pointless.is_empty() {
        let _ = rows::commit(&*cluster.host.store, pointless).await;
    }
}

fn start_what_is_due(cluster: &Cluster, resolving: &mut Resolving) {
    let now = cluster.host.clock.now();
    let (ready, users) = {
        let mut state = cluster.outbox.state();
        let ready = state.machine.ready(now);
        let started: Vec<_> = ready.into_iter().filter(|one| state.senders.insert(one.clone())).collect();
        let users = state.machine.to_resolve();
        let users: Vec<_> = users.into_iter().map(|user| (state.moved.remove(&user), user)).collect();
        (started, users)
    };
    for (moved, user) in users {
        let cluster = cluster.clone();
        resolving.push(Box::pin(async move {
            let found = match moved {
                true => users::resolve_again(&cluster, &user).await,
                false => users::resolve(&cluster, &user).await,
            };
            (user, found)
        }));
    }
    for (peer, channel) in ready {
        cluster.host.tasks.spawn(send::run(cluster.clone(), peer, channel));
    }
}

async fn resolved(cluster: &Cluster, user: &Address, found: Result<Resolution, Problem>) {
    match found {
        Ok(found) => cluster.outbox.state().machine.resolved(user, found.record.cluster),
        Err(problem) if problem.code == Code::UserUnknown => {
            let waiting = cluster.outbox.state().machine.give_up_on_user(user);
            for row in waiting.into_iter().flat_map(|taken| taken.rows) {
                send::bury(cluster, row.id, &row.what, problem.code).await;
            }
        }
        Err(_) => {
            let jitter = cluster.host.entropy.u64();
            cluster.outbox.state().machine.not_resolved(user, cluster.host.clock.now(), jitter);
        }
    }
}

/// When to look again without being told to.
fn next_look(cluster: &Cluster) -> Option<Duration> {
    let now = cluster.host.clock.now();
    let state = cluster.outbox.state();
    // Posted rows keep the dispatcher awake only until they are committed or forgotten.
    let posted = (!state.posted.is_empty()).then_some(now + LOOK_AFTER);
    [state.machine.next_due(), posted].into_iter().flatten().min()
}
