//! The program as its users meet it: what it writes, what it serves, how it ends.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use support::client::Outside;
use support::{Federation, Process, program};

#[tokio::test]
async fn one_process_serves_a_whole_federation_and_ends_gracefully() {
    let federation = Federation::init().await;
    let process = federation.start("all", "federation.toml").await;
    let roles: Vec<_> = process.ready["ready"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| format!("{} {}", one["role"].as_str().unwrap_or("?"), one["name"].as_str().unwrap_or("?")))
        .collect();
    assert_eq!(
        roles,
        [
            "provider provider",
            "cluster a",
            "relay a-relay1",
            "cluster b",
            "relay b-relay1",
            "cluster c",
            "relay c-relay1"
        ]
    );
    let outside = Outside::new(&federation, "a", "acme");
    let admin = outside.admin_token().await;
    let record = outside.provision_soon(&admin, "Alice@Acme.example").await;
    let name = outside.user_name(&admin, &record).await.expect("the record can be read");
    assert_eq!(name, "alice@acme.example");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn in_clear_only_when_the_operator_says_so() {
    let federation = Federation::init().await;
    let log = federation.path("log/all.txt");
    let arguments =
        ["--insecure-loopback", "--log-format", "text", "--log-file", log.to_str().expect("a plain path")];
    let process = Process::start("all", &federation.path("federation.toml"), &arguments).await;
    let outside = Outside::in_clear(&federation, "a", "acme");
    let admin = outside.admin_token().await;
    outside.provision_soon(&admin, "alice@acme.example").await;
    assert_eq!(process.terminate().await, Some(0));
    let lines = federation.text("log/all.txt");
    assert!(lines.contains("info  provider process.serving role=provider"), "{lines}");
    assert!(!lines.contains("alice"), "PRI-005");
}

#[tokio::test]
async fn init_done_again_keeps_keys_and_topology() {
    let federation = Federation::init().await;
    let before = [federation.text("target.toml"), federation.text("tls/ca.pem")];
    let port = before[0].lines().find_map(|line| line.split("{provider}:").nth(1)).expect("a port");
    let port = port.trim_end_matches('"').to_owned();
    let folder = federation.path("");
    let again = program().arg("init").arg(&folder).args(["--port", &port]).output().await.expect("it runs");
    assert!(again.status.success());
    assert_eq!([federation.text("target.toml"), federation.text("tls/ca.pem")], before);
}

#[tokio::test]
async fn secrets_are_for_their_owner_only() {
    let federation = Federation::init().await;
    for secret in ["secret.seed", "target.toml", "provider.toml", "tls/ca.key", "tls/a.key"] {
        let mode = std::fs::metadata(federation.path(secret)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret}");
    }
}

#[tokio::test]
async fn a_wrong_file_ends_with_code_2_and_says_where() {
    let federation = Federation::init().await;
    let file = federation.path("cluster-a.toml");
    let text = federation.text("cluster-a.toml").replace("[store]", "[sotre]");
    std::fs::write(&file, text).expect("it can be written");
    let output = program()
        .args(["serve", "--role", "cluster", "--config"])
        .arg(&file)
        .output()
        .await
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown field `sotre`") && said.contains("did you mean \"store\"?"), "{said}");
}

#[tokio::test]
async fn an_address_that_is_taken_ends_with_code_1() {
    let federation = Federation::init().await;
    let _first = federation.start("relay", "relay-a-1.toml").await;
    let second = program()
        .args(["serve", "--role", "relay", "--config"])
        .arg(federation.path("relay-a-1.toml"))
        .output()
        .await
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("relay a-relay1 does not start"), "{said}");
}

#[tokio::test]
async fn a_topology_that_cannot_be_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("topology.toml");
    let text = "[[orgs]]\nname = \"acme\"\nclusters = [{ name = \"a\" }]\n\n[[orgs]]\nname = \"globex\"\nclusters = [{ name = \"a\" }]\n";
    std::fs::write(&file, text).expect("it can be written");
    let made = program()
        .arg("init")
        .arg(folder.path().join("new"))
        .arg("--topology")
        .arg(&file)
        .output()
        .await
        .expect("it runs");
    assert_eq!(made.status.code(), Some(2));
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(said.contains("topology.toml:") && said.contains("two clusters are called \"a\""), "{said}");
}
