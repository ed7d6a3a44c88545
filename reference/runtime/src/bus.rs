//! Publish and subscribe between the instances of one cluster (OPS-009: its loss delays, never loses).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// How many messages wait for one subscriber before further ones are dropped.
pub const QUEUE_MAX: usize = 1024;
/// So many subscribers of one subject are kept without asking who has ended.
const SWEEP_MIN: usize = 4;

/// A bus of subjects. A message is a hint: it may be lost, so whoever listens also looks at the store.
pub trait Bus: Send + Sync + 'static {
    /// Hands `message` to every subscriber of `subject` that has room.
    fn publish(&self, subject: &str, message: Bytes);

    /// Messages published on `subject` from now on.
    fn subscribe(&self, subject: &str) -> Subscription;
}

/// The receiving end; ends when dropped.
pub struct Subscription(mpsc::Receiver<Bytes>);

impl Subscription {
    /// A subscription and the end that feeds it.
    #[must_use]
    pub fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (sender, Self(receiver))
    }

    /// The next message; `None` when the bus is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// The bus of a cluster that is one process.
#[derive(Clone, Default)]
pub struct LocalBus(Arc<Mutex<BTreeMap<String, Subscribers>>>);

/// Who listens to one subject, and some that have ended.
#[derive(Default)]
struct Subscribers {
    to: Vec<mpsc::Sender<Bytes>>,
    /// At how many those that have ended are looked for: seldom, so that ten thousand that come and go
    /// do not look at each other each time.
    sweep_at: usize,
}

impl Bus for LocalBus {
    fn publish(&self, subject: &str, message: Bytes) {
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subscribers) = subjects.get_mut(subject) {
            subscribers.to.retain(|to| {
                !matches!(to.try_send(message.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            });
            subscribers.sweep_at = SWEEP_MIN.max(2 * subscribers.to.len());
            if subscribers.to.is_empty() {
                subjects.remove(subject);
            }
        }
    }

    fn subscribe(&self, subject: &str) -> Subscription {
        let (sender, subscription) = Subscription::new();
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.entry(subject.to_owned()).or_default().add(sender);
        subscription
    }
}

impl Subscribers {
    fn add(&mut self, sender: mpsc::Sender<Bytes>) {
        if self.to.len() >= self.sweep_at {
            self.to.retain(|to| !to.is_closed());
            self.sweep_at = SWEEP_MIN.max(2 * self.to.len());
        }
        self.to.push(sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_listens_hears_and_who_has_ended_is_forgotten() {
        let bus = LocalBus::default();
        let mut listening = bus.subscribe("map");
        for _ in 0..1_000 {
            drop(bus.subscribe("map"));
        }
        let kept = bus.0.lock().unwrap()["map"].to.len();
        assert!(kept <= SWEEP_MIN + 1, "{kept} are kept, of whom one listens");
        bus.publish("map", Bytes::from_static(b"8"));
        assert_eq!(listening.next().await.unwrap(), "8");
        assert_eq!(bus.0.lock().unwrap()["map"].to.len(), 1);
        drop(listening);
        bus.publish("map", Bytes::from_static(b"9"));
        assert!(bus.0.lock().unwrap().is_empty());
    }
}
