//! Which address a name has by configuration, and which addresses may be reached at all (NAM-005).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Names with configured addresses, like curl's `--resolve`. TLS still checks the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveTable(BTreeMap<String, (IpAddr, Option<u16>)>);

/// A range of addresses: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    first: IpAddr,
    prefix_bits: u8,
}

/// A line of the table or of the list is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolveError(String);

impl ResolveTable {
    /// Adds a name, or `*.` and a suffix for every name with one more label, at an IP address with or
    /// without a port. Without one the port asked for stays.
    ///
    /// # Errors
    /// [`ResolveError`] for what is neither a name nor a pattern, or not an address.
    pub fn insert(&mut self, name: &str, address: &str) -> Result<(), ResolveError> {
        let suffix = name.strip_prefix("*.").unwrap_or(name);
        if suffix.is_empty() || suffix.contains(['*', ':', '/']) {
            return Err(ResolveError(format!("{name:?} is neither a host name nor \"*.\" and a host name")));
        }
        let target = match (address.parse::<SocketAddr>(), address.parse::<IpAddr>()) {
            (Ok(address), _) => (address.ip(), Some(address.port())),
            (_, Ok(ip)) => (ip, None),
            _ => {
                return Err(ResolveError(format!(
                    "{address:?} is not an IP address, with or without a port"
                )));
            }
        };
        self.0.insert(name.to_ascii_lowercase(), target);
        Ok(())
    }

    /// The configured address of `name`; the name itself goes before a pattern.
    #[must_use]
    pub fn lookup(&self, name: &str, port: u16) -> Option<SocketAddr> {
        let name = name.to_ascii_lowercase();
        let pattern = || Some(format!("*.{}", name.split_once('.')?.1));
        let (ip, own_port) = self.0.get(&name).or_else(|| self.0.get(&pattern()?))?;
        Some(SocketAddr::new(*ip, own_port.unwrap_or(port)))
    }
}

impl IpRange {
    /// Whether `ip` is in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (first, ip, bits) = match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                (u128::from(first.to_bits()), u128::from(ip.to_bits()), 32)
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits(), ip.to_bits(), 128),
            _ => return false,
        };
        let free_bits = bits - u32::from(self.prefix_bits);
        free_bits == 128 || first >> free_bits == ip >> free_bits
    }
}

impl FromStr for IpRange {
    type Err = ResolveError;

    fn from_str(text: &str) -> Result<Self, ResolveError> {
        let wrong = || ResolveError(format!("{text:?} is neither an IP address nor a range like 10.0.0.0/8"));
        let (first, prefix) =
            text.split_once('/').map_or((text, None), |(first, prefix)| (first, Some(prefix)));
        let first: IpAddr = first.parse().map_err(|_| wrong())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix_bits > bits {
            return Err(wrong());
        }
        Ok(Self { first, prefix_bits })
    }
}

/// NAM-005: whether `ip` is a public address. Everything else (loopback, private, link-local, shared,
/// reserved, multicast) is reached only when an operator has named it.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        || (a, b & 0xfe) == (198, 18);
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // 2000::/3 is what has been given out; of it, documentation, Teredo and 6to4 lead elsewhere.
    a & 0xe000 == 0x2000 && a != 0x2002 && !(a == 0x2001 && (b == 0x0db8 || b < 0x0200))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_goes_before_a_pattern_and_a_pattern_covers_one_label() {
        let mut table = ResolveTable::default();
        table.insert("*.provider.test", "127.0.1.1").unwrap();
        table.insert("a-conv.provider.test", "127.0.1.2:8443").unwrap();
        let at = |name| table.lookup(name, 443).map(|address| address.to_string());
        assert_eq!(at("A-Conv.Provider.Test").as_deref(), Some("127.0.1.2:8443"));
        assert_eq!(at("b-conv.provider.test").as_deref(), Some("127.0.1.1:443"));
        for elsewhere in ["provider.test", "x.y.provider.test", "a.provider.test.evil.test", "aprovider.test"]
        {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn what_is_no_name_or_no_address_is_refused_with_what_was_written() {
        let mut table = ResolveTable::default();
        for (name, address) in [("", "127.0.0.1"), ("*.", "127.0.0.1"), ("a.*.b", "127.0.0.1"), ("a", "b")] {
            assert!(table.insert(name, address).is_err(), "{name} {address}");
        }
        assert!(table.insert("a", "nowhere").unwrap_err().to_string().contains("nowhere"));
        for range in ["", "x/8", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(range.parse::<IpRange>().unwrap_err().to_string().contains(range), "{range}");
        }
    }

    #[test]
    fn addresses_that_lead_inside_are_not_public() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(ip(inside)), "{inside}");
        }
        for outside in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2001:4860::8888"] {
            assert!(is_public(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn a_range_holds_its_addresses_only() {
        let range = |text: &str| text.parse::<IpRange>().unwrap();
        assert!(range("10.0.0.0/8").contains(ip("10.255.0.1")));
        assert!(!range("10.0.0.0/8").contains(ip("11.0.0.0")));
        assert!(range("127.0.0.1").contains(ip("127.0.0.1")));
        assert!(!range("127.0.0.1").contains(ip("127.0.0.2")));
        assert!(range("0.0.0.0/0").contains(ip("9.9.9.9")));
        assert!(!range("0.0.0.0/0").contains(ip("::1")));
        assert!(range("::/0").contains(ip("fd00::1")));
        assert!(range("fd00::/8").contains(ip("fd12::1")));
    }
}
