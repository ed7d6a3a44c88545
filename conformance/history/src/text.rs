//! Events as one line for humans. JSON is for machines ([`crate::history::History::to_lines`]).

use std::fmt;

use fusion_protocol::conversation::Activity;
use fusion_protocol::locus::{Locus, LocusState, ParticipantState};
use fusion_protocol::{ClusterName, Url};
use serde::Serialize;

use crate::event::{Answer, Body, Call, Event, EventId, Outcome};

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Event {
    /// Place, seconds since the run began, host, what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        write!(f, "{:<6} {seconds:>4}.{micros:06} s  {:<14} ", self.id.to_string(), self.host)?;
        if let (Body::Return { outcome }, Some(cause)) = (&self.body, self.cause) {
            return write!(f, "{cause} {outcome}");
        }
        self.body.fmt(f)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World(world) => write!(
                f,
                "world of {} clusters and {} users on {}",
                world.clusters.len(),
                world.users.len(),
                world.engine
            ),
            Self::Invoke { operation, actor, call } => write!(f, "{} {call} [{operation}]", actor.as_str()),
            Self::Return { outcome } => outcome.fmt(f),
            Self::Deliver { seq, event_type, resource, data, .. } => {
                write!(f, "told {} {} {data} (seq {seq})", word(event_type), resource)
            }
            Self::Socket { what, base, session, .. } => {
                write!(f, "socket {} (session {session}, base {base})", word(what))
            }
            Self::State { concept, subject, state, detail } => {
                write!(f, "{concept} {subject} is {state} {detail}")
            }
            Self::Fault { fault, family, phase, detail } => {
                write!(f, "fault {fault} {} ({family} {detail})", word(phase))
            }
            Self::Wire { from, to, protocol, what, bytes } => {
                write!(f, "{protocol} {from} to {to}: {what}, {bytes} B")
            }
            Self::Log { level, target, fields } => write!(f, "{level} {target} {fields}"),
            Self::Sink(sink) => {
                let (place, bytes, hits) = (&sink.place, sink.searched_bytes, sink.hits.len());
                write!(f, "searched {place}, {bytes} B for {} canaries: {hits} found", sink.canaries)
            }
            Self::Media(media) => {
                let received: u64 = media.received.iter().map(|source| source.packets).sum();
                write!(
                    f,
                    "media of {} call {}: sent {}, received {received}",
                    media.locus, media.instance, media.sent
                )
            }
            Self::Leg(leg) => write!(f, "leg {}: received {}, sent {}", leg.id, leg.received, leg.sent),
            Self::Phase { phase } => write!(f, "phase {}", word(phase)),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provision { user, cluster } => write!(f, "provisions {} at {cluster}", user.as_str()),
            Self::Deprovision { user, cluster } => write!(f, "deletes {} at {cluster}", user.as_str()),
            Self::Move { user, from, to } => write!(f, "moves {} from {from} to {to}", user.as_str()),
            Self::Claim { domain, org, .. } => write!(f, "claims {domain} for {org}"),
            Self::ReadDomain { domain } => write!(f, "looks {domain} up"),
            Self::LogIn { cluster } => write!(f, "logs in at {cluster}"),
            Self::Exchange { cluster } => write!(f, "exchanges the token for one of {cluster}"),
            Self::Resolve { user, via } => write!(f, "resolves {} via {via}", user.as_str()),
            Self::Connect { device } => write!(f, "connects {device}"),
            Self::Disconnect { device } => write!(f, "disconnects {device}"),
            Self::Create { kind, others, at, .. } => {
                let others: Vec<&str> = others.iter().map(|user| user.as_str()).collect();
                write!(f, "creates a {} with {} at {at}", word(kind), others.join(", "))
            }
            Self::LookUp { other } => write!(f, "looks up the conversation with {}", other.as_str()),
            Self::Post { conversation, key, verb, .. } => write!(f, "posts {verb} {key} to {conversation}"),
            Self::Read { conversation, after } => write!(f, "reads {conversation} after {after}"),
            Self::ReadConversation { conversation } => write!(f, "reads the state of {conversation}"),
            Self::ReadIndex { after } => write!(f, "reads the own index after {after}"),
            Self::ReadLocus { locus } => write!(f, "reads {locus}"),
            Self::ReadLocusSince { locus, since } => write!(f, "reads what is new in {locus} since {since}"),
            Self::Join { locus, expect, device } => {
                write!(f, "joins {locus} with {device}, expecting {expect}")
            }
            Self::SetState { locus, state, instance } => {
                write!(f, "sets {} in call {instance} of {locus}", word(state))
            }
            Self::Renew { locus, instance, device } => {
                write!(f, "renews the lease of {device} in call {instance} of {locus}")
            }
            Self::ListLoci {} => f.write_str("lists the own active loci"),
            Self::Talk { leg, packets } => write!(f, "sends {packets} packets on leg {leg}"),
            Self::Trespass { what, requirement, expect } => {
                write!(f, "tries {what} ({requirement}; expects {})", expect.as_str())
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { answer } => write!(f, "done: {answer}"),
            Self::Refused { status, code: Some(code) } => write!(f, "refused: {status} {}", code.as_str()),
            Self::Refused { status, code: None } => write!(f, "refused: {status}"),
            Self::Unreachable {} => f.write_str("unreachable"),
            Self::Unknown {} => f.write_str("no answer"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing {} => f.write_str("nothing to say"),
            Self::Provisioned { .. } => f.write_str("provisioned"),
            Self::Token { audience } => write!(f, "a token for {audience}"),
            Self::Domain(record) => {
                let clusters: Vec<&str> = record.clusters.iter().map(ClusterName::as_str).collect();
                write!(f, "{} of {} at {}", record.domain, record.org, clusters.join(", "))
            }
            Self::Resolved(found) => write!(f, "served by {}", found.record.cluster),
            Self::Connected { id } => write!(f, "device {id}"),
            Self::Conversation { created, conversation } => {
                let how = if *created { "created " } else { "" };
                write!(f, "{how}{} {}", conversation.url, word(&conversation.state))?;
                redirect(f, conversation.superseded_by.as_ref())
            }
            Self::Peer(peer) => write!(f, "{} {}", peer.url, word(&peer.state)),
            Self::Accepted { created, activity, redirected_to } => {
                let how = if *created { "accepted" } else { "had already" };
                write!(f, "{how} {}", short(activity))?;
                redirect(f, redirected_to.as_ref())
            }
            Self::Activities { activities, last_seq, redirected_to } => {
                let shown: Vec<String> = activities.iter().take(8).map(short).collect();
                let more = if activities.len() > 8 { " ..." } else { "" };
                write!(f, "[{}{more}], last {last_seq}", shown.join(", "))?;
                redirect(f, redirected_to.as_ref())
            }
            Self::Index { entries, cursor } => {
                let shown: Vec<String> = entries
                    .iter()
                    .take(8)
                    .map(|entry| format!("{} at cursor {}", entry.url, entry.cursor))
                    .collect();
                write!(f, "index [{}], cursor {cursor}", shown.join(", "))
            }
            Self::Locus { locus } => show_locus(f, locus),
            Self::LocusUnchanged { rev } => write!(f, "nothing new, revision {rev}"),
            Self::Joined { locus, leg } => {
                f.write_str("joined ")?;
                show_locus(f, locus)?;
                leg.iter().try_for_each(|leg| write!(f, ", leg {leg}"))
            }
            Self::Loci { loci } => {
                let shown: Vec<String> = loci
                    .iter()
                    .map(|locus| {
                        format!("{} call {} {}", locus.locus_url, locus.instance, word(&locus.state))
                    })
                    .collect();
                write!(f, "loci [{}]", shown.join(", "))
            }
        }
    }
}

/// The word that a plain enum is on the wire.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

fn short(activity: &Activity) -> String {
    let id: String = activity.id.to_string().chars().take(8).collect();
    format!("{}:{id}", activity.seq)
}

fn redirect(f: &mut fmt::Formatter<'_>, to: Option<&Url>) -> fmt::Result {
    to.into_iter().try_for_each(|to| write!(f, " at {to}"))
}

fn show_locus(f: &mut fmt::Formatter<'_>, locus: &Locus) -> fmt::Result {
    let state: &LocusState = &locus.state;
    write!(f, "{} call {} {}", locus.url, locus.instance, word(state))?;
    for participant in &locus.participants {
        let state: &ParticipantState = &participant.state;
        write!(f, ", {} {}", participant.user.as_str(), word(state))?;
    }
    Ok(())
}
