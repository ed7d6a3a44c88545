//! Changes to the indexes of users served here, collected for one commit.

use std::collections::BTreeMap;

use fusion_machines::index::{Entry, Shown, merge, needs_preview};
use fusion_protocol::conversation::Activity;
use fusion_protocol::index::{IndexWrite, Membership};
use fusion_protocol::map::UserRecord;
use fusion_protocol::mercury::{EventType, Notification};
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Problem, Url, Uuid};
use fusion_runtime::probe::StateChange;
use fusion_runtime::store::Batch;
use serde_json::json;

use super::store::{self, CursorRow};
use crate::locks::Held;
use crate::rows::Loaded;
use crate::users::{self, UserRow};
use crate::{Cluster, mercury};

/// Changes to indexes in one batch: [`Changes::write`] as often as needed, then [`Changes::finish`], then
/// the commit, then [`Notices::now`]. On a conflict begin again with a new batch.
pub(crate) struct Changes<'a> {
    cluster: &'a Cluster,
    users: BTreeMap<Address, Index>,
    wake: mercury::Wake,
}

/// Whom to tell once the commit is durable.
#[must_use = "readers and devices are told by `now`, after the commit"]
pub(crate) struct Notices {
    wake: mercury::Wake,
    grown: Vec<(Address, Count)>,
    reports: Vec<StateChange>,
}

/// One user's index as loaded, and as it is to be.
struct Index {
    served: Loaded<UserRow>,
    cursor: Loaded<CursorRow>,
    last: Count,
    entries: BTreeMap<Url, Pointer>,
    /// Whether the commit depends on the user being served here, even if no entry changes.
    relied_on: bool,
}

/// One entry as loaded, and as it is to be.
struct Pointer {
    loaded: Loaded<Entry>,
    now: Option<Entry>,
    /// What becomes of activities of the preview: kept as this, or dropped.
    preview: BTreeMap<Count, Option<Activity>>,
}

/// Holds the indexes of `users`, in one order for everybody, so that commits seldom conflict.
pub(crate) async fn hold<'c>(
    cluster: &'c Cluster,
    users: impl IntoIterator<Item = &Address>,
) -> Vec<Held<'c>> {
    let mut users: Vec<_> = users.into_iter().collect();
    users.sort();
    users.dedup();
    let mut held = Vec::with_capacity(users.len());
    for user in users {
        held.push(cluster.locks.hold(format!("index/{}", user.as_str())).await);
    }
    held
}

impl<'a> Changes<'a> {
    /// No changes yet.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, users: BTreeMap::new(), wake: mercury::Wake::default() }
    }

    /// Merges a write of `home` into its user's index, and wakes the user's devices if it says anything
    /// new (RDV-002). A new entry is `shown` or kept back.
    ///
    /// # Errors
    /// `wrong-cluster` when the user is not served here or was resolved at an older epoch (MAP-007),
    /// `incarnation-gone` when it is somebody else now (NAM-004); nothing is changed then.
    pub(crate) async fn write(
        &mut self,
        batch: &mut Batch,
        home: &ClusterName,
        write: &IndexWrite,
        shown: Shown,
    ) -> Result<(), Problem> {
        let cluster = self.cluster;
        let index = self.index(&write.user).await?;
        index.admits(write)?;
        let pointer = index.pointer(cluster, &write.user, &write.url).await?;
        let preview = match needs_preview(pointer.now.as_ref(), write) {
            true => pointer.load_preview(cluster, &write.user).await?,
            false => Vec::new(),
        };
        let Some(mut merged) = merge(pointer.now.as_ref(), &preview, write, home) else { return Ok(()) };
        if pointer.now.is_none() {
            merged.entry.shown = shown;
        }
        pointer.preview.extend(merged.drop.into_iter().map(|seq| (seq, None)));
        pointer.preview.extend(merged.keep.into_iter().map(|activity| (activity.seq, Some(activity))));
        index.put(merged.entry);
        self.tell(batch, write).await
    }

    /// The record of a user who is served here: nobody while the user is being moved away (MAP-007).
    pub(crate) async fn served(&mut self, user: &Address) -> Result<Option<UserRecord>, Problem> {
        match self.index(user).await {
            Ok(index) => Ok(index.served.value.as_ref().map(|row| row.record.clone())),
            Err(problem) if problem.code == Code::Fenced => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Makes the commit depend on a user being served here as now, whether the index changes or not: for
    /// what else is kept with it, and would be left behind by a move (MAP-007). Answers whether the user
    /// is served here.
    ///
    /// # Errors
    /// `fenced` while the user is being moved away.
    pub(crate) async fn rely_on(&mut self, user: &Address) -> Result<bool, Problem> {
        let index = self.index(user).await?;
        index.relied_on = true;
        Ok(index.served.value.is_some())
    }

    /// Shows an entry that was kept back until a merge was over (CNV-003).
    pub(crate) async fn show(&mut self, batch: &mut Batch, user: &Address, url: &Url) -> Result<(), Problem> {
        let cluster = self.cluster;
        let index = self.index(user).await?;
        let incarnation = index.incarnation();
        let entry = index.pointer(cluster, user, url).await?.now.clone();
        let Some(mut entry) = entry.filter(|entry| entry.shown == Shown::Held) else { return Ok(()) };
        entry.shown = Shown::Listed;
        index.put(entry);
        let event = EventType::ConversationCreated;
        self.notify(batch, user, incarnation, cluster.host.entropy.uuid(), url, event, None).await
    }

    /// Wakes a user's devices without a change of the index.
    pub(crate) async fn remind(
        &mut self,
        batch: &mut Batch,
        user: &Address,
        url: &Url,
    ) -> Result<(), Problem> {
        let Some(record) = self.served(user).await? else { return Ok(()) };
        let (id, event) = (self.cluster.host.entropy.uuid(), EventType::ConversationChanged);
        self.notify(batch, user, record.incarnation, id, url, event, None).await
    }

    /// CNV-002: hides an entry from its user's list, or shows it again; `not-found` without an entry.
    pub(crate) async fn hide(&mut self, user: &Address, url: &Url, hidden: bool) -> Result<(), Problem> {
        let cluster = self.cluster;
        let index = self.index(user).await?;
        let mut entry = index.pointer(cluster, user, url).await?.now.clone().ok_or(Code::NotFound)?;
        if entry.is_hidden() != hidden {
            entry.hide(hidden);
            index.put(entry);
        }
        Ok(())
    }

    /// Completes the batch.
    pub(crate) fn finish(self, batch: &mut Batch) -> Notices {
        let mut notices = Notices { wake: self.wake, grown: Vec::new(), reports: Vec::new() };
        for (user, index) in self.users {
            index.save(self.cluster, batch, &user, &mut notices);
        }
        notices
    }

    async fn index(&mut self, user: &Address) -> Result<&mut Index, Problem> {
        if !self.users.contains_key(user) {
            let served = users::served_here(self.cluster, user).await?;
            let cursor = store::cursor(self.cluster, user).await?;
            let last = cursor.value.unwrap_or_default().cursor;
            let index = Index { served, cursor, last, entries: BTreeMap::new(), relied_on: false };
            self.users.insert(user.clone(), index);
        }
        self.users.get_mut(user).ok_or_else(|| Code::Internal.into())
    }

    /// The event of a write, unless its entry is kept back.
    async fn tell(&mut self, batch: &mut Batch, write: &IndexWrite) -> Result<(), Problem> {
        let listed = |entry: &Entry| entry.shown == Shown::Listed;
        let pointer = self.users.get(&write.user).and_then(|index| index.entries.get(&write.url));
        let is_listed = pointer.and_then(|pointer| pointer.now.as_ref()).is_some_and(listed);
        match write.event {
            Some(event) if is_listed => {
                let activity = write.activities.last();
                let (user, url) = (&write.user, &write.url);
                self.notify(batch, user, write.incarnation, write.id, url, event, activity).await
            }
            _ => Ok(()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the members of one notification")]
    async fn notify(
        &mut self,
        batch: &mut Batch,
        user: &Address,
        incarnation: Incarnation,
        id: Uuid,
        url: &Url,
        event_type: EventType,
        activity: Option<&Activity>,
    ) -> Result<(), Problem> {
        // What is added to the devices' queues must not be left behind, either.
        self.rely_on(user).await?;
        let cursor = self.users.get(user).map_or(Count(0), |index| index.last);
        let data = match (event_type, activity) {
            (EventType::ConversationActivity, Some(activity)) => {
                json!({ "indexCursor": cursor, "seq": activity.seq, "activity": activity })
            }
            _ => json!({ "indexCursor": cursor }),
        };
        let notification =
            Notification { id, event_type, resource: url.clone(), incarnation: Some(incarnation), data };
        let wake = mercury::enqueue(self.cluster, batch, user, &notification).await?;
        self.wake.merge(wake);
        Ok(())
    }
}

impl Notices {
    /// Tells devices and waiting readers, and whoever watches states.
    pub(crate) fn now(self, cluster: &Cluster) {
        for (user, cursor) in &self.grown {
            super::publish(cluster, user, *cursor);
        }
        self.wake.now(cluster);
        self.reports.into_iter().for_each(|report| cluster.host.probe.state(report));
    }
}

impl Index {
    fn admits(&self, write: &IndexWrite) -> Result<(), Problem> {
        let Some(UserRow { record, .. }) = &self.served.value else { return Err(Code::WrongCluster.into()) };
        if record.incarnation != write.incarnation {
            return Err(Code::IncarnationGone.into());
        }
        if write.epoch < record.version {
            return Err(Code::WrongCluster.into());
        }
        Ok(())
    }

    fn incarnation(&self) -> Incarnation {
        self.served.value.as_ref().map_or(Incarnation(Uuid::nil()), |row| row.record.incarnation)
    }

    async fn pointer(
        &mut self,
        cluster: &Cluster,
        user: &Address,
        url: &Url,
    ) -> Result<&mut Pointer, Problem> {
        if !self.entries.contains_key(url) {
            let loaded = store::entry(cluster, user, url).await?;
            let now = loaded.value.clone();
            self.entries.insert(url.clone(), Pointer { loaded, now, preview: BTreeMap::new() });
        }
        self.entries.get_mut(url).ok_or_else(|| Code::Internal.into())
    }

    /// A changed entry gets the next place of the index, if it is listed.
    fn put(&mut self, mut entry: Entry) {
        if entry.shown == Shown::Listed {
            self.last = self.last.next();
            entry.cursor = self.last;
        }
        if let Some(pointer) = self.entries.get_mut(&entry.url) {
            pointer.now = Some(entry);
        }
    }

    fn save(self, cluster: &Cluster, batch: &mut Batch, user: &Address, notices: &mut Notices) {
        let (served, watched) = (&self.served, cluster.host.probe.watches_state());
        let mut changed = self.relied_on;
        for pointer in self.entries.into_values() {
            let Some(entry) = pointer.now.as_ref().filter(|now| pointer.loaded.value.as_ref() != Some(now))
            else {
                continue;
            };
            changed = true;
            pointer.save(batch, user, entry);
            if watched && entry.shown == Shown::Listed {
                notices.reports.push(report(user, entry));
            }
        }
        if changed {
            served.unchanged(batch);
        }
        if self.last != self.cursor.value.unwrap_or_default().cursor {
            self.cursor.save(batch, &CursorRow { cursor: self.last });
            notices.grown.push((user.clone(), self.last));
        }
    }
}

impl Pointer {
    /// The preview as it will be: what is stored, and what this batch changes.
    async fn load_preview(&self, cluster: &Cluster, user: &Address) -> Result<Vec<Activity>, Problem> {
        let Some(entry) = &self.now else { return Ok(Vec::new()) };
        let mut preview: BTreeMap<Count, Activity> = BTreeMap::new();
        if let Some(stored) = &self.loaded.value {
            let stored = store::preview(cluster, user, stored).await?;
            preview.extend(stored.into_iter().map(|activity| (activity.seq, activity)));
        }
        for (seq, change) in &self.preview {
            match change {
                Some(activity) => drop(preview.insert(*seq, activity.clone())),
                None => drop(preview.remove(seq)),
            }
        }
        Ok(preview.into_values().filter(|activity| activity.seq >= entry.preview_from()).collect())
    }

    fn save(&self, batch: &mut Batch, user: &Address, entry: &Entry) {
        self.loaded.save(batch, entry);
        let before = self.loaded.value.as_ref().map_or(Count(0), |before| before.cursor);
        if before != entry.cursor {
            if before != Count(0) {
                store::delete_at(batch, user, before);
            }
            store::put_at(batch, user, entry.cursor, &entry.url);
        }
        for (seq, change) in &self.preview {
            match change {
                Some(activity) => store::put_preview(batch, user, &entry.url, activity),
                None => store::delete_preview(batch, user, &entry.url, *seq),
            }
        }
    }
}

fn report(user: &Address, entry: &Entry) -> StateChange {
    let state = match entry.membership {
        Membership::Member => "MEMBER",
        Membership::Left => "LEFT",
    };
    StateChange {
        concept: "index",
        subject: entry.url.to_string(),
        state: state.to_owned(),
        detail: json!({
            "user": user,
            "cursor": entry.cursor,
            "lastSeq": entry.last_seq,
            "membershipSeq": entry.membership_seq,
            "supersededBy": entry.superseded_by,
        }),
    }
}
