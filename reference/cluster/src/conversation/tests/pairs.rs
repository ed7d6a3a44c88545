//! 1:1 conversations without a race.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_alice_creates_and_says_appears_in_bobs_index() {
    let chat = Chat::new().await;
    let (status, made) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!((status, &made["state"]), (StatusCode::CREATED, &json!("PROVISIONAL")), "{made}");
    let url = url_in(&made, "url");
    assert_eq!(chat.say(&chat.alice, &url, "hi").await.0, StatusCode::CREATED);

    let entries = chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["lastSeq"] == "1")).await;
    assert_eq!((entries.len(), &entries[0]["url"]), (1, &made["url"]));
    assert_eq!(entries[0]["home"], "a");
    assert_eq!(texts(&entries[0]["preview"]), ["hi"]);

    assert_eq!(chat.say(&chat.bob, &url, "hello").await.0, StatusCode::CREATED);
    assert_eq!(chat.texts(&chat.alice, &url).await, ["hi", "hello"]);
    let (_, _, now) = chat.get(&chat.alice, &url).await;
    assert_eq!(now["state"], "BOUND");
    let own = chat.index_until(&chat.alice, |entries| entries.iter().any(|e| e["lastSeq"] == "2")).await;
    assert_eq!(texts(&own[0]["preview"]), ["hi", "hello"]);
}

#[tokio::test(start_paused = true)]
async fn creating_again_from_either_side_is_the_same_conversation() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let (status, again) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!((status, &again["url"]), (StatusCode::OK, &made["url"]));
    chat.index_until(&chat.bob, |entries| !entries.is_empty()).await;
    let (status, others) = chat.create(&chat.bob, &chat.alice).await;
    assert_eq!((status, &others["url"], &others["id"]), (StatusCode::OK, &made["url"], &made["id"]));
    let (status, found) = chat.look_up(&chat.bob, &chat.alice).await;
    assert_eq!((status, &found["url"], &found["state"]), (StatusCode::OK, &made["url"], &json!("live")));
}

#[tokio::test(start_paused = true)]
async fn two_users_of_one_cluster_are_bound_at_once() {
    let chat = Chat::new().await;
    let carol = chat.world.user("a", "carol@a.example").await;
    let (status, made) = chat.create(&chat.alice, &carol).await;
    assert_eq!((status, &made["state"]), (StatusCode::CREATED, &json!("BOUND")));
    assert_eq!(chat.index(&carol).await[0]["url"], made["url"]);
    let (status, same) = chat.create(&carol, &chat.alice).await;
    assert_eq!((status, &same["url"]), (StatusCode::OK, &made["url"]));
}

#[tokio::test(start_paused = true)]
async fn a_one_to_one_needs_two_people_who_exist_and_keeps_them() {
    let chat = Chat::new().await;
    let (status, problem) = chat.create(&chat.alice, &chat.alice).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("same-person")));
    let body = json!({ "participants": ["nobody@b.example"], "kind": "oneToOne" });
    let (status, problem) = chat.create_as(&chat.alice, body).await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("user-unknown")));

    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    for act in [json!({ "verb": "add", "user": "carol@a.example" }), json!({ "verb": "leave" })] {
        let (status, _, problem) = chat.act(&chat.alice, &url, "k", act).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("fixed-membership")));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_resolved_now_cannot_be_written_to_for_the_first_time() {
    let chat = Chat::new().await;
    chat.world.cut("b");
    let (status, problem) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("resolution-incomplete")));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_post_is_the_same_activity() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    let act = json!({ "verb": "message", "text": "hi" });
    let (first, _, one) = chat.act(&chat.alice, &url, "k", act.clone()).await;
    let (second, _, other) = chat.act(&chat.alice, &url, "k", act).await;
    assert_eq!((first.as_u16(), second.as_u16(), &one), (201, 200, &other));
    assert_eq!(chat.texts(&chat.alice, &url).await, ["hi"]);
}

#[tokio::test(start_paused = true)]
async fn only_participants_read_or_write() {
    let chat = Chat::new().await;
    let mallory = chat.world.user("b", "mallory@b.example").await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    let (status, problem) = chat.say(&mallory, &url, "let me in").await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("not-participant")));
    for url in [url.clone(), below(&url, "activities")] {
        assert_eq!(chat.get(&mallory, &url).await.0, StatusCode::FORBIDDEN);
    }
    let path = format!("/v1/users/{}/index", chat.alice.user.path_segment());
    let token = chat.world.guest_token("b", &mallory, "a");
    assert_eq!(chat.world.get("a", Service::Conv, &path, &token).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_text_has_a_limit_and_an_author_takes_it_back() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    let long = "x".repeat(fusion_protocol::limits::TEXT_MAX + 1);
    let (status, _, problem) =
        chat.act(&chat.alice, &url, "long", json!({ "verb": "message", "text": long })).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("unprocessable")));

    let (_, said) = chat.say(&chat.alice, &url, "oops").await;
    let delete = json!({ "verb": "delete", "activity": said["id"] });
    assert_eq!(chat.act(&chat.alice, &url, "d", delete).await.0, StatusCode::CREATED);
    assert_eq!(chat.texts(&chat.alice, &url).await, [""]);
    let entries = chat.index_until(&chat.bob, |e| e.first().is_some_and(|e| e["lastSeq"] == "2")).await;
    assert_eq!(texts(&entries[0]["preview"]), [""]);
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other() {
    let chat = Chat::new().await;
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    for number in 1..=5 {
        chat.say(&chat.alice, &url, &number.to_string()).await;
    }
    let page = |query: &str| format!("{url}/activities?{query}").parse::<Url>().expect("a URL");
    let (_, _, first) = chat.get(&chat.alice, &page("limit=2")).await;
    assert_eq!((texts(&first["activities"]), &first["next"]), (vec!["1".into(), "2".into()], &json!("2")));
    let (_, _, last) = chat.get(&chat.alice, &page("after=4&limit=2")).await;
    assert_eq!((texts(&last["activities"]), &last["next"]), (vec!["5".into()], &Value::Null));
    assert_eq!(chat.get(&chat.alice, &page("after=x")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_refused_for_good_is_tried_again_when_somebody_asks() {
    let chat = Chat::new().await;
    let b = chat.world.cluster("b");
    crate::users::resolve(chat.world.cluster("a"), &chat.bob.user).await.expect("resolved");
    let row = crate::users::served_here(b, &chat.bob.user).await.expect("a row");
    let mut batch = fusion_runtime::store::Batch::default();
    crate::users::remove(&mut batch, &row);
    b.host.store.commit(batch).await.expect("removed");

    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    let mut now = made;
    while now["participants"][1]["unreachable"] != "user-unknown" {
        chat.world.clock.sleep(Duration::from_millis(100)).await;
        now = chat.get(&chat.alice, &url).await.2;
    }

    let vacant = crate::users::served_here(b, &chat.bob.user).await.expect("no row");
    let mut batch = fusion_runtime::store::Batch::default();
    crate::users::insert(&mut batch, &vacant, row.value.as_ref().expect("a row"));
    b.host.store.commit(batch).await.expect("inserted");
    let (status, again) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!((status, &again["url"]), (StatusCode::OK, &now["url"]));
    chat.index_until(&chat.bob, |entries| entries.iter().any(|e| e["url"] == now["url"])).await;
}
