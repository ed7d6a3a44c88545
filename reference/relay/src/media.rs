//! The media side: one socket, one loop, one look into the leg table a datagram.
//!
//! Nothing is allocated for a packet here. Nothing that arrives can stop the loop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fusion_machines::legs::Binding;
use fusion_protocol::media::{DATAGRAM_MAX, Datagram, binding_response, parse};
use fusion_runtime::probe::Level;
use futures_util::FutureExt as _;
use serde_json::json;

use crate::Relay;

/// How long the loop rests when the socket fails, so that a broken one does not burn a core.
const PAUSE: Duration = Duration::from_millis(10);

/// Receives and forwards until the machine ends.
pub(crate) async fn forward(relay: Relay) {
    // One octet more than is allowed tells the longest datagram from one that was cut.
    let mut buffer = [0; DATAGRAM_MAX + 1];
    let mut to = Vec::new();
    loop {
        match relay.udp.recv_from(&mut buffer).await {
            Ok((_, from)) if relay.stall.take(relay.host.clock.now()) => {
                relay.legs().late(from);
                throw_away(&relay, &mut buffer);
            }
            Ok((length, from)) => take(&relay, &buffer[..length], from, &mut to).await,
            Err(error) => rest(&relay, &error).await,
        }
    }
}

/// Whatever has piled up while the relay stood still.
fn throw_away(relay: &Relay, buffer: &mut [u8]) {
    while let Some(Ok((_, from))) = relay.udp.recv_from(buffer).now_or_never() {
        relay.legs().late(from);
    }
}

/// `to` is only kept to spare an allocation.
async fn take(relay: &Relay, bytes: &[u8], from: SocketAddr, to: &mut Vec<SocketAddr>) {
    let datagram = if bytes.len() > DATAGRAM_MAX { Datagram::Malformed } else { parse(bytes) };
    if let Datagram::Bind { transaction, token } = datagram {
        return bind(relay, transaction, token, from).await;
    }
    to.clear();
    to.extend_from_slice(relay.legs().packet(from, &datagram));
    for address in &*to {
        // A datagram that the network refuses is lost, as any may be.
        let _ = relay.udp.send_to(bytes, *address).await;
    }
}

/// A sender whose token is good for nothing is not answered (MED-005: no amplification).
async fn bind(relay: &Relay, transaction: [u8; 12], token: &str, from: SocketAddr) {
    let binding = relay.legs().bind(token, from);
    if let Binding::New(leg) = binding {
        relay.report(&[leg], "BOUND");
    }
    if binding != Binding::Refused {
        let _ = relay.udp.send_to(&binding_response(transaction, from), from).await;
    }
}

/// Some systems report here that an earlier datagram did not arrive; that is not worth a line.
async fn rest(relay: &Relay, error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) {
        let fields = json!({"relay": relay.config.name, "error": error.kind().to_string()});
        relay.host.probe.log(Level::Warn, "relay.receive", fields);
        relay.host.clock.sleep(PAUSE).await;
    }
}
