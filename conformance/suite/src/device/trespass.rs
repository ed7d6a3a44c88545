//! Trying what must be refused (SEC).

use std::time::Duration;

use fusion_history::Call;
use fusion_history::event::Answer;
use fusion_protocol::Code;

use super::scribe::Tried;
use super::wire::{Ask, Reply};
use super::{Device, Failure};

/// How often somebody who cannot answer just now is asked.
const TRIES: u32 = 6;
/// How long it is left alone in between.
const TRY_AGAIN: Duration = Duration::from_millis(500);

impl Device {
    /// Sends exactly `ask`, which `requirement` says must be refused by `expect`, and writes down what
    /// became of it. `what` says in a few words what is tried. Somebody who cannot answer just now (503)
    /// has not decided anything yet and is asked again for a few seconds.
    ///
    /// # Errors
    /// The refusal that is hoped for, or no answer.
    pub async fn trespass(
        &self,
        what: &str,
        requirement: &str,
        expect: Code,
        ask: &Ask,
    ) -> Result<Reply, Failure> {
        let call = Call::Trespass { what: what.to_owned(), requirement: requirement.to_owned(), expect };
        let invoked = self.begin(call);
        let mut result = self.attempt(ask).await;
        for _ in 1..TRIES {
            let refused = result.as_ref().err().and_then(Failure::refused);
            if !refused.is_some_and(|refused| refused.status == 503 && refused.code != Some(expect)) {
                break;
            }
            self.host().clock.sleep(TRY_AGAIN).await;
            result = self.attempt(ask).await;
        }
        self.inner.scribe.end(invoked, Tried::once(result), |_| Answer::Nothing {})
    }

    async fn attempt(&self, ask: &Ask) -> Result<Reply, Failure> {
        let reply = self.send(ask).await?;
        reply.success().map(|()| reply)
    }
}
