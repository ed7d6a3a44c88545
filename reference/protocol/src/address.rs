//! Users are e-mail addresses (NAM-004).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;

use crate::limits::ADDRESS_MAX;

/// A user's address in canonical form (NAM-004): the domain as lower-case A-labels, the local part in
/// NFC and lower case, plus-tags and dots kept. Two spellings of one address are one `Address`.
///
/// `Debug` prints nothing of it (PRI-005); [`Address::as_str`] does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: Arc<str>,
    at: usize,
}

/// A DNS domain in canonical form: lower-case A-labels, no final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Arc<str>);

/// Which person an address means: kept by a move with consent, new after a deletion or a takeover
/// (NAM-004). Rights belong to (address, incarnation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Uuid);

/// One person: an address and its incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRef {
    /// The address.
    pub user: Address,
    /// Whose it is.
    pub incarnation: Incarnation,
}

/// Why a text is no address or no domain. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than [`ADDRESS_MAX`] octets in canonical form.
    #[error("an address has at most {ADDRESS_MAX} octets")]
    TooLong,
    /// No `@`, or nothing before it.
    #[error("an address is local-part@domain")]
    Shape,
    /// The local part has a character that none may have.
    #[error("the local part of an address has no spaces, controls, quotes, slashes or further @")]
    LocalPart,
    /// The part after `@` is no domain name.
    #[error("the part after @ is not a domain name")]
    Domain,
}

impl Address {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after `@`.
    #[must_use]
    pub fn domain(&self) -> Domain {
        Domain(self.text[self.at + 1..].into())
    }

    /// The address as one segment of a URL's path.
    #[must_use]
    pub fn path_segment(&self) -> String {
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        utf8_percent_encode(&self.text, KEPT).to_string()
    }
}

impl Domain {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other` or below it, on label boundaries.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_suffix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl UserRef {
    /// The octets that pair keys are made of: `address#incarnation` (CNV-003).
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        format!("{}#{}", self.user.as_str(), self.incarnation.0).into_bytes()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > 4 * ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Shape)?;
        let domain: Domain = domain.parse()?;
        let local = canonical_local_part(local);
        if local.is_empty() {
            return Err(AddressError::Shape);
        }
        let allowed = |c: char| !(c.is_whitespace() || c.is_control() || "@\"/\\<>()[],;:#".contains(c));
        if !local.chars().all(allowed) {
            return Err(AddressError::LocalPart);
        }
        if local.len() + 1 + domain.0.len() > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Self { at: local.len(), text: format!("{local}@{}", domain.0).into() })
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if is_canonical(text) {
            return Ok(Self(text.into()));
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| AddressError::Domain)?;
        let labels_ok = ascii.split('.').all(|label| !label.is_empty());
        if !labels_ok || !ascii.contains('.') || ascii.len() > 253 {
            return Err(AddressError::Domain);
        }
        Ok(Self(ascii.into()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<address>")
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text.to_string()
    }
}

impl TryFrom<String> for Domain {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.to_string()
    }
}

/// Whether a domain is plainly in canonical form, as nearly all that is read is: IDNA, which is dear, would
/// leave it as it is.
fn is_canonical(domain: &str) -> bool {
    let plain = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
            // `xn--` and its like are IDNA's affair.
            && bytes.get(2..4) != Some(b"--")
    };
    domain.len() <= 253 && domain.contains('.') && domain.split('.').all(plain)
}

/// NFC after lower-casing; lower-casing can denormalise, so NFC comes last, and once more is the same.
fn canonical_local_part(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn idna_leaves_a_plainly_canonical_domain_as_it_is(domain in "[a-z0-9.-]{1,24}|([a-z]{1,8}\\.){1,3}[a-z]{2,5}") {
            prop_assume!(is_canonical(&domain));
            prop_assert_eq!(idna::domain_to_ascii_strict(&domain).ok(), Some(domain));
        }

        #[test]
        fn an_ascii_local_part_has_one_canonical_form_by_either_way(local in "[ -~]{0,24}") {
            let long_way: String = local.nfc().collect::<String>().to_lowercase().nfc().collect();
            prop_assert_eq!(canonical_local_part(&local), long_way);
        }
    }

    #[test]
    fn what_is_not_plainly_canonical_is_left_to_idna() {
        for domain in
            ["example", "a..b", "-a.example", "a-.example", "xn--a.example", "A.example", "ä.example", ".a.b"]
        {
            assert!(!is_canonical(domain), "{domain}");
        }
        assert!(is_canonical("acme-1.example"));
    }
}
