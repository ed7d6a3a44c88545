//! What a device does when a step says so. A step that cannot be done any more is passed over: what
//! that means for the run is for judges to say.

use std::time::Duration;

use fusion_conformance::device::{Ask, expect};
use fusion_conformance::{Device, Failure};
use fusion_protocol::conversation::Act as Done;
use fusion_protocol::index::IndexEntry;
use fusion_protocol::locus::{Joined, LocusDelta, LocusState, ParticipantState};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Service, Url};
use http::Method;

use super::cast::{Cast, Chat, InCall, Player};
use super::hostile::Victim;
use crate::scenario::{Act, Step};

/// How long a device waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The pace of a voice: 20 ms of sound in each packet.
const PACKET_EVERY: Duration = Duration::from_millis(20);
/// How often a device tries to join or leave a call while clusters do not answer.
const CALL_TRIES: u32 = 12;

impl Cast<'_> {
    /// Does what `step` says.
    pub(super) async fn act(&self, step: &Step) {
        let player = self.player(&step.user, &step.device);
        let device = player.device.named(&step.id);
        match &step.act {
            Act::Create { chat, with, group } => self.create(player, &device, chat, with, *group).await,
            Act::Find { chat, with, within } => self.find(player, &device, chat, with, *within).await,
            Act::AwaitChat { chat, within } => await_chat(player, &device, chat, *within).await,
            Act::Say { chat, text } => {
                if let Some(chat) = player.chat(chat) {
                    let _ = persistent(&device, || device.say(&chat.url, text)).await;
                }
            }
            Act::Add { chat, who } => {
                if let Some(chat) = player.chat(chat) {
                    let user = self.address(who);
                    let add = || device.post(&chat.url, Done::Add { user: user.clone() });
                    let _ = persistent(&device, add).await;
                }
            }
            Act::Read { chat } => {
                if let Some(chat) = player.chat(chat) {
                    let _ = device.read(&chat.url).await;
                }
            }
            Act::ReadIndex {} => drop(device.read_index().await),
            Act::Hide { chat } => {
                if let Some(chat) = player.chat(chat) {
                    let _ = persistent(&device, || device.hide(&chat.url, true)).await;
                }
            }
            Act::Call { chat } => call(player, &device, chat).await,
            Act::Answer { chat, within } => answer(player, &device, chat, *within).await,
            Act::Decline { chat, within } => decline(player, &device, chat, *within).await,
            Act::Talk { packets, .. } => talk(player, &step.id, *packets).await,
            Act::HangUp { .. } => hang_up(player, &device).await,
            Act::Look { chat } => look(player, &device, chat).await,
            Act::Vanish {} => vanish(player, &device),
            Act::Disconnect {} => device.disconnect().await,
            Act::Connect {} => drop(device.connect().await),
            Act::LogIn {} => drop(device.log_in().await),
            Act::Resolve { who } => drop(device.resolve(&self.address(who)).await),
            Act::ReplayToken { at } => self.replay_token(&device, at).await,
            Act::Move { to } => self.move_user(step, &device, to).await,
            Act::Provision { at } => self.provision_in_story(step, player, &device, at).await,
            Act::Claim { domain } => self.claim(step, &device, domain).await,
            Act::Trespass { deed, at, who, chat } => {
                let victim = Victim { at: at.as_deref(), who: who.as_deref(), chat: chat.as_deref() };
                self.trespass(&device, *deed, victim).await;
            }
        }
    }

    async fn create(&self, player: &Player, device: &Device, chat: &str, with: &[String], group: bool) {
        let others: Vec<Address> = with.iter().map(|user| self.address(user)).collect();
        // One key for all tries: however often it is sent, it is one conversation.
        let keyed = device.keyed(&device.host().entropy.uuid().to_string());
        let made = persistent(device, async || {
            if group { keyed.group(&others, chat).await } else { keyed.one_to_one(&others[0]).await }
        });
        if let Ok(made) = made.await {
            let made = made.it();
            player.remember(chat, Chat { url: made.url.clone(), locus_url: made.locus_url.clone() });
        }
    }

    async fn find(&self, player: &Player, device: &Device, chat: &str, with: &str, within: Duration) {
        let other = self.address(with);
        let clock = &device.host().clock;
        let until = clock.now() + within;
        while clock.now() < until {
            if let Ok(found) = device.look_up(&other).await {
                return player.remember(chat, Chat { url: found.url, locus_url: found.locus_url });
            }
            clock.sleep(LOOK_AGAIN).await;
        }
    }

    /// SEC-003: a token for the own cluster, shown to another one.
    async fn replay_token(&self, device: &Device, at: &str) {
        let (Some(home), Ok(at)) = (device.home(), at.parse::<ClusterName>()) else { return };
        let Ok(token) = device.token_for(&home).await else { return };
        let path = format!("/v1/users/{}/index", device.user().path_segment());
        let url = device.target().template.url(&at, Service::Conv, &path);
        let ask = Ask::new(Method::GET, url).token(token);
        let _ = persistent(device, async || {
            device.trespass("the token of another cluster", "SEC-003", Code::WrongAudience, &ask).await
        })
        .await;
    }
}

/// RDV-003: waits for the notification of a conversation that the user does not know yet; when it does
/// not come, the index tells.
async fn await_chat(player: &Player, device: &Device, chat: &str, within: Duration) {
    let woken = device.wait_for(within, |event| event.event_type == EventType::ConversationCreated).await;
    let at_least = woken.and_then(|woken| member::<Count>(&woken.event.data, "indexCursor"));
    for _ in 0..CALL_TRIES {
        if let Some(entry) = newest_entry(device, at_least).await {
            let found = Chat { url: entry.url, locus_url: entry.locus_url };
            return player.remember(chat, found);
        }
        device.host().clock.sleep(LOOK_AGAIN).await;
    }
}

async fn newest_entry(device: &Device, at_least: Option<Count>) -> Option<IndexEntry> {
    let page = device.read_index_page(Count(0), at_least).await.ok()?;
    page.entries.into_iter().rfind(|entry| entry.superseded_by.is_none())
}

async fn call(player: &Player, device: &Device, chat: &str) {
    let Some(chat) = player.chat(chat) else { return };
    let Ok(locus) = persistent(device, || device.read_locus(&chat.locus_url)).await else { return };
    join(player, device, &chat.locus_url, expect(&locus)).await;
}

/// Waits until it rings, by notification or by the list of active loci, then joins that call.
async fn answer(player: &Player, device: &Device, chat: &str, within: Duration) {
    if let Some((locus, instance)) = ringing(player, device, chat, within).await {
        join(player, device, &locus, Count(instance.0.saturating_sub(1))).await;
    }
}

async fn decline(player: &Player, device: &Device, chat: &str, within: Duration) {
    if let Some((locus, instance)) = ringing(player, device, chat, within).await {
        let _ = persistent(device, || device.decline(&locus, instance)).await;
    }
}

/// LOC-002: the ringing call is found by the notification or by the list.
async fn ringing(player: &Player, device: &Device, chat: &str, within: Duration) -> Option<(Url, Count)> {
    let clock = &device.host().clock;
    let until = clock.now() + within;
    while clock.now() < until {
        let known = player.chat(chat).map(|chat| chat.locus_url);
        let ours = |locus: &Url| known.as_ref().is_none_or(|known| known == locus);
        let woken = device
            .wait_for(Duration::from_secs(2), |event| {
                event.event_type == EventType::LocusRinging && ours(&event.resource)
            })
            .await;
        if let Some(woken) = woken {
            return Some((woken.event.resource, member(&woken.event.data, "instance")?));
        }
        let rings = |state| matches!(state, LocusState::Initializing | LocusState::Active);
        let listed = device.list_loci().await.unwrap_or_default().into_iter().find(|entry| {
            ours(&entry.locus_url)
                && rings(entry.state)
                && entry.participant_state == ParticipantState::Notified
        });
        if let Some(entry) = listed {
            return Some((entry.locus_url, entry.instance));
        }
    }
    None
}

/// Joins, renews the lease from then on, and binds the media leg.
async fn join(player: &Player, device: &Device, locus: &Url, expect: Count) {
    let Ok(joined) = persistent(device, || device.join(locus, expect)).await else { return };
    let keep_alive = device.keep_alive(&joined);
    let leg = bind(device, &joined).await;
    player.memory().call = Some(InCall { joined, leg, keep_alive });
}

async fn bind(device: &Device, joined: &Joined) -> Option<fusion_conformance::device::MediaLeg> {
    joined.leg.as_ref()?;
    device.bind(joined).await.ok()
}

async fn talk(player: &Player, operation: &str, packets: u64) {
    let leg = player.memory().call.as_mut().and_then(|call| call.leg.take());
    let Some(mut leg) = leg else { return };
    leg.name(operation);
    let _ = leg.talk(packets, PACKET_EVERY).await;
    if let Some(call) = player.memory().call.as_mut() {
        call.leg = Some(leg);
    }
}

/// Leaves; a little later, what still arrived on the leg is written down (MED-001).
async fn hang_up(player: &Player, device: &Device) {
    let Some(call) = player.memory().call.take() else { return };
    let (locus, instance) = (call.joined.locus.url.clone(), call.joined.locus.instance);
    let _ = persistent(device, || device.leave(&locus, instance)).await;
    if let Some(leg) = call.leg {
        device.host().clock.sleep(Duration::from_secs(2)).await;
        leg.record();
    }
}

/// LOC-008: the locus, and then what is new in it; from then on, what is new since the last look.
async fn look(player: &Player, device: &Device, chat: &str) {
    let Some(chat) = player.chat(chat) else { return };
    let seen = player.memory().seen.get(&chat.locus_url).copied();
    let since = match seen {
        Some(rev) => rev,
        None => match persistent(device, || device.read_locus(&chat.locus_url)).await {
            Ok(locus) => locus.rev,
            Err(_) => return,
        },
    };
    let news = persistent(device, || device.read_locus_since(&chat.locus_url, since)).await;
    let rev = match news {
        Ok(LocusDelta::Whole(locus)) => locus.rev,
        Ok(LocusDelta::Unchanged { .. }) | Err(_) => since,
    };
    player.memory().seen.insert(chat.locus_url, rev);
}

/// A battery is empty: nobody says goodbye.
fn vanish(player: &Player, device: &Device) {
    player.memory().call = None;
    device.sever();
}

/// A member of an event's data.
fn member<T: serde::de::DeserializeOwned>(data: &serde_json::Value, name: &str) -> Option<T> {
    serde_json::from_value(data.get(name)?.clone()).ok()
}

/// What a person does when "it does not work": tries again for a while, unless it was really refused.
pub(super) async fn persistent<T>(
    device: &Device,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut result = attempt().await;
    for _ in 1..CALL_TRIES {
        let passing = match &result {
            Ok(_) => false,
            Err(Failure::Refused(refused)) => refused.status == 503 || refused.status == 429,
            Err(_) => true,
        };
        if !passing {
            break;
        }
        device.host().clock.sleep(LOOK_AGAIN).await;
        result = attempt().await;
    }
    result
}
