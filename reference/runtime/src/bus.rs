//! Publish and subscribe between the instances of one cluster (OPS-009: its loss delays, never loses).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// How many messages wait for one subscriber before further ones are dropped.
pub const QUEUE_MAX: usize = 1024;

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
pub struct LocalBus(Arc<Mutex<BTreeMap<String, Vec<mpsc::Sender<Bytes>>>>>);

impl Bus for LocalBus {
    fn publish(&self, subject: &str, message: Bytes) {
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subscribers) = subjects.get_mut(subject) {
            subscribers.retain(|to| {
                !matches!(to.try_send(message.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            });
            if subscribers.is_empty() {
                subjects.remove(subject);
            }
        }
    }

    fn subscribe(&self, subject: &str) -> Subscription {
        let (sender, subscription) = Subscription::new();
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let subscribers = subjects.entry(subject.to_owned()).or_default();
        subscribers.retain(|to| !to.is_closed());
        subscribers.push(sender);
        subscription
    }
}
