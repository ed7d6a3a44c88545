//! What a device does with conversations and with its user's index (CNV, RDV).

use fusion_history::Call;
use fusion_history::event::Answer;
use fusion_protocol::conversation::{
    Act, Activity, ActivityId, ActivityPage, Conversation, CreateConversation, Kind, PeerLookup, PostActivity,
};
use fusion_protocol::index::{Hide, IndexEntry, IndexPage};
use fusion_protocol::{Address, Count, Pii, Service, Url};
use http::Method;

use super::scribe::Tried;
use super::wire::Ask;
use super::{Device, Failure, Made};

/// How many pages are read before a list counts as endless.
const PAGES_MAX: usize = 10_000;

impl Device {
    /// Creates the 1:1 conversation with `other` at the own cluster (RDV-001), or finds it (CNV-002).
    ///
    /// # Errors
    /// `same-person`, `user-unknown` and so on.
    pub async fn one_to_one(&self, other: &Address) -> Result<Made<Conversation>, Failure> {
        self.create(Kind::OneToOne, std::slice::from_ref(other), None).await
    }

    /// Creates a group conversation with `others` at the own cluster (CNV-006).
    ///
    /// # Errors
    /// As the cluster refuses.
    pub async fn group(&self, others: &[Address], title: &str) -> Result<Made<Conversation>, Failure> {
        self.create(Kind::Group, others, Some(title.to_owned())).await
    }

    /// Creates a conversation at the own cluster.
    ///
    /// # Errors
    /// As the cluster refuses.
    pub async fn create(
        &self,
        kind: Kind,
        others: &[Address],
        title: Option<String>,
    ) -> Result<Made<Conversation>, Failure> {
        let at = self.home_or_log_in(self.cause).await?;
        let key = self.next_key();
        let others = others.to_vec();
        let call = Call::Create { kind, others: others.clone(), at: at.clone(), key: key.clone() };
        let invoked = self.begin(call);
        let body = CreateConversation { participants: others, kind, title: title.map(Pii::new) };
        let url = self.service(&at, Service::Conv, "/v1/conversations");
        let ask = Ask::new(Method::POST, url).key(key).json(&body);
        let tried = self.call(invoked, ask).await.made::<Conversation>();
        self.inner.scribe.end(invoked, tried, |made| Answer::Conversation {
            created: made.is_new(),
            conversation: Box::new(made.it().clone()),
        })
    }

    /// The conversation with `other`, as the own cluster knows it.
    ///
    /// # Errors
    /// `not-found` when there is none.
    pub async fn look_up(&self, other: &Address) -> Result<PeerLookup, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        let invoked = self.begin(Call::LookUp { other: other.clone() });
        let path = self.own_path(&format!("peers/{}", other.path_segment()));
        let ask = Ask::new(Method::GET, self.service(&home, Service::Conv, &path));
        let tried = self.call(invoked, ask).await.json::<PeerLookup>();
        self.inner.scribe.end(invoked, tried, |found| Answer::Peer(found.clone()))
    }

    /// A conversation's state, from its home.
    ///
    /// # Errors
    /// `not-participant` and so on.
    pub async fn read_conversation(&self, conversation: &Url) -> Result<Conversation, Failure> {
        let invoked = self.begin(Call::ReadConversation { conversation: conversation.clone() });
        let ask = Ask::new(Method::GET, conversation.clone());
        let tried = self.call(invoked, ask).await.json::<Conversation>();
        self.inner.scribe.end(invoked, tried, |read| Answer::Conversation {
            created: false,
            conversation: Box::new(read.clone()),
        })
    }

    /// Says `text`.
    ///
    /// # Errors
    /// As [`Device::post`].
    pub async fn say(&self, conversation: &Url, text: &str) -> Result<Made<Activity>, Failure> {
        self.post(conversation, Act::Message { text: text.into() }).await
    }

    /// Adds an activity at the conversation's home. When no answer comes it is sent again with the same
    /// key, so that it is accepted once at most.
    ///
    /// # Errors
    /// `not-participant`, `fixed-membership`, `sealing` beyond the device's patience, and so on.
    pub async fn post(&self, conversation: &Url, act: Act) -> Result<Made<Activity>, Failure> {
        let key = self.next_key();
        let (verb, text) = (verb(&act).to_owned(), text(&act));
        let call = Call::Post { conversation: conversation.clone(), key: key.clone(), verb, text };
        let invoked = self.begin(call);
        let url = below(conversation, "activities");
        let ask = Ask::new(Method::POST, url).key(key).json(&PostActivity { act });
        let tried = self.call(invoked, ask).await.made::<Activity>();
        let redirected_to = above(&tried);
        self.inner.scribe.end(invoked, tried, |made| Answer::Accepted {
            created: made.is_new(),
            activity: Box::new(made.it().clone()),
            redirected_to,
        })
    }

    /// One page of a conversation, from after `after` on.
    ///
    /// # Errors
    /// `not-participant` and so on.
    pub async fn read_page(&self, conversation: &Url, after: Count) -> Result<ActivityPage, Failure> {
        let invoked = self.begin(Call::Read { conversation: conversation.clone(), after });
        let mut url = below(conversation, "activities");
        url.query_pairs_mut().append_pair("after", &after.to_string());
        let tried = self.call(invoked, Ask::new(Method::GET, url)).await.json::<ActivityPage>();
        let redirected_to = above(&tried);
        self.inner.scribe.end(invoked, tried, |page| Answer::Activities {
            activities: page.activities.clone(),
            last_seq: page.last_seq,
            redirected_to,
        })
    }

    /// A conversation from its beginning to its end.
    ///
    /// # Errors
    /// As [`Device::read_page`], and [`Failure::Garbled`] when the pages have no end.
    pub async fn read(&self, conversation: &Url) -> Result<Vec<Activity>, Failure> {
        self.read_after(conversation, Count(0)).await
    }

    /// A conversation from after `after` to its end.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub async fn read_after(&self, conversation: &Url, after: Count) -> Result<Vec<Activity>, Failure> {
        let mut activities: Vec<Activity> = Vec::new();
        let mut after = after;
        for _ in 0..PAGES_MAX {
            let page = self.read_page(conversation, after).await?;
            activities.extend(page.activities);
            match page.next {
                Some(next) if next > after => after = next,
                Some(_) => return Err(endless()),
                None => return Ok(activities),
            }
        }
        Err(endless())
    }

    /// One page of the own index, from after `after` on; waits until it has reached `at_least` (RDV-002).
    ///
    /// # Errors
    /// As the own cluster refuses.
    pub async fn read_index_page(&self, after: Count, at_least: Option<Count>) -> Result<IndexPage, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        let invoked = self.begin(Call::ReadIndex { after });
        let mut url = self.service(&home, Service::Conv, &self.own_path("index"));
        url.query_pairs_mut().append_pair("after", &after.to_string());
        if let Some(at_least) = at_least {
            url.query_pairs_mut().append_pair("atLeast", &at_least.to_string());
        }
        let tried = self.call(invoked, Ask::new(Method::GET, url)).await.json::<IndexPage>();
        self.inner
            .scribe
            .end(invoked, tried, |page| Answer::Index { entries: page.entries.clone(), cursor: page.cursor })
    }

    /// The whole own index.
    ///
    /// # Errors
    /// As [`Device::read_index_page`], and [`Failure::Garbled`] when the pages have no end.
    pub async fn read_index(&self) -> Result<Vec<IndexEntry>, Failure> {
        let mut entries = Vec::new();
        let mut after = Count(0);
        for _ in 0..PAGES_MAX {
            let page = self.read_index_page(after, None).await?;
            entries.extend(page.entries);
            match page.more {
                false => return Ok(entries),
                true if page.cursor > after => after = page.cursor,
                true => break,
            }
        }
        Err(endless())
    }

    /// Hides a conversation from the own list, or shows it again (CNV-002). Not in the history.
    ///
    /// # Errors
    /// As the own cluster refuses.
    pub async fn hide(&self, conversation: &Url, hidden: bool) -> Result<(), Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        let url = self.service(&home, Service::Conv, &self.own_path("index"));
        let ask = Ask::new(Method::PATCH, url).json(&Hide { url: conversation.clone(), hidden });
        let token = self.token_for(&home).await?;
        self.send(&ask.token(token)).await?.success()
    }
}

/// `rest` below an object's URL.
pub(crate) fn below(object: &Url, rest: &str) -> Url {
    let mut url = object.clone();
    url.set_query(None);
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(rest.split('/'));
    }
    url
}

/// The conversation whose activities answered, when it was not the one asked.
fn above<T>(tried: &Tried<T>) -> Option<Url> {
    let mut url = tried.moved_to.clone()?;
    url.set_query(None);
    url.path_segments_mut().ok()?.pop();
    Some(url)
}

fn endless() -> Failure {
    Failure::Garbled { status: 200, reason: "the pages of the list do not come to an end".to_owned() }
}

fn verb(act: &Act) -> &'static str {
    match act {
        Act::Message { .. } => "message",
        Act::Add { .. } => "add",
        Act::Leave {} => "leave",
        Act::Remove { .. } => "remove",
        Act::Title { .. } => "title",
        Act::Share { .. } => "share",
        Act::Delete { .. } => "delete",
        Act::Acknowledge { .. } => "acknowledge",
    }
}

fn text(act: &Act) -> Option<String> {
    match act {
        Act::Message { text } | Act::Title { title: text } => Some(text.expose().clone()),
        Act::Add { user } | Act::Remove { user } => Some(user.as_str().to_owned()),
        Act::Delete { activity: ActivityId(_) } | Act::Acknowledge { activity: ActivityId(_) } => None,
        Act::Leave {} | Act::Share { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_an_object_keeps_its_host_and_loses_its_query() {
        let object: Url = "https://a-conv.provider.example:8443/v1/conversations/1?x=y".parse().unwrap();
        let expected = "https://a-conv.provider.example:8443/v1/conversations/1/locus/participants";
        assert_eq!(below(&object, "locus/participants").as_str(), expected);
    }
}
