//! Groups, with members of other clusters (CNV-006).

use super::*;

async fn group(chat: &Chat, members: &[&UserRef]) -> (StatusCode, Value) {
    let others: Vec<_> = members.iter().map(|member| &member.user).collect();
    let body = json!({ "participants": others, "kind": "group", "title": "tea" });
    chat.create_as(&chat.alice, body).await
}

#[tokio::test(start_paused = true)]
async fn a_group_reaches_its_members_wherever_they_are() {
    let chat = Chat::new().await;
    let carol = chat.world.user("a", "carol@a.example").await;
    let (status, made) = group(&chat, &[&chat.bob, &carol]).await;
    assert_eq!((status, &made["state"]), (StatusCode::CREATED, &json!("BOUND")), "{made}");
    assert_eq!(chat.index(&carol).await[0]["title"], "tea");
    let entries = chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    assert_eq!((&entries[0]["url"], &entries[0]["title"]), (&made["url"], &json!("tea")));
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_gets_an_entry_and_the_history_at_the_home() {
    let chat = Chat::new().await;
    let (_, made) = group(&chat, &[]).await;
    let url = url_in(&made, "url");
    chat.say(&chat.alice, &url, "anybody?").await;
    let add = json!({ "verb": "add", "user": chat.bob.user });
    assert_eq!(chat.act(&chat.alice, &url, "add", add.clone()).await.0, StatusCode::CREATED);
    assert_eq!(chat.act(&chat.alice, &url, "again", add).await.0, StatusCode::CONFLICT);
    let entries = chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    assert_eq!(texts(&entries[0]["preview"]), Vec::<String>::new(), "the own index starts at the join");
    assert_eq!(chat.texts(&chat.bob, &url).await, ["anybody?"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_out_at_once_and_keeps_a_pointer() {
    let chat = Chat::new().await;
    let (_, made) = group(&chat, &[&chat.bob]).await;
    let url = url_in(&made, "url");
    let leave = json!({ "verb": "leave" });
    assert_eq!(chat.act(&chat.bob, &url, "leave", leave).await.0, StatusCode::CREATED);
    assert_eq!(chat.say(&chat.bob, &url, "wait").await.0, StatusCode::FORBIDDEN);
    chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["membership"] == "left")).await;
    chat.say(&chat.alice, &url, "he has gone").await;
    chat.world.clock.sleep(Duration::from_secs(5)).await;
    assert_eq!(chat.index(&chat.bob).await[0]["lastSeq"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_creation_is_the_same_group() {
    let chat = Chat::new().await;
    let create = || async {
        let body = json!({ "participants": [chat.bob.user], "kind": "group" });
        let url = chat.world.url("a", Service::Conv, "/v1/conversations");
        let request = Request::post(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", chat.world.token("a", &chat.alice)))
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, "one")
            .body(body.to_string().into());
        chat.world.send_raw(request.expect("a request")).await
    };
    let ((first, _, one), (second, _, other)) = (create().await, create().await);
    assert_eq!((first.as_u16(), second.as_u16(), &one["url"]), (201, 200, &other["url"]));
}

#[tokio::test(start_paused = true)]
async fn one_unreachable_cluster_delays_nobody_else() {
    let chat = Chat::new().await;
    let carol = chat.world.user("a", "carol@a.example").await;
    chat.world.cut("b");
    let (status, made) = group(&chat, &[&chat.bob, &carol]).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(chat.index(&carol).await.len(), 1);
    assert_eq!(made["participants"][1]["incarnation"], Value::Null, "not resolved yet");
    chat.world.reconnect("b").await;
    chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    let (_, _, now) = chat.get(&chat.alice, &url_in(&made, "url")).await;
    let bob = now["participants"].as_array().and_then(|all| all.iter().find(|p| p["cluster"] == "b"));
    assert_eq!(bob.map(|bob| &bob["incarnation"]), Some(&json!(chat.bob.incarnation)));
}
