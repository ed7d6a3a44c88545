//! The cluster's own key, and compact JWS signing with it.
//!
//! Signing keeps the parsed key: `jsonwebtoken::encode` would parse it again for every token.
//! Checking signatures is in `tokens.rs`.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fusion_protocol::auth::Jwk;
use fusion_runtime::store::{Batch, StoreError};
use fusion_runtime::{Host, Proofs};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{StartError, rows};

/// The key that signs a cluster's tokens and calls. Ed25519; its `Debug` shows the key's id only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    kid: String,
    proofs: Proofs,
}

#[derive(Serialize, Deserialize)]
struct KeyRow {
    pkcs8: String,
}

impl SigningKey {
    /// Reads the key from the store, or makes one from the host's entropy and stores it. Two instances
    /// that start at once end with one key.
    ///
    /// # Errors
    /// When the store fails, or holds a key that cannot be read.
    pub async fn load_or_make(host: &Host) -> Result<Self, StartError> {
        let key = rows::key("signing-key", &[]);
        loop {
            let row = host.store.get(std::slice::from_ref(&key)).await?.pop().flatten();
            if let Some(row) = &row {
                return Ok(Self { proofs: host.proofs.clone(), ..Self::read(&row.value)? });
            }
            let made = Self::make(host)?;
            let mut batch = Batch::default();
            batch.expect(&key, None);
            rows::put(&mut batch, key.clone(), &made.row()?);
            match host.store.commit(batch).await {
                Ok(()) => return Ok(Self { proofs: host.proofs.clone(), ..made }),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The key that `seed` determines.
    ///
    /// # Panics
    /// Never: every 32 octets are an Ed25519 seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 octets are an Ed25519 seed"))
    }

    /// The public key's id: the start of its SHA-256.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key, for others.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk::ed25519(self.kid.clone(), URL_SAFE_NO_PAD.encode(self.pair.public_key()))
    }

    /// The raw public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }

    /// A signed token with the header's `typ` and these claims.
    ///
    /// # Panics
    /// When the claims cannot be JSON, which is a bug of their type.
    #[must_use]
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are plain data: string keys");
        let header = format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"{}"}}"#, self.kid);
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        self.proofs.made(self.pair.public_key().as_ref(), &token);
        token
    }

    fn make(host: &Host) -> Result<Self, StartError> {
        let mut seed = [0; 32];
        host.entropy.stream("signing-key").fill(&mut seed);
        Ed25519KeyPair::from_seed_unchecked(&seed).map(Self::of).map_err(|_| unreadable())
    }

    fn read(value: &[u8]) -> Result<Self, StartError> {
        let row: KeyRow = serde_json::from_slice(value).map_err(|_| unreadable())?;
        let pkcs8 = STANDARD.decode(row.pkcs8).map_err(|_| unreadable())?;
        Ed25519KeyPair::from_pkcs8(&pkcs8).map(Self::of).map_err(|_| unreadable())
    }

    fn row(&self) -> Result<KeyRow, StartError> {
        let pkcs8 = self.pair.to_pkcs8().map_err(|_| unreadable())?;
        Ok(KeyRow { pkcs8: STANDARD.encode(pkcs8) })
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let kid = URL_SAFE_NO_PAD.encode(&Sha256::digest(pair.public_key())[..12]);
        Self { pair, kid, proofs: Proofs::default() }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

fn unreadable() -> StartError {
    StartError::Row("signing-key".to_owned())
}
