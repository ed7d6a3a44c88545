//! URLs of services: made from a template, matched on label boundaries (NAM-001, NAM-002, NAM-005).

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::auth::{issuer, issuer_cluster};
use fusion_protocol::names::NameError;
use fusion_protocol::{ClusterName, Service, Url, UrlTemplate};
use proptest::prelude::*;

const TEMPLATES: [&str; 6] = [
    "https://{cluster}-{service}.{provider}",
    "https://{service}-{cluster}.{provider}",
    "https://{cluster}.{provider}/{service}",
    "https://{cluster}-{service}.{provider}:8443",
    "https://{service}-{cluster}.{provider}:8443",
    "https://{cluster}.{provider}:8443/{service}",
];

fn template(text: &str) -> UrlTemplate {
    UrlTemplate::parse(text, "provider.example".parse().unwrap()).unwrap()
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

#[test]
fn the_three_shapes_make_the_urls_of_the_specification() {
    let made: Vec<_> = TEMPLATES
        .iter()
        .map(|text| template(text).url(&name("a"), Service::Conv, "/v1/x").to_string())
        .collect();
    insta::assert_json_snapshot!(made);
}

#[test]
fn a_cluster_name_is_one_short_label() {
    for good in ["a", "z9", "frankfurt", "abcdefghijklmnopqrst"] {
        assert_eq!(name(good).as_str(), good);
    }
    let bad = ["", "A", "9a", "a-b", "a.b", "a_b", "\u{e4}", "abcdefghijklmnopqrstu", "clustermap", "portal"];
    for bad in bad {
        assert_eq!(bad.parse::<ClusterName>(), Err(NameError::Cluster), "{bad}");
    }
}

#[test]
fn evil_hosts_are_not_of_this_federation() {
    let template = template("https://{cluster}-{service}.{provider}");
    let evil = [
        "https://a-conv.provider.example.evil.test/v1/x",
        "https://xa-conv.provider.example.evil.test/",
        "https://evil.test/a-conv.provider.example",
        "https://a-convxprovider.example/",
        "https://a-conv.xprovider.example/",
        "https://b.a-conv.provider.example/",
        "https://a-conv..provider.example/",
        "https://.provider.example/",
        "https://provider.example/",
        "https://a.provider.example/",
        "https://-conv.provider.example/",
        "https://a-.provider.example/",
        "https://a-nonsense.provider.example/",
        "https://a-conv-conv.provider.example/",
        "https://user@a-conv.provider.example/",
        "https://user:secret@a-conv.provider.example/",
        "https://a-conv.provider.example@evil.test/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://a-conv.provider.example:8443/",
        "https://a-conv.provider.example:80/",
        "http://a-conv.provider.example/",
        "wss://a-conv.provider.example/",
        "https://clustermap.provider.example/",
    ];
    for url in evil {
        let Ok(url) = Url::parse(url) else { continue };
        assert_eq!(template.locate(&url), Err(NameError::Foreign), "{url}");
    }
    // The root dot names the same host to DNS, and to us nothing.
    let dotted = Url::parse("https://a-conv.provider.example./").unwrap();
    assert_eq!(template.locate(&dotted), Err(NameError::Foreign));
}

#[test]
fn what_begins_like_a_name_is_another_cluster_or_none() {
    let template = template("https://{cluster}-{service}.{provider}");
    let located = template.locate(&Url::parse("https://xa-conv.provider.example/").unwrap()).unwrap();
    assert_eq!(located.cluster, name("xa"), "never a");
}

#[test]
fn an_issuer_is_exactly_the_url_of_an_authorisation_server() {
    for text in TEMPLATES {
        let template = template(text);
        let issuer = issuer(&template, &name("a"));
        assert!(!issuer.ends_with('/'));
        assert_eq!(issuer_cluster(&template, &issuer), Some(name("a")), "{text}");
        assert_eq!(issuer_cluster(&template, &format!("{issuer}/v1")), None, "{text}");
        assert_eq!(issuer_cluster(&template, &issuer.replace("auth", "conv")), None, "{text}");
        assert_eq!(issuer_cluster(&template, &format!("{issuer}.evil.test")), None, "{text}");
    }
}

#[test]
fn what_is_no_template_is_refused() {
    let bad = [
        "",
        "http://{cluster}-{service}.{provider}",
        "https://{cluster}.{provider}",
        "https://{cluster}-{service}.{provider}/x",
        "https://{cluster}-{service}.{provider}:x",
        "https://{cluster}-{service}.{provider}:99999",
        "https://{cluster}-{service}.{provider}.evil.test",
        "https://x{cluster}-{service}.{provider}",
    ];
    for bad in bad {
        let parsed = UrlTemplate::parse(bad, "provider.example".parse().unwrap());
        assert_eq!(parsed, Err(NameError::Template), "{bad}");
    }
    for good in TEMPLATES {
        assert_eq!(template(good).to_string(), good);
    }
}

fn clusters() -> impl Strategy<Value = ClusterName> {
    "[a-z][a-z0-9]{0,19}".prop_filter_map("the provider's own names", |text| text.parse().ok())
}

proptest! {
    /// NAM-003: whatever URL is made, it leads back to where it came from.
    #[test]
    fn what_is_made_is_located(
        cluster in clusters(),
        service in proptest::sample::select(&Service::ALL[..]),
        shape in proptest::sample::select(&TEMPLATES[..]),
        path in "(/[a-zA-Z0-9%~._-]{1,12}){1,4}",
    ) {
        let template = template(shape);
        // A path with `.` segments is another path once it is in a URL.
        let path = path.replace("/..", "/x").replace("/.", "/y").replace("%2", "p").replace('%', "q");
        let located = template.locate(&template.url(&cluster, service, &path)).unwrap();
        prop_assert_eq!((located.cluster, located.service, located.path), (cluster, service, path));
    }

    /// NAM-005: whatever is located is of this provider, whole label by whole label.
    #[test]
    fn whatever_is_located_is_of_this_provider(
        host in "[a-c]{0,3}(-conv|-auth|-|)(\\.|x)?(provider|evil)(\\.|x)(example|test)(\\.evil\\.test|)",
        shape in proptest::sample::select(&TEMPLATES[..3]),
    ) {
        let Ok(url) = Url::parse(&format!("https://{host}/conv/x")) else { return Ok(()) };
        if template(shape).locate(&url).is_ok() {
            let labels: Vec<_> = host.split('.').collect();
            prop_assert_eq!(labels.len(), 3);
            prop_assert_eq!(&labels[1..], ["provider", "example"]);
        }
    }

    #[test]
    fn nothing_makes_locate_panic(text in "https://\\PC{0,60}") {
        if let Ok(url) = Url::parse(&text) {
            for shape in TEMPLATES {
                let _ = template(shape).locate(&url);
            }
        }
    }
}
