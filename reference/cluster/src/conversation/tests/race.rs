//! Both create at once (CNV-003, CNV-004).

use fusion_protocol::Code;
use fusion_protocol::conversation::RULE;

use super::*;
use crate::testing::{CONSUMER, World};

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

/// What comes of a claim of cluster `by` for a conversation of `creator` with Bob, by a rule.
async fn claim_by(world: &World, by: &str, creator: &UserRef, bob: &UserRef, rule: &str) -> Result<(), Code> {
    let id = fusion_protocol::Uuid::nil();
    let url = world.url(by, Service::Conv, &format!("/v1/conversations/{id}"));
    let claim = fusion_protocol::conversation::PeerClaim {
        id,
        locus_url: crate::index::locus_url(&url),
        url,
        home: by.parse().expect("a name"),
        pair_key: fusion_machines::pair::pair_key(creator, bob),
        rule: rule.to_owned(),
        creator: creator.incarnation,
        other: bob.incarnation,
        epoch: fusion_protocol::Count(1),
        preview: Vec::new(),
        last_seq: fusion_protocol::Count(0),
        made: None,
    };
    let path = format!("/v1/users/{}/peers/{}", bob.user.path_segment(), creator.user.path_segment());
    let at = world.url("b", Service::Conv, &path);
    match crate::peers::call(world.cluster(by), Method::PUT, &at, &claim).await {
        Ok(_) => Ok(()),
        Err(crate::peers::PeerError::Refused(problem)) => Err(problem.code),
        Err(crate::peers::PeerError::Unreachable) => panic!("b is there"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_claims_only_for_users_whom_it_serves() {
    let chat = Chat::new().await;
    let carol = chat.world.user("b", "carol@b.example").await;
    let claimed = claim_by(&chat.world, "a", &carol, &chat.bob, RULE).await;
    assert_eq!(claimed, Err(Code::NotYourObject));
}

#[tokio::test(start_paused = true)]
async fn who_has_moved_within_the_consumer_org_is_spoken_for_by_the_cluster_they_had() {
    let mut world = World::new(&["a", "b", CONSUMER, "d"]).await;
    let (carol, bob) = (world.user("d", "carol@taken.example").await, world.user("b", "bob@b.example").await);
    // Her address is of a domain that another org has claimed since, and that org does not know her.
    world.claim("taken.example", &["a"]).await;
    world.consumers(&[CONSUMER, "d"]).await;
    assert_eq!(claim_by(&world, "a", &carol, &bob, RULE).await, Err(Code::NotYourObject));
    assert_eq!(claim_by(&world, CONSUMER, &carol, &bob, RULE).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn of_a_loser_whoever_has_moved_is_attested() {
    let mut world = World::new(&["a", "b", "d"]).await;
    world.claim("a.example", &["a", "d"]).await;
    let (alice, bob) = (world.user("a", "alice@a.example").await, world.user("b", "bob@b.example").await);
    let chat = Chat { world, alice, bob };
    let (_, made) = chat.create(&chat.alice, &chat.bob).await;
    let url = url_in(&made, "url");
    assert_eq!(chat.say(&chat.alice, &url, "hello").await.0, StatusCode::CREATED);
    let cluster = chat.world.cluster("a");
    let id = chat.world.template.locate(&url).expect("a URL").path.rsplit('/').next().map(str::parse);
    let id = id.expect("an id").expect("an id");
    let attested_by = async || {
        let (_, loser) = crate::conversation::store::existing(cluster, id).await.expect("it is there");
        let page = crate::conversation::merge::page(cluster, id, &loser, fusion_protocol::Count(0)).await;
        page.expect("it can be read").into_iter().map(|said| said.attested_by).collect::<Vec<_>>()
    };
    assert_eq!(attested_by().await, [None], "who is served here speaks for themselves");
    let path = format!("/v1/moves/{}", chat.alice.user.path_segment());
    let admin = chat.world.admin_token("a");
    let (status, _) = chat.world.post("a", Service::Users, &path, &admin, json!({ "to": "d" })).await;
    assert!(status.is_success());
    let served = async || crate::users::served_here(cluster, &chat.alice.user).await;
    while !served().await.is_ok_and(|row| row.value.is_none()) {
        chat.world.clock.sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(attested_by().await, [Some(cluster.name().clone())]);
}

#[tokio::test(start_paused = true)]
async fn clusters_with_different_rules_never_agree_on_a_pair() {
    let chat = Chat::new().await;
    for literal in ["literal-timestamp", "literal-id", "literal-emptied", "sf-1to1-v2"] {
        assert_eq!(
            claim_by(&chat.world, "a", &chat.alice, &chat.bob, literal).await,
            Err(Code::RuleMismatch),
            "{literal}"
        );
    }
    assert!(chat.index(&chat.bob).await.is_empty(), "nothing was written");
}
