//! What a device does with calls (LOC).

use std::collections::BTreeMap;
use std::time::Duration;

use fusion_history::Call;
use fusion_history::event::Answer;
use fusion_protocol::locus::{
    ActiveLoci, ActiveLocus, Join, Joined, Lease, Locus, LocusDelta, LocusState, ParticipantState, SetState,
};
use fusion_protocol::{Code, Count, Service, Url, Uuid};
use fusion_runtime::tasks::Task;
use http::Method;

use super::conversation::below;
use super::wire::Ask;
use super::{Device, Failure, lock};

/// The own participant ids, by locus, as learnt by joining or reading.
pub(crate) type Seats = BTreeMap<Url, Uuid>;

/// Renews a lease until dropped: a device that drops it has crashed, as far as the call can tell.
#[must_use = "dropping it ends the keep-alive"]
pub struct KeepAlive(Task<()>);

/// LOC-003: what a join has to expect of a locus as it was just read: nothing but the next call when it
/// is at rest, else the call that goes on.
#[must_use]
pub fn expect(locus: &Locus) -> Count {
    match locus.state {
        LocusState::Inactive => locus.instance,
        LocusState::Initializing | LocusState::Active | LocusState::Terminating => {
            Count(locus.instance.0.saturating_sub(1))
        }
    }
}

impl Device {
    /// A locus, from its home.
    ///
    /// # Errors
    /// `not-participant` and so on.
    pub async fn read_locus(&self, locus: &Url) -> Result<Locus, Failure> {
        let invoked = self.begin(Call::ReadLocus { locus: locus.clone() });
        let tried = self.call(invoked, Ask::new(Method::GET, locus.clone())).await.json::<Locus>();
        let read =
            self.inner.scribe.end(invoked, tried, |read| Answer::Locus { locus: Box::new(read.clone()) })?;
        self.remember_seat(locus, &read);
        Ok(read)
    }

    /// What changed in a locus since `rev` (LOC-008).
    ///
    /// # Errors
    /// As [`Device::read_locus`].
    pub async fn read_locus_since(&self, locus: &Url, rev: Count) -> Result<LocusDelta, Failure> {
        let mut url = locus.clone();
        url.query_pairs_mut().append_pair("since", &rev.to_string());
        let invoked = self.begin(Call::ReadLocusSince { locus: locus.clone(), since: rev });
        let tried = self.call(invoked, Ask::new(Method::GET, url)).await.json::<LocusDelta>();
        self.inner.scribe.end(invoked, tried, |delta| match delta {
            LocusDelta::Unchanged { rev } => Answer::LocusUnchanged { rev: *rev },
            LocusDelta::Whole(locus) => Answer::Locus { locus: locus.clone() },
        })
    }

    /// Joins a call, or starts one (LOC-002); see [`expect`]. The lease is not renewed by itself:
    /// [`Device::keep_alive`].
    ///
    /// # Errors
    /// `call-over` when the expected call has ended (LOC-003).
    pub async fn join(&self, locus: &Url, expect: Count) -> Result<Joined, Failure> {
        let device = self.device_id();
        let call = Call::Join { locus: locus.clone(), expect, device: device.clone() };
        let invoked = self.begin(call);
        let ask = Ask::new(Method::POST, below(locus, "participants"))
            .key(self.next_key())
            .json(&Join { expect, device });
        let tried = self.call(invoked, ask).await.json::<Joined>();
        let joined = self.inner.scribe.end(invoked, tried, |joined| Answer::Joined {
            locus: Box::new(joined.locus.clone()),
            leg: joined.leg.as_ref().map(|leg| leg.id),
        })?;
        let mut seats = lock(&self.inner.loci);
        seats.insert(locus.clone(), joined.participant);
        seats.insert(joined.locus.url.clone(), joined.participant);
        drop(seats);
        Ok(joined)
    }

    /// Does not take the call `instance` (LOC-006).
    ///
    /// # Errors
    /// `call-over` and so on.
    pub async fn decline(&self, locus: &Url, instance: Count) -> Result<Locus, Failure> {
        self.set_state(locus, instance, ParticipantState::Declined, None).await
    }

    /// Leaves the call `instance` with this device (LOC-007).
    ///
    /// # Errors
    /// `call-over` and so on.
    pub async fn leave(&self, locus: &Url, instance: Count) -> Result<Locus, Failure> {
        self.set_state(locus, instance, ParticipantState::Left, Some(self.device_id())).await
    }

    /// Renews this device's lease once (LOC-007).
    ///
    /// # Errors
    /// `call-over` when the call has ended or the lease has run out.
    pub async fn renew(&self, locus: &Url, instance: Count) -> Result<(), Failure> {
        let device = self.device_id();
        let seat = self.seat(locus).await?;
        let call = Call::Renew { locus: locus.clone(), instance, device: device.clone() };
        let invoked = self.begin(call);
        let url = below(locus, &format!("participants/{seat}/lease"));
        let ask = Ask::new(Method::POST, url).json(&Lease { instance, device });
        let tried = self.call(invoked, ask).await.nothing();
        self.inner.scribe.end(invoked, tried, |()| Answer::Nothing {})
    }

    /// Renews this device's lease as often as the join asked for, until dropped or the call is over.
    pub fn keep_alive(&self, joined: &Joined) -> KeepAlive {
        let device = Self { operation: None, key: None, cause: None, ..self.clone() };
        let (locus, instance) = (joined.locus.url.clone(), joined.locus.instance);
        let pause = Duration::from_secs(joined.keep_alive_seconds.clamp(1, 3_600));
        KeepAlive(self.host().tasks.spawn(async move {
            loop {
                device.host().clock.sleep(pause).await;
                if let Err(Failure::Refused(refused)) = device.renew(&locus, instance).await
                    && matches!(refused.code, Some(Code::CallOver | Code::NotParticipant | Code::NotFound))
                {
                    return;
                }
            }
        }))
    }

    /// The own active loci, from the own cluster (LOC-002, LOC-007).
    ///
    /// # Errors
    /// As the own cluster refuses.
    pub async fn list_loci(&self) -> Result<Vec<ActiveLocus>, Failure> {
        let home = self.home_or_log_in(self.cause).await?;
        let invoked = self.begin(Call::ListLoci {});
        let url = self.service(&home, Service::Locus, &self.own_path("loci"));
        let tried = self.call(invoked, Ask::new(Method::GET, url)).await.json::<ActiveLoci>();
        let tried = tried.and_then(|active| Ok(active.loci));
        self.inner.scribe.end(invoked, tried, |loci| Answer::Loci { loci: loci.clone() })
    }

    /// How calls know this device: by its registration, or by its name before it has one.
    #[must_use]
    pub fn device_id(&self) -> String {
        self.inner.mercury.device_id().unwrap_or_else(|| self.name().to_owned())
    }

    async fn set_state(
        &self,
        locus: &Url,
        instance: Count,
        state: ParticipantState,
        device: Option<String>,
    ) -> Result<Locus, Failure> {
        let seat = self.seat(locus).await?;
        let invoked = self.begin(Call::SetState { locus: locus.clone(), state, instance });
        let url = below(locus, &format!("participants/{seat}"));
        let ask = Ask::new(Method::PUT, url).json(&SetState { state, instance, device });
        let tried = self.call(invoked, ask).await.json::<Locus>();
        self.inner.scribe.end(invoked, tried, |locus| Answer::Locus { locus: Box::new(locus.clone()) })
    }

    /// The own id within a locus: learnt by joining, else by reading.
    async fn seat(&self, locus: &Url) -> Result<Uuid, Failure> {
        let known = lock(&self.inner.loci).get(locus).copied();
        if let Some(seat) = known {
            return Ok(seat);
        }
        let reader = Self { operation: None, key: None, ..self.clone() };
        let read = reader.read_locus(locus).await?;
        self.remember_seat(locus, &read).ok_or_else(|| Failure::Garbled {
            status: 200,
            reason: "the locus does not list its reader".to_owned(),
        })
    }

    fn remember_seat(&self, asked: &Url, locus: &Locus) -> Option<Uuid> {
        let seat = locus.participants.iter().find(|participant| participant.user == *self.user())?.id;
        lock(&self.inner.loci).insert(asked.clone(), seat);
        Some(seat)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locus(state: LocusState, instance: u64) -> Locus {
        let url: Url = "https://a-conv.provider.example/v1/conversations/1/locus".parse().unwrap();
        Locus {
            conversation_url: url.clone(),
            url,
            state,
            instance: Count(instance),
            rev: Count(1),
            participants: vec![],
            replaces: vec![],
        }
    }

    #[test]
    fn a_join_expects_the_next_call_of_a_locus_at_rest_and_the_present_one_of_a_busy_one() {
        assert_eq!(expect(&locus(LocusState::Inactive, 3)), Count(3));
        assert_eq!(expect(&locus(LocusState::Initializing, 4)), Count(3));
        assert_eq!(expect(&locus(LocusState::Active, 4)), Count(3));
    }
}
