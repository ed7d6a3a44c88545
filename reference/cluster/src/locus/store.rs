//! One locus at its home: its row, and how a step is taken.

use fusion_machines::locus::{Effect, Event, Locus, Refusal, Setting};
use fusion_protocol::{Code, Count, Problem, Url, Uuid};
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};

use super::effects;
use crate::conversation::{self, Membership};
use crate::locks::Held;
use crate::rows::{self, Committed, Loaded};
use crate::{Cluster, media};

/// A locus of this cluster, held: nobody else in this instance steps it meanwhile.
pub(super) struct Home<'a> {
    pub(super) cluster: &'a Cluster,
    /// Its conversation's id.
    pub(super) id: Uuid,
    /// Its conversation's URL.
    pub(super) conversation: Url,
    /// Its URL (LOC-001).
    pub(super) url: Url,
    _held: Option<Held<'a>>,
}

/// A step that was taken and is durable.
pub(super) struct Stepped {
    pub(super) locus: Locus,
    pub(super) effects: Vec<Effect>,
}

/// A locus in which something goes on: a call, or legs that are not closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Live {
    pub(super) conversation: Uuid,
    pub(super) instance: Count,
}

impl<'a> Home<'a> {
    /// Waits for the locus.
    pub(super) async fn hold(cluster: &'a Cluster, id: Uuid) -> Self {
        let held = cluster.locks.hold(format!("locus/{id}")).await;
        Self { _held: Some(held), ..Self::of(cluster, id) }
    }

    /// The locus, not held: good for reading and naming.
    pub(super) fn of(cluster: &'a Cluster, id: Uuid) -> Self {
        let conversation = conversation::url(cluster, id);
        let url = locus_url(&conversation);
        Self { cluster, id, conversation, url, _held: None }
    }

    /// The same locus, for others to step.
    pub(super) fn release(self) -> Self {
        Self { _held: None, ..self }
    }

    /// The locus as it is stored.
    pub(super) async fn read(&self) -> Result<Locus, Problem> {
        Ok(self.load().await?.value.unwrap_or_default())
    }

    /// LOC-005: takes one step. One compare-and-set decides; it is durable with its effects when this
    /// returns. A step that changes nothing writes nothing.
    pub(super) async fn step(&self, event: Event) -> Result<Stepped, Problem> {
        let store = &*self.cluster.host.store;
        loop {
            let mut row = self.load().await?;
            let mut locus = row.value.take().unwrap_or_default();
            let effects = locus.step(event.clone()).map_err(refused)?;
            if !effects.iter().any(|effect| matches!(effect, Effect::Entered { .. })) {
                return Ok(Stepped { locus, effects });
            }
            let mut batch = Batch::default();
            row.save(&mut batch, &locus);
            effects::add(self, &mut batch, &locus, &effects)?;
            match rows::commit(store, batch).await? {
                Committed::Yes => {
                    effects::after(self, &locus, &effects);
                    return Ok(Stepped { locus, effects });
                }
                Committed::Again => {}
            }
        }
    }

    /// Notes in `batch` that something goes on here.
    pub(super) fn mark_live(&self, batch: &mut Batch, instance: Count) {
        rows::put(batch, live_key(self.id), &Live { conversation: self.id, instance });
    }

    /// Nothing goes on here any more, unless another call has begun since.
    pub(super) async fn mark_quiet(&self, instance: Count) -> Result<(), Problem> {
        let store = &*self.cluster.host.store;
        let row: Loaded<Live> = rows::load(store, live_key(self.id)).await?;
        if row.value.is_none_or(|live| live.instance != instance) {
            return Ok(());
        }
        let mut batch = Batch::default();
        row.remove(&mut batch);
        // A conflict is another call that has begun.
        rows::commit(store, batch).await.map(drop)
    }

    async fn load(&self) -> Result<Loaded<Locus>, Problem> {
        rows::load(&*self.cluster.host.store, key(self.id)).await
    }
}

/// What a call starts with in a conversation as it is now.
pub(super) async fn setting(home: &Home<'_>, membership: &Membership) -> Result<Setting, Problem> {
    let cluster = home.cluster;
    let bounds = media::bounds(cluster, &membership.members);
    let relay = match home.read().await?.is_active() {
        // The call has its relay; should it end before the step, this one is not worth a measurement.
        true => media::candidates(cluster, bounds).first().map(|relay| (*relay).clone()),
        false => media::first_choice(cluster, bounds).await,
    };
    let members = membership.members.iter().map(|member| member.user.clone()).collect();
    Ok(Setting { relay, kind: membership.kind, members })
}

/// The URL of the locus of a conversation.
pub(super) fn locus_url(conversation: &Url) -> Url {
    let mut url = conversation.clone();
    url.set_path(&format!("{}/locus", conversation.path()));
    url
}

pub(super) fn create(batch: &mut Batch, conversation: Uuid) {
    rows::put(batch, key(conversation), &Locus::default());
}

/// Loci in which something goes on, at most `limit`, from `after` on.
pub(super) async fn live(
    cluster: &Cluster,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<(Key, Live)>, Problem> {
    let prefix = rows::key("locus-live", &[]);
    let from = after.map_or_else(|| prefix.clone(), Key::end);
    let found = rows::list_range::<Live>(&*cluster.host.store, &from, &prefix.end(), limit).await?;
    Ok(found.into_iter().filter_map(|row| Some((row.key().clone(), row.value?))).collect())
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::CallOver => Code::CallOver.into(),
        Refusal::NotNow => Code::Conflict.into(),
        Refusal::Moved => Code::Sealing.into(),
        Refusal::TooManyDevices => Problem::new(Code::Unprocessable).detail("too many devices in one call"),
    }
}

fn key(conversation: Uuid) -> Key {
    rows::key("locus", &[&conversation.to_string()])
}

fn live_key(conversation: Uuid) -> Key {
    rows::key("locus-live", &[&conversation.to_string()])
}
