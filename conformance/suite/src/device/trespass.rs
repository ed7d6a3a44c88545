//! Trying what must be refused (SEC).

use std::time::Duration;

use fusion_history::Call;
use fusion_history::event::Answer;
use fusion_protocol::Code;
use fusion_protocol::index::BatchAnswer;

use super::scribe::Tried;
use super::wire::{Ask, Reply};
use super::{Device, Failure, Refused};

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
        reply.success()?;
        match refused_rows(&reply) {
            Some(refused) => Err(Failure::Refused(refused)),
            None => Ok(reply),
        }
    }
}

/// A batch is answered row by row: one whose every row was refused is a refusal, whatever its status.
fn refused_rows(reply: &Reply) -> Option<Refused> {
    let BatchAnswer { results } = serde_json::from_slice(&reply.body).ok()?;
    let codes: Option<Vec<Code>> = results.into_iter().map(|row| row.code).collect();
    let code = codes?.first().copied()?;
    Some(Refused { status: code.status(), code: Some(code), retry_after: None, problem: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rows(codes: &[Option<&str>]) -> Option<Code> {
        let row = |code: &Option<&str>| {
            let mut row = json!({ "id": "00000000-0000-4000-8000-000000000001" });
            if let Some(code) = code {
                row["code"] = Value::from(*code);
            }
            row
        };
        let body = json!({ "results": codes.iter().map(row).collect::<Vec<_>>() });
        let body = serde_json::to_vec(&body).expect("JSON").into();
        let reply = Reply { status: 200, headers: http::HeaderMap::new(), body };
        refused_rows(&reply).and_then(|refused| refused.code)
    }

    #[test]
    fn a_batch_is_refused_when_every_row_of_it_is() {
        assert_eq!(rows(&[Some("not-your-object")]), Some(Code::NotYourObject));
        assert_eq!(rows(&[Some("not-your-object"), None]), None, "one row was written");
        assert_eq!(rows(&[]), None, "nothing was refused");
    }
}
