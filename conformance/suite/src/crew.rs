//! Who a run plays: admins, and the users that they make and take away again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_history::Recorder;
use fusion_protocol::{Address, ClusterName};
use fusion_runtime::Host;
use futures_util::StreamExt as _;

use crate::Admin;
use crate::device::{Device, Failure, lock};
use crate::target::{ReadyUser, Target, Writes};
use crate::transcript::Transcript;

/// What every user of a run is called first, so that one left behind is known by its name.
pub(crate) const PREFIX: &str = "cf";
/// How long a check waits for a ready user that another one has.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How many users are deleted at a time.
const DELETED_AT_ONCE: usize = 8;

/// Everything that the checks of one run share.
pub(crate) struct Crew {
    pub(crate) host: Host,
    pub(crate) target: Arc<Target>,
    pub(crate) recorder: Recorder,
    /// The run's mark in every name it gives.
    pub(crate) run: String,
    admins: Mutex<BTreeMap<ClusterName, Admin>>,
    journal: Mutex<Vec<Entry>>,
    ready: Mutex<Vec<ReadyUser>>,
}

/// A user that may have to be taken away. Written down before the user is made.
#[derive(Clone)]
struct Entry {
    admin: Admin,
    user: Address,
    /// SCIM's id; `None`: the user may have been made, and nobody knows.
    id: Option<String>,
}

impl Crew {
    pub(crate) fn new(host: Host, target: Arc<Target>, recorder: Recorder) -> Self {
        let run = mark(&host);
        let ready = Mutex::new(target.users.clone());
        Self { host, target, recorder, run, admins: Mutex::default(), journal: Mutex::default(), ready }
    }

    /// The admin of `cluster`'s org.
    pub(crate) fn admin(&self, cluster: &ClusterName) -> Result<Admin, Failure> {
        let mut admins = lock(&self.admins);
        if let Some(admin) = admins.get(cluster) {
            return Ok(admin.clone());
        }
        let name = format!("admin@{cluster}");
        let (host, target, recorder) = (self.host.clone(), self.target.clone(), self.recorder.clone());
        let admin = Admin::new(host, target, cluster.clone(), &name, recorder)?;
        admins.insert(cluster.clone(), admin.clone());
        Ok(admin)
    }

    /// A user of `cluster`, made by its admin, or a ready one where there is no admin.
    pub(crate) async fn user(
        &self,
        cluster: &ClusterName,
        name: &str,
        display_name: &str,
        transcript: &Transcript,
    ) -> Result<Address, Failure> {
        let admin = match (self.target.limits.writes, self.admin(cluster)) {
            (Writes::Allowed, Ok(admin)) => admin.with_transcript(transcript.clone()),
            _ => return self.take_ready(cluster).await,
        };
        let address = self.address(cluster, name)?;
        self.provision(&admin, &address, display_name).await?;
        Ok(address)
    }

    /// An address for a user called `name` that nobody else has.
    pub(crate) fn address(&self, cluster: &ClusterName, name: &str) -> Result<Address, Failure> {
        let domain = self.target.org_of(cluster).and_then(|(_, org)| org.domains.first());
        let domain =
            domain.ok_or_else(|| Failure::Unreachable(format!("the org of {cluster} has no domain")))?;
        let address = format!("{PREFIX}-{}-{name}@{domain}", self.run).parse();
        address.map_err(|error| Failure::Unreachable(format!("{name} makes no address: {error}")))
    }

    /// Makes a user whom [`Crew::clean_up`] takes away.
    pub(crate) async fn provision(
        &self,
        admin: &Admin,
        user: &Address,
        display_name: &str,
    ) -> Result<String, Failure> {
        lock(&self.journal).push(Entry { admin: admin.clone(), user: user.clone(), id: None });
        let made = admin.provision(user, Some(display_name)).await;
        let mut journal = lock(&self.journal);
        let place = journal.iter().rposition(|entry| entry.user == *user);
        match (&made, place) {
            (Ok(record), Some(place)) => journal[place].id.clone_from(&record.id),
            // Refused: there is nobody to take away.
            (Err(Failure::Refused(_) | Failure::Unreachable(_)), Some(place)) => drop(journal.remove(place)),
            _ => {}
        }
        drop(journal);
        made?.id.ok_or_else(|| Failure::Garbled { status: 201, reason: "the user has no id".to_owned() })
    }

    /// A user has been deleted by a check.
    pub(crate) fn forget(&self, user: &Address) {
        lock(&self.journal).retain(|entry| entry.user != *user);
    }

    /// A device of `user`.
    pub(crate) fn device(&self, user: &Address, name: &str, transcript: &Transcript) -> Device {
        let (host, target, recorder) = (self.host.clone(), self.target.clone(), self.recorder.clone());
        Device::new(host, target, user.clone(), name, recorder).with_transcript(transcript.clone())
    }

    /// A ready user goes back to where it was taken from.
    pub(crate) fn give_back(&self, user: &Address) {
        let ready = self.target.users.iter().filter(|ready| ready.address == *user);
        lock(&self.ready).extend(ready.cloned());
    }

    /// Deletes every user that the run has made; answers the names of those that are left.
    pub(crate) async fn clean_up(&self) -> Vec<String> {
        let entries = std::mem::take(&mut *lock(&self.journal));
        let deleted = entries.into_iter().map(|entry| async move {
            let gone = delete(&entry).await;
            match gone {
                Ok(()) => None,
                Err(failure) if failure.refused().is_some_and(|refused| refused.status == 404) => None,
                Err(failure) => {
                    Some(format!("{} at {}: {failure}", entry.user.as_str(), entry.admin.cluster()))
                }
            }
        });
        let left = futures_util::stream::iter(deleted).buffer_unordered(DELETED_AT_ONCE);
        left.filter_map(|left| async move { left }).collect().await
    }

    /// A ready user of `cluster`, as soon as no other check needs it.
    async fn take_ready(&self, cluster: &ClusterName) -> Result<Address, Failure> {
        let until = self.host.clock.now() + READY_WITHIN;
        loop {
            let taken = {
                let mut ready = lock(&self.ready);
                let place = ready.iter().position(|user| user.cluster == *cluster);
                place.map(|place| ready.remove(place).address)
            };
            if let Some(address) = taken {
                return Ok(address);
            }
            if self.host.clock.now() > until {
                return Err(Failure::Unreachable(format!("the target has too few ready users at {cluster}")));
            }
            self.host.clock.sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn delete(entry: &Entry) -> Result<(), Failure> {
    let id = match &entry.id {
        Some(id) => Some(id.clone()),
        // The answer to its making never came: ask whether it was made.
        None => entry.admin.find(&entry.user).await?.and_then(|record| record.id),
    };
    match id {
        Some(id) => entry.admin.deprovision(&entry.user, &id).await,
        None => Ok(()),
    }
}

/// Six letters and digits that no other run has, as far as chance goes.
fn mark(host: &Host) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let entropy = host.entropy.stream("conformance run");
    // A run on a seeded host would have the same mark each time: on one deployment that must not be.
    let mut number = entropy.u64() ^ host.clock.wall().0;
    (0..6)
        .map(|_| {
            let digit = DIGITS[(number % 32) as usize];
            number /= 32;
            digit as char
        })
        .collect()
}
