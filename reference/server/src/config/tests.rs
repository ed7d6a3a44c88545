//! The documented examples are files that work, and mistakes in them are answered.

use super::*;

const EXAMPLES: [(&str, RoleName, &str); 3] = [
    ("provider", RoleName::Provider, include_str!("../examples/provider.toml")),
    ("cluster", RoleName::Cluster, include_str!("../examples/cluster.toml")),
    ("relay", RoleName::Relay, include_str!("../examples/relay.toml")),
];

/// An example in a folder where its certificates are.
fn read_example(text: &str, role: RoleName) -> Result<Vec<Process>, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    let ca = fusion_runtime::tls::TestCa::generate().unwrap();
    let identity = ca.issue(&["a-conv.provider.example"]).unwrap();
    std::fs::write(folder.path().join("tls/ca.pem"), ca.ca_pem()).unwrap();
    for name in ["a", "provider", "a-relay1"] {
        std::fs::write(folder.path().join(format!("tls/{name}.pem")), &identity.cert_pem).unwrap();
        std::fs::write(folder.path().join(format!("tls/{name}.key")), &identity.key_pem).unwrap();
    }
    let file = folder.path().join("a.toml");
    std::fs::write(&file, text).unwrap();
    let here = format!("{}/", folder.path().display());
    read(&file, role).map_err(|mistake| mistake.to_string().replace(&here, ""))
}

fn cluster_mistake(from: &str, to: &str) -> String {
    let text = EXAMPLES[1].2;
    assert!(text.contains(from), "the example has no {from}");
    read_example(&text.replacen(from, to, 1), RoleName::Cluster).unwrap_err()
}

#[test]
fn the_documented_examples_are_configurations() {
    for (name, role, text) in EXAMPLES {
        let processes = read_example(text, role).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(processes[0].part.word(), name);
    }
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for (_, _, text) in EXAMPLES {
        let config: Config = fusion_settings::parse(Path::new("x.toml"), text).unwrap();
        let written = toml::to_string(&config).unwrap();
        let read: Config = fusion_settings::parse(Path::new("x.toml"), &written).unwrap();
        assert_eq!(read, config);
    }
}

#[test]
fn the_example_says_what_the_cluster_is_told() {
    let processes = read_example(EXAMPLES[1].2, RoleName::Cluster).unwrap();
    let Part::Cluster { config, store } = &processes[0].part else { panic!("a cluster") };
    assert_eq!(config.name.as_str(), "a");
    assert_eq!(config.role, OrgRole::Private);
    assert_eq!(config.identity_providers[0].public_key[..2], [0xd7, 0x5a]);
    assert!(store.ends_with("data/a.redb") && store.is_absolute());
}

#[test]
fn mistakes_say_where_they_stand_and_what_to_write_instead() {
    let mistakes = [
        cluster_mistake("address =", "adress ="),
        cluster_mistake("name = \"a\"", "name = \"A-1\""),
        cluster_mistake("{cluster}-{service}.{provider}:8443", "{cluster}_{service}"),
        cluster_mistake("\"127.0.1.1\"", "\"nowhere\""),
        cluster_mistake("127.0.0.0/8", "127.0.0.0/99"),
        cluster_mistake("d75a98", "xyz"),
        cluster_mistake("tls/a.key", "tls/b.key"),
        cluster_mistake("role = \"private\"", "role = \"privat\""),
        cluster_mistake("[store]\nfile = \"data/a.redb\"\n", ""),
        cluster_mistake("127.0.1.2:8443", "127.0.1.2:99999"),
        cluster_mistake("[cluster]\n", "[relay]\ncluster = \"a\"\nudp = \"127.0.0.1:1\"\n\n[cluster]\n"),
        read_example(EXAMPLES[1].2, RoleName::Relay).unwrap_err(),
        read_example("processes = []", RoleName::All).unwrap_err(),
        read_example("processes = [\"gone.toml\"]", RoleName::All).unwrap_err(),
    ];
    insta::assert_snapshot!(mistakes.join("\n\n"));
}

proptest::proptest! {
    #[test]
    fn no_text_is_answered_by_a_panic(
        cut in 0..1_000_usize,
        length in 0..40_usize,
        put in "[\\PC\n=\"\\[\\]]{0,12}",
        which in 0..3_usize,
    ) {
        let (_, role, text) = EXAMPLES[which];
        let from = text.floor_char_boundary(cut.min(text.len()));
        let to = text.floor_char_boundary((from + length).min(text.len()));
        let changed = format!("{}{put}{}", &text[..from], &text[to..]);
        let file = Path::new("x.toml");
        if let Ok(config) = fusion_settings::parse::<Config>(file, &changed) {
            let read = Reader { file, text: &changed }.process(config, role);
            proptest::prop_assert!(read.is_err(), "its certificates are not here");
        }
    }
}

#[test]
fn secrets_of_orgs_are_not_printed() {
    let config: Config = fusion_settings::parse(Path::new("x.toml"), EXAMPLES[0].2).unwrap();
    let secret = config.provider.as_ref().unwrap().org[0].admin_secret.clone().unwrap();
    assert!(!format!("{config:?}").contains(&secret));
}

#[test]
fn a_public_key_is_64_hexadecimal_digits() {
    assert_eq!(unhex(&"0f".repeat(32)), Some([15; 32]));
    for wrong in ["", "0f", &"0g".repeat(32), &"0f".repeat(33), &"é".repeat(32)] {
        assert_eq!(unhex(wrong), None);
    }
}
