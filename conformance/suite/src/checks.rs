//! The checks, one file per area of SPEC.
//!
//! A check is a short conversation on a stage of its own: fresh people, a few steps,
//! what must be seen. A check of a refusal first shows that the same request, rightly authorised, is
//! accepted, and takes a refusal for another reason for no proof.

mod conversation;
mod locus;
mod mapping;
mod media;
mod mercury;
mod naming;
mod privacy;
mod provisioning;
mod rendezvous;
mod security;

use crate::check::Check;

/// Every check, in the catalogue's order.
#[must_use]
pub fn checks() -> Vec<Check> {
    let areas = [
        naming::CHECKS,
        mapping::CHECKS,
        provisioning::CHECKS,
        security::CHECKS,
        mercury::CHECKS,
        rendezvous::CHECKS,
        conversation::CHECKS,
        locus::CHECKS,
        media::CHECKS,
        privacy::CHECKS,
    ];
    areas.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    #[test]
    fn code_and_catalogue_have_the_same_checks_in_the_same_order() {
        let in_code: Vec<&str> = checks().iter().map(|check| check.id).collect();
        let in_catalogue: Vec<&str> = catalogue().checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(in_code, in_catalogue);
    }

    #[test]
    fn what_a_mutant_must_be_found_by_is_said_by_its_check() {
        // Codes are literals in the check's file: a renamed one would let the mutant pass unnoticed.
        let sources = [
            include_str!("checks/conversation.rs"),
            include_str!("checks/locus.rs"),
            include_str!("checks/mapping.rs"),
            include_str!("checks/media.rs"),
            include_str!("checks/mercury.rs"),
            include_str!("checks/naming.rs"),
            include_str!("checks/privacy.rs"),
            include_str!("checks/provisioning.rs"),
            include_str!("checks/rendezvous.rs"),
            include_str!("checks/security.rs"),
        ];
        for mutant in catalogue().mutants.iter().filter(|mutant| mutant.proof.check().is_some()) {
            let code = format!("\"{}\"", mutant.proof.with());
            assert!(sources.iter().any(|source| source.contains(&code)), "{}: {code}", mutant.name);
        }
    }
}
