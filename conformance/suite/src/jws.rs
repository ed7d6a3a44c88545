//! Signed tokens (RFC 7515, RFC 8037), as far as a client needs them: making assertions, and reading
//! what an authorisation server has issued. Ours, so that the suite shares no token code with anybody
//! it checks.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An Ed25519 key of an identity provider. Prints as nothing.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

/// A token taken apart. Nothing of it has been verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The protected header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

/// Why a key or a token cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not an Ed25519 private key.
    #[error("not an Ed25519 private key (PKCS#8 PEM, or a seed of 32 bytes in hexadecimal or base64url)")]
    Key,
    /// Not three base64url parts, the first two of them JSON.
    #[error("not a signed token")]
    Token,
}

impl SigningKey {
    /// The key that a seed of 32 bytes determines.
    ///
    /// # Errors
    /// Never in practice: every 32 bytes are a seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, JwsError> {
        Ed25519KeyPair::from_seed_unchecked(&seed).map(|pair| Self(Arc::new(pair))).map_err(|_| JwsError::Key)
    }

    /// The key of a PKCS#8 document in DER.
    ///
    /// # Errors
    /// [`JwsError::Key`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, JwsError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
        pair.map(|pair| Self(Arc::new(pair))).map_err(|_| JwsError::Key)
    }

    /// The key of a PKCS#8 document in PEM (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// [`JwsError::Key`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, JwsError> {
        let inside = pem.split_once("-----BEGIN PRIVATE KEY-----").and_then(|(_, rest)| {
            let (inside, _) = rest.split_once("-----END PRIVATE KEY-----")?;
            Some(inside.split_whitespace().collect::<String>())
        });
        let der = BASE64_STANDARD.decode(inside.ok_or(JwsError::Key)?).map_err(|_| JwsError::Key)?;
        Self::from_pkcs8_der(&der)
    }

    /// The key of a seed as text: 64 hexadecimal digits, or base64url.
    ///
    /// # Errors
    /// [`JwsError::Key`].
    pub fn from_seed_text(text: &str) -> Result<Self, JwsError> {
        let bytes = if text.len() == 64 {
            let digits = (0..32).map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok());
            digits.collect::<Option<Vec<u8>>>()
        } else {
            BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
        };
        let seed: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        Self::from_seed(seed.ok_or(JwsError::Key)?)
    }

    /// A token with these claims.
    #[must_use]
    pub fn sign(&self, claims: &impl Serialize) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "JWT" });
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The raw public key.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
}

/// Takes a token apart without believing it.
///
/// # Errors
/// [`JwsError::Token`].
pub fn parts(token: &str) -> Result<Parts, JwsError> {
    let mut pieces = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (pieces.next(), pieces.next(), pieces.next(), pieces.next())
    else {
        return Err(JwsError::Token);
    };
    Ok(Parts { header: decode(header)?, claims: decode(claims)? })
}

/// The claims of a token, believed to be a `T`.
///
/// # Errors
/// [`JwsError::Token`].
pub fn claims<T: DeserializeOwned>(token: &str) -> Result<T, JwsError> {
    serde_json::from_value(parts(token)?.claims).map_err(|_| JwsError::Token)
}

/// Whether the token is signed by the key of a JWK's `x`.
#[must_use]
pub fn is_signed_by(token: &str, jwk_x: &str) -> bool {
    let (Some((signed, signature)), Ok(key)) = (token.rsplit_once('.'), BASE64_URL_SAFE_NO_PAD.decode(jwk_x))
    else {
        return false;
    };
    BASE64_URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
        UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature).is_ok()
    })
}

fn encode(value: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(piece: &str) -> Result<T, JwsError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(piece).map_err(|_| JwsError::Token)?;
    serde_json::from_slice(&bytes).map_err(|_| JwsError::Token)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed([7; 32]).unwrap()
    }

    #[test]
    fn a_signed_token_verifies_with_its_own_key_only() {
        let token = key().sign(&json!({ "sub": "x" }));
        let own = BASE64_URL_SAFE_NO_PAD.encode(key().public());
        let other = BASE64_URL_SAFE_NO_PAD.encode(SigningKey::from_seed([8; 32]).unwrap().public());
        assert!(is_signed_by(&token, &own));
        assert!(!is_signed_by(&token, &other));
        let forged = token.replacen('.', ".e30", 1);
        assert!(!is_signed_by(&forged, &own));
        assert_eq!(parts(&token).unwrap().claims, json!({ "sub": "x" }));
    }

    #[test]
    fn a_seed_may_be_written_in_hexadecimal_or_base64url() {
        let hex = SigningKey::from_seed_text(&"07".repeat(32)).unwrap();
        let base64 = SigningKey::from_seed_text(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).unwrap();
        assert_eq!(hex.public(), key().public());
        assert_eq!(base64.public(), key().public());
        for wrong in ["", "07", &"0g".repeat(32), "ä"] {
            assert_eq!(SigningKey::from_seed_text(wrong).unwrap_err(), JwsError::Key);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for wrong in ["", "a.b", "a.b.c.d", "e30.e30", "!.!.!"] {
            assert_eq!(parts(wrong).unwrap_err(), JwsError::Token);
        }
    }
}
