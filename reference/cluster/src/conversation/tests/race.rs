//! Both create at once (CNV-003, CNV-004).

use fusion_protocol::Code;

use super::*;

/// Alice and Bob each create while their clusters cannot hear each other, and each says something.
async fn raced() -> (Chat, Url, Url) {
    let chat = Chat::new().await;
    // Each cluster has met the other's user: pairs whose resolution is known stay usable.
    for (at, user) in [("a", &chat.bob), ("b", &chat.alice)] {
        let found = crate::users::resolve(chat.world.cluster(at), &user.user).await;
        assert!(found.is_ok());
    }
    chat.world.cut("a");
    let (status, by_bob) = chat.create(&chat.bob, &chat.alice).await;
    assert_eq!(status, StatusCode::CREATED, "{by_bob}");
    let bobs = url_in(&by_bob, "url");
    assert_eq!(chat.say(&chat.bob, &bobs, "bob 1").await.0, StatusCode::CREATED);
    chat.world.reconnect("a").await;
    chat.world.cut("b");
    let (status, by_alice) = chat.create(&chat.alice, &chat.bob).await;
    assert_eq!(status, StatusCode::CREATED, "{by_alice}");
    let alices = url_in(&by_alice, "url");
    assert_eq!(chat.say(&chat.alice, &alices, "alice 1").await.0, StatusCode::CREATED);
    assert_eq!(chat.say(&chat.alice, &alices, "alice 2").await.0, StatusCode::CREATED);
    assert_ne!(alices, bobs);
    chat.world.reconnect("b").await;
    (chat, alices, bobs)
}

impl Chat {
    /// Waits until both look-ups answer one conversation that is at rest.
    pub(super) async fn come_to_rest(&self) -> Url {
        for _ in 0..2_000 {
            let (_, one) = self.look_up(&self.alice, &self.bob).await;
            let (_, other) = self.look_up(&self.bob, &self.alice).await;
            if one["url"] == other["url"] && one["state"] == "live" && other["state"] == "live" {
                return url_in(&one, "url");
            }
            self.world.clock.sleep(Duration::from_millis(100)).await;
        }
        panic!("the race never ended");
    }
}

#[tokio::test(start_paused = true)]
async fn two_creations_end_in_one_conversation_with_everything_in_it() {
    let (chat, alices, bobs) = raced().await;
    let winner = chat.come_to_rest().await;
    let loser = if winner == alices { &bobs } else { &alices };
    let (_, _, now) = chat.get(&chat.alice, &winner).await;
    assert_eq!(now["state"], "BOUND");
    let mut texts = chat.texts(&chat.bob, &winner).await;
    let of_alice: Vec<_> = texts.iter().filter(|text| text.starts_with("alice")).cloned().collect();
    assert_eq!(of_alice, ["alice 1", "alice 2"], "in the author's order");
    texts.sort();
    assert_eq!(texts, ["alice 1", "alice 2", "bob 1"], "each exactly once");

    for rest in ["", "/activities", "/activities?after=0"] {
        let asked: Url = format!("{loser}{rest}").parse().expect("a URL");
        let (status, headers, _) = chat.get(&chat.alice, &asked).await;
        assert_eq!(status, StatusCode::PERMANENT_REDIRECT);
        let to = headers[header::LOCATION].to_str().expect("a URL");
        assert_eq!(to, format!("{winner}{rest}"), "one hop leads to the same thing at the winner");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_what_the_loser_accepted_is_the_same_activity_at_the_winner() {
    let (chat, alices, bobs) = raced().await;
    let winner = chat.come_to_rest().await;
    let (author, text) = if winner == alices { (&chat.bob, "bob 1") } else { (&chat.alice, "alice 1") };
    assert_eq!(chat.say(author, &winner, text).await.0, StatusCode::OK);
    let loser = if winner == alices { &bobs } else { &alices };
    assert_eq!(chat.say(author, loser, text).await.0, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(chat.texts(author, &winner).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn both_indexes_end_with_the_winner_and_know_that_the_loser_lost() {
    let (chat, alices, bobs) = raced().await;
    let winner = chat.come_to_rest().await;
    let (loser, author) = if winner == alices { (&bobs, &chat.bob) } else { (&alices, &chat.alice) };
    for user in [&chat.alice, &chat.bob] {
        let has_all =
            |entries: &[Value]| entries.iter().any(|e| e["url"] == winner.as_str() && e["lastSeq"] == "3");
        let entries = chat.index_until(user, has_all).await;
        let of_loser = entries.iter().find(|entry| entry["url"] == loser.as_str());
        match user == author {
            true => assert_eq!(of_loser.map(|e| &e["supersededBy"]), Some(&json!(winner))),
            false => assert_eq!(of_loser, None, "nobody else has ever heard of the loser"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_changes_nothing() {
    for crashing in ["a", "b"] {
        let (mut chat, ..) = raced().await;
        chat.world.clock.sleep(Duration::from_millis(150)).await;
        chat.world.restart(crashing).await;
        let winner = chat.come_to_rest().await;
        let mut texts = chat.texts(&chat.alice, &winner).await;
        texts.sort();
        assert_eq!(texts, ["alice 1", "alice 2", "bob 1"]);
    }
}

/// A claim of cluster a for a conversation of `creator` with Bob, by a rule.
async fn claim_by(chat: &Chat, creator: &UserRef, rule: &str) -> Code {
    let url =
        chat.world.url("a", Service::Conv, &format!("/v1/conversations/{}", fusion_protocol::Uuid::nil()));
    let claim = fusion_protocol::conversation::PeerClaim {
        id: fusion_protocol::Uuid::nil(),
        locus_url: crate::index::locus_url(&url),
        url,
        home: "a".parse().expect("a name"),
        pair_key: fusion_machines::pair::pair_key(creator, &chat.bob),
        rule: rule.to_owned(),
        creator: creator.incarnation,
        other: chat.bob.incarnation,
        epoch: fusion_protocol::Count(1),
        preview: Vec::new(),
        last_seq: fusion_protocol::Count(0),
        made: None,
    };
    let path = format!("/v1/users/{}/peers/{}", chat.bob.user.path_segment(), creator.user.path_segment());
    let at = chat.world.url("b", Service::Conv, &path);
    let answer = crate::peers::call(chat.world.cluster("a"), Method::PUT, &at, &claim).await;
    let Err(crate::peers::PeerError::Refused(problem)) = answer else { panic!("refused") };
    problem.code
}

#[tokio::test(start_paused = true)]
async fn a_cluster_claims_only_for_users_whom_it_serves() {
    let chat = Chat::new().await;
    let carol = chat.world.user("b", "carol@b.example").await;
    let refused = claim_by(&chat, &carol, fusion_protocol::conversation::RULE).await;
    assert_eq!(refused, Code::NotYourObject);
}

#[tokio::test(start_paused = true)]
async fn clusters_with_different_rules_never_agree_on_a_pair() {
    let chat = Chat::new().await;
    for literal in ["literal-timestamp", "literal-id", "literal-emptied", "sf-1to1-v2"] {
        assert_eq!(claim_by(&chat, &chat.alice, literal).await, Code::RuleMismatch, "{literal}");
    }
    assert!(chat.index(&chat.bob).await.is_empty(), "nothing was written");
}
