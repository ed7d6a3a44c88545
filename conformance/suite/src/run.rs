//! A run: who answers, then every check on its own stage, then the judges, then cleaning up.

use std::sync::Arc;
use std::time::Duration;

use fusion_history::event::{World, WorldCluster};
use fusion_history::{Body, Phase, Recorder, judge_all};
use fusion_protocol::auth::{Metadata, issuer};
use fusion_protocol::{ClusterName, Service};
use fusion_runtime::{Host, Latch};
use futures_util::StreamExt as _;
use http::Method;

use crate::catalogue::{CheckEntry, catalogue};
use crate::check::{Check, Observation, Verdict};
use crate::checks::checks;
use crate::crew::Crew;
use crate::device::wire::Wire;
use crate::device::{Ask, Failure};
use crate::report::{CheckReport, ClusterHealth, Conclusion, Report};
use crate::stage::Stage;
use crate::target::{OrgRole, Target};

/// How long a cluster may take to say who it is, before the checks begin.
const HELLO: Duration = Duration::from_secs(3);
/// How many events of a run are kept for its judges.
const EVENTS_MAX: u64 = 500_000;

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which checks, by pattern: an id, or with `*` for anything; `LOC` is `LOC*`. Empty: all.
    pub only: Vec<String>,
    /// How many checks are under way at a time.
    pub at_once: usize,
    /// How many times its own limit a check may take: for slow networks.
    pub patience: u32,
    /// Opened when the run is to end: checks under way stop, and what was made is taken away.
    pub stop: Arc<Latch>,
    /// What the history says of where it takes place: `live`, `fabric` and so on.
    pub engine: String,
}

/// What happens while a run goes on.
#[derive(Clone, Debug)]
pub enum Progress {
    /// So many checks are going to be made.
    Planned(usize),
    /// A check has begun.
    Started(&'static str),
    /// A check has ended.
    Finished(Box<CheckReport>),
    /// The checks are over; what they made is taken away.
    CleaningUp,
}

impl Default for Options {
    fn default() -> Self {
        let stop = Arc::default();
        Self { only: Vec::new(), at_once: 16, patience: 1, stop, engine: "live".to_owned() }
    }
}

/// Checks `target` from `host`, and tells `progress` about it.
pub async fn run(
    host: &Host,
    target: Arc<Target>,
    options: &Options,
    progress: impl Fn(Progress) + Send + Sync,
) -> Report {
    let recorder = Recorder::with_budget(EVENTS_MAX);
    run_recorded(host, target, options, &recorder, progress).await
}

/// The same, with the history in the caller's hand: an engine adds what it sees of its own world.
pub async fn run_recorded(
    host: &Host,
    target: Arc<Target>,
    options: &Options,
    recorder: &Recorder,
    progress: impl Fn(Progress) + Send + Sync,
) -> Report {
    let began = host.clock.now();
    let started = host.clock.wall().to_string();
    let crew = Arc::new(Crew::new(host.clone(), target.clone(), recorder.clone()));
    recorder.record(began, "suite", None, Body::World(world(&target, &options.engine)));
    recorder.record(began, "suite", None, Body::Phase { phase: Phase::Act });
    let clusters = health(host, &target).await;
    let planned = planned(&options.only);
    progress(Progress::Planned(planned.len()));
    let nobody = clusters.iter().all(|health| health.trouble.is_some());
    let checks = if nobody {
        planned.iter().map(|(_, check)| unreachable(check)).collect()
    } else {
        play(&crew, &planned, options, &progress).await
    };
    recorder.record(host.clock.now(), "suite", None, Body::Phase { phase: Phase::End });
    let judges = judge_all(&recorder.snapshot());
    progress(Progress::CleaningUp);
    let left_behind = crew.clean_up().await;
    let mut report = Report {
        target: target.name.clone(),
        run: crew.run.clone(),
        suite: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        took_us: (host.clock.now() - began).as_micros() as u64,
        clusters,
        checks,
        judges,
        requirements: Vec::new(),
        left_behind,
        interrupted: options.stop.is_open(),
        conclusion: Conclusion::Incomplete,
    };
    report.conclude();
    report
}

/// The checks that `patterns` choose, with their entries, in the catalogue's order.
#[must_use]
pub fn chosen(patterns: &[String]) -> Vec<(Check, &'static CheckEntry)> {
    let chosen = checks().into_iter().filter(|check| selected(check.id, patterns));
    chosen.map(|check| (check, check.entry())).collect()
}

/// The chosen checks with their places in the catalogue, in the order of playing: first what only asks,
/// for it is answered soonest; then from the catalogue's end, where those are that wait the longest.
fn planned(patterns: &[String]) -> Vec<(usize, Check)> {
    let chosen = checks().into_iter().enumerate().filter(|(_, check)| selected(check.id, patterns));
    let mut planned: Vec<_> = chosen.collect();
    planned.sort_by_key(|(place, check)| (check.safety, std::cmp::Reverse(*place)));
    planned
}

/// Plays the checks, a few at a time, and answers in the catalogue's order.
async fn play(
    crew: &Arc<Crew>,
    planned: &[(usize, Check)],
    options: &Options,
    progress: &(impl Fn(Progress) + Send + Sync),
) -> Vec<CheckReport> {
    let playing = planned.iter().map(|&(number, check)| async move {
        if options.stop.is_open() {
            return (number, interrupted(&check));
        }
        progress(Progress::Started(check.id));
        let report = perform(crew, check, number, options).await;
        progress(Progress::Finished(Box::new(report.clone())));
        (number, report)
    });
    let mut reports: Vec<_> =
        futures_util::stream::iter(playing).buffer_unordered(options.at_once.max(1)).collect().await;
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// One check from its opening to its verdict.
async fn perform(crew: &Arc<Crew>, check: Check, number: usize, options: &Options) -> CheckReport {
    let clock = &crew.host.clock;
    let began = clock.now();
    if let Some((verdict, why)) = check.obstacle(&crew.target) {
        return report(
            &check,
            verdict,
            vec![observation("not-checked", verdict, why, began)],
            Duration::ZERO,
        );
    }
    let stage = Arc::new(Stage::new(crew.clone(), &check, number));
    // A task of its own, so that a panic costs one check.
    let playing = {
        let (stage, clock, stop) = (stage.clone(), clock.clone(), options.stop.clone());
        let limit = check.limit() * options.patience.max(1);
        crew.host.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.opened() => None,
                ended = clock.timeout(limit, (check.body)(&stage)) => Some(ended),
            }
        })
    };
    let ended = playing.join().await;
    let now = clock.now();
    let (mut observations, transcript) = stage.clear();
    match ended {
        Some(Some(Ok(_))) => {}
        Some(Some(Err(_))) => {
            let text =
                format!("not over after {} s", check.limit_seconds * u64::from(options.patience.max(1)));
            observations.push(observation("out-of-time", Verdict::Inconclusive, text, now));
        }
        Some(None) => {
            let text = "the run was interrupted".to_owned();
            observations.push(observation("interrupted", Verdict::Inconclusive, text, now));
        }
        None => {
            let text = "the check panicked".to_owned();
            observations.push(observation("panicked", Verdict::Error, text, now));
        }
    }
    let verdict = Verdict::of(&observations);
    let mut report = report(&check, verdict, observations, now.saturating_sub(began));
    if !verdict.is_fine() {
        report.exchanges = transcript.exchanges();
    }
    report
}

/// Asks each cluster who it is.
async fn health(host: &Host, target: &Arc<Target>) -> Vec<ClusterHealth> {
    let wire = Wire::new(host.clone(), target.clone(), "suite".into());
    let asking = target.clusters.iter().map(|cluster| {
        let wire = wire.clone();
        async move {
            let trouble = hello(&wire, &cluster.name).await.err();
            ClusterHealth { cluster: cluster.name.to_string(), trouble }
        }
    });
    futures_util::stream::iter(asking).buffered(16).collect().await
}

async fn hello(wire: &Wire, cluster: &ClusterName) -> Result<(), String> {
    let template = &wire.target.template;
    let url = template.url(cluster, Service::Auth, "/.well-known/oauth-authorization-server");
    let reply = wire.send(&Ask::new(Method::GET, url), HELLO).await.map_err(|failure| match failure {
        Failure::Unreachable(reason) => reason,
        failure => failure.to_string(),
    })?;
    let metadata: Metadata = reply.json().map_err(|failure| match failure {
        Failure::Refused(refused) => format!("its authorisation server says {}", refused.status),
        _ => "it does not speak the protocol: its authorisation server's metadata is unreadable".to_owned(),
    })?;
    let expected = issuer(template, cluster);
    match metadata.issuer == expected {
        true => Ok(()),
        false => Err(format!("it is somebody else: its issuer is not {expected}")),
    }
}

fn world(target: &Target, engine: &str) -> World {
    let clusters = target.clusters.iter().map(|cluster| WorldCluster {
        name: cluster.name.clone(),
        org: match target.is_private(&cluster.name) {
            true => cluster.org.clone(),
            false => "consumer".to_owned(),
        },
        data_center: cluster.name.to_string(),
        hosts: vec![cluster.name.to_string()],
        overflow: vec![],
    });
    let claimed = target.orgs.iter().filter(|(_, org)| org.role == OrgRole::Private);
    let domains =
        claimed.flat_map(|(name, org)| org.domains.iter().map(move |it| (it.clone(), name.clone())));
    World {
        engine: engine.to_owned(),
        provider: Some(target.template.provider().clone()),
        template: target.template.to_string(),
        clusters: clusters.collect(),
        domains: domains.collect(),
        users: Vec::new(),
        provider_hosts: vec!["provider".to_owned()],
    }
}

fn selected(id: &str, patterns: &[String]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, id))
}

/// `*` stands for anything; a pattern without one is a beginning.
fn matches(pattern: &str, id: &str) -> bool {
    let (pattern, id) = (pattern.to_ascii_lowercase(), id.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return id.starts_with(&pattern) };
    let Some(mut left) = id.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = rest.split('*').collect();
    for (place, piece) in pieces.iter().enumerate() {
        if place + 1 == pieces.len() {
            return piece.is_empty() || left.ends_with(piece);
        }
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    true
}

fn report(check: &Check, verdict: Verdict, observations: Vec<Observation>, took: Duration) -> CheckReport {
    let entry = check.entry();
    CheckReport {
        id: check.id.to_owned(),
        title: entry.title.clone(),
        requirements: entry.requirements.clone(),
        level: catalogue().level_of(entry),
        verdict,
        observations,
        took_us: took.as_micros() as u64,
        exchanges: Vec::new(),
    }
}

fn unreachable(check: &Check) -> CheckReport {
    let text = "no cluster of the target answers".to_owned();
    let seen = observation("unreachable", Verdict::Blocked, text, Duration::ZERO);
    report(check, Verdict::Blocked, vec![seen], Duration::ZERO)
}

fn interrupted(check: &Check) -> CheckReport {
    let text = "the run was interrupted before".to_owned();
    let seen = observation("interrupted", Verdict::Inconclusive, text, Duration::ZERO);
    report(check, Verdict::Inconclusive, vec![seen], Duration::ZERO)
}

fn observation(code: &str, verdict: Verdict, text: String, at: Duration) -> Observation {
    Observation { code: code.to_owned(), verdict, text, at_us: at.as_micros() as u64, refused_with: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use axum::Router;
    use axum::body::to_bytes;
    use axum::extract::Request;
    use axum::response::{IntoResponse as _, Response};
    use serde_json::{Value, json};

    use super::*;
    use crate::device::lock;
    use crate::testing;

    #[test]
    fn patterns_choose_checks_by_beginning_or_by_star() {
        assert!(matches("LOC", "LOC-003.glare"));
        assert!(matches("loc-003.glare", "LOC-003.glare"));
        assert!(matches("*glare", "LOC-003.glare"));
        assert!(matches("L*3*e", "LOC-003.glare"));
        assert!(matches("*", "LOC-003.glare"));
        assert!(!matches("CNV", "LOC-003.glare"));
        assert!(!matches("*glar", "LOC-003.glare"));
        assert!(!matches("LOC*x*", "LOC-003.glare"));
    }

    #[test]
    fn no_pattern_chooses_everything() {
        assert_eq!(chosen(&[]).len(), catalogue().checks.len());
        assert_eq!(chosen(&["SEC-003".to_owned()]).len(), 2);
    }

    /// Says who it is, makes and deletes users, and is silent to everything else.
    #[derive(Clone, Default)]
    struct Provisioner {
        users: Arc<Mutex<BTreeSet<String>>>,
        made: Arc<Mutex<usize>>,
    }

    impl Provisioner {
        async fn serve(&self) -> Host {
            let net = testing::Pipes::default();
            let host = testing::host(&net);
            let provisioner = self.clone();
            let router = Router::new().fallback(move |request: Request| provisioner.clone().answer(request));
            testing::serve_everything(&host, router).await;
            host
        }

        async fn answer(self, request: Request) -> Response {
            let (parts, body) = request.into_parts();
            let host = parts.headers["host"].to_str().unwrap().to_owned();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            match (parts.method.as_str(), parts.uri.path()) {
                ("GET", "/.well-known/oauth-authorization-server") => {
                    let issuer = format!("https://{host}");
                    axum::Json(json!({
                        "issuer": issuer, "token_endpoint": issuer, "jwks_uri": issuer,
                        "grant_types_supported": [], "response_types_supported": [],
                    }))
                    .into_response()
                }
                ("POST", "/v1/token") if is_for_an_admin(&body) => {
                    let token = json!({
                        "access_token": "t", "token_type": "Bearer", "expires_in": 600, "scope": "admin",
                    });
                    axum::Json(token).into_response()
                }
                ("POST", "/scim/v2/Users") => {
                    let mut user: Value = serde_json::from_slice(&body).unwrap();
                    user["id"] = user["userName"].clone();
                    lock(&self.users).insert(user["id"].as_str().unwrap().to_owned());
                    *lock(&self.made) += 1;
                    (http::StatusCode::CREATED, axum::Json(user)).into_response()
                }
                ("DELETE", path) => {
                    let id = path.rsplit('/').next().unwrap();
                    let id: String = url::form_urlencoded::parse(id.as_bytes()).map(|(id, _)| id).collect();
                    let gone = lock(&self.users).remove(&id);
                    if gone { http::StatusCode::NO_CONTENT } else { http::StatusCode::NOT_FOUND }
                        .into_response()
                }
                _ => std::future::pending().await,
            }
        }
    }

    fn is_for_an_admin(form: &[u8]) -> bool {
        let assertion = url::form_urlencoded::parse(form).find(|(name, _)| name == "assertion");
        assertion.is_some_and(|(_, token)| crate::jws::parts(&token).unwrap().claims["scope"] == "admin")
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_run_takes_away_what_it_made() {
        let provisioner = Provisioner::default();
        let host = provisioner.serve().await;
        let options = Options::default();
        let (clock, stop) = (host.clock.clone(), options.stop.clone());
        host.tasks.spawn(async move {
            clock.sleep(Duration::from_secs(2)).await;
            stop.open();
        });
        let report = run(&host, Arc::new(testing::target()), &options, |_| {}).await;
        assert!(report.interrupted && report.exit_code() == 3);
        assert!(report.checks.iter().all(|check| check.verdict != Verdict::Pass));
        assert_eq!(report.checks.len(), catalogue().checks.len());
        assert!(*lock(&provisioner.made) > 10);
        assert_eq!(*lock(&provisioner.users), BTreeSet::new());
        assert_eq!(report.left_behind, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deployment_that_goes_silent_is_not_waited_for_for_ever() {
        let provisioner = Provisioner::default();
        let host = provisioner.serve().await;
        let options = Options { at_once: 64, ..Options::default() };
        let report = run(&host, Arc::new(testing::target()), &options, |_| {}).await;
        assert_eq!(report.exit_code(), 3);
        let limit = checks().iter().map(|check| check.limit_seconds).max().unwrap();
        assert!(report.took_us < (limit + 60) * 1_000_000);
        assert_eq!(*lock(&provisioner.users), BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_only_target_gets_no_user() {
        let provisioner = Provisioner::default();
        let host = provisioner.serve().await;
        let mut target = testing::target();
        target.limits.writes = crate::target::Writes::ReadOnly;
        let report = run(&host, Arc::new(target), &Options::default(), |_| {}).await;
        assert_eq!(*lock(&provisioner.made), 0);
        assert!(report.counts()[&Verdict::Blocked] > 40);
        assert_eq!(report.exit_code(), 3);
    }
}
