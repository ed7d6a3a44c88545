//! The outbox between two clusters: loss, restart, refusal for good.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::conversation::testing::{Chat, texts, url_in};

#[tokio::test(start_paused = true)]
async fn what_a_restart_interrupts_is_sent_by_the_next_life_in_order() {
    let mut chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    chat.world.cut("b");
    for number in 1..=5 {
        assert_eq!(chat.say(&chat.alice, &url, &number.to_string()).await.0, StatusCode::CREATED);
    }
    chat.world.restart("a").await;
    chat.world.reconnect("b").await;
    let entries = chat.index_until(&chat.bob, |entries| entries[0]["lastSeq"] == "5").await;
    assert_eq!(texts(&entries[0]["preview"]), ["1", "2", "3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn an_answered_row_is_gone_and_an_idle_outbox_sleeps() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    chat.say(&chat.alice, &url_in(&made, "url"), "hi").await;
    chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["lastSeq"] == "1")).await;
    chat.world.clock.sleep(Duration::from_secs(2)).await;
    let outbox = crate::rows::key("outbox", &[]);
    let store = chat.world.store("a").snapshot();
    assert_eq!(store.range(&outbox..&outbox.end()).count(), 0);
    let state = chat.world.cluster("a").outbox.state();
    assert!(state.machine.is_empty() && state.posted.is_empty() && state.senders.is_empty());
    assert_eq!(state.machine.next_due(), None);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_gone_for_good_is_shown_to_the_creator() {
    let chat = Chat::new().await;
    let body = json!({ "participants": [chat.bob.user], "kind": "group" });
    let (_, made) = chat.create_as(&chat.alice, body).await;
    let url = url_in(&made, "url");
    chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    let row = crate::users::served_here(chat.world.cluster("b"), &chat.bob.user).await.expect("a row");
    let mut batch = fusion_runtime::store::Batch::default();
    crate::users::remove(&mut batch, &row);
    chat.world.cluster("b").host.store.commit(batch).await.expect("committed");
    chat.say(&chat.alice, &url, "still there?").await;
    for _ in 0..200 {
        let (_, _, now) = chat.get(&chat.alice, &url).await;
        if now["participants"][1]["unreachable"] == "user-unknown" {
            return;
        }
        chat.world.clock.sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody was told");
}

#[tokio::test(start_paused = true)]
async fn a_dead_cluster_is_shown_as_unreachable_until_it_answers() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.bob, &chat.alice).await;
    chat.say(&chat.bob, &url_in(&made, "url"), "hi").await;
    let has_it = |entries: &[Value]| entries.iter().any(|entry| entry["lastSeq"] == "1");
    let entries = chat.index_until(&chat.alice, has_it).await;
    assert_eq!(entries[0]["reachable"], true);
    chat.world.cut("b");
    chat.world.clock.sleep(Duration::from_secs(16)).await;
    let entries = chat.index(&chat.alice).await;
    assert_eq!(entries[0]["reachable"], false);
    assert_eq!(texts(&entries[0]["preview"]), ["hi"], "what is known of it is still there");
    chat.world.reconnect("b").await;
    chat.index_until(&chat.alice, |entries| entries[0]["reachable"] == true).await;
}
