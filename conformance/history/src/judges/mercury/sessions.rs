//! MER-005: one socket at a time, which goes on where the device says that it stands.

use crate::event::{Body, Event, EventId, SocketChange};
use crate::facts::{Facts, Sight};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// MER-005: the epochs of a device's sockets only rise, an older one is heard no more, and a new one goes
/// on after what the device has: nothing is left out but by a `resync`, and no number that it had
/// acknowledged comes again. (An event that its source has sent twice may, under a number of its own: ids
/// tell, MER-002.)
///
/// A case is a socket after another one of the same device.
pub(crate) struct OneSocketAtATime;

#[derive(Default)]
struct Stream {
    /// The epoch of the newest socket.
    session: Option<(u64, EventId)>,
    /// Where the device stood when its last socket ended: it resumes after it.
    stands: Option<(u64, EventId)>,
    /// The new socket's first event must have this number.
    next: Option<(u64, EventId)>,
}

impl Judge for OneSocketAtATime {
    fn name(&self) -> &'static str {
        "one-socket-at-a-time"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MER-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        // Somebody who was deleted, and a device whose cluster lost its rows, begins anew.
        if facts.faults().had("lose_rows") {
            return;
        }
        let deleted = facts.deprovisioned();
        let homes = facts.clusters_of_users();
        let mut streams: Table<&str, Stream> = Table::default();
        for event in facts.seen(Sight::Device) {
            let (Body::Socket { user, .. } | Body::Deliver { user, .. }) = &event.body else { continue };
            if !deleted.contains(user) && homes.get(user).is_none_or(|at| at.len() == 1) {
                streams.entry(&event.host).or_default().see(event, case);
            }
        }
    }
}

impl Stream {
    fn see(&mut self, event: &Event, case: &mut Casebook) {
        match &event.body {
            Body::Socket { what: SocketChange::Ready, session, base, .. } => {
                self.ready(session.0, base.0, event, case);
            }
            Body::Socket { what: SocketChange::Resync, base, .. } => {
                (self.next, self.stands) = (Some((base.0 + 1, event.id)), None);
            }
            Body::Socket { what: SocketChange::Closed, base, .. } => {
                self.stands = Some((base.0, event.id));
            }
            Body::Deliver { session, seq, .. } => self.delivered(session.0, seq.0, event, case),
            _ => {}
        }
    }

    fn ready(&mut self, session: u64, base: u64, event: &Event, case: &mut Casebook) {
        if let Some((before, seen)) = self.session {
            case.reached();
            if session <= before {
                let statement =
                    format!("{} opened a socket of epoch {session} after one of {before}", event.host);
                case.violated("session-not-newer", statement, [seen, event.id]);
            }
        }
        if let Some((stands, seen)) = self.stands
            && base != stands
        {
            let statement =
                format!("{} has all up to {stands}, and its socket goes on after {base}", event.host);
            case.violated("resume-ignored", statement, [seen, event.id]);
        }
        self.session = Some((session, event.id));
        self.next = Some((base + 1, event.id));
    }

    fn delivered(&mut self, session: u64, seq: u64, event: &Event, case: &mut Casebook) {
        let host = &event.host;
        let Some((newest, opened)) = self.session else { return };
        if session < newest {
            let statement =
                format!("{host} has a socket of epoch {newest}, and the one of {session} is heard");
            case.violated("older-socket-lives", statement, [opened, event.id]);
        }
        if let Some((next, since)) = self.next.take().filter(|(next, _)| *next != seq) {
            let statement = format!("{host}'s socket goes on with number {seq}, and {next} was next");
            case.violated("jump", statement, [since, event.id]);
        }
        if let Some((stands, ended)) = self.stands.filter(|(stands, _)| seq <= *stands) {
            let statement =
                format!("{host} had acknowledged all up to {stands}, and number {seq} comes again");
            case.violated("repeated", statement, [ended, event.id]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, user};
    use SocketChange::{Closed, Ready, Resync};
    use fusion_protocol::mercury::EventType;
    use fusion_protocol::{Count, Uuid};
    use serde_json::Value;

    fn socket(what: SocketChange, session: u64, base: u64) -> Body {
        Body::Socket { user: user("alice"), what, base: Count(base), session: Count(session) }
    }

    fn told(session: u64, seq: u64, id: u128) -> Body {
        Body::Deliver {
            user: user("alice"),
            session: Count(session),
            id: Uuid::from_u128(id),
            seq: Count(seq),
            event_type: EventType::ConversationActivity,
            resource: conversation_url("a", 1),
            data: Value::Null,
        }
    }

    /// Alice's device has one event, its first socket has ended; then comes this.
    fn judged(then: impl IntoIterator<Item = Body>) -> (Ruling, u64, Vec<String>) {
        let mut story = Story::new();
        for body in [socket(Ready, 1, 0), told(1, 1, 1), socket(Closed, 1, 1)].into_iter().chain(then) {
            story.happens("alice1", None, body);
        }
        let verdict = OneSocketAtATime.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        (verdict.ruling, verdict.reached, verdict.violations.iter().map(|it| kind(&it.fingerprint)).collect())
    }

    #[test]
    fn a_newer_socket_that_goes_on_holds() {
        assert_eq!(judged([socket(Ready, 2, 1), told(2, 2, 2)]), (Ruling::Holds, 1, vec![]));
        assert_eq!(judged([socket(Ready, 2, 1), socket(Resync, 2, 7), told(2, 8, 8)]).2, [""; 0]);
    }

    #[test]
    fn an_epoch_that_comes_again_violates() {
        assert_eq!(judged([socket(Ready, 1, 1)]).2, ["session-not-newer"]);
    }

    #[test]
    fn an_older_socket_that_is_heard_violates() {
        assert_eq!(judged([socket(Ready, 2, 1), told(1, 2, 2)]).2, ["older-socket-lives"]);
    }

    #[test]
    fn a_jump_without_a_resync_violates() {
        assert_eq!(judged([socket(Ready, 2, 1), told(2, 3, 3)]).2, ["jump"]);
    }

    #[test]
    fn what_was_acknowledged_and_comes_again_violates() {
        assert_eq!(judged([socket(Ready, 2, 0), told(2, 1, 1)]).2, ["resume-ignored", "repeated"]);
    }

    #[test]
    fn what_was_not_acknowledged_comes_again() {
        let mut story = Story::new();
        let again = [socket(Ready, 2, 0), told(2, 1, 1)];
        for body in [socket(Ready, 1, 0), told(1, 1, 1), socket(Closed, 1, 0)].into_iter().chain(again) {
            story.happens("alice1", None, body);
        }
        let verdict = OneSocketAtATime.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }
}
