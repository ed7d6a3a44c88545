//! Strangers: clients that nobody has invited, who come in numbers.
//!
//! They live on one machine of their own, far from everybody, which is there from the first overload on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fusion_runtime::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fault::FaultId;
use super::host::HostId;
use super::world::World;

/// The strangers' machine.
const NAME: &str = "strangers";
/// The block it has an address of: one for benchmarks (RFC 2544), which nobody else has.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// What each of them says. Whatever listens: it is work to read it and to answer.
const REQUEST: &[u8] = b"GET /strangers HTTP/1.1\r\nhost: strangers.example\r\nconnection: close\r\n\r\n";
/// How long a stranger waits, for the connection and for the answer together.
const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    /// Sends `per_s` strangers a second to the listeners of `host`, until the fault is over.
    pub(super) fn send_strangers(&self, fault: FaultId, host: HostId, per_s: u64) {
        let (world, clock) = (self.clone(), self.clock());
        let every = Duration::from_micros(1_000_000 / per_s.max(1));
        self.shared.tasks().spawn(async move {
            let began = clock.now();
            for number in 0_u32.. {
                clock.sleep_until(began + every * number).await;
                if !world.shared.lock().faults.is_active(fault) {
                    return;
                }
                let Some(machine) = world.strangers() else { continue };
                let at = world.shared.lock().listener_of(host, number);
                if let Some(at) = at {
                    let visit = visit(machine.clone(), world.clone(), fault, at);
                    machine.tasks.spawn(visit);
                }
            }
        });
    }

    /// The strangers' machine; `None` while it is down.
    fn strangers(&self) -> Option<Host> {
        if self.machines().iter().any(|name| &**name == NAME) {
            return self.machine(NAME);
        }
        (1..=254).find_map(|number| {
            let ip = IpAddr::V4(Ipv4Addr::from(u32::from(ADDRESSES) + number));
            self.host(NAME, ip, NAME).start().ok()
        })
    }
}

/// One stranger comes, asks, and listens until nothing more is said or patience ends.
async fn visit(machine: Host, world: World, fault: FaultId, at: SocketAddr) {
    let visit = async {
        let mut stream = machine.net.connect(at, "").await.ok()?;
        world.shared.lock().faults.took_effect(fault);
        stream.write_all(REQUEST).await.ok()?;
        let mut heard = [0; 1_024];
        while stream.read(&mut heard).await.ok()? > 0 {}
        Some(())
    };
    // Nobody cares for what a stranger misses.
    let _ = machine.clock.timeout(PATIENCE, visit).await;
}
