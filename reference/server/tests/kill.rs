//! Survives kill -9: a cluster with the embedded store is killed at random points under load, and an
//! outside client's list of acknowledgements is compared with what is there after the restart.
//!
//! `STACK_FUSION_KILLS` says how often (20 by default, 200 in CI); `STACK_FUSION_SEED` repeats the
//! moments of an earlier run.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fusion_protocol::Url;
use fusion_protocol::conversation::ActivityId;
use fusion_runtime::Entropy;
use support::Federation;
use support::client::{Failure, Outside};

/// How many clients write at the same time, of each kind.
const WRITERS: usize = 4;
/// A kill comes at a random moment within this time of load.
const LOAD_MS: u64 = 300;

/// What the cluster has acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// Users, by address: where their record is.
    users: BTreeMap<String, Url>,
    /// Activities, by `seq`.
    activities: BTreeMap<u64, ActivityId>,
}

/// The load, and what it was told.
#[derive(Clone)]
struct Load {
    outside: Outside,
    admin: String,
    alice: String,
    conversation: Url,
    number: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    let kills = from_environment("STACK_FUSION_KILLS").unwrap_or(20);
    let seed = from_environment("STACK_FUSION_SEED").unwrap_or_else(|| Entropy::from_system().u64());
    eprintln!("{kills} kills, STACK_FUSION_SEED={seed}");
    let moments = Entropy::from_u64(seed);

    let federation = Federation::init().await;
    let _provider = federation.start("provider", "provider.toml").await;
    let mut cluster = federation.start("cluster", "cluster-a.toml").await;
    let load = Load::prepare(&federation).await;
    for kill in 1..=kills {
        let writers = load.start();
        load.outside.host.clock.sleep(Duration::from_millis(moments.below(LOAD_MS))).await;
        cluster.kill().await;
        for writer in writers {
            writer.join().await.expect("a writer ends when nobody answers");
        }
        cluster = federation.start("cluster", "cluster-a.toml").await;
        load.compare_activities().await;
        if kill % 20 == 0 || kill == kills {
            load.compare_users().await;
        }
    }
    let (users, activities) = load.counts();
    eprintln!("{users} users and {activities} activities were acknowledged, and none is missing");
    assert!(users as u64 > kills && activities as u64 > kills, "there was load");
    assert_eq!(cluster.terminate().await, Some(0), "a graceful end after all that");
}

impl Load {
    async fn prepare(federation: &Federation) -> Self {
        let outside = Outside::new(federation, "a", "acme");
        let admin = outside.admin_token().await;
        for user in ["alice@acme.example", "bob@acme.example"] {
            outside.provision_soon(&admin, user).await;
        }
        let alice = outside.user_token("alice@acme.example").await;
        let conversation = outside.group(&alice, "bob@acme.example").await;
        Self { outside, admin, alice, conversation, number: Arc::default(), acknowledged: Arc::default() }
    }

    fn start(&self) -> Vec<fusion_runtime::tasks::Task<()>> {
        let tasks = &self.outside.host.tasks;
        let users = (0..WRITERS).map(|_| tasks.spawn(self.clone().write_users()));
        let activities = (0..WRITERS).map(|_| tasks.spawn(self.clone().write_activities()));
        users.chain(activities).collect()
    }

    async fn write_users(self) {
        loop {
            let user = format!("user-{}@acme.example", self.number.fetch_add(1, Ordering::Relaxed));
            match self.outside.provision(&self.admin, &user).await {
                Ok(record) => drop(self.told().users.insert(user, record)),
                Err(Failure::NoAnswer) => return,
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    async fn write_activities(self) {
        loop {
            let text = format!("message {}", self.number.fetch_add(1, Ordering::Relaxed));
            match self.outside.say(&self.alice, &self.conversation, &text).await {
                Ok(said) => {
                    let before = self.told().activities.insert(said.seq.0, said.id);
                    assert!(before.is_none(), "two activities with seq {}", said.seq);
                }
                Err(Failure::NoAnswer) => return,
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    /// Every acknowledged user has a record that says so.
    async fn compare_users(&self) {
        let users = self.told().users.clone();
        for (user, record) in users {
            let name = self.outside.user_name(&self.admin, &record).await;
            assert_eq!(name.expect("an acknowledged user is there"), user);
        }
    }

    /// Every acknowledged activity is in its place, and no place is empty.
    async fn compare_activities(&self) {
        let kept = self.outside.activities(&self.alice, &self.conversation, 0).await;
        let kept = kept.expect("the conversation can be read");
        for (at, activity) in kept.iter().enumerate() {
            assert_eq!(activity.seq.0, at as u64 + 1, "gapless (CNV-001)");
        }
        for (seq, id) in &self.told().activities {
            let found = kept.get(*seq as usize - 1).map(|activity| activity.id);
            assert_eq!(found, Some(*id), "the acknowledged activity {seq} is lost");
        }
    }

    fn counts(&self) -> (usize, usize) {
        let told = self.told();
        (told.users.len(), told.activities.len())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
