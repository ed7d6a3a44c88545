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
pub(super) struct Names {
    entries: BTreeMap<String, Entry>,
    /// Whether a name has ever been answered with the addresses of another one.
    has_lied: bool,
}

#[derive(Default)]
struct Entry {
    now: Vec<IpAddr>,
    before: Vec<IpAddr>,
    /// The active faults, the latest last.
    missing: Vec<FaultId>,
    stale: Vec<FaultId>,
    /// And whose addresses are answered instead.
    wrong: Vec<(FaultId, String)>,
}

impl Names {
    /// Publishes `addresses` as those of `name`; none takes the name away.
    pub(super) fn publish(&mut self, name: &str, addresses: Vec<IpAddr>) {
        let entry = self.entries.entry(canonical(name)).or_default();
        if entry.now != addresses {
            entry.before = std::mem::replace(&mut entry.now, addresses);
        }
    }

    /// The addresses of `name`, and the fault that made them wrong.
    fn look_up(&self, name: &str) -> (&[IpAddr], Option<FaultId>) {
        let Some(entry) = self.entries.get(&canonical(name)) else { return (&[], None) };
        if let Some(fault) = entry.missing.last() {
            return (&[], Some(*fault));
        }
        if let Some((fault, as_of)) = entry.wrong.last() {
            let answered = self.entries.get(as_of).map_or(&[][..], |other| &other.now);
            return (answered, (answered != entry.now).then_some(*fault));
        }
        match entry.stale.last() {
            Some(fault) if entry.before != entry.now => (&entry.before, Some(*fault)),
            _ => (&entry.now, None),
        }
    }

    /// Whether whoever has address `ip` can show a certificate for `name`: it has, or had, that name.
    pub(super) fn is_of(&self, name: &str, ip: IpAddr) -> bool {
        if !self.has_lied {
            return true;
        }
        let entry = self.entries.get(&canonical(name));
        entry.is_none_or(|entry| entry.now.contains(&ip) || entry.before.contains(&ip))
    }

    /// Lets `fault` begin.
    pub(super) fn begin(&mut self, id: FaultId, fault: &Fault) -> Result<(), FaultError> {
        match fault {
            Fault::DnsMissing { name } => self.known(name)?.missing.push(id),
            Fault::DnsStale { name } => self.known(name)?.stale.push(id),
            Fault::DnsWrong { name, as_of } => {
                self.known(as_of)?;
                self.known(name)?.wrong.push((id, canonical(as_of)));
                self.has_lied = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn known(&mut self, name: &str) -> Result<&mut Entry, FaultError> {
        self.entries.get_mut(&canonical(name)).ok_or_else(|| FaultError::NoSuchName(name.to_owned()))
    }

    /// Lets the fault `id` end.
    pub(super) fn end(&mut self, id: FaultId) {
        for entry in self.entries.values_mut() {
            entry.missing.retain(|fault| *fault != id);
            entry.stale.retain(|fault| *fault != id);
            entry.wrong.retain(|(fault, _)| *fault != id);
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
    fn a_wrong_name_answers_as_another_whose_machine_has_no_certificate_for_it() {
        let mut names = moved();
        let other = IpAddr::from([192, 0, 2, 3]);
        names.publish("b.example", vec![other]);
        assert!(names.is_of("a.example", other), "nobody lies, nobody asks");
        let fault = Fault::DnsWrong { name: "a.example".into(), as_of: "B.example".into() };
        names.begin(FaultId(1), &fault).unwrap();
        assert_eq!(names.look_up("a.example"), ([other].as_slice(), Some(FaultId(1))));
        assert_eq!(names.look_up("b.example"), ([other].as_slice(), None));
        assert!(!names.is_of("a.example", other));
        assert!(names.is_of("a.example", OLD) && names.is_of("a.example", NEW));
        names.end(FaultId(1));
        assert_eq!(names.look_up("a.example"), ([NEW].as_slice(), None));
    }

    #[test]
    fn a_fault_of_a_name_that_was_never_published_is_refused() {
        let fault = Fault::DnsMissing { name: "b.example".into() };
        assert_eq!(moved().begin(FaultId(1), &fault), Err(FaultError::NoSuchName("b.example".into())));
    }
}
