//! Where a check takes place: its users, what it sees, and how it waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_protocol::{Address, ClusterName, Code};
use fusion_runtime::Host;

use crate::check::{ANOTHER_REASON, Check, Observation, Stop, Verdict};
use crate::crew::Crew;
use crate::device::{Ask, Device, Failure, lock};
use crate::transcript::Transcript;
use crate::{Admin, Target};

/// For how long a thing that must come is waited for.
pub(crate) const EVENTUALLY: Duration = Duration::from_secs(15);
/// What takes longer than this is slow.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(5);
/// How long is waited for what must not come.
pub(crate) const NEVER: Duration = Duration::from_millis(1_500);
/// How often something that must come is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// The stage of one check.
pub struct Stage {
    pub(crate) crew: Arc<Crew>,
    check: &'static str,
    number: usize,
    transcript: Transcript,
    seen: Mutex<Vec<Observation>>,
    devices: Mutex<Vec<Device>>,
    people: Mutex<Vec<Address>>,
    /// How many people have each role.
    roles: Mutex<BTreeMap<String, u32>>,
}

/// A user on stage.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user: Address,
    pub(crate) role: String,
}

/// What a check concludes from the result of a call.
pub(crate) trait Judged<T> {
    /// The call is what the check is about: without its answer the check fails with `code`; when there is
    /// no answer at all, nothing can be concluded.
    fn must(self, stage: &Stage, code: &str) -> Result<T, Stop>;

    /// The call only prepares: without its answer nothing can be concluded.
    fn set_up(self, stage: &Stage, what: &str) -> Result<T, Stop>;
}

impl Stage {
    pub(crate) fn new(crew: Arc<Crew>, check: &Check, number: usize) -> Self {
        Self {
            crew,
            check: check.id,
            number,
            transcript: Transcript::default(),
            seen: Mutex::default(),
            devices: Mutex::default(),
            people: Mutex::default(),
            roles: Mutex::default(),
        }
    }

    /// The machine that the suite runs on.
    pub(crate) fn host(&self) -> &Host {
        &self.crew.host
    }

    /// What is checked.
    pub(crate) fn target(&self) -> &Target {
        &self.crew.target
    }

    /// The first cluster with test users: a private org's, if there is one.
    pub(crate) fn here(&self) -> Result<ClusterName, Stop> {
        self.cluster(0)
    }

    /// A cluster of another org than [`Stage::here`].
    pub(crate) fn there(&self) -> Result<ClusterName, Stop> {
        self.cluster(1)
    }

    /// A cluster of a third org, or [`Stage::there`] again.
    pub(crate) fn yonder(&self) -> Result<ClusterName, Stop> {
        self.cluster(2.min(self.target().peopled().len().saturating_sub(1)))
    }

    /// One cluster of each org with test users, three at most.
    pub(crate) fn viewpoints(&self) -> Vec<ClusterName> {
        self.target().peopled().into_iter().take(3).collect()
    }

    /// A cluster of the consumer org with test users.
    pub(crate) fn consumer(&self) -> Result<ClusterName, Stop> {
        let found = self.target().peopled().into_iter().find(|cluster| !self.target().is_private(cluster));
        found.ok_or_else(|| self.inconclusive("no-cluster", "the target has no consumer cluster"))
    }

    /// The admin of the org that runs `cluster`.
    pub(crate) fn admin(&self, cluster: &ClusterName) -> Result<Admin, Stop> {
        let admin = self.crew.admin(cluster).set_up(self, "finding the admin")?;
        Ok(admin.with_transcript(self.transcript.clone()))
    }

    /// A fresh user of `cluster`.
    pub(crate) async fn person(&self, role: &str, cluster: &ClusterName) -> Result<Person, Stop> {
        let role = self.cast(role);
        let name = format!("{}-{role}", self.number);
        let display_name = format!("Conformance {role} {}", self.crew.run);
        let user = self.crew.user(cluster, &name, &display_name, &self.transcript).await;
        let user = user.set_up(self, &format!("making {role} at {cluster}"))?;
        lock(&self.people).push(user.clone());
        Ok(Person { user, role })
    }

    /// A device of `person`, logged in, without a socket.
    pub(crate) async fn device(&self, person: &Person, name: &str) -> Result<Device, Stop> {
        let device = self.stranger(person, name);
        device.log_in().await.set_up(self, &format!("logging {} in", person.role))?;
        Ok(device)
    }

    /// A device of `person` that is not logged in.
    pub(crate) fn stranger(&self, person: &Person, name: &str) -> Device {
        let name = format!("{}/{}/{name}", self.check, person.role);
        let device = self.crew.device(&person.user, &name, &self.transcript);
        lock(&self.devices).push(device.clone());
        device
    }

    /// Somebody without an account, for what may be asked without one.
    pub(crate) fn visitor(&self) -> Result<Device, Stop> {
        let user = self.nobody("visitor", &self.here()?)?;
        Ok(self.stranger(&Person { user, role: "visitor".to_owned() }, "browser"))
    }

    /// A fresh user of `cluster` with one device that is logged in.
    pub(crate) async fn user(&self, role: &str, cluster: &ClusterName) -> Result<Device, Stop> {
        let person = self.person(role, cluster).await?;
        self.device(&person, "phone").await
    }

    /// The same with a socket that is ready.
    pub(crate) async fn online(&self, role: &str, cluster: &ClusterName) -> Result<Device, Stop> {
        let device = self.user(role, cluster).await?;
        device.connect().await.set_up(self, &format!("connecting {role}"))?;
        Ok(device)
    }

    /// An address of `cluster`'s domain that nobody has.
    pub(crate) fn nobody(&self, role: &str, cluster: &ClusterName) -> Result<Address, Stop> {
        let name = format!("{}-{}", self.number, self.cast(role));
        self.crew.address(cluster, &name).set_up(self, "making an address")
    }

    /// Notes down what was seen; `Err` when it is not as it must be.
    pub(crate) fn require(
        &self,
        as_it_must_be: bool,
        code: &str,
        text: impl Into<String>,
    ) -> Result<(), Stop> {
        match as_it_must_be {
            true => self.saw(code, Verdict::Pass, text),
            false => return Err(self.fail(code, text)),
        }
        Ok(())
    }

    /// Something is not as it must be.
    pub(crate) fn fail(&self, code: &str, text: impl Into<String>) -> Stop {
        self.saw(code, Verdict::Fail, text);
        Stop(())
    }

    /// Nothing can be concluded.
    pub(crate) fn inconclusive(&self, code: &str, text: impl Into<String>) -> Stop {
        self.saw(code, Verdict::Inconclusive, text);
        Stop(())
    }

    /// Notes down one thing.
    pub(crate) fn saw(&self, code: &str, verdict: Verdict, text: impl Into<String>) {
        self.note(code, verdict, text.into(), None);
    }

    fn note(&self, code: &str, verdict: Verdict, text: String, refused_with: Option<Code>) {
        let at_us = self.host().clock.now().as_micros() as u64;
        lock(&self.seen).push(Observation { code: code.to_owned(), verdict, text, at_us, refused_with });
    }

    /// Tries what must be refused with one of `codes`. Accepted, the check fails with `code`; refused for
    /// another reason, nothing can be concluded. The caller has shown before that the same request, rightly
    /// authorised, is accepted.
    pub(crate) async fn must_refuse(
        &self,
        who: &Device,
        what: &str,
        codes: &[Code],
        ask: &Ask,
        code: &str,
    ) -> Result<(), Stop> {
        let (requirement, _) = self.check.split_once('.').unwrap_or((self.check, ""));
        let expect = codes.first().copied().unwrap_or(Code::Forbidden);
        let tried = who.trespass(what, requirement, expect, ask).await;
        self.refused(tried.map(drop), what, codes, code)
    }

    /// The same for a call that was made already.
    pub(crate) fn refused<T>(
        &self,
        tried: Result<T, Failure>,
        what: &str,
        codes: &[Code],
        code: &str,
    ) -> Result<(), Stop> {
        match tried {
            Ok(_) => Err(self.fail(code, format!("{what}: accepted"))),
            Err(Failure::Garbled { status, .. }) => {
                Err(self.fail(code, format!("{what}: answered with {status} and nothing readable")))
            }
            Err(Failure::Refused(refused)) => match refused.code {
                Some(found) if codes.contains(&found) => {
                    let text = format!("{what}: refused with {}", found.as_str());
                    self.note(code, Verdict::Pass, text, Some(found));
                    Ok(())
                }
                _ => {
                    let wanted: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
                    let text = format!("{what}: {refused}, which is not {}", wanted.join(" or "));
                    Err(self.inconclusive(ANOTHER_REASON, text))
                }
            },
            Err(failure) => Err(self.inconclusive("no-answer", format!("{what}: {failure}"))),
        }
    }

    /// Looks until `look` finds what must come; fails with `code` when it does not come.
    pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
        &self,
        code: &str,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> Result<T, Stop> {
        let clock = &self.host().clock;
        let started = clock.now();
        loop {
            if let Some(found) = look().await {
                self.came(code, what, clock.now() - started);
                return Ok(found);
            }
            if clock.now() - started > EVENTUALLY {
                return Err(self.fail(code, format!("{what}: not seen in {} s", EVENTUALLY.as_secs())));
            }
            clock.sleep(LOOK).await;
        }
    }

    /// Something that had to come has come, after `waited`.
    pub(crate) fn came(&self, code: &str, what: &str, waited: Duration) {
        match waited > PROMPTLY {
            true => self.saw(code, Verdict::Slow, format!("{what}: after {} ms", waited.as_millis())),
            false => self.saw(code, Verdict::Pass, what),
        }
    }

    /// Ends all devices; answers what was seen and said.
    pub(crate) fn clear(&self) -> (Vec<Observation>, Transcript) {
        for device in std::mem::take(&mut *lock(&self.devices)) {
            device.sever();
        }
        std::mem::take(&mut *lock(&self.people)).iter().for_each(|user| self.crew.give_back(user));
        (std::mem::take(&mut *lock(&self.seen)), self.transcript.clone())
    }

    fn cluster(&self, nth: usize) -> Result<ClusterName, Stop> {
        let found = self.target().peopled().into_iter().nth(nth);
        found.ok_or_else(|| self.inconclusive("no-cluster", format!("the target has not {} orgs", nth + 1)))
    }

    /// `role`, or `role-2` for the second one in it, so that no two have the same name.
    fn cast(&self, role: &str) -> String {
        let mut roles = lock(&self.roles);
        let count = roles.entry(role.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { role.to_owned() } else { format!("{role}-{count}") }
    }
}

impl<T> Judged<T> for Result<T, Failure> {
    fn must(self, stage: &Stage, code: &str) -> Result<T, Stop> {
        self.map_err(|failure| match failure {
            Failure::Refused(_) | Failure::Garbled { .. } => stage.fail(code, failure.to_string()),
            Failure::Unreachable(_) | Failure::Unknown(_) => {
                stage.inconclusive("no-answer", format!("{code}: {failure}"))
            }
        })
    }

    fn set_up(self, stage: &Stage, what: &str) -> Result<T, Stop> {
        self.map_err(|failure| stage.inconclusive("not-set-up", format!("{what}: {failure}")))
    }
}
