//! An index that has lost something gets it back from the homes (RDV-007).

use std::time::Duration;

use fusion_protocol::index::{Difference, DigestAnswer, DigestRow, IndexDigest};
use fusion_protocol::{Code, Count, Service};
use fusion_runtime::store::{Batch, Store as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::conversation::testing::{Chat, url_in};
use crate::peers::{self, PeerError};
use crate::rows;

/// The pointers to conversations are gone; the cursor is not.
async fn lose_index(chat: &Chat, cluster: &str) {
    let mut batch = Batch::default();
    for concept in ["index", "index-at", "index-preview"] {
        let prefix = rows::key(concept, &[]);
        let rows = chat.world.store(cluster).scan(&prefix, &prefix.end(), 1_000).await.expect("rows");
        batch.deletes.extend(rows.into_iter().map(|(key, _)| key));
    }
    chat.world.store(cluster).commit(batch).await.expect("a disk that forgets");
}

/// A chat of Alice and Bob in which something was said, and which both have.
async fn chatting() -> (Chat, Value) {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    chat.say(&chat.alice, &url, "one").await;
    chat.say(&chat.bob, &url, "two").await;
    chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["lastSeq"] == "2")).await;
    (chat, made)
}

fn row(chat: &Chat, made: &Value) -> DigestRow {
    DigestRow {
        user: chat.bob.user.clone(),
        incarnation: chat.bob.incarnation,
        url: url_in(made, "url"),
        membership_seq: Count(1),
        last_seq: Count(2),
    }
}

async fn digest(chat: &Chat, from: &str, rows: Vec<DigestRow>) -> Result<Vec<Difference>, Code> {
    let url = chat.world.url("b", Service::Conv, "/v1/index/digests");
    match peers::call(chat.world.cluster(from), Method::POST, &url, &IndexDigest { rows }).await {
        Ok(body) => Ok(serde_json::from_slice::<DigestAnswer>(&body).expect("an answer").differences),
        Err(PeerError::Refused(problem)) => Err(problem.code),
        Err(PeerError::Unreachable) => panic!("nobody answers"),
    }
}

async fn comes_back(chat: &Chat, made: &Value) {
    let entries = chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    assert_eq!((&entries[0]["url"], &entries[0]["lastSeq"]), (&made["url"], &json!("2")));
    let texts: Vec<_> = entries[0]["preview"].as_array().into_iter().flatten().map(|a| &a["text"]).collect();
    assert_eq!(texts, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_lost_comes_back_when_the_clusters_meet_again() {
    let (chat, made) = chatting().await;
    chat.world.clock.sleep(Duration::from_secs(60)).await;
    lose_index(&chat, "b").await;
    chat.world.clock.sleep(Duration::from_secs(60)).await;
    assert!(chat.index(&chat.bob).await.is_empty(), "nobody has had a reason to look");
    chat.world.cut("b");
    let (_, group) = chat
        .create_as(
            &chat.alice,
            json!({
                "participants": [chat.bob.user], "kind": "group", "title": "other"
            }),
        )
        .await;
    chat.world.clock.sleep(Duration::from_secs(20)).await;
    chat.world.reconnect("b").await;
    let both = chat.index_until(&chat.bob, |entries| entries.len() == 2).await;
    assert!(both.iter().any(|entry| entry["url"] == made["url"]));
    assert!(both.iter().any(|entry| entry["url"] == group["url"]));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_lost_comes_back_within_a_day_without_any_reason() {
    let (chat, made) = chatting().await;
    chat.world.clock.sleep(Duration::from_secs(60)).await;
    lose_index(&chat, "b").await;
    chat.world.clock.sleep(Duration::from_secs(24 * 60 * 60)).await;
    comes_back(&chat, &made).await;
}

#[tokio::test(start_paused = true)]
async fn a_home_that_starts_again_looks_after_its_own_users_and_all_others() {
    let (mut chat, made) = chatting().await;
    lose_index(&chat, "a").await;
    lose_index(&chat, "b").await;
    chat.world.restart("a").await;
    comes_back(&chat, &made).await;
    assert_eq!(chat.index(&chat.alice).await[0]["url"], made["url"]);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_asks_for_what_is_missing_or_behind_and_for_nothing_else() {
    let (chat, made) = chatting().await;
    let right = row(&chat, &made);
    let ahead = DigestRow { last_seq: Count(5), ..right.clone() };
    let url =
        chat.world.url("a", Service::Conv, &format!("/v1/conversations/{}", fusion_protocol::Uuid::nil()));
    let missing = DigestRow { url, ..right.clone() };
    let elsewhere = DigestRow { user: chat.alice.user.clone(), ..right.clone() };
    let somebody_else = DigestRow { incarnation: chat.alice.incarnation, ..missing.clone() };
    let asked = digest(&chat, "a", vec![right, ahead, missing, elsewhere, somebody_else]).await;
    let expected =
        vec![Difference { row: 1, last_seq: Some(Count(2)) }, Difference { row: 2, last_seq: None }];
    assert_eq!(asked, Ok(expected));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_asks_only_about_its_own_objects_and_only_clusters_ask() {
    let (chat, made) = chatting().await;
    let (_, bobs) = chat
        .create_as(
            &chat.bob,
            json!({
                "participants": [chat.alice.user], "kind": "group", "title": "bobs"
            }),
        )
        .await;
    let foreign = row(&chat, &bobs);
    assert_eq!(digest(&chat, "a", vec![foreign]).await, Err(Code::NotYourObject));
    let many = vec![row(&chat, &made); fusion_protocol::limits::BATCH_MAX + 1];
    assert_eq!(digest(&chat, "a", many).await, Err(Code::Unprocessable));
    let token = chat.world.token("b", &chat.bob);
    let (status, _) =
        chat.world.post("b", Service::Conv, "/v1/index/digests", &token, json!({ "rows": [] })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_repaired_index_says_nothing_twice() {
    let (mut chat, made) = chatting().await;
    let before = chat.index(&chat.bob).await;
    chat.world.restart("a").await;
    chat.world.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(chat.index(&chat.bob).await, before, "what is right stays as it is, its cursor, too");
    assert_eq!(before[0]["url"], made["url"]);
}
