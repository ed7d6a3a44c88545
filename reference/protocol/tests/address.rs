//! Addresses and domains have one canonical form (NAM-004), and say nothing of themselves in a log.

use fusion_protocol::address::{Address, AddressError, Domain, Incarnation, UserRef};
use fusion_protocol::limits::ADDRESS_MAX;
use fusion_protocol::{Pii, Uuid};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Address, AddressError> {
    text.parse()
}

#[test]
fn two_spellings_of_one_address_are_one_user() {
    let spellings = [
        ("Alice@Example.COM", "alice@example.com"),
        ("JOSE\u{301}@b.example", "jos\u{e9}@b.example"),
        ("bob@B\u{dc}CHER.example", "bob@xn--bcher-kva.example"),
        ("bob@b\u{fc}cher.example", "bob@xn--bcher-kva.example"),
        ("bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"),
        ("bob@ex\u{ff41}mple\u{3002}com", "bob@example.com"),
    ];
    for (spelling, canonical) in spellings {
        assert_eq!(parse(spelling).unwrap().as_str(), canonical, "{spelling}");
    }
}

#[test]
fn plus_tags_and_dots_are_somebody_elses() {
    let addresses = ["alice@a.example", "alice+x@a.example", "al.ice@a.example", "alice@b.a.example"];
    let parsed: std::collections::BTreeSet<_> = addresses.iter().map(|text| parse(text).unwrap()).collect();
    assert_eq!(parsed.len(), addresses.len());
}

#[test]
fn what_is_no_address_is_refused_with_a_reason() {
    let refused = [
        ("alice", AddressError::Shape),
        ("@a.example", AddressError::Shape),
        ("alice@", AddressError::Domain),
        ("alice@localhost", AddressError::Domain),
        ("alice@a..example", AddressError::Domain),
        ("alice@a.example.", AddressError::Domain),
        ("alice@.a.example", AddressError::Domain),
        ("alice@a_b.example", AddressError::Domain),
        ("alice@a.example/x", AddressError::Domain),
        ("a b@a.example", AddressError::LocalPart),
        ("a\n@a.example", AddressError::LocalPart),
        ("a/b@a.example", AddressError::LocalPart),
        ("\"a\"@a.example", AddressError::LocalPart),
        ("a@b@a.example", AddressError::LocalPart),
    ];
    for (text, reason) in refused {
        assert_eq!(parse(text), Err(reason), "{text:?}");
    }
}

#[test]
fn an_address_of_the_limit_is_one_and_a_longer_one_is_not() {
    let of = |octets: usize| format!("{}@a.example", "x".repeat(octets - "@a.example".len()));
    assert_eq!(parse(&of(ADDRESS_MAX)).unwrap().as_str().len(), ADDRESS_MAX);
    assert_eq!(parse(&of(ADDRESS_MAX + 1)), Err(AddressError::TooLong));
    assert_eq!(parse(&"x".repeat(1 << 20)), Err(AddressError::TooLong));
}

#[test]
fn a_domain_is_within_another_on_label_boundaries() {
    let domain = |text: &str| text.parse::<Domain>().unwrap();
    assert!(domain("a.example.com").is_within(&domain("example.com")));
    assert!(domain("example.com").is_within(&domain("example.com")));
    assert!(!domain("badexample.com").is_within(&domain("example.com")));
    assert!(!domain("example.com").is_within(&domain("a.example.com")));
}

#[test]
fn private_things_print_nothing_of_themselves() {
    let user = parse("alice@a.example").unwrap();
    let person = UserRef { user: user.clone(), incarnation: Incarnation(Uuid::nil()) };
    let printed = format!("{user:?} {person:?} {:?} {}", Pii::from("secret"), Pii::from("secret"));
    assert!(!printed.contains("alice") && !printed.contains("secret"), "{printed}");
    for text in ["alice", "alice secret@a.example", "a@b@c.example"] {
        let error = serde_json::from_value::<Address>(text.into()).unwrap_err().to_string();
        assert!(!error.contains(text), "{error}");
    }
}

#[test]
fn the_octets_of_a_person_name_address_and_incarnation() {
    let person =
        UserRef { user: parse("Bob@B.example").unwrap(), incarnation: Incarnation(Uuid::from_u128(1)) };
    assert_eq!(person.octets(), b"bob@b.example#00000000-0000-0000-0000-000000000001");
}

/// Texts near addresses: any local part, and domains of letters that IDNA changes and letters it keeps.
fn near_addresses() -> impl Strategy<Value = String> {
    ("\\PC{0,20}", "[a-zA-Z0-9\u{e4}\u{df}\u{130}\u{3c2}.-]{0,20}", "[a-z]{2,6}")
        .prop_map(|(local, label, top)| format!("{local}@{label}.{top}"))
}

proptest! {
    #[test]
    fn canonical_form_is_idempotent(text in near_addresses()) {
        if let Ok(address) = parse(&text) {
            prop_assert_eq!(&parse(address.as_str()).unwrap(), &address);
            prop_assert!(address.as_str().len() <= ADDRESS_MAX);
            prop_assert_eq!(format!("{}@{}", address.local_part(), address.domain()), address.as_str());
        }
    }

    #[test]
    fn upper_and_lower_case_are_one_user(local in "[a-zA-Z0-9.+_-]{1,30}", domain in "[a-zA-Z]{1,20}\\.[a-zA-Z]{2,8}") {
        let text = format!("{local}@{domain}");
        prop_assert_eq!(parse(&text.to_uppercase()), parse(&text.to_lowercase()));
    }

    #[test]
    fn nothing_makes_the_parsers_panic(text in "\\PC{0,300}") {
        let _ = parse(&text);
        let _ = text.parse::<Domain>();
    }

    #[test]
    fn an_address_goes_through_a_path_unharmed(text in near_addresses()) {
        if let Ok(address) = parse(&text) {
            let url = format!("https://a-users.provider.example/v1/users/{}", address.path_segment());
            let url: fusion_protocol::Url = url.parse().unwrap();
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            let decoded = percent_encoding::percent_decode_str(segments[2]).decode_utf8().unwrap();
            prop_assert_eq!(&*decoded, address.as_str());
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
