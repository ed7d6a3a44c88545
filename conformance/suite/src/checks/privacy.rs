//! Privacy (PRI).

use std::path::Path;
use std::time::Duration;

use fusion_history::Body;
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_protocol::{Domain, Service, limits};
use http::Method;
use serde_json::json;

use crate::check::{Check, Checked, Need, Stop, Verdict};
use crate::device::Ask;
use crate::stage::{Judged as _, Stage};

/// How long after the last word the provider plane is searched: time for what leaks late.
const LEAKS_LATE: Duration = Duration::from_secs(2);

/// How many of the private things found are named one by one.
const HITS_SHOWN: usize = 5;

pub(super) const CHECKS: &[Check] = &[
    Check::new("PRI-001.canaries", &[Need::Private, Need::TwoOrgs, Need::Keys, Need::Evidence], |stage| {
        Box::pin(canaries(stage))
    }),
    Check::new("PRI-005.error-bodies", &[Need::Cluster], |stage| Box::pin(error_bodies(stage))),
];

async fn canaries(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.online("quillfeather", &here).await?;
    let bob = stage.online("nightingale", &there).await?;
    let run = &stage.crew.run;
    let message = format!("canary message {run} about the merger");
    let title = format!("canary title {run} of the board");
    let one = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();
    alice.say(&one.url, &message).await.set_up(stage, "saying something")?;
    let group = alice.group(&[bob.user().clone()], &title).await.set_up(stage, "creating a group")?.into_it();
    bob.say(&group.url, &message).await.set_up(stage, "saying something")?;
    let nobody = stage.nobody("nobody-canary", &here)?;
    // Looking somebody up is where addresses leave a cluster.
    let _ = bob.resolve(&nobody).await;
    let joined = super::locus::start(stage, &alice, &one.locus_url).await?;
    super::locus::hang_up(stage, &[&alice], &joined).await?;
    stage.host().clock.sleep(LEAKS_LATE).await;

    let mut private = vec![
        ("an address of the first org", alice.user().as_str().to_owned()),
        ("an address that nobody has", nobody.as_str().to_owned()),
        ("a message", message),
        ("a title", title),
        ("a name", format!("Conformance quillfeather {run}")),
    ];
    if stage.target().is_private(&there) {
        private.push(("an address of the second org", bob.user().as_str().to_owned()));
    }
    search(stage, &Canaries::new(private), &alice.user().domain())
}

/// Searches everything that the target shows of the provider plane. That it is the right place is shown
/// by something that the provider may know: the domain.
fn search(stage: &Stage, canaries: &Canaries, domain: &Domain) -> Checked {
    let control = Canaries::new([("the domain", domain.as_str())]);
    let mut proved = false;
    let mut found = Vec::new();
    for Place { kind, name, bytes } in places(stage)? {
        proved |= !control.scan(&bytes).is_empty();
        let sink = canaries.sink(kind, &bytes);
        let text = format!("{} bytes of the provider's {kind} searched", sink.searched_bytes);
        stage.saw("searched", Verdict::Pass, text);
        found.extend(sink.hits.iter().map(|hit| {
            format!("{} stands in {name} at byte {} as {}", hit.canary, hit.offset, hit.encoding)
        }));
        stage.crew.recorder.record(stage.host().clock.now(), "provider", None, Body::Sink(sink));
    }
    for hit in found.iter().take(HITS_SHOWN) {
        stage.saw("canary-found", Verdict::Fail, hit);
    }
    if !found.is_empty() {
        return Err(stage.fail("canary-found", format!("{} private things found", found.len())));
    }
    if !proved {
        let text = format!("not even {domain} stands there: is it the provider's?");
        return Err(stage.inconclusive("place-not-proved", text));
    }
    Ok(())
}

/// Somewhere to look into.
struct Place {
    /// `store`, `log` or `wire`.
    kind: &'static str,
    name: String,
    bytes: Vec<u8>,
}

/// Everything that can be looked into.
fn places(stage: &Stage) -> Result<Vec<Place>, Stop> {
    let evidence = &stage.target().evidence;
    let files = evidence.stores.iter().map(|file| ("store", file));
    let files = files.chain(evidence.logs.iter().map(|file| ("log", file)));
    let mut places = Vec::new();
    for (kind, file) in files {
        places.push(Place { kind, name: file.display().to_string(), bytes: read(stage, file)? });
    }
    let seen = evidence.seen.iter();
    places.extend(seen.map(|it| Place { kind: it.place, name: it.name.clone(), bytes: (it.bytes)() }));
    Ok(places)
}

/// A file, or all files below a folder.
fn read(stage: &Stage, path: &Path) -> Result<Vec<u8>, Stop> {
    let wrong = |error: std::io::Error| {
        stage.inconclusive("not-set-up", format!("{} cannot be read: {error}", path.display()))
    };
    if !path.is_dir() {
        return std::fs::read(path).map_err(wrong);
    }
    let mut bytes = Vec::new();
    let mut below: Vec<_> =
        std::fs::read_dir(path).map_err(wrong)?.flatten().map(|entry| entry.path()).collect();
    below.sort();
    for path in below {
        bytes.extend(read(stage, &path)?);
    }
    Ok(bytes)
}

async fn error_bodies(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.user("alice", &here).await?;
    let nobody = stage.nobody("quillfeather", &here)?;
    let text = format!("canary text {}", stage.crew.run);
    let own = alice.read_index().await;
    own.must(stage, "own-index-unreadable")?;

    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let template = &stage.target().template;
    let users = |path: String| Ask::new(Method::GET, template.url(&here, Service::Users, &path));
    let post = |body: String| {
        let url = template.url(&here, Service::Conv, "/v1/conversations");
        Ask::new(Method::POST, url).key("error-bodies").body("application/json", body)
    };
    let address = nobody.path_segment();
    let broken = format!("{{\"participants\": [\"{}\"], \"title\": \"{text}\"", nobody.as_str());
    let unknown_kind = json!({ "kind": text, "participants": [nobody.as_str()] }).to_string();
    let long =
        json!({ "kind": "group", "participants": [nobody.as_str()], "title": text.repeat(limits::TEXT_MAX) });
    let mut refused = 0;
    for (what, ask) in [
        ("an unknown user", users(format!("/v1/resolve/{address}"))),
        ("an unknown path", users(format!("/v1/nothing/{address}"))),
        ("half a JSON text", post(broken)),
        ("an unknown kind", post(unknown_kind)),
        ("a title too long", post(long.to_string())),
    ] {
        let reply = alice.send(&ask.token(&token)).await.must(stage, "no-refusal")?;
        if reply.is_success() {
            continue;
        }
        refused += 1;
        let canaries = Canaries::new([("the address", nobody.as_str()), ("the text", text.as_str())]);
        let sink: Sink = canaries.sink("error", &reply.body);
        let quoted = sink.hits.first().map(|hit| format!("{} as {}", hit.canary, hit.encoding));
        let said =
            format!("the refusal of {what} quotes nothing: {}", quoted.as_deref().unwrap_or("nothing"));
        stage.require(quoted.is_none(), "error-quotes", said)?;
    }
    stage.require(refused > 0, "no-refusal", format!("{refused} requests were refused"))
}
