//! Privacy: what the provider plane must never see (PRI).

use crate::event::{Body, Event, World};
use crate::facts::{Facts, Sight};
use crate::judge::{Casebook, Evidence, Judge};

/// PRI-001: no private byte is ever in the provider plane's stores, logs or in bytes that arrive there.
///
/// The cases are the bytes searched at the provider's hosts with canaries at hand: to search nothing, or
/// for nothing, proves nothing.
pub(super) struct NoPrivateByteAtTheProvider;

impl Judge for NoPrivateByteAtTheProvider {
    fn name(&self) -> &'static str {
        "no-private-byte-at-the-provider"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["PRI-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Sink]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        for event in facts.seen(Sight::Sink).filter(|event| is_provider(&event.host, facts.world())) {
            judge_sink(event, case);
        }
    }
}

/// PRI-005: the logs of every service name nobody and quote nothing.
///
/// The cases are the bytes of logs searched, at whatever host, with canaries at hand.
pub(super) struct LogsNameNobody;

impl Judge for LogsNameNobody {
    fn name(&self) -> &'static str {
        "logs-name-nobody"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["PRI-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Sink]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        for event in facts.seen(Sight::Sink) {
            if matches!(&event.body, Body::Sink(sink) if sink.place == "log") {
                judge_sink(event, case);
            }
        }
    }
}

fn judge_sink(event: &Event, case: &mut Casebook) {
    let Body::Sink(sink) = &event.body else { return };
    let (host, place) = (&event.host, &sink.place);
    if sink.canaries == 0 {
        case.not_observed("a place was searched for nothing");
        return;
    }
    case.reached_many(sink.searched_bytes);
    for hit in &sink.hits {
        let statement = format!(
            "{} stands in the {place} of {host} at byte {} as {}: {:?}",
            hit.canary, hit.offset, hit.encoding, hit.context
        );
        case.violated(&format!("found-in-{place}"), statement, [event.id]);
    }
}

/// A run without a [`World`] may still have a host of that name.
fn is_provider(host: &str, world: Option<&World>) -> bool {
    host == "provider" || world.is_some_and(|world| world.provider_hosts.iter().any(|name| name == host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SinkHit;
    use crate::judge::{Ruling, WhyUnknown};
    use crate::testing::Story;

    fn hit() -> SinkHit {
        let (canary, encoding) = ("address of bob".to_owned(), "hex".to_owned());
        SinkHit { canary, encoding, offset: 7, context: "user=626f62".to_owned() }
    }

    #[test]
    fn a_private_byte_in_a_provider_log_violates() {
        let mut story = Story::new();
        story.is_searched("provider", "store", vec![]);
        story.is_searched("provider", "log", vec![hit()]);
        let verdict = NoPrivateByteAtTheProvider.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 2_000));
        insta::assert_snapshot!(verdict.violations[0].render(story.told()));
    }

    #[test]
    fn private_bytes_at_home_are_where_they_belong() {
        let mut story = Story::new();
        story.is_searched("a", "log", vec![hit()]);
        story.is_searched("provider", "log", vec![]);
        let verdict = NoPrivateByteAtTheProvider.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1_000));
    }

    #[test]
    fn an_address_in_any_log_violates_and_in_a_store_does_not() {
        let mut story = Story::new();
        story.is_searched("a", "store", vec![hit()]);
        story.is_searched("provider", "log", vec![]);
        assert_eq!(LogsNameNobody.judge(story.told()).ruling, Ruling::Holds);
        story.is_searched("a", "log", vec![hit()]);
        let verdict = LogsNameNobody.judge(story.told());
        assert_eq!((verdict.reached, verdict.violated), (2_000, 1));
        assert_eq!(verdict.violations[0].fingerprint, "logs-name-nobody/PRI-005/found-in-log");
    }

    #[test]
    fn to_search_nothing_or_for_nothing_proves_nothing() {
        let mut story = Story::new();
        story.is_searched("a", "log", vec![]);
        let verdict = NoPrivateByteAtTheProvider.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 0));
        let sink = crate::canary::Canaries::new(Vec::<(String, String)>::new()).sink("log", b"bob");
        story.happens("provider", None, Body::Sink(sink));
        let verdict = NoPrivateByteAtTheProvider.judge(story.told());
        assert!(matches!(verdict.why_unknown, Some(WhyUnknown::NotObserved { .. })));
    }

    #[test]
    fn without_a_search_nothing_is_known() {
        let verdict = NoPrivateByteAtTheProvider.judge(Story::new().told());
        let evidence = vec![Evidence::Sink];
        assert_eq!(verdict.why_unknown, Some(WhyUnknown::MissingEvidence { evidence }));
    }
}
