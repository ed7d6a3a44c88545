//! The index as its user and other clusters meet it.

mod repair;

use std::time::Duration;

use fusion_protocol::conversation::Kind;
use fusion_protocol::index::{BatchAnswer, IndexBatch, IndexWrite, Membership};
use fusion_protocol::{ClusterName, Code, Count, Incarnation, Service, Uuid};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::conversation::testing::{Chat, url_in};
use crate::peers;

fn write(chat: &Chat, conversation: u128) -> IndexWrite {
    let id = Uuid::from_u128(conversation);
    let url = chat.world.url("a", Service::Conv, &format!("/v1/conversations/{id}"));
    IndexWrite {
        id: Uuid::from_u128(conversation << 64),
        user: chat.bob.user.clone(),
        incarnation: chat.bob.incarnation,
        epoch: Count(1),
        locus_url: super::locus_url(&url),
        url,
        kind: Kind::Group,
        title: None,
        membership: Membership::Member,
        membership_seq: Count(1),
        last_seq: Count(0),
        activities: Vec::new(),
        superseded_by: None,
        event: None,
    }
}

async fn send(chat: &Chat, rows: Vec<IndexWrite>) -> Vec<Option<Code>> {
    let url = chat.world.url("b", Service::Conv, "/v1/index");
    let body = peers::call(chat.world.cluster("a"), Method::POST, &url, &IndexBatch { rows }).await;
    let answer: BatchAnswer = serde_json::from_slice(&body.expect("answered")).expect("an answer");
    answer.results.into_iter().map(|result| result.code).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_writes_only_of_its_own_objects_for_users_who_are_here() {
    let chat = Chat::new().await;
    let own = write(&chat, 1);
    let c: ClusterName = "c".parse().expect("a name");
    let foreign_url = chat.world.template.url(&c, Service::Conv, own.url.path());
    let foreign =
        IndexWrite { locus_url: super::locus_url(&foreign_url), url: foreign_url, ..write(&chat, 2) };
    let elsewhere = IndexWrite { user: chat.alice.user.clone(), ..write(&chat, 3) };
    let another = IndexWrite { incarnation: Incarnation(Uuid::nil()), ..write(&chat, 4) };
    let stale = IndexWrite { epoch: Count(0), ..write(&chat, 5) };
    let no_conversation = chat.world.template.url(&c, Service::Users, "/v1/users/x");
    let misled = IndexWrite { superseded_by: Some(no_conversation), ..write(&chat, 6) };
    let codes = send(&chat, vec![own.clone(), foreign, elsewhere, another, stale, misled]).await;
    assert_eq!(
        codes,
        [
            None,
            Some(Code::NotYourObject),
            Some(Code::WrongCluster),
            Some(Code::IncarnationGone),
            Some(Code::WrongCluster),
            Some(Code::UntrustedUrl)
        ]
    );
    let entries = chat.index(&chat.bob).await;
    assert_eq!((entries.len(), &entries[0]["url"]), (1, &json!(own.url)));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_batch_changes_nothing() {
    let chat = Chat::new().await;
    let rows: Vec<_> = (1..=3).map(|number| write(&chat, number)).collect();
    send(&chat, rows.clone()).await;
    let before = chat.index(&chat.bob).await;
    assert_eq!(send(&chat, rows).await, [None, None, None]);
    assert_eq!(chat.index(&chat.bob).await, before);
    let cursors: Vec<_> = before.iter().map(|entry| entry["cursor"].clone()).collect();
    assert_eq!(cursors, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_with_an_events_cursor_waits_for_what_it_announced() {
    let chat = Chat::new().await;
    let path = format!("/v1/users/{}/index?atLeast=1", chat.bob.user.path_segment());
    let token = chat.world.token("b", &chat.bob);
    let reading = chat.world.get("b", Service::Conv, &path, &token);
    let writing = async {
        chat.world.clock.sleep(Duration::from_secs(3)).await;
        send(&chat, vec![write(&chat, 1)]).await
    };
    let started = chat.world.clock.now();
    let ((status, page), _) = tokio::join!(reading, writing);
    assert_eq!((status, page["entries"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    assert!(chat.world.clock.now() - started < Duration::from_secs(4), "it does not wait any longer");
    let path = path.replace("atLeast=1", "atLeast=9");
    let (status, page) = chat.world.get("b", Service::Conv, &path, &token).await;
    assert_eq!((status, &page["cursor"]), (StatusCode::OK, &json!("1")), "nor for ever");
}

#[tokio::test(start_paused = true)]
async fn an_index_is_read_in_order_of_change_and_from_where_one_was() {
    let chat = Chat::new().await;
    send(&chat, (1..=3).map(|number| write(&chat, number)).collect()).await;
    send(&chat, vec![IndexWrite { last_seq: Count(1), ..write(&chat, 1) }]).await;
    let urls: Vec<_> = chat.index(&chat.bob).await.iter().map(|entry| entry["url"].clone()).collect();
    let url = |number| json!(write(&chat, number).url);
    assert_eq!(urls, [url(2), url(3), url(1)]);
    let path = format!("/v1/users/{}/index?after=3", chat.bob.user.path_segment());
    let (_, page) = chat.world.get("b", Service::Conv, &path, &chat.world.token("b", &chat.bob)).await;
    assert_eq!((page["entries"].as_array().map(Vec::len), &page["cursor"]), (Some(1), &json!("4")));
}

#[tokio::test(start_paused = true)]
async fn hiding_is_a_flag_of_the_own_index() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url =
        chat.world.url("a", Service::Conv, &format!("/v1/users/{}/index", chat.alice.user.path_segment()));
    let token = chat.world.token("a", &chat.alice);
    let hide = |what: Value| chat.world.send(Method::PATCH, &url, &token, Some(what));
    let (status, ..) = hide(json!({ "url": made["url"], "hidden": true })).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(chat.index(&chat.alice).await[0]["hidden"], true);
    let (status, ..) = hide(json!({ "url": write(&chat, 9).url, "hidden": true })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, again) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!((status, &again["url"]), (StatusCode::OK, &made["url"]), "hiding empties no slot");
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_is_gone_and_its_cursor_goes_on() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    chat.say(&chat.alice, &url_in(&made, "url"), "hi").await;
    super::erase(chat.world.cluster("a"), &chat.alice.user).await.expect("erased");
    assert!(chat.index(&chat.alice).await.is_empty());
    let left = chat.world.store("a").snapshot();
    let index = left.keys().filter(|key| key.parts()[0].starts_with(b"index-preview")).count();
    assert_eq!(index, 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_read_before_its_newest_activity_does_not_show_it() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    chat.say(&chat.alice, &url, "one").await;
    let (a, alice) = (chat.world.cluster("a"), &chat.alice.user);
    let read = super::store::entry(a, alice, &url).await.expect("read").value.expect("an entry");
    chat.say(&chat.alice, &url, "two").await;
    let preview = super::store::preview(a, alice, &read).await.expect("read");
    let shown: Vec<Count> = preview.iter().map(|activity| activity.seq).collect();
    assert_eq!((shown, read.last_seq), (vec![Count(1)], Count(1)));
}

#[tokio::test(start_paused = true)]
async fn the_index_is_written_before_the_device_is_woken() {
    let chat = Chat::new().await;
    let at = chat.world.url("b", Service::Mercury, "/v1/devices");
    let token = chat.world.token("b", &chat.bob);
    let (status, _, device) = chat.world.send(Method::POST, &at, &token, Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{device}");
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    chat.say(&chat.alice, &url_in(&made, "url"), "hi").await;
    chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["lastSeq"] == "1")).await;
    let rows = chat.world.store("b").snapshot();
    let events: Vec<Value> = rows
        .iter()
        .filter(|(key, _)| key.parts()[0] == b"device-event")
        .map(|(_, row)| serde_json::from_slice(&row.value).expect("an event"))
        .collect();
    let seen: Vec<_> = events.iter().map(|e| (&e["eventType"], &e["data"]["indexCursor"])).collect();
    assert_eq!(
        seen,
        [(&json!("conversation.created"), &json!("1")), (&json!("conversation.activity"), &json!("2")),]
    );
    assert_eq!(events[1]["data"]["activity"]["text"], "hi");
}
