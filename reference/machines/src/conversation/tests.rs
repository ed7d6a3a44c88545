use fusion_protocol::Uuid;
use proptest::prelude::*;

use super::*;
use crate::pair::pair_key;

fn user(name: &str) -> UserRef {
    let number = name.bytes().fold(0_u128, |sum, byte| sum * 256 + u128::from(byte));
    UserRef {
        user: format!("{name}@x.example").parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(number)),
    }
}

fn participant(name: &str, cluster: &str) -> Participant {
    let user = user(name);
    Participant {
        user: user.user,
        incarnation: Some(user.incarnation),
        cluster: Some(cluster.parse().unwrap()),
        joined_seq: Count(0),
        unreachable: None,
    }
}

fn conversation(members: Members, participants: Vec<Participant>) -> Conversation {
    let home: ClusterName = "a".parse().unwrap();
    let url = format!("https://{home}-conv.provider.example/v1/conversations/1").parse().unwrap();
    Conversation {
        place: Contender::new(url, home),
        members,
        life: Life::Bound,
        creator: user("alice"),
        title: None,
        participants,
        last_seq: Count(0),
        membership_seq: Count(1),
        created: String::new(),
    }
}

fn group() -> Conversation {
    conversation(Members::Open, vec![participant("alice", "a"), participant("bob", "b")])
}

fn one_to_one() -> Conversation {
    let pair = pair_key(&user("alice"), &user("bob"));
    conversation(Members::Fixed { pair }, vec![participant("alice", "a"), participant("bob", "b")])
}

fn message(text: &str) -> Act {
    Act::Message { text: text.into() }
}

fn post(
    to: &mut Conversation,
    who: &str,
    key: &str,
    act: &Act,
    about: &About<'_>,
) -> Result<Posted, Refusal> {
    let author = user(who);
    let id = activity_id(to, &author, key);
    to.post(Author { user: &author, id, published: String::new() }, act, about)
}

#[test]
fn activities_get_places_without_gaps() {
    let mut group = group();
    for seq in 1..=5 {
        let posted = post(&mut group, "alice", &seq.to_string(), &message("hi"), &About::Itself).unwrap();
        assert_eq!(posted.activity.seq, Count(seq));
    }
    assert_eq!(group.last_seq, Count(5));
}

#[test]
fn a_refused_post_changes_nothing() {
    let mut one_to_one = one_to_one();
    let before = one_to_one.clone();
    let add = Act::Add { user: user("carol").user };
    assert_eq!(post(&mut one_to_one, "alice", "1", &add, &About::Itself), Err(Refusal::FixedMembership));
    assert_eq!(
        post(&mut one_to_one, "mallory", "2", &message("hi"), &About::Itself),
        Err(Refusal::NotParticipant)
    );
    let long = "x".repeat(limits::TEXT_MAX + 1);
    assert_eq!(post(&mut one_to_one, "alice", "3", &message(&long), &About::Itself), Err(Refusal::TooLong));
    assert_eq!(post(&mut one_to_one, "alice", "4", &message(""), &About::Itself), Err(Refusal::Empty));
    assert_eq!(one_to_one, before);
}

#[test]
fn a_one_to_one_has_fixed_members() {
    let bob = user("bob").user;
    let acts = [
        Act::Add { user: bob.clone() },
        Act::Leave {},
        Act::Remove { user: bob },
        Act::Title { title: "x".into() },
    ];
    for act in acts {
        assert_eq!(
            post(&mut one_to_one(), "alice", "1", &act, &About::Itself),
            Err(Refusal::FixedMembership)
        );
    }
}

#[test]
fn another_person_at_a_participants_address_is_no_participant() {
    let group = group();
    let impostor = UserRef { incarnation: Incarnation(Uuid::from_u128(99)), ..user("bob") };
    assert!(group.is_participant(&user("bob")));
    assert!(!group.is_participant(&impostor));
}

#[test]
fn a_newcomer_is_told_of_a_conversation_and_the_others_of_a_change() {
    let mut group = group();
    let carol = user("carol");
    let about = About::Newcomer { incarnation: Some(carol.incarnation), cluster: "c".parse().ok() };
    let posted = post(&mut group, "bob", "1", &Act::Add { user: carol.user.clone() }, &about).unwrap();
    let told: Vec<_> =
        posted.announce.iter().map(|one| (one.to.user.local_part().to_owned(), one.event)).collect();
    assert_eq!(
        told,
        [
            ("alice".to_owned(), EventType::ConversationChanged),
            ("bob".to_owned(), EventType::ConversationChanged),
            ("carol".to_owned(), EventType::ConversationCreated),
        ]
    );
    assert_eq!((group.membership_seq, group.participants[2].joined_seq), (Count(2), Count(1)));
    assert_eq!(
        post(&mut group, "alice", "2", &Act::Add { user: carol.user }, &about),
        Err(Refusal::AlreadyIn)
    );
}

#[test]
fn whoever_leaves_or_is_removed_is_out_at_once() {
    let mut group = group();
    let posted = post(&mut group, "bob", "1", &Act::Leave {}, &About::Itself).unwrap();
    let left: Vec<_> = posted.announce.iter().filter(|one| one.membership == Membership::Left).collect();
    assert_eq!((left.len(), &left[0].to.user), (1, &user("bob").user));
    assert_eq!(post(&mut group, "bob", "2", &message("wait"), &About::Itself), Err(Refusal::NotParticipant));
    let remove = Act::Remove { user: user("bob").user };
    assert_eq!(post(&mut group, "alice", "3", &remove, &About::Itself), Err(Refusal::NotIn));
}

#[test]
fn only_the_author_takes_an_activity_back() {
    let mut group = group();
    let said = post(&mut group, "alice", "1", &message("oops"), &About::Itself).unwrap().activity;
    let delete = Act::Delete { activity: said.id };
    let about = About::Activity(Some(&said));
    assert_eq!(post(&mut group, "bob", "2", &delete, &about), Err(Refusal::NotAuthor));
    let posted = post(&mut group, "alice", "2", &delete, &about).unwrap();
    assert_eq!(posted.taken_back.unwrap().act, message(""));
    assert_eq!(post(&mut group, "alice", "3", &delete, &About::Activity(None)), Err(Refusal::NoSuchActivity));
}

#[test]
fn a_sealed_conversation_takes_no_writes_and_a_superseded_one_says_where_to_go() {
    let url = "https://b-conv.provider.example/v1/conversations/2".parse().unwrap();
    let winner = Contender::new(url, "b".parse().unwrap());
    let mut sealed = one_to_one();
    sealed.life = Life::Sealing { winner: winner.clone() };
    assert_eq!(post(&mut sealed, "alice", "1", &message("hi"), &About::Itself), Err(Refusal::Sealing));
    sealed.life = Life::Superseded { winner: winner.clone() };
    assert_eq!(
        post(&mut sealed, "alice", "1", &message("hi"), &About::Itself),
        Err(Refusal::Superseded(winner.url))
    );
}

#[test]
fn whoever_was_given_up_on_is_told_nothing_until_somebody_tries_again() {
    let mut one_to_one = one_to_one();
    let bob = user("bob").user;
    one_to_one.give_up_on(&bob, Code::NotYourObject);
    let posted = post(&mut one_to_one, "alice", "1", &message("hi"), &About::Itself).unwrap();
    assert_eq!(posted.announce.len(), 1);
    assert_eq!(one_to_one.try_again(), Some(bob));
    assert_eq!(one_to_one.try_again(), None);
    let posted = post(&mut one_to_one, "alice", "2", &message("hi"), &About::Itself).unwrap();
    assert_eq!(posted.announce.len(), 2);
}

#[test]
fn a_retry_at_the_winner_is_the_same_activity() {
    let (here, mut there) = (one_to_one(), one_to_one());
    there.place.url = "https://b-conv.provider.example/v1/conversations/2".parse().unwrap();
    let alice = user("alice");
    assert_eq!(activity_id(&here, &alice, "k"), activity_id(&there, &alice, "k"));
    assert_ne!(activity_id(&here, &alice, "k"), activity_id(&here, &alice, "l"));
    assert_ne!(activity_id(&here, &alice, "k"), activity_id(&here, &user("bob"), "k"));
    let mut other_group = group();
    other_group.place.url = there.place.url;
    assert_ne!(activity_id(&group(), &alice, "k"), activity_id(&other_group, &alice, "k"));
}

/// A winner and a loser of one pair: (winner, the loser's home and its author's name).
fn winner() -> (Conversation, ClusterName, &'static str) {
    let mut winner = one_to_one();
    let (a, b): (ClusterName, ClusterName) = ("a".parse().unwrap(), "b".parse().unwrap());
    let Members::Fixed { pair } = winner.members else { unreachable!("made fixed") };
    let (home, loser, author) = if crate::pair::rank(&pair, &a) < crate::pair::rank(&pair, &b) {
        (a, b, "bob")
    } else {
        (b, a, "alice")
    };
    winner.place.home = home;
    winner.life = Life::Provisional;
    (winner, loser, author)
}

fn said(conversation: &Conversation, who: &str, key: &str, seq: u64) -> Activity {
    let author = user(who);
    Activity {
        id: activity_id(conversation, &author, key),
        seq: Count(seq),
        author: author.user,
        incarnation: author.incarnation,
        published: String::new(),
        act: message(key),
        attested_by: None,
    }
}

#[test]
fn an_exporting_cluster_speaks_only_for_its_users_unless_it_attests() {
    let (mut winner, loser, author) = winner();
    let stranger = if author == "bob" { "alice" } else { "bob" };
    let mut foreign = said(&winner, stranger, "k", 1);
    let refused = winner.import(&loser, std::slice::from_ref(&foreign), &BTreeSet::new());
    assert_eq!(refused, Err(Refusal::NotYours));
    foreign.attested_by = Some(loser.clone());
    let taken = winner.import(&loser, &[foreign], &BTreeSet::new()).unwrap();
    assert_eq!(taken.appended.len(), 1);
}

proptest! {
    /// Imports come in pages, late, twice and overlapping: each activity is appended once, in order.
    #[test]
    fn an_import_appends_each_activity_once_in_its_order(
        own in 0_u64..5, total in 1_u64..20, cuts in prop::collection::vec(0_usize..20, 1..6),
    ) {
        let (mut winner, loser, author) = winner();
        let served_here = if author == "bob" { "alice" } else { "bob" };
        for key in 0..own {
            post(&mut winner, served_here, &format!("own{key}"), &message("hi"), &About::Itself).unwrap();
        }
        let log: Vec<_> = (1..=total).map(|seq| said(&winner, author, &seq.to_string(), seq)).collect();
        let (mut known, mut imported) = (BTreeSet::new(), Vec::new());
        // Sent again from the start until somewhere, in any order of lengths, at last completely.
        for cut in cuts.into_iter().map(|cut| cut.min(log.len())).chain([log.len()]) {
            let taken = winner.import(&loser, &log[..cut], &known).unwrap();
            known.extend(taken.appended.iter().map(|activity| activity.id));
            imported.extend(taken.appended);
        }
        let seqs: Vec<_> = imported.iter().map(|activity| activity.seq.0).collect();
        prop_assert_eq!(seqs, (own + 1..=own + total).collect::<Vec<_>>());
        let ids: Vec<_> = imported.iter().map(|activity| activity.id).collect();
        prop_assert_eq!(ids, log.iter().map(|activity| activity.id).collect::<Vec<_>>());
        prop_assert_eq!(winner.life, Life::Bound);
    }
}
