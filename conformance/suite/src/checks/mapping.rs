//! The domain map, the user maps and resolution (MAP).

use fusion_protocol::auth::issuer;
use fusion_protocol::map::{DomainRecord, LoginDiscovery};
use fusion_protocol::{Address, Code, Domain, Service};
use http::Method;

use crate::check::{Check, Checked, Need, Stop, Verdict};
use crate::device::{Ask, Device, Failure};
use crate::stage::{Judged as _, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("MAP-001.same-everywhere", &[Need::TwoOrgs], |stage| Box::pin(same_everywhere(stage)))
        .users_only(),
    Check::new("MAP-001.unknown-user", &[Need::TwoOrgs, Need::Keys], |stage| Box::pin(unknown_user(stage))),
    Check::new("MAP-001.fall-through", &[Need::Private, Need::Consumer, Need::Keys], |stage| {
        Box::pin(fall_through(stage))
    }),
    Check::new("MAP-005.wrong-cluster", &[Need::TwoOrgs], |stage| Box::pin(wrong_cluster(stage)))
        .users_only(),
    Check::new("MAP-008.closed-maps", &[Need::Cluster], |stage| Box::pin(closed_maps(stage))).users_only(),
    Check::new("MAP-012.by-domain", &[Need::Private], |stage| Box::pin(by_domain(stage))).read_only(),
];

async fn same_everywhere(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let observers = observers(stage).await?;
    let zoe = observers.first().map(|observer| observer.user().clone());
    let zoe = zoe.ok_or_else(|| stage.inconclusive("no-cluster", "the target has no cluster"))?;
    let mut first = None;
    for observer in &observers {
        let found = observer.resolve(&zoe).await.must(stage, "not-resolved")?.record;
        let cluster = observer.home().map(|home| home.to_string()).unwrap_or_default();
        let text = format!("asked at {cluster}, the user is at {}", found.cluster);
        stage.require(found.cluster == here && found.user == zoe, "wrong-cluster", text)?;
        let incarnation = *first.get_or_insert(found.incarnation);
        let same = incarnation == found.incarnation;
        stage.require(same, "another-person", format!("asked at {cluster}, it is the same person"))?;
    }
    Ok(())
}

async fn unknown_user(stage: &Stage) -> Checked {
    let mut known = Vec::new();
    let mut nobodies = Vec::new();
    for cluster in stage.viewpoints() {
        known.push(stage.person("zoe", &cluster).await?.user);
        nobodies.push(stage.nobody("nobody", &cluster)?);
    }
    for observer in observers(stage).await? {
        for user in &known {
            observer.resolve(user).await.must(stage, "not-resolved")?;
        }
        for nobody in &nobodies {
            let tried = observer.resolve(nobody).await;
            let what = format!("resolving nobody at {} as {}", nobody.domain(), observer.name());
            if let Some(other) =
                tried.as_ref().err().and_then(Failure::code).filter(|code| is_about_nobody(*code))
            {
                let text = format!("{what}: {} instead of {}", other.as_str(), Code::UserUnknown.as_str());
                return Err(stage.fail("wrong-kind", text));
            }
            stage.refused(tried, &what, &[Code::UserUnknown], "nobody-found")?;
        }
    }
    Ok(())
}

/// Whether the refusal is a wrong word about somebody who does not exist, after those who do were found:
/// not that a map could not be asked, or that too much was asked.
fn is_about_nobody(code: Code) -> bool {
    !matches!(code, Code::UserUnknown | Code::ResolutionIncomplete | Code::TooMany)
}

async fn fall_through(stage: &Stage) -> Checked {
    let (here, consumer) = (stage.here()?, stage.consumer()?);
    let admin = stage.admin(&consumer)?;
    let old_hand: Address = stage.nobody("old-hand", &here)?;
    match stage.crew.provision(&admin, &old_hand, "Old hand").await {
        Ok(_) => {}
        Err(Failure::Refused(refused)) if refused.code == Some(Code::Forbidden) => {
            let text = "the consumer org takes no new user at a claimed domain";
            stage.saw("no-such-user", Verdict::NotApplicable, text);
            return Ok(());
        }
        Err(failure) => return Err(stage.inconclusive("not-set-up", failure.to_string())),
    }
    for observer in observers(stage).await? {
        let found = observer.resolve(&old_hand).await.must(stage, "not-resolved")?.record;
        let text = format!("asked as {}, the user is in the consumer cluster", observer.name());
        stage.require(found.cluster == consumer, "no-fall-through", text)?;
    }
    Ok(())
}

async fn wrong_cluster(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let bob = stage.user("bob", &there).await?;
    bob.read_index().await.must(stage, "own-index-unreadable")?;

    let token = bob.token_for(&here).await.set_up(stage, "exchanging the token")?;
    let path = format!("/v1/users/{}/index?after=0", bob.user().path_segment());
    let ask = Ask::new(Method::GET, stage.target().template.url(&here, Service::Conv, &path)).token(token);
    let what = "asking the wrong cluster for the own index";
    let tried = bob.trespass(what, "MAP-005", Code::WrongCluster, &ask).await;
    let hint = tried.as_ref().err().and_then(Failure::refused).map(|refused| refused.hint());
    stage.refused(tried, what, &[Code::WrongCluster], "answered-for-another")?;
    let hint = hint.unwrap_or_default();
    stage.require(hint.contains(&there), "no-hint", format!("the refusal names the right cluster: {hint:?}"))
}

async fn closed_maps(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.user("alice", &here).await?;
    alice.resolve(alice.user()).await.must(stage, "not-resolved")?;

    let visitor = stage.visitor()?;
    let nobody = stage.nobody("nobody", &here)?;
    for path in ["/v1/users/", "/v1/resolve/"] {
        let asks = [alice.user(), &nobody].map(|user| {
            let path = format!("{path}{}", user.path_segment());
            Ask::new(Method::GET, stage.target().template.url(&here, Service::Users, &path))
        });
        let mut answers = Vec::new();
        for ask in &asks {
            let reply = visitor.send(ask).await.must(stage, "map-open")?;
            answers.push((reply.status, reply.body));
        }
        // Before why they are refused: two reasons are one answer too many.
        let refused = answers.iter().all(|(status, _)| (400..500).contains(status));
        let same = !refused || answers[0] == answers[1];
        stage.require(same, "existence-shown", "known and unknown users get the same answer")?;
        for ask in &asks {
            let what = format!("asking {path} without a token", path = path.split('/').nth(2).unwrap_or(""));
            stage.must_refuse(&visitor, &what, &[Code::Unauthorized], ask, "map-open").await?;
        }
    }
    lists_nobody(stage, &alice).await?;
    log_in_by_domain(stage, &visitor, [alice.user(), &nobody]).await
}

/// MAP-008: nobody is told who is in a map, not even those who are.
async fn lists_nobody(stage: &Stage, alice: &Device) -> Checked {
    let here = stage.here()?;
    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    for path in ["/v1/users", "/v1/users/", "/v1/resolve"] {
        let url = stage.target().template.url(&here, Service::Users, path);
        let codes = [Code::NotFound, Code::MethodNotAllowed, Code::Forbidden];
        let what = format!("asking for everybody at {path}");
        stage
            .must_refuse(alice, &what, &codes, &Ask::new(Method::GET, url).token(&token), "map-lists")
            .await?;
    }
    Ok(())
}

/// MAP-012: before log-in a client asks by the domain, and learns nothing by asking for a user.
async fn log_in_by_domain(stage: &Stage, visitor: &Device, users: [&Address; 2]) -> Checked {
    let (here, template) = (stage.here()?, &stage.target().template);
    let ask = |about: &str| {
        let mut url = template.url(&here, Service::Users, "/v1/login");
        url.query_pairs_mut().append_pair("domain", about);
        Ask::new(Method::GET, url)
    };
    let domain = users[0].domain();
    let reply = visitor.send(&ask(domain.as_str())).await.and_then(|reply| reply.json());
    let found: LoginDiscovery = reply.must(stage, "no-log-in")?;
    let server = issuer(template, &here);
    let own = found.authorization_servers.iter().any(|url| url.as_str().trim_end_matches('/') == server);
    stage.require(own, "no-log-in", format!("{domain} leads to the authorisation server {server}"))?;

    let mut answers = Vec::new();
    for user in users {
        let reply = visitor.send(&ask(user.as_str())).await.must(stage, "no-log-in")?;
        answers.push((reply.status, reply.body));
    }
    let same = answers[0] == answers[1];
    stage.require(same, "existence-shown", "asking where to log in says the same of known and unknown users")
}

async fn by_domain(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let visitor = stage.visitor()?;
    let (org, domains) = stage
        .target()
        .org_of(&here)
        .map(|(name, org)| (name.to_owned(), org.domains.clone()))
        .ok_or_else(|| stage.inconclusive("no-cluster", "the target has no org"))?;
    for domain in &domains {
        let record: DomainRecord =
            ask_map(&visitor, domain).await.and_then(|reply| reply.json()).must(stage, "not-in-the-map")?;
        let right = record.domain == *domain && record.clusters.contains(&here);
        stage.require(right, "wrong-clusters", format!("{domain} leads to the clusters of {org}"))?;
    }
    let unclaimed: Domain = format!("cf-{}.example", stage.crew.run)
        .parse()
        .map_err(|_| stage.inconclusive("not-set-up", "the run's mark makes no domain"))?;
    let answer = ask_map(&visitor, &unclaimed).await.and_then(|reply| reply.success());
    let what = "asking for a domain that nobody has claimed";
    stage.refused(answer, what, &[Code::DomainUnclaimed], "unclaimed-claimed")
}

async fn ask_map(visitor: &Device, domain: &Domain) -> Result<crate::device::Reply, Failure> {
    let url = visitor.target().template.provider_url("clustermap", &format!("/v1/domains/{domain}"));
    visitor.send(&Ask::new(Method::GET, url)).await
}

/// A user of each viewpoint, the first of them of [`Stage::here`].
async fn observers(stage: &Stage) -> Result<Vec<Device>, Stop> {
    let mut observers = Vec::new();
    for cluster in stage.viewpoints() {
        observers.push(stage.user("observer", &cluster).await?);
    }
    Ok(observers)
}
