//! The world's table of names.
//!
//! Exact names only: wildcards are a deployment's affair, which knows its names. Looking up takes no
//! time and crosses no link; a name fails only by a fault of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::fault::{Fault, FaultError, FaultId};
use super::world::State;

/// Names and their addresses.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, Entry>);

#[derive(Default)]
struct Entry {
    now: Vec<IpAddr>,
    before: Vec<IpAddr>,
    /// The active faults, the latest last.
    missing: Vec<FaultId>,
    stale: Vec<FaultId>,
}

impl Names {
    /// Publishes `addresses` as those of `name`; none takes the name away.
    pub(super) fn publish(&mut self, name: &str, addresses: Vec<IpAddr>) {
        let entry = self.0.entry(canonical(name)).or_default();
        if entry.now != addresses {
            entry.before = std::mem::replace(&mut entry.now, addresses);
        }
    }

    /// The addresses of `name`, and the fault that made them wrong.
    fn look_up(&self, name: &str) -> (&[IpAddr], Option<FaultId>) {
        let Some(entry) = self.0.get(&canonical(name)) else { return (&[], None) };
        match (entry.missing.last(), entry.stale.last()) {
            (Some(fault), _) => (&[], Some(*fault)),
            (None, Some(fault)) if entry.before != entry.now => (&entry.before, Some(*fault)),
            _ => (&entry.now, None),
        }
    }

    /// Lets `fault` begin.
    pub(super) fn begin(&mut self, id: FaultId, fault: &Fault) -> Result<(), FaultError> {
        let (Fault::DnsMissing { name } | Fault::DnsStale { name }) = fault else { return Ok(()) };
        let entry = self.0.get_mut(&canonical(name)).ok_or_else(|| FaultError::NoSuchName(name.clone()))?;
        match fault {
            Fault::DnsMissing { .. } => entry.missing.push(id),
            _ => entry.stale.push(id),
        }
        Ok(())
    }

    /// Lets the fault `id` end.
    pub(super) fn end(&mut self, id: FaultId) {
        for entry in self.0.values_mut() {
            entry.missing.retain(|fault| *fault != id);
            entry.stale.retain(|fault| *fault != id);
        }
    }
}

impl State {
    /// The addresses of `name`, with `port`.
    pub(super) fn resolve(&mut self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let (addresses, wrong) = self.names.look_up(name);
        let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        if let Some(fault) = wrong {
            self.faults.took_effect(fault);
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no such name: {name}")));
        }
        Ok(addresses)
    }
}

/// Names compare without case and without the root's dot.
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn moved() -> Names {
        let mut names = Names::default();
        names.publish("a.example", vec![OLD]);
        names.publish("A.example.", vec![NEW]);
        names
    }

    #[test]
    fn a_name_has_one_entry_however_it_is_spelt() {
        assert_eq!(moved().look_up("a.Example"), ([NEW].as_slice(), None));
    }

    #[test]
    fn a_stale_name_answers_as_before_its_last_change() {
        let mut names = moved();
        names.begin(FaultId(1), &Fault::DnsStale { name: "a.example".into() }).unwrap();
        assert_eq!(names.look_up("a.example"), ([OLD].as_slice(), Some(FaultId(1))));
        names.end(FaultId(1));
        assert_eq!(names.look_up("a.example"), ([NEW].as_slice(), None));
    }

    #[test]
    fn a_missing_name_has_no_address() {
        let mut names = moved();
        names.begin(FaultId(1), &Fault::DnsMissing { name: "a.example".into() }).unwrap();
        assert_eq!(names.look_up("a.example"), ([].as_slice(), Some(FaultId(1))));
    }

    #[test]
    fn a_fault_of_a_name_that_was_never_published_is_refused() {
        let fault = Fault::DnsMissing { name: "b.example".into() };
        assert_eq!(moved().begin(FaultId(1), &fault), Err(FaultError::NoSuchName("b.example".into())));
    }
}
