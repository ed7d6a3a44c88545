//! What is written in scenarios, and what is refused.

use super::*;

#[test]
fn a_fault_reads_as_it_is_written_in_a_scenario() {
    let text = r#"{"kind":"partition","a":["a","group:b"],"b":["datacenter:west","*"]}"#;
    let fault: Fault = serde_json::from_str(text).unwrap();
    let (a, b) = fault.sides().unwrap();
    assert_eq!(a, [Place::Host("a".into()), Place::Group("b".into())]);
    assert_eq!(b, [Place::Datacenter("west".into()), Place::Everywhere]);
    assert_eq!(serde_json::to_string(&fault).unwrap(), text);
    assert_eq!(fault.family(), "partition");
}

#[test]
fn the_family_is_the_tag() {
    let fault = Fault::Loss { from: everywhere(), to: everywhere(), probability: 0.5 };
    assert_eq!(serde_json::to_value(&fault).unwrap()["kind"], fault.family());
}

#[test]
fn a_misspelt_field_is_an_error_that_names_it() {
    let error = serde_json::from_str::<Fault>(r#"{"kind":"loss","probabilty":0.5}"#).unwrap_err();
    assert!(error.to_string().contains("probabilty"), "{error}");
}

#[test]
fn a_place_that_cannot_be_is_an_error() {
    for text in ["", "group:", "cluster:a", ":"] {
        assert!(text.parse::<Place>().is_err(), "{text:?}");
    }
}

#[test]
fn a_number_that_no_world_could_honour_is_refused_with_what_it_may_be() {
    let refused = [
        (r#"{"kind":"loss","probability":1.5}"#, "a probability is between 0 and 1, not 1.5"),
        (r#"{"kind":"corruption","probability":-1.0}"#, "a probability is between 0 and 1, not -1"),
        (
            r#"{"kind":"loss_burst","probability":0.1}"#,
            "`loss_burst` needs a `recovery` or `packets_max` above 0; for a link that stays bad, use `loss`",
        ),
        (r#"{"kind":"mtu","bytes":20}"#, "`mtu` takes a `bytes` of 68 to 65535, not 20"),
        (
            r#"{"kind":"flapping","a":["a"],"b":["b"],"period_ms":0,"up_share":0.5}"#,
            "`flapping` takes a `period_ms` of at least 1, not 0",
        ),
        (
            r#"{"kind":"flapping","a":["a"],"b":["b"],"period_ms":9,"up_share":5}"#,
            "a probability is between 0 and 1, not 5",
        ),
        (r#"{"kind":"half_open","a":[],"b":["b"]}"#, "`half_open` needs at least one place on each side"),
        (
            r#"{"kind":"slow_cpu","host":"a","turn_us":0}"#,
            "`slow_cpu` takes a `turn_us` of 1 to 1000000, not 0",
        ),
        (
            r#"{"kind":"overload","host":"a","per_s":20000}"#,
            "`overload` takes a `per_s` of 1 to 10000, not 20000",
        ),
        (
            r#"{"kind":"drift","host":"a","ppm":-1000000}"#,
            "`drift` takes a `ppm` of -900000 to 900000, not -1000000",
        ),
        (r#"{"kind":"disk_errors","host":"a","probability":2}"#, "a probability is between 0 and 1, not 2"),
        (
            r#"{"kind":"dns_wrong","name":"a.example","as_of":"a.example"}"#,
            "`dns_wrong` takes a `as_of` that is another name, not a.example",
        ),
        (
            r#"{"kind":"bandwidth","bytes_per_s":0}"#,
            "a bandwidth is at least 1 byte per second; for none, use a partition",
        ),
    ];
    for (fault, why) in refused {
        let fault: Fault = serde_json::from_str(fault).unwrap();
        assert_eq!(fault.check().unwrap_err().to_string(), why);
    }
}

#[test]
fn a_burst_as_it_was_written_before_there_was_a_recovery_reads_the_same() {
    let text = r#"{"kind":"loss_burst","from":["*"],"to":["a"],"probability":0.1,"packets_max":20}"#;
    let fault: Fault = serde_json::from_str(text).unwrap();
    assert_eq!(fault.check(), Ok(()));
    assert_eq!(serde_json::to_string(&fault).unwrap(), text);
}
