//! Trying what must be refused (SEC).

use fusion_history::Call;
use fusion_history::event::Answer;
use fusion_protocol::Code;

use super::scribe::Tried;
use super::wire::{Ask, Reply};
use super::{Device, Failure};

impl Device {
    /// Sends exactly `ask`, which `requirement` says must be refused by `expect`, and writes down what
    /// became of it. `what` says in a few words what is tried.
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
        let result = match self.send(ask).await {
            Ok(reply) => reply.success().map(|()| reply),
            Err(failure) => Err(failure),
        };
        self.inner.scribe.end(invoked, Tried::once(result), |_| Answer::Nothing {})
    }
}
