//! TLS by rustls: who we are, whom we trust, and a certificate authority for tests.
//!
//! aws-lc-rs is passed explicitly; no process-wide default is set or read. Not here: getting real
//! certificates (an operator's or an ACME client's affair).

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate or a key is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// A certificate chain and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The server's certificate first, then those that lead to the root.
    pub cert_pem: String,
    /// PKCS#8.
    pub key_pem: String,
}

/// A certificate authority for tests and for deployments on one machine.
pub struct TestCa {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

const TEST_CA_NAME: &str = "Stack Fusion test CA";

impl TestCa {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, TlsError> {
        let ca = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate()?)?;
        Ok(Self {
            ca_pem: ca.pem(),
            issuer: Issuer::new(ca_params(), KeyPair::from_pem(&ca.key().serialize_pem())?),
        })
    }

    /// The authority that [`TestCa::ca_pem`] and [`TestCa::key_pem`] were taken from.
    ///
    /// # Errors
    /// When the key is none.
    pub fn from_pem(ca_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        Ok(Self { ca_pem: ca_pem.to_owned(), issuer: Issuer::new(ca_params(), KeyPair::from_pem(key_pem)?) })
    }

    /// The authority's certificate, to be trusted by clients.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's key.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for `names`: host names, `*.` and a host name, or IP addresses.
    ///
    /// # Errors
    /// For a name that cannot stand in a certificate.
    pub fn issue(&self, names: &[&str]) -> Result<Identity, TlsError> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "Stack Fusion");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { cert_pem, key_pem: key.serialize_pem() })
    }
}

impl Identity {
    /// Reads an identity from two PEM files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| TlsError(format!("{}: {error}", path.display())))
        };
        Ok(Self { cert_pem: read(cert)?, key_pem: read(key)? })
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.cert_pem)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| TlsError(format!("the private key cannot be read: {error}")))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity { .. }")
    }
}

/// A client that trusts the authorities of `trust_pem` and nobody else.
pub(crate) fn client_config(trust_pem: &str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if !trust_pem.is_empty() {
        for certificate in certificates(trust_pem)? {
            roots.add(certificate)?;
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A server that shows the first of `identities` that is good for the name it is asked for.
pub(crate) fn server_config(identities: &[Identity]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let certified: Result<Vec<_>, TlsError> =
        identities.iter().map(|identity| Ok(Arc::new(identity.certified(&provider)?))).collect();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(ByName(certified?))))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = read.map_err(|error| TlsError(format!("the certificates cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(TlsError("there is no certificate in the PEM text".to_owned()));
    }
    Ok(certificates)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, TEST_CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A client that names nobody (an IP address in the URL) is shown the first.
        let Some(name) = hello.server_name() else { return self.0.first().cloned() };
        let name = ServerName::try_from(name).ok()?;
        let good = |certified: &&Arc<CertifiedKey>| {
            let parsed = certified.cert.first().and_then(|first| ParsedCertificate::try_from(first).ok());
            parsed.is_some_and(|parsed| verify_server_name(&parsed, &name).is_ok())
        };
        self.0.iter().find(good).cloned()
    }
}

impl From<rcgen::Error> for TlsError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}
