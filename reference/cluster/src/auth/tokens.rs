//! Reading tokens: the outside of a JWS, and signatures over it.
//!
//! Expiry is judged on the host's clock, never by `jsonwebtoken`, which would read the machine's.
//! Not here: which key speaks for whom (`keyring.rs`, `verifier.rs`).

use std::sync::LazyLock;

use fusion_protocol::{Code, Problem};
use fusion_runtime::{Proofs, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::de::{DeserializeOwned, IgnoredAny};

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

/// A token as somebody shows it: nothing of it is proved.
pub(super) struct Token<'a> {
    text: &'a str,
    header: Header,
}

impl<'a> Token<'a> {
    /// Reads the outside of a token.
    pub(super) fn read(text: &'a str) -> Result<Self, Problem> {
        if text.len() > TOKEN_MAX {
            return Err(malformed());
        }
        let header = jsonwebtoken::decode_header(text).map_err(|_| malformed())?;
        if header.alg != Algorithm::EdDSA {
            return Err(malformed());
        }
        Ok(Self { text, header })
    }

    /// Reads a token of type `typ`. SEC-010: another type than the route wants is `forbidden`.
    pub(super) fn of_type(text: &'a str, typ: &str) -> Result<Self, Problem> {
        let token = Self::read(text)?;
        if token.header.typ.as_deref() != Some(typ) {
            return Err(Problem::new(Code::Forbidden).detail("a token of another kind is needed here"));
        }
        Ok(token)
    }

    /// Which kind of token it claims to be.
    pub(super) fn typ(&self) -> &str {
        self.header.typ.as_deref().unwrap_or_default()
    }

    /// Which of its issuer's keys it claims to be signed with.
    pub(super) fn kid(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// What it says.
    pub(super) fn claims<C: DeserializeOwned>(&self) -> Result<C, Problem> {
        jsonwebtoken::dangerous::insecure_decode_claims(self.text).map_err(|_| malformed())
    }

    /// Whether it needs no proof that `key` signed it.
    pub(super) fn known_to_be_signed_by(&self, key: &DecodingKey, proofs: &Proofs) -> bool {
        key.try_get_as_bytes().is_ok_and(|key| proofs.knows(key, self.text))
    }

    /// Whether `key` signed it.
    pub(super) fn signed_by(&self, key: &DecodingKey) -> Result<(), Problem> {
        jsonwebtoken::decode::<IgnoredAny>(self.text, key, &SIGNATURE_ONLY)
            .map(drop)
            .map_err(|_| Problem::new(Code::Unauthorized).detail("the token's signature does not hold"))
    }
}

/// Whether a token that is good from `iat` until `exp` is good now, give or take the leeway.
pub(super) fn in_time(now: Timestamp, iat: u64, exp: u64) -> Result<(), Problem> {
    let now = now.seconds();
    if iat <= now.saturating_add(LEEWAY_SECONDS) && now < exp.saturating_add(LEEWAY_SECONDS) {
        return Ok(());
    }
    Err(Code::TokenExpired.into())
}

fn malformed() -> Problem {
    Problem::new(Code::Unauthorized).detail("the token is malformed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use fusion_runtime::Host;

    use super::*;
    use crate::auth::SigningKey;
    use crate::testing::World;

    fn signed(typ: &str) -> (String, DecodingKey) {
        let key = SigningKey::from_seed(&[1; 32]);
        let token = key.sign(typ, &json!({ "sub": "alice" }));
        (token, DecodingKey::from_ed_der(&key.public_key()))
    }

    fn holds(token: &str, key: &DecodingKey) -> bool {
        Token::read(token).is_ok_and(|token| token.signed_by(key).is_ok())
    }

    fn reads_with_header(header: &Value) -> bool {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        Token::read(&format!("{}.{}.AAAA", part(header), part(&json!({})))).is_ok()
    }

    #[test]
    fn a_token_is_good_from_iat_to_exp_give_or_take_the_leeway() {
        let at = |seconds: u64| in_time(Timestamp(seconds * 1_000_000), 100, 200).is_ok();
        assert_eq!([94, 95, 150, 204, 205].map(at), [false, true, true, true, false]);
    }

    #[test]
    fn another_algorithm_is_refused() {
        assert!(reads_with_header(&json!({"alg": "EdDSA", "typ": "x", "x5t": "ignored"})));
        for alg in ["none", "HS256", "ES256", "eddsa", ""] {
            assert!(!reads_with_header(&json!({ "alg": alg })), "{alg}");
        }
        assert!(!reads_with_header(&json!({"typ": "x"})));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_has_signed_needs_no_proof_in_it() {
        let world = World::new(&["a"]).await;
        let host = Host { proofs: Proofs::of_one_process(), ..world.cluster("a").host.clone() };
        for life in ["the key is made or read", "the key is read"] {
            let key = SigningKey::load_or_make(&host).await.unwrap();
            let token = key.sign("x", &json!({ "sub": life }));
            let forged = format!("{token}A");
            let known = |token: &str, key: &[u8; 32], proofs: &Proofs| {
                Token::read(token).unwrap().known_to_be_signed_by(&DecodingKey::from_ed_der(key), proofs)
            };
            assert!(known(&token, &key.public_key(), &host.proofs), "{life}");
            assert!(!known(&token, &[1; 32], &host.proofs));
            assert!(!known(&forged, &key.public_key(), &host.proofs));
            assert!(!known(&token, &key.public_key(), &Proofs::default()));
        }
    }

    proptest! {
        #[test]
        fn a_token_with_one_character_changed_does_not_hold(at: prop::sample::Index, by in "[A-Za-z0-9_-]") {
            let (token, key) = signed("x");
            prop_assert!(holds(&token, &key));
            let at = at.index(token.len());
            prop_assume!(token[at..=at] != by);
            let changed = format!("{}{by}{}", &token[..at], &token[at + 1..]);
            prop_assert!(!holds(&changed, &key));
        }

        #[test]
        fn nothing_makes_reading_a_token_panic(text in "\\PC{0,80}", header in "\\PC{0,40}") {
            for token in [&text, &format!("{header}.{text}.{text}")] {
                if let Ok(token) = Token::read(token) {
                    let _ = (token.typ(), token.kid(), token.claims::<Value>(), token.signed_by(&signed("x").1));
                }
            }
        }
    }
}
