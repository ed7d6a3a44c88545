//! Conversations (CNV).

use fusion_protocol::conversation::{Act, Activity, Conversation, PeerState};
use fusion_protocol::{Address, Code, Count, Url};
use futures_util::future::{join, join_all};

use crate::check::{Check, Checked, Need, Stop, Verdict};
use crate::device::{Device, Made};
use crate::stage::{Judged as _, Stage};

/// How many messages each of two writes when both write at once.
const MESSAGES: usize = 8;
/// How many pairs try to race before the check gives up reaching the race.
const RACES: usize = 6;

pub(super) const CHECKS: &[Check] = &[
    Check::new("CNV-001.one-order", &[Need::TwoOrgs], |stage| Box::pin(one_order(stage))),
    Check::new("CNV-001.repeated-post", &[Need::TwoOrgs], |stage| Box::pin(repeated_post(stage))),
    Check::new("CNV-002.create-twice", &[Need::TwoOrgs], |stage| Box::pin(create_twice(stage))),
    Check::new("CNV-002.fixed-members", &[Need::TwoOrgs], |stage| Box::pin(fixed_members(stage))),
    Check::new("CNV-003.created-at-once", &[Need::TwoOrgs], |stage| Box::pin(created_at_once(stage)))
        .within(180),
    Check::new("CNV-006.late-joiner", &[Need::TwoOrgs], |stage| Box::pin(late_joiner(stage))),
];

async fn one_order(stage: &Stage) -> Checked {
    let (alice, bob, made) = pair(stage).await?;
    let (a, b) = join(
        write_and_read_own(stage, &alice, &made.url, "alice"),
        write_and_read_own(stage, &bob, &made.url, "bob"),
    )
    .await;
    a?;
    b?;
    let by_alice = alice.read(&made.url).await.must(stage, "conversation-unreadable")?;
    let by_bob = bob.read(&made.url).await.must(stage, "conversation-unreadable")?;
    stage.require(by_alice == by_bob, "orders-differ", "both read the same in the same order")?;
    let gapless = by_alice.iter().zip(1..).all(|(activity, seq)| activity.seq == Count(seq));
    stage.require(
        gapless,
        "gap",
        format!("{} activities are numbered from 1 without gaps", by_alice.len()),
    )?;
    let said = texts(&by_alice).len();
    stage.require(said == 2 * MESSAGES, "message-lost", format!("all {} messages are there", 2 * MESSAGES))
}

async fn repeated_post(stage: &Stage) -> Checked {
    let (alice, bob, made) = pair(stage).await?;
    let once = alice.keyed("said-once").say(&made.url, "just once").await.must(stage, "message-refused")?;
    let again = alice.keyed("said-once").say(&made.url, "just once").await.must(stage, "message-refused")?;
    stage.require(
        once.is_new() && !again.is_new(),
        "made-twice",
        "the first is made (201), the second is known",
    )?;
    let same = once.it().id == again.it().id && once.it().seq == again.it().seq;
    stage.require(same, "made-twice", "both answers are of the same activity")?;
    // Keys are each author's own.
    let other = bob.keyed("said-once").say(&made.url, "me too").await.must(stage, "message-refused")?;
    stage.require(other.is_new(), "keys-shared", "another author's equal key is another key")?;
    let read = bob.read(&made.url).await.must(stage, "conversation-unreadable")?;
    let count = texts(&read).into_iter().filter(|(_, text)| text == "just once").count();
    stage.require(count == 1, "message-doubled", format!("the message is there {count} times"))
}

async fn create_twice(stage: &Stage) -> Checked {
    let (alice, bob, made) = pair(stage).await?;
    let again = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?;
    same_conversation(stage, "the creator", &again, &made.url)?;
    let found = stage
        .eventually("not-found", "the other's cluster knows the conversation of the pair", || async {
            bob.look_up(alice.user()).await.ok()
        })
        .await?;
    stage.require(
        found.url == made.url,
        "second-conversation",
        "the other looks up the same conversation",
    )?;
    let other_way = bob.one_to_one(alice.user()).await.must(stage, "create-refused")?;
    same_conversation(stage, "the other", &other_way, &made.url)?;
    let entries = bob.read_index().await.must(stage, "own-index-unreadable")?;
    let live = entries.iter().filter(|entry| entry.superseded_by.is_none()).count();
    stage.require(
        live == 1,
        "second-conversation",
        format!("the other's index has {live} live conversations"),
    )
}

async fn fixed_members(stage: &Stage) -> Checked {
    let (alice, bob, made) = pair(stage).await?;
    let carol = stage.person("carol", &stage.here()?).await?.user;
    alice.say(&made.url, "only us two").await.must(stage, "message-refused")?;
    for (what, act) in [
        ("adding a third", Act::Add { user: carol }),
        ("leaving", Act::Leave {}),
        ("removing the other", Act::Remove { user: bob.user().clone() }),
    ] {
        let tried = alice.post(&made.url, act).await;
        stage.refused(tried, what, &[Code::FixedMembership], "members-changed")?;
    }
    let alone = alice.one_to_one(alice.user()).await;
    stage.refused(alone, "creating one with oneself", &[Code::SamePerson], "alone-together")?;
    bob.say(&made.url, "still here").await.must(stage, "participant-refused").map(drop)
}

/// Several pairs, because a race is a matter of luck: in some of them a message must reach the loser
/// before it has lost.
async fn created_at_once(stage: &Stage) -> Checked {
    let races = join_all((0..RACES).map(|_| race(stage))).await;
    let reached = races.into_iter().collect::<Result<Vec<bool>, Stop>>()?;
    let reached = reached.into_iter().filter(|reached| *reached).count();
    if reached == 0 {
        return Err(stage.inconclusive("race-not-reached", format!("{RACES} pairs never made two at once")));
    }
    let text = format!("{reached} of {RACES} pairs had made two conversations");
    stage.saw("race-reached", Verdict::Pass, text);
    Ok(())
}

/// One pair creates and writes at once; says whether there were two conversations for a while.
async fn race(stage: &Stage) -> Result<bool, Stop> {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    for (who, other) in [(&alice, &bob), (&bob, &alice)] {
        // Both know where the other is, so that neither creation waits for it.
        who.resolve(other.user()).await.set_up(stage, "resolving the other")?;
    }
    let (by_alice, by_bob) = join(
        create_and_write(stage, &alice, bob.user(), "alice"),
        create_and_write(stage, &bob, alice.user(), "bob"),
    )
    .await;
    let (by_alice, by_bob) = (by_alice?, by_bob?);
    converges(stage, (&alice, &by_alice), (&bob, &by_bob)).await?;
    Ok(by_alice.url != by_bob.url)
}

async fn create_and_write(
    stage: &Stage,
    who: &Device,
    other: &Address,
    name: &str,
) -> Result<Conversation, Stop> {
    let made = who.one_to_one(other).await.must(stage, "create-refused")?.into_it();
    write(stage, who, &made.url, name).await?;
    Ok(made)
}

/// CNV-004: in the end there is one conversation with everything that was said in either.
async fn converges(
    stage: &Stage,
    (alice, by_alice): (&Device, &Conversation),
    (bob, by_bob): (&Device, &Conversation),
) -> Checked {
    let winner = stage
        .eventually("not-one", "both look up the same live conversation", || async {
            let (a, b) = join(alice.look_up(bob.user()), bob.look_up(alice.user())).await;
            let (a, b) = (a.ok()?, b.ok()?);
            let one = a.url == b.url && a.state == PeerState::Live && b.state == PeerState::Live;
            one.then_some(a.url)
        })
        .await?;
    let everything = 2 * MESSAGES;
    let read = stage
        .eventually("message-lost", &format!("all {everything} messages are in it"), || async {
            let read = alice.read(&winner).await.ok()?;
            (texts(&read).len() >= everything).then_some(read)
        })
        .await?;
    let said = texts(&read);
    let once = said.len() == everything;
    stage.require(once, "message-doubled", format!("{} messages are there, each once", said.len()))?;
    for who in [alice, bob] {
        let own: Vec<&str> =
            said.iter().filter(|(author, _)| author == who.user()).map(|(_, text)| text.as_str()).collect();
        let ordered = own.is_sorted() && own.len() == MESSAGES;
        stage.require(ordered, "order-changed", format!("{}'s messages are in their order", who.name()))?;
        let same = who.read(&winner).await.must(stage, "conversation-unreadable")? == read;
        stage.require(same, "orders-differ", "both read the same in the same order")?;
        // Every URL ever handed out leads there, in one hop.
        for old in [&by_alice.url, &by_bob.url] {
            let still = who.read(old).await.must(stage, "old-url-broken")?;
            stage.require(still == read, "old-url-broken", "an old URL leads to the same conversation")?;
        }
        let again = who.one_to_one(if who.user() == alice.user() { bob.user() } else { alice.user() }).await;
        let again = again.must(stage, "create-refused")?.into_it();
        stage.require(
            again.url == winner,
            "second-conversation",
            "creating again gives the one that remained",
        )?;
    }
    Ok(())
}

async fn late_joiner(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let carol = stage.user("carol", &stage.yonder()?).await?;
    let made = alice.group(&[bob.user().clone()], "project").await.must(stage, "create-refused")?.into_it();
    alice.say(&made.url, "before you came").await.must(stage, "message-refused")?;
    bob.post(&made.url, Act::Add { user: carol.user().clone() }).await.must(stage, "add-refused")?;
    stage
        .eventually("not-in-index", "the late joiner finds the group in the own index", || async {
            carol.read_index().await.ok()?.into_iter().find(|entry| entry.url == made.url)
        })
        .await?;
    let read = carol.read(&made.url).await.must(stage, "participant-refused")?;
    let before = texts(&read).iter().any(|(_, text)| text == "before you came");
    stage.require(before, "no-history", "the late joiner reads what was said before")?;
    carol.say(&made.url, "thanks").await.must(stage, "participant-refused")?;
    let read = alice.read(&made.url).await.must(stage, "conversation-unreadable")?;
    let heard = texts(&read).iter().any(|(author, text)| author == carol.user() && text == "thanks");
    stage.require(heard, "message-lost", "the others read what the late joiner says")
}

async fn pair(stage: &Stage) -> Result<(Device, Device, Conversation), Stop> {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?;
    stage.require(made.is_new(), "not-new", "the first creation answers 201")?;
    Ok((alice, bob, made.into_it()))
}

/// CNV-001: after each message its author reads it.
async fn write_and_read_own(stage: &Stage, who: &Device, conversation: &Url, name: &str) -> Checked {
    for n in 0..MESSAGES {
        let said = who.say(conversation, &format!("{name} {n:02}")).await.must(stage, "message-refused")?;
        let before = Count(said.it().seq.0.saturating_sub(1));
        let page = who.read_page(conversation, before).await.must(stage, "conversation-unreadable")?;
        let read = page.activities.first().is_some_and(|first| first.id == said.it().id);
        stage.require(read, "own-write-unread", "an author reads the own message at its place")?;
    }
    Ok(())
}

async fn write(stage: &Stage, who: &Device, conversation: &Url, name: &str) -> Checked {
    for n in 0..MESSAGES {
        who.say(conversation, &format!("{name} {n:02}")).await.must(stage, "message-refused")?;
    }
    Ok(())
}

fn same_conversation(stage: &Stage, who: &str, made: &Made<Conversation>, url: &Url) -> Checked {
    let same = !made.is_new() && made.it().url == *url;
    let text = format!("{who} creates again and gets the one that is: {}", made.it().url);
    stage.require(same, "second-conversation", text)
}

fn texts(activities: &[Activity]) -> Vec<(Address, String)> {
    let message = |activity: &Activity| match &activity.act {
        Act::Message { text } => Some((activity.author.clone(), text.expose().clone())),
        _ => None,
    };
    activities.iter().filter_map(message).collect()
}
