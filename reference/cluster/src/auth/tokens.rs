//! Reading tokens: the outside of a JWS, and signatures over it.
//!
//! Expiry is judged on the host's clock, never by `jsonwebtoken`, which would read the machine's.
//! Not here: which key speaks for whom (`keyring.rs`, `verifier.rs`).

use std::sync::LazyLock;

use fusion_protocol::{Code, Problem};
use fusion_runtime::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::de::DeserializeOwned;

/// How far two clocks may differ, in seconds.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// The longest token that is looked at, in octets.
const TOKEN_MAX: usize = 8 << 10;

/// Nothing but the signature is judged by the library.
static SIGNATURE_ONLY: LazyLock<Validation> = LazyLock::new(|| {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
});

/// What a token says before anything of it has been proved.
pub(super) struct Unproved<C> {
    pub(super) kid: String,
    pub(super) claims: C,
}

/// The header's `typ`, unproved: which kind of token somebody claims to have.
pub(super) fn typ(token: &str) -> Result<String, Problem> {
    header(token).map(|header| header.typ.unwrap_or_default())
}

/// Parses a token of type `typ`. SEC-010: another type than the route wants is `forbidden`.
pub(super) fn parse<C: DeserializeOwned>(token: &str, typ: &str) -> Result<Unproved<C>, Problem> {
    let header = header(token)?;
    if header.typ.as_deref() != Some(typ) {
        return Err(Problem::new(Code::Forbidden).detail("a token of another kind is needed here"));
    }
    Ok(Unproved { kid: header.kid.unwrap_or_default(), claims: claims(token)? })
}

/// What a token says, unproved.
pub(super) fn claims<C: DeserializeOwned>(token: &str) -> Result<C, Problem> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| malformed())
}

/// Whether `key` signed the token.
pub(super) fn signed_by(token: &str, key: &DecodingKey) -> Result<(), Problem> {
    jsonwebtoken::decode::<serde::de::IgnoredAny>(token, key, &SIGNATURE_ONLY)
        .map(drop)
        .map_err(|_| Problem::new(Code::Unauthorized).detail("the token's signature does not hold"))
}

/// Whether a token that is good from `iat` until `exp` is good now, give or take the leeway.
pub(super) fn in_time(now: Timestamp, iat: u64, exp: u64) -> Result<(), Problem> {
    let now = now.seconds();
    if iat <= now.saturating_add(LEEWAY_SECONDS) && now < exp.saturating_add(LEEWAY_SECONDS) {
        return Ok(());
    }
    Err(Code::TokenExpired.into())
}

fn header(token: &str) -> Result<Header, Problem> {
    if token.len() > TOKEN_MAX {
        return Err(malformed());
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
    if header.alg != Algorithm::EdDSA {
        return Err(malformed());
    }
    Ok(header)
}

fn malformed() -> Problem {
    Problem::new(Code::Unauthorized).detail("the token is malformed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::auth::SigningKey;

    fn signed(typ: &str) -> (String, DecodingKey) {
        let key = SigningKey::from_seed(&[1; 32]);
        let token = key.sign(typ, &json!({ "sub": "alice" }));
        (token, DecodingKey::from_ed_der(&key.public_key()))
    }

    #[test]
    fn a_token_is_good_from_iat_to_exp_give_or_take_the_leeway() {
        let at = |seconds: u64| in_time(Timestamp(seconds * 1_000_000), 100, 200).is_ok();
        assert_eq!([94, 95, 150, 204, 205].map(at), [false, true, true, true, false]);
    }

    proptest! {
        #[test]
        fn a_token_with_one_character_changed_does_not_hold(at: prop::sample::Index, by in "[A-Za-z0-9_-]") {
            let (token, key) = signed("x");
            prop_assert!(signed_by(&token, &key).is_ok());
            let at = at.index(token.len());
            prop_assume!(token[at..=at] != by);
            let changed = format!("{}{by}{}", &token[..at], &token[at + 1..]);
            prop_assert!(signed_by(&changed, &key).is_err());
        }

        #[test]
        fn nothing_makes_reading_a_token_panic(text in "\\PC{0,80}", header in "\\PC{0,40}") {
            let _ = typ(&text);
            let _ = parse::<serde_json::Value>(&format!("{header}.{text}.{text}"), "x");
            let _ = claims::<serde_json::Value>(&text);
        }
    }
}
