//! One call with everything a good client does about its answer: a token for the cluster it goes to, one
//! redirect, hints, waiting when told to, and repeating what may not have arrived.

use std::time::Duration;

use fusion_history::EventId;
use fusion_protocol::{ClusterName, Code, Url};
use http::Method;

use super::failure::Doubt;
use super::scribe::Tried;
use super::wire::{Ask, Reply};
use super::{Device, Failure, Refused};

/// MAP-005: a client follows at most this many hints.
const HINTS_MAX: u32 = 3;
/// CNV-004: every URL resolves in at most this many hops.
const REDIRECTS_MAX: u32 = 1;

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For how long one answer is awaited.
    pub timeout: Duration,
    /// How often a call is sent that brings no answer, the first time included.
    pub tries_max: u32,
    /// How long the client waits before the second try; twice as long before each further one.
    pub backoff: Duration,
    /// How often a call is sent again because the answer said `Retry-After`.
    pub waits_max: u32,
    /// The longest single wait, whatever `Retry-After` says.
    pub wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            tries_max: 4,
            backoff: Duration::from_millis(250),
            waits_max: 10,
            wait_max: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// One try, no waiting: what is answered is the answer.
    #[must_use]
    pub fn none() -> Self {
        Self { tries_max: 1, waits_max: 0, ..Self::default() }
    }
}

/// How often what has happened to a call so far.
#[derive(Default)]
struct Tally {
    redirects: u32,
    hints: Vec<ClusterName>,
    waits: u32,
    silences: u32,
    refreshed: bool,
}

/// What to do next about a call.
enum Next {
    Return(Result<Reply, Failure>),
    Again,
    Move(Url),
    /// The user is served elsewhere now: by whom, as the own cluster says (MAP-007).
    MoveHome(Vec<ClusterName>),
    Redirect(Url),
    Wait(Duration),
}

impl Device {
    /// Sends `ask` with the right token for wherever it leads, until there is an answer or patience ends.
    pub(crate) async fn call(&self, cause: impl Into<Option<EventId>>, mut ask: Ask) -> Tried<Reply> {
        let cause = cause.into();
        let mut tally = Tally::default();
        let mut doubt = Doubt::None;
        let mut moved_to = None;
        loop {
            let sent = self.send_authorised(cause, &mut ask).await;
            if matches!(sent, Err(Failure::Unknown(_))) && ask.method != Method::GET {
                doubt = Doubt::Some;
            }
            match self.next(&ask, sent, &mut tally) {
                Next::Return(result) => return Tried { result, doubt, moved_to },
                Next::Again => {}
                Next::Move(url) => ask.url = url,
                Next::MoveHome(hints) => match self.moved(cause, &ask.url, &hints).await {
                    Ok(url) => ask.url = url,
                    Err(failure) => return Tried { result: Err(failure), doubt, moved_to },
                },
                Next::Redirect(url) => {
                    moved_to = Some(url.clone());
                    ask.url = url;
                }
                Next::Wait(time) => self.inner.wire.host.clock.sleep(time).await,
            }
        }
    }

    async fn send_authorised(&self, cause: Option<EventId>, ask: &mut Ask) -> Result<Reply, Failure> {
        let Some(cluster) = self.inner.wire.target.cluster_of(&ask.url) else {
            return Err(Failure::Unreachable("no token leaves the federation (NAM-005)".to_owned()));
        };
        // Without a token nothing of the call itself has been sent.
        let token = self.token_caused(cause, &cluster).await.map_err(|failure| match failure {
            Failure::Unknown(reason) => Failure::Unreachable(format!("no token: {reason}")),
            failure => failure,
        })?;
        ask.token = Some(token);
        self.inner.wire.send(ask, self.inner.patience.timeout).await
    }

    fn next(&self, ask: &Ask, sent: Result<Reply, Failure>, tally: &mut Tally) -> Next {
        let patience = &self.inner.patience;
        match sent {
            Ok(reply) if reply.is_success() => Next::Return(Ok(reply)),
            Ok(reply) => {
                let refused = reply.refusal();
                let next = match reply.status {
                    307 | 308 => self.redirected(ask, &reply, tally),
                    401 => self.refresh(ask, tally),
                    421 => self.hinted(ask, &refused, tally),
                    429 | 503 => wait(&refused, patience, tally),
                    _ => None,
                };
                next.unwrap_or(Next::Return(Err(Failure::Refused(refused))))
            }
            Err(failure @ (Failure::Unreachable(_) | Failure::Unknown(_))) => {
                tally.silences += 1;
                if tally.silences >= patience.tries_max {
                    return Next::Return(Err(failure));
                }
                let backoff = patience.backoff * (1 << (tally.silences - 1).min(8));
                Next::Wait(self.jittered(backoff.min(patience.wait_max)))
            }
            Err(failure) => Next::Return(Err(failure)),
        }
    }

    /// CNV-003: a superseded object answers 308 for ever, a merging one 307; the token is made for the
    /// cluster that the new URL names, after the URL has been looked at (NAM-005).
    fn redirected(&self, ask: &Ask, reply: &Reply, tally: &mut Tally) -> Option<Next> {
        let to = reply.location(&ask.url)?;
        self.inner.wire.target.cluster_of(&to)?;
        tally.redirects += 1;
        (tally.redirects <= REDIRECTS_MAX).then_some(Next::Redirect(to))
    }

    /// The token was good when it was sent; it is got anew once.
    fn refresh(&self, ask: &Ask, tally: &mut Tally) -> Option<Next> {
        self.forget_token(&self.inner.wire.target.cluster_of(&ask.url)?);
        let again = !std::mem::replace(&mut tally.refreshed, true);
        again.then_some(Next::Again)
    }

    fn hinted(&self, ask: &Ask, refused: &Refused, tally: &mut Tally) -> Option<Next> {
        let template = &self.inner.wire.target.template;
        let here = template.locate(&ask.url).ok()?;
        tally.hints.push(here.cluster.clone());
        if tally.hints.len() as u32 > HINTS_MAX {
            return None;
        }
        let at_home = self.home().is_none_or(|home| home == here.cluster) && !self.is_of_another(&here.path);
        if at_home || is_object(&here.path) {
            let mut hints = refused.hint();
            hints.retain(|hint| *hint != here.cluster);
            return (!hints.is_empty()).then_some(Next::MoveHome(hints));
        }
        let to = refused.hint().into_iter().find(|cluster| !tally.hints.contains(cluster))?;
        let mut url = template.url(&to, here.service, &here.path);
        url.set_query(ask.url.query());
        Some(Next::Move(url))
    }

    /// Logs in where the user is served now. What belongs to the user is asked for there; an object stays
    /// where it was made, and is asked with a new token.
    async fn moved(
        &self,
        cause: Option<EventId>,
        asked: &Url,
        hints: &[ClusterName],
    ) -> Result<Url, Failure> {
        let home = self.move_home(cause, hints).await?;
        let template = &self.inner.wire.target.template;
        let Ok(here) = template.locate(asked) else { return Ok(asked.clone()) };
        if is_object(&here.path) {
            // It was got from the old home.
            self.forget_token(&here.cluster);
            return Ok(asked.clone());
        }
        let mut url = template.url(&home, here.service, &here.path);
        url.set_query(asked.query());
        Ok(url)
    }

    /// Whether a path names another user: where they are says nothing of where this one is.
    fn is_of_another(&self, path: &str) -> bool {
        let whose = path.strip_prefix("/v1/users/").and_then(|rest| rest.split('/').next());
        whose.is_some_and(|whose| whose != self.inner.user.path_segment())
    }

    /// `duration`, give or take a quarter, so that clients do not return all at once.
    pub(crate) fn jittered(&self, duration: Duration) -> Duration {
        let quarter = duration.as_micros() as u64 / 4;
        Duration::from_micros(3 * quarter + self.inner.entropy.below(2 * quarter + 1))
    }
}

/// Whether a path names an object that lives where it was made, and nothing of the user's own.
fn is_object(path: &str) -> bool {
    path.starts_with("/v1/conversations/")
}

fn wait(refused: &Refused, patience: &Patience, tally: &mut Tally) -> Option<Next> {
    let seconds = match (refused.retry_after, refused.code) {
        (Some(seconds), _) => seconds,
        // These pass by themselves; a service that forgets the header means soon.
        (None, Some(Code::Sealing | Code::Fenced | Code::ResolutionIncomplete)) => 1,
        (None, _) => return None,
    };
    tally.waits += 1;
    let time = Duration::from_secs(seconds).clamp(Duration::from_millis(100), patience.wait_max);
    (tally.waits <= patience.waits_max).then_some(Next::Wait(time))
}
