//! The people of a plan: their devices, their admins, and what each of them calls which conversation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusion_conformance::device::{KeepAlive, MediaLeg};
use fusion_conformance::{Admin, Device, Target};
use fusion_deployment::topology::UserSpec;
use fusion_protocol::locus::Joined;
use fusion_protocol::{Address, Count, Url};
use futures_util::future::join_all;

use super::PlayError;
use crate::plan::Plan;
use crate::scenario::{Act, Step};
use crate::stage::Stage;

/// How often setting up is tried again while clusters are still learning the domain map.
const SET_UP_TRIES: u32 = 40;

/// Everybody who acts.
pub(super) struct Cast<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stage: &'a dyn Stage,
    pub(super) target: Arc<Target>,
    /// By user and device, as the plan names them.
    pub(super) devices: BTreeMap<(String, String), Player>,
}

/// A device and what its user knows.
pub(super) struct Player {
    pub(super) device: Device,
    memory: Mutex<Memory>,
}

/// What a user knows by the scenario's names.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) chats: BTreeMap<String, Chat>,
    pub(super) call: Option<InCall>,
    /// The revision of each locus as it was last looked at.
    pub(super) seen: BTreeMap<Url, Count>,
}

/// A conversation that a user knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chat {
    pub(super) url: Url,
    pub(super) locus_url: Url,
}

/// A call that a device is in.
pub(super) struct InCall {
    pub(super) joined: Joined,
    pub(super) leg: Option<MediaLeg>,
    #[expect(dead_code, reason = "dropping it ends the keep-alive")]
    pub(super) keep_alive: KeepAlive,
}

impl<'a> Cast<'a> {
    /// The devices that the plan's steps name, and one for everybody who does nothing.
    pub(super) fn gather(plan: &'a Plan, stage: &'a dyn Stage, target: Arc<Target>) -> Self {
        let named = plan.steps.iter().map(|step| (step.user.clone(), step.device.clone()));
        let idle = plan.topology.users.iter().map(|user| user.address.local_part().to_owned());
        let idle = idle.filter(|user| !plan.steps.iter().any(|step| step.user == *user));
        let mut devices = BTreeMap::new();
        for (user, device) in named.chain(idle.map(|user| (user, "phone".to_owned()))) {
            devices.entry((user.clone(), device.clone())).or_insert_with(|| {
                let name = format!("{user}/{device}");
                let spec = crate::scenario::user_named(&plan.topology, &user).expect("scenarios are checked");
                let recorder = stage.recorder().clone();
                let host = stage.device_host(&name);
                let device = Device::new(host, target.clone(), spec.address.clone(), &name, recorder);
                Player { device, memory: Mutex::default() }
            });
        }
        Self { plan, stage, target, devices }
    }

    /// Provisions everybody, logs every device in and opens its socket. Nothing is wrong yet, so all of
    /// it must succeed.
    pub(super) async fn set_up(&self) -> Result<(), PlayError> {
        let everybody = self.plan.topology.users.iter().filter(|user| !self.comes_later(user));
        let everybody = everybody.map(|user| self.provision(user));
        join_all(everybody).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        let devices = self.devices.iter().filter(|(name, _)| !self.is_of_newcomer(name));
        let devices = devices.map(|(_, player)| connect(&player.device));
        join_all(devices).await.into_iter().collect::<Result<Vec<()>, _>>().map(|_| ())
    }

    /// Whether it is in the story that somebody's account is made where the topology has them.
    fn comes_later(&self, user: &UserSpec) -> bool {
        let name = user.address.local_part();
        self.provisions().any(|(step, at)| step.user == name && at == user.cluster.as_str())
    }

    /// Whether a device is of somebody whose account is made in the story.
    pub(super) fn is_of_newcomer(&self, (user, device): &(String, String)) -> bool {
        self.provisions().any(|(step, _)| step.user == *user && step.device == *device)
    }

    fn provisions(&self) -> impl Iterator<Item = (&Step, &str)> {
        self.plan.steps.iter().filter_map(|step| match &step.act {
            Act::Provision { at } => Some((step, at.as_str())),
            _ => None,
        })
    }

    /// Closes every socket.
    pub(super) async fn leave(&self) {
        join_all(self.devices.values().map(|player| player.device.disconnect())).await;
    }

    pub(super) fn player(&self, user: &str, device: &str) -> &Player {
        &self.devices[&(user.to_owned(), device.to_owned())]
    }

    pub(super) fn address(&self, user: &str) -> Address {
        let spec = crate::scenario::user_named(&self.plan.topology, user).expect("scenarios are checked");
        spec.address.clone()
    }

    async fn provision(&self, user: &UserSpec) -> Result<(), PlayError> {
        let name = format!("admin-{}", user.cluster);
        let host = self.stage.device_host(&format!("{name}/{}", user.address.local_part()));
        let clock = host.clock.clone();
        let recorder = self.stage.recorder().clone();
        let admin = Admin::new(host, self.target.clone(), user.cluster.clone(), &name, recorder)
            .map_err(|failure| failed(&name, Some(failure.to_string())))?;
        let display_name = user.display_name.as_ref().map(|name| name.expose().as_str());
        let mut failure = None;
        for _ in 0..SET_UP_TRIES {
            match admin.provision(&user.address, display_name).await {
                Ok(_) => return Ok(()),
                Err(error) => failure = Some(error),
            }
            clock.sleep(Duration::from_millis(250)).await;
        }
        Err(failed(user.address.local_part(), failure.map(|failure| failure.to_string())))
    }
}

impl Player {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chat(&self, name: &str) -> Option<Chat> {
        self.memory().chats.get(name).cloned()
    }

    pub(super) fn remember(&self, name: &str, chat: Chat) {
        self.memory().chats.insert(name.to_owned(), chat);
    }
}

async fn connect(device: &Device) -> Result<(), PlayError> {
    let mut failure = None;
    for _ in 0..SET_UP_TRIES {
        match device.connect().await {
            Ok(()) => return Ok(()),
            Err(error) => failure = Some(error),
        }
        device.host().clock.sleep(Duration::from_millis(250)).await;
    }
    Err(failed(device.name(), failure.map(|failure| failure.to_string())))
}

fn failed(who: &str, why: Option<String>) -> PlayError {
    PlayError::SetUp { who: who.to_owned(), why: why.unwrap_or_default() }
}
