//! The feed of the domain map (MAP-006): what changed after a version, at once or when something does.

use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::map::DomainFeed;
use fusion_protocol::{Count, Problem};
use fusion_runtime::Host;

use crate::{Shared, claims};

/// How many changes one answer carries: about 100 KiB.
pub(crate) const CHANGES_MAX: usize = 500;
/// How long a poll is held at most, in seconds.
pub(crate) const WAIT_SECONDS_MAX: u64 = 30;

/// Where instances of the provider tell each other of a change.
const SUBJECT: &str = "domain-map.changed";

/// The changes after `after`; when there are none, waits for one, at most `wait_seconds`.
pub(crate) async fn after(provider: &Shared, after: Count, wait_seconds: u64) -> Result<DomainFeed, Problem> {
    let clock = &provider.host.clock;
    let until = clock.now() + Duration::from_secs(wait_seconds.min(WAIT_SECONDS_MAX));
    loop {
        // Subscribed before looking, so that a change between the two is heard.
        let mut changed = provider.host.bus.subscribe(SUBJECT);
        let (version, changes) = claims::changes(provider, after, CHANGES_MAX).await?;
        let left = until.saturating_sub(clock.now());
        // A replica that is ahead of us is told so at once: it knows not to go back.
        if version != after || left.is_zero() || provider.draining.is_open() {
            let consumer_clusters = provider.config.consumer_clusters.clone();
            return Ok(DomainFeed { version, changes, consumer_clusters });
        }
        let news = async {
            tokio::select! {
                biased;
                () = provider.draining.opened() => {}
                _ = changed.next() => {}
            }
        };
        let _ = clock.timeout(left, news).await;
    }
}

/// Tells those who wait that there is a new version.
pub(crate) fn wake(host: &Host) {
    host.bus.publish(SUBJECT, Bytes::new());
}
