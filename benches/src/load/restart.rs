//! How soon a cluster with a million stored activities serves again.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fusion_conformance::device::{Ask, Device};
use fusion_protocol::Uuid;
use fusion_runtime::Store as _;
use fusion_runtime::store::{Batch, EmbeddedStore, Key};
use http::Method;

use super::{Cores, block_on, stage};
use crate::How;
use crate::measure::Rounds;
use crate::people::People;
use crate::processes::Security;
use crate::row::{Report, Row, Target};

/// Activities of one conversation.
const OF_ONE: u64 = 1_000;
/// Conversations of one commit.
const AT_ONCE: u64 = 10;

pub(super) fn run(how: &How, report: &Report, cores: Cores) -> Result<()> {
    let names = [("restart_1m_activities_s", false), ("restart_1m_activities_after_kill_s", true)];
    if !names.iter().any(|(name, _)| how.wants(name)) {
        return Ok(());
    }
    let activities = how.size(1_000_000, 20_000);
    report.progress("a cluster is used, then stopped");
    let (mut federation, people) = stage(how, Security::Tls, cores)?;
    let alice = block_on(used(&people))?;
    federation.stop("cluster-a", false)?;
    let file = federation.path("data/a.redb");
    report.progress(&format!("{activities} activities are stored"));
    block_on(async { copies(&EmbeddedStore::open(&file)?, activities / OF_ONE).await })?;
    let megabytes = std::fs::metadata(&file)?.len() / 1_000_000;
    for (name, by_force) in names {
        let mut took = Vec::new();
        for round in 0..how.rounds() {
            report.progress(&format!(
                "restart {}, round {}",
                if by_force { "after kill -9" } else { "in good order" },
                round + 1
            ));
            // The first one opens what was filled; from the second on the cluster itself has closed it.
            if round > 0 || by_force {
                block_on(alive(&people, &alice))?;
                federation.stop("cluster-a", by_force)?;
            }
            took.push(federation.serve("cluster-a")?.as_secs_f64());
        }
        block_on(alive(&people, &alice))?;
        let took = Rounds::of(took);
        let row = Row::new(name, took.median, "s", Target::AtMost(2.0));
        report.add(row.under(format!(
            "{activities} activities in {megabytes} MB, from the start of the process until it serves, {}; {}",
            if by_force { "after kill -9 just after a write" } else { "after SIGTERM" },
            took.range()
        )));
    }
    Ok(())
}

/// A conversation with one message, so that there are rows as the cluster writes them.
async fn used(people: &People) -> Result<Device> {
    let alice = people.make("a", "alice", 1).await?.pop().context("nobody")?;
    let bob = people.make("b", "bob", 1).await?.pop().context("nobody")?;
    let conversation = alice.one_to_one(bob.user()).await?.into_it().url;
    alice.say(&conversation, &"x".repeat(100)).await?;
    Ok(alice)
}

/// The cluster answers, and writes.
async fn alive(people: &People, alice: &Device) -> Result<()> {
    let fresh = people.device(alice.user(), "again");
    fresh.register().await?;
    let home = fresh.home().context("not logged in")?;
    let url = people.target.template.url(&home, fusion_protocol::Service::Conv, "/v1/health");
    fresh.send(&Ask::new(Method::GET, url)).await?.success()?;
    Ok(())
}

/// Copies the rows of the one activity there is, `OF_ONE` times into each of so many conversations.
async fn copies(store: &EmbeddedStore, conversations: u64) -> Result<()> {
    let first = |concept: &'static [u8]| async move {
        let prefix = Key::of(&[concept]);
        let rows = store.scan(&prefix, &prefix.end(), 1).await?;
        rows.into_iter().next().map(|(_, row)| row.value).context("no row to copy")
    };
    let templates = Templates {
        conversation: first(b"conversation").await?,
        activity: first(b"activity").await?,
        place: first(b"activity-id").await?,
    };
    for from in (0..conversations).step_by(AT_ONCE as usize) {
        let mut batch = Batch::default();
        for number in from..(from + AT_ONCE).min(conversations) {
            templates.conversation(&mut batch, Uuid::from_u128(u128::from(number) << 64 | 1));
        }
        store.commit(batch).await?;
    }
    Ok(())
}

/// Rows as the cluster wrote them.
struct Templates {
    conversation: Bytes,
    activity: Bytes,
    place: Bytes,
}

impl Templates {
    fn conversation(&self, batch: &mut Batch, id: Uuid) {
        let id = id.to_string();
        batch.put(Key::of(&[b"conversation", id.as_bytes()]), self.conversation.clone());
        for seq in 1..=OF_ONE {
            let place = format!("{seq:016x}");
            batch.put(Key::of(&[b"activity", id.as_bytes(), place.as_bytes()]), self.activity.clone());
            // Identities are digests: spread over the table, as theirs are.
            let digest =
                format!("{:064x}", u128::from(seq).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            batch.put(Key::of(&[b"activity-id", id.as_bytes(), digest.as_bytes()]), self.place.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_has_rows_of_its_own() {
        let text = Bytes::from_static(b"{}");
        let templates = Templates { conversation: text.clone(), activity: text.clone(), place: text };
        let mut batch = Batch::default();
        templates.conversation(&mut batch, Uuid::from_u128(1));
        templates.conversation(&mut batch, Uuid::from_u128(2));
        let keys: std::collections::BTreeSet<_> = batch.puts.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len() as u64, 2 * (1 + 2 * OF_ONE));
    }
}
