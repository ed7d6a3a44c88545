//! Carries rows to one cluster on one channel, as long as there are any. What one request fails with
//! concerns nobody else's.

use std::collections::BTreeMap;
use std::sync::Arc;

use fusion_machines::outbox::{Addressee, Channel, Lane, Outcome, Room, Row, RowId, Taken};
use fusion_protocol::index::{BatchAnswer, IndexWrite, RowResult};
use fusion_protocol::locus::ActiveWrite;
use fusion_protocol::map::UserRecord;
use fusion_protocol::{Address, ClusterName, Code, Incarnation, Problem, Service, Url, limits};
use fusion_runtime::probe::Level;
use fusion_runtime::store::Batch;
use futures_util::future::{BoxFuture, join_all};
use http::Method;
use serde::Serialize;
use serde_json::json;

use super::store::{self, DeadRow, OutboxRow};
use super::{Effect, contact, wake};
use crate::peers::{self, PeerError};
use crate::{Cluster, conversation, index, locus, rows, users};

/// How much goes into one request: the body has room for tokens of JSON besides.
const ROOM: Room = Room { rows_max: limits::BATCH_MAX, octets_max: limits::BODY_MAX / 2 };
/// How many claims or imports are under way at once.
const PARALLEL: usize = 16;

type Waiting = Row<Arc<OutboxRow>>;

/// What became of a row, for the machine and for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered for good; the row is to be removed.
    Answered,
    /// Answered for good, and whatever waits behind it in its lane has become pointless.
    LaneOver,
    /// Refused for good.
    Dead(Code),
    /// Try again later.
    Later,
    /// The user is not there.
    Misrouted,
    /// Nobody answered.
    Unreachable,
}

/// Sends until nothing is due for `peer` on `channel`.
pub(super) async fn run(cluster: Cluster, peer: ClusterName, channel: Channel) {
    let room = match channel {
        Channel::Index | Channel::Loci => ROOM,
        Channel::Claims | Channel::Imports => Room { rows_max: PARALLEL, ..ROOM },
    };
    loop {
        let taken = {
            let mut state = cluster.outbox.state();
            let taken = state.machine.take(&peer, channel, room, cluster.host.clock.now());
            if taken.is_empty() {
                state.senders.remove(&(peer, channel));
                break;
            }
            taken
        };
        let waiting: Vec<&Waiting> = taken.iter().flat_map(|taken| &taken.rows).collect();
        let fates = match channel {
            Channel::Index => send_index(&cluster, &peer, &waiting).await,
            Channel::Loci => send_loci(&cluster, &peer, &waiting).await,
            Channel::Claims | Channel::Imports => {
                join_all(waiting.iter().map(|row| send_one(&cluster, &peer, row))).await
            }
        };
        settle(&cluster, &peer, &taken, &fates).await;
        if channel == Channel::Claims || fates.iter().any(|fate| *fate != Fate::Answered) {
            // What has been settled may sleep, or be due on another channel.
            wake(&cluster);
        }
    }
}

/// A row that nobody will ever take: kept without its content, and shown to the creator.
pub(super) async fn bury(cluster: &Cluster, id: RowId, row: &OutboxRow, code: Code) {
    let user = match &row.effect {
        Effect::Active { user, .. } | Effect::Index { user, .. } | Effect::Claim { user, .. } => Some(user),
        Effect::Import { .. } => None,
    };
    let shown = match &row.effect {
        Effect::Index { user, entry, .. } => {
            conversation::give_up_on(cluster, entry.conversation, user, code).await
        }
        Effect::Claim { user, conversation } => {
            conversation::give_up_on(cluster, *conversation, user, code).await
        }
        Effect::Active { .. } | Effect::Import { .. } => Ok(()),
    };
    cluster.host.probe.log(Level::Warn, "outbox.dead", json!({ "code": code, "shown": shown.is_ok() }));
    let mut batch = Batch::default();
    store::delete(&mut batch, id);
    let dead = DeadRow { id: row.id, stream: row.stream.clone(), user: user.cloned(), code };
    store::put_dead(&mut batch, id, &dead);
    // A row that cannot be removed is sent again in the next life, and refused again.
    let _ = rows::commit(&*cluster.host.store, batch).await;
}

async fn settle(cluster: &Cluster, peer: &ClusterName, taken: &[Taken<Arc<OutboxRow>>], fates: &[Fate]) {
    let mut batch = Batch::default();
    let mut unreachable: Vec<Lane> = Vec::new();
    let mut settled: Vec<(&Lane, Vec<Outcome>, bool)> = Vec::new();
    let mut fates = fates.iter();
    for Taken { lane, rows } in taken {
        let fates: Vec<Fate> = fates.by_ref().take(rows.len()).copied().collect();
        if fates.contains(&Fate::Unreachable) {
            unreachable.push(lane.clone());
            continue;
        }
        for (row, fate) in rows.iter().zip(&fates) {
            match fate {
                Fate::Answered | Fate::LaneOver => store::delete(&mut batch, row.id),
                Fate::Dead(code) => bury(cluster, row.id, &row.what, *code).await,
                Fate::Later | Fate::Misrouted | Fate::Unreachable => {}
            }
        }
        let is_claim = rows.iter().any(|row| row.channel == Channel::Claims);
        let lost = fates.contains(&Fate::LaneOver);
        if lost {
            cluster.outbox.state().over.insert(lane.clone());
        }
        let over = lost || is_claim && fates.iter().any(|fate| matches!(fate, Fate::Dead(_)));
        settled.push((lane, fates.into_iter().map(Fate::outcome).collect(), over));
    }
    remove_pointless(cluster, &mut batch, &settled);
    if !batch.is_empty() {
        // Rows that cannot be removed now are sent again in the next life: harmless (SEC-004).
        let _ = rows::commit(&*cluster.host.store, batch).await;
    }
    let (now, entropy) = (cluster.host.clock.now(), &cluster.host.entropy);
    let answered = unreachable.is_empty();
    let mut state = cluster.outbox.state();
    for (lane, outcomes, over) in settled {
        if outcomes.contains(&Outcome::Misrouted)
            && let Addressee::User(user) = &lane.to
        {
            state.moved.insert(user.clone());
        }
        match over {
            true => drop(state.machine.remove(lane)),
            false => state.machine.settle(lane, &outcomes, now, entropy.u64()),
        }
    }
    if !answered {
        state.machine.unreachable(peer, &unreachable, now, entropy.u64());
    }
    drop(state);
    if answered {
        contact(cluster, peer);
    }
}

/// What waits behind a lost claim is about the loser, which nobody else will ever hear of.
fn remove_pointless(cluster: &Cluster, batch: &mut Batch, settled: &[(&Lane, Vec<Outcome>, bool)]) {
    let state = cluster.outbox.state();
    for (lane, _, _) in settled.iter().filter(|(_, _, over)| *over) {
        state.machine.rows(lane).for_each(|row| store::delete(batch, row.id));
    }
}

async fn send_index(cluster: &Cluster, peer: &ClusterName, rows: &[&Waiting]) -> Vec<Fate> {
    let mut fates = vec![Fate::Later; rows.len()];
    let (mut places, mut writes, mut routes) = (Vec::new(), Vec::new(), Routes::to(cluster, peer));
    for (at, row) in rows.iter().enumerate() {
        let Effect::Index { user, incarnation, .. } = &row.what.effect else { continue };
        match routes.route(user, *incarnation).await {
            Ok(record) => {
                places.push(at);
                writes.extend(index_write(cluster, &row.what, record));
            }
            Err(fate) => fates[at] = fate,
        }
    }
    let sent = match peer == cluster.name() {
        true => fates_of(&index::apply(cluster, peer, &writes).await),
        false => {
            let url = cluster.config.template.url(peer, Service::Conv, "/v1/index");
            send_batch(cluster, &url, &writes).await
        }
    };
    for ((at, fate), write) in places.into_iter().zip(sent).zip(&writes) {
        fates[at] = fate;
        if fate == Fate::Answered {
            remember_found(cluster, peer, &rows[at].what, write).await;
        }
    }
    fates
}

/// A participant who could not be resolved when the conversation was made is known from now on.
async fn remember_found(cluster: &Cluster, peer: &ClusterName, row: &OutboxRow, write: &IndexWrite) {
    let Effect::Index { user, incarnation: None, entry } = &row.effect else { return };
    let record = UserRecord {
        user: user.clone(),
        incarnation: write.incarnation,
        cluster: peer.clone(),
        version: write.epoch,
    };
    // Only for show: the next announcement finds the user again.
    let _ = conversation::found(cluster, entry.conversation, &record).await;
}

async fn send_loci(cluster: &Cluster, peer: &ClusterName, rows: &[&Waiting]) -> Vec<Fate> {
    let mut fates = vec![Fate::Later; rows.len()];
    let (mut places, mut writes, mut routes) = (Vec::new(), Vec::new(), Routes::to(cluster, peer));
    for (at, row) in rows.iter().enumerate() {
        let Effect::Active { user, entry, event } = &row.what.effect else { continue };
        match routes.route(user, None).await {
            Ok(record) => {
                places.push(at);
                writes.push(ActiveWrite {
                    id: row.what.id,
                    user: user.clone(),
                    incarnation: record.incarnation,
                    epoch: record.version,
                    entry: (**entry).clone(),
                    event: *event,
                });
            }
            Err(fate) => fates[at] = fate,
        }
    }
    let sent = match peer == cluster.name() {
        true => {
            let mut fates = Vec::with_capacity(writes.len());
            for write in &writes {
                fates.push(match locus::write_active(cluster, write).await {
                    Ok(result) => Fate::of_code(result.code),
                    Err(problem) => Fate::of_code(Some(problem.code)),
                });
            }
            fates
        }
        false => {
            let url = cluster.config.template.url(peer, Service::Locus, "/v1/loci");
            send_batch(cluster, &url, &writes).await
        }
    };
    places.into_iter().zip(sent).for_each(|(at, fate)| fates[at] = fate);
    fates
}

async fn send_one(cluster: &Cluster, peer: &ClusterName, row: &Waiting) -> Fate {
    match &row.what.effect {
        Effect::Claim { user, conversation } => match Routes::to(cluster, peer).route(user, None).await {
            Ok(record) => conversation::claim(cluster, *conversation, row.what.id, record).await,
            Err(fate) => fate,
        },
        Effect::Import { conversation, .. } => conversation::export(cluster, *conversation).await,
        Effect::Active { .. } | Effect::Index { .. } => Fate::Later,
    }
}

/// Users as resolved this moment: once for each request, however many rows it has for one of them.
struct Routes<'a> {
    cluster: &'a Cluster,
    peer: &'a ClusterName,
    found: BTreeMap<&'a Address, Result<UserRecord, Fate>>,
}

impl<'a> Routes<'a> {
    fn to(cluster: &'a Cluster, peer: &'a ClusterName) -> Self {
        Self { cluster, peer, found: BTreeMap::new() }
    }

    /// The user, if they are still at the peer and still the person who is meant.
    async fn route(&mut self, user: &'a Address, meant: Option<Incarnation>) -> Result<&UserRecord, Fate> {
        if !self.found.contains_key(user) {
            let found = self.resolve(user).await;
            self.found.insert(user, found);
        }
        let found = self.found.get(user).ok_or(Fate::Later)?.as_ref().map_err(|fate| *fate)?;
        if meant.is_some_and(|meant| meant != found.incarnation) {
            return Err(Fate::Dead(Code::IncarnationGone));
        }
        Ok(found)
    }

    async fn resolve(&self, user: &Address) -> Result<UserRecord, Fate> {
        match users::resolve(self.cluster, user).await {
            Ok(found) if found.record.cluster == *self.peer => Ok(found.record),
            Ok(_) => Err(Fate::Misrouted),
            Err(problem) if problem.code == Code::UserUnknown => Err(Fate::Dead(Code::UserUnknown)),
            Err(_) => Err(Fate::Later),
        }
    }
}

fn index_write(cluster: &Cluster, row: &OutboxRow, record: &UserRecord) -> Option<IndexWrite> {
    let Effect::Index { user, entry, .. } = &row.effect else { return None };
    Some(entry.write(cluster, row.id, user, record))
}

/// A batch as it goes over the wire: `IndexBatch` and `ActiveBatch` alike.
#[derive(Serialize)]
struct Rows<'a, T> {
    rows: &'a [T],
}

/// One batch; one that is refused as a whole is sent in halves, so that no row is refused for another's
/// sake.
fn send_batch<'a, T: Serialize + Sync>(
    cluster: &'a Cluster,
    url: &'a Url,
    rows: &'a [T],
) -> BoxFuture<'a, Vec<Fate>> {
    Box::pin(async move {
        if rows.is_empty() {
            return Vec::new();
        }
        match peers::call(cluster, Method::POST, url, &Rows { rows }).await {
            Ok(body) => match serde_json::from_slice::<BatchAnswer>(&body) {
                Ok(answer) if answer.results.len() == rows.len() => fates_of(&answer.results),
                _ => vec![Fate::Later; rows.len()],
            },
            Err(PeerError::Unreachable) => vec![Fate::Unreachable; rows.len()],
            Err(PeerError::Refused(problem)) if concerns_rows(&problem) && rows.len() > 1 => {
                let (first, second) = rows.split_at(rows.len() / 2);
                let mut fates = send_batch(cluster, url, first).await;
                fates.extend(send_batch(cluster, url, second).await);
                fates
            }
            Err(PeerError::Refused(problem)) if concerns_rows(&problem) => vec![Fate::Dead(problem.code)],
            Err(PeerError::Refused(problem)) => {
                cluster.host.probe.log(Level::Warn, "outbox.refused", json!({ "code": problem.code }));
                vec![Fate::Later; rows.len()]
            }
        }
    })
}

/// Whether a whole batch was refused for what is in it, and not for who asks or when.
fn concerns_rows(problem: &Problem) -> bool {
    matches!(problem.status, 400 | 413 | 422)
}

fn fates_of(results: &[RowResult]) -> Vec<Fate> {
    results.iter().map(|result| Fate::of_code(result.code)).collect()
}

impl Fate {
    /// The fate of a row that was answered with `code`.
    pub(crate) fn of_code(code: Option<Code>) -> Self {
        match code {
            None => Self::Answered,
            // Somebody else is there now: whether for good is found out by resolving again.
            Some(Code::WrongCluster | Code::IncarnationGone) => Self::Misrouted,
            Some(code) if matches!(code.status(), 401 | 429) || code.status() >= 500 => Self::Later,
            Some(code) => Self::Dead(code),
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Answered | Self::LaneOver | Self::Dead(_) => Outcome::Done,
            Self::Later | Self::Unreachable => Outcome::Later,
            Self::Misrouted => Outcome::Misrouted,
        }
    }
}
