//! A few mutants from end to end: the whole way from the hook to the verdict.

use fusion_mutants::self_test::run;

#[test]
fn faulty_deployments_are_found_out_by_their_own_checks() {
    let some = ["forged-assertion-accepted", "repeated-post-doubled", "half-a-token-binds"];
    let only = some.map(str::to_owned);
    let outcome = run(1, &only, &|_| {}).unwrap();
    let caught: Vec<(&str, bool)> =
        outcome.mutants.iter().map(|found| (found.mutant.as_str(), found.caught)).collect();
    assert_eq!(caught, some.map(|name| (name, true)));
    assert!(outcome.holds());
}
