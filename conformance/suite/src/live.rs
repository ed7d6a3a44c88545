//! The machine that a live run checks from: real sockets, the target's names, the target's authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use fusion_runtime::Host;
use fusion_runtime::net::{LiveConfig, LiveNet, ResolveTable};
use fusion_runtime::store::MemoryStore;

use crate::Target;

/// Where systems keep the authorities that they trust, the first that is there.
const SYSTEM_TRUST: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// A host for clients of `target`. Names and addresses of the target's `[resolve]` table are reached
/// although they are private; all others must be public (NAM-005).
///
/// # Errors
/// When the authority's file cannot be read, or there is none.
pub fn host(target: &Target) -> Result<Host> {
    let mut resolve = ResolveTable::default();
    for (name, addresses) in &target.resolve {
        if let Some(address) = addresses.first() {
            resolve.insert(name, &address.to_string())?;
        }
    }
    let trust = trust(target.ca.as_deref())?;
    let trust_pem =
        std::fs::read_to_string(&trust).with_context(|| format!("cannot read {}", trust.display()))?;
    let net = LiveNet::new(LiveConfig { trust_pem, resolve, ..LiveConfig::default() })
        .with_context(|| format!("cannot trust {}", trust.display()))?;
    Ok(Host::live("conformance", Arc::new(net), Arc::new(MemoryStore::new())))
}

fn trust(ca: Option<&Path>) -> Result<PathBuf> {
    if let Some(ca) = ca {
        return Ok(ca.to_owned());
    }
    match SYSTEM_TRUST.into_iter().map(PathBuf::from).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => bail!("this system names no certificate authorities: give the target file a `ca`"),
    }
}
