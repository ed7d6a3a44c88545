//! Reading tokens: the outside of a JWS, and signatures over it.
//!
//! Expiry is judged on the host's clock. Not here: which key speaks for whom (`keyring.rs`, `verifier.rs`).

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fusion_protocol::{Code, Problem};
use fusion_runtime::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// How far two clocks may differ, in seconds.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// The longest token that is looked at, in octets.
const TOKEN_MAX: usize = 8 << 10;

/// The one algorithm there is (SEC-002).
const ALGORITHM: &str = "EdDSA";

/// A token as somebody shows it: nothing of it is proved.
pub(super) struct Token<'a> {
    header: Header,
    payload: &'a str,
    /// Header and payload as they were signed.
    signed: &'a str,
    signature: &'a str,
}

/// Of a JWS's header what matters here.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<IgnoredAny>,
}

/// Whose signatures can be checked. Clones share the parsed key.
#[derive(Clone, Debug)]
pub(super) struct VerifyingKey(Arc<ParsedPublicKey>);

impl<'a> Token<'a> {
    /// Reads the outside of a token.
    pub(super) fn read(token: &'a str) -> Result<Self, Problem> {
        if token.len() > TOKEN_MAX {
            return Err(malformed());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.rsplit_once('.').ok_or_else(malformed)?;
        let header: Header = json(header)?;
        if header.alg != ALGORITHM || header.crit.is_some() {
            return Err(malformed());
        }
        Ok(Self { header, payload, signed, signature })
    }

    /// Reads a token of type `typ`. SEC-010: another type than the route wants is `forbidden`.
    pub(super) fn of_type(token: &'a str, typ: &str) -> Result<Self, Problem> {
        let token = Self::read(token)?;
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
        json(self.payload)
    }

    /// Whether `key` signed it.
    pub(super) fn signed_by(&self, key: &VerifyingKey) -> Result<(), Problem> {
        let refused = || Problem::new(Code::Unauthorized).detail("the token's signature does not hold");
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| refused())?;
        key.0.verify_sig(self.signed.as_bytes(), &signature).map_err(|_| refused())
    }
}

impl VerifyingKey {
    /// The Ed25519 key of these octets, if they are one.
    pub(super) fn new(public_key: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ED25519, public_key).ok().map(|key| Self(Arc::new(key)))
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

/// One part of a token.
fn json<T: DeserializeOwned>(part: &str) -> Result<T, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed())?;
    serde_json::from_slice(&bytes).map_err(|_| malformed())
}

fn malformed() -> Problem {
    Problem::new(Code::Unauthorized).detail("the token is malformed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::SigningKey;

    fn signed(typ: &str) -> (String, VerifyingKey) {
        let key = SigningKey::from_seed(&[1; 32]);
        let token = key.sign(typ, &json!({ "sub": "alice" }));
        (token, VerifyingKey::new(&key.public_key()).unwrap())
    }

    fn holds(token: &str, key: &VerifyingKey) -> bool {
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
    fn another_algorithm_and_an_extension_that_must_be_understood_are_refused() {
        assert!(reads_with_header(&json!({"alg": "EdDSA", "typ": "x", "x5t": "ignored"})));
        for alg in ["none", "HS256", "ES256", "eddsa", ""] {
            assert!(!reads_with_header(&json!({ "alg": alg })), "{alg}");
        }
        assert!(!reads_with_header(&json!({"typ": "x"})));
        assert!(!reads_with_header(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})));
    }

    #[test]
    fn a_key_of_another_length_is_none() {
        assert!(VerifyingKey::new(&[1; 31]).is_none());
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
