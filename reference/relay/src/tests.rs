//! Goal: media flows between the devices of a call, over real sockets, and nothing else does. Method: two
//! clusters and a relay of the first on loopback addresses; devices are sockets.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use ::http::Method;
use fusion_cluster::peers::{self, PeerError};
use fusion_cluster::{Cluster, ClusterConfig, OrgRole, PairRule, router};
use fusion_protocol::media::{
    Datagram, Leg, LegCounters, Life, OpenLeg, binding_request, binding_response, parse, rtp,
};
use fusion_protocol::{Code, Count, Service, Url};
use fusion_runtime::net::{LiveConfig, LiveNet, ResolveTable};
use fusion_runtime::store::MemoryStore;

use super::*;

/// How long something that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(100);
/// How long something that must arrive is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

struct World {
    host: Host,
    home: Cluster,
    stranger: Cluster,
    relay: Relay,
    template: UrlTemplate,
}

/// A device's socket.
struct Device<'a> {
    world: &'a World,
    socket: Arc<dyn Udp>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn live(name: &str, resolve: &ResolveTable) -> Host {
    let config = LiveConfig { resolve: resolve.clone(), insecure_loopback: true, ..LiveConfig::default() };
    Host::live(name, Arc::new(LiveNet::new(config).unwrap()), Arc::new(MemoryStore::new()))
}

async fn cluster(name: &str, port: u16, resolve: &ResolveTable, template: &UrlTemplate) -> Cluster {
    let name: ClusterName = name.parse().unwrap();
    let config = ClusterConfig {
        relays: vec![template.url(&name, Service::Relay, "/")],
        borrowed_relays: vec![],
        org: format!("org-{name}"),
        role: OrgRole::Private,
        template: template.clone(),
        identity_providers: vec![],
        pair_rule: PairRule::default(),
        name,
    };
    let cluster = Cluster::start(live(config.name.as_str(), resolve), config).await.unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    http::serve(&cluster.host, at, router::router(&cluster)).await.unwrap();
    cluster
}

impl World {
    async fn new() -> Self {
        let template =
            UrlTemplate::parse("https://{cluster}-{service}.{provider}", "provider.example".parse().unwrap())
                .unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut resolve = ResolveTable::default();
        for (name, port) in ["a-auth", "b-auth", "a-relay"].into_iter().zip(ports) {
            resolve.insert(&format!("{name}.provider.example"), &format!("127.0.0.1:{port}")).unwrap();
        }
        let config = RelayConfig {
            name: "a-relay1".to_owned(),
            cluster: "a".parse().unwrap(),
            guests: vec![],
            template: template.clone(),
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, ports[2])),
            udp: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised: Ipv4Addr::LOCALHOST.into(),
        };
        Self {
            host: live("devices", &resolve),
            home: cluster("a", ports[0], &resolve, &template).await,
            stranger: cluster("b", ports[1], &resolve, &template).await,
            relay: Relay::start(live("a-relay1", &resolve), config).await.unwrap(),
            template,
        }
    }

    fn control(&self, path: &str) -> Url {
        self.template.url(&"a".parse().unwrap(), Service::Relay, path)
    }

    async fn open(&self, leg: u128, locus: u128, instance: u64) -> Result<Leg, PeerError> {
        let open =
            OpenLeg { id: Uuid::from_u128(leg), locus: Uuid::from_u128(locus), instance: Count(instance) };
        let answer = peers::call(&self.home, Method::POST, &self.control("/v1/legs"), &open).await?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    async fn delete(&self, path: &str) {
        peers::call(&self.home, Method::DELETE, &self.control(path), &()).await.unwrap();
    }

    async fn device(&self) -> Device<'_> {
        let socket = self.host.net.udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        Device { world: self, socket }
    }

    async fn bound(&self, leg: &Leg) -> Device<'_> {
        let device = self.device().await;
        device.send(&binding_request([7; 12], &leg.token)).await;
        let answer = device.receive().await.expect("the relay answers");
        let seen = device.socket.local_addr();
        assert_eq!(answer, binding_response([7; 12], seen), "the relay says where it sees the device");
        device
    }

    /// The account of a leg once it has received `received` packets.
    async fn account(&self, leg: &Leg, received: u64) -> LegCounters {
        for _ in 0..500 {
            let legs = self.relay.counters().legs;
            let account = legs.into_iter().find(|account| account.id == leg.id).unwrap();
            if account.received.0 >= received {
                return account;
            }
            self.host.clock.sleep(Duration::from_millis(10)).await;
        }
        panic!("the leg never received {received} packets");
    }
}

impl Device<'_> {
    async fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.world.relay.udp_addr()).await.unwrap();
    }

    async fn receive(&self) -> Option<Vec<u8>> {
        self.receive_within(PATIENCE).await
    }

    async fn receive_within(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut buffer = [0; 2_000];
        let received = self.world.host.clock.timeout(limit, self.socket.recv_from(&mut buffer)).await;
        received.ok().map(|received| buffer[..received.unwrap().0].to_vec())
    }
}

/// MED-004: whoever listens to it knows it at once when it is gone.
#[tokio::test]
async fn a_relay_that_is_listened_to_shows_that_it_lives() {
    let world = World::new().await;
    let url = "https://a-relay.provider.example/v1/life?beats";
    let request = ::http::Request::get(url).body(axum::body::Bytes::new()).unwrap();
    let mut heard = http::Client::new(&world.host).begin(request).await.unwrap().into_body();
    let said = heard.next(PATIENCE).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Life>(&said).unwrap().life, world.relay.life);
    for _ in 0..3 {
        assert_eq!(heard.next(PATIENCE).await.unwrap().unwrap(), "\n");
    }
}

#[tokio::test]
async fn what_one_device_sends_the_other_device_of_the_call_receives_and_nobody_else() {
    let world = World::new().await;
    let (alice, bob) = (world.open(1, 10, 1).await.unwrap(), world.open(2, 10, 1).await.unwrap());
    let carol = world.open(3, 11, 1).await.unwrap();
    assert_eq!(alice.udp_address, world.relay.udp_addr());
    assert_ne!(alice.token, bob.token);
    let (phone, laptop, other) =
        (world.bound(&alice).await, world.bound(&bob).await, world.bound(&carol).await);
    for sequence in 0..20 {
        let packet = rtp(alice.ssrc, sequence, 0, b"hello");
        phone.send(&packet).await;
        assert_eq!(laptop.receive().await, Some(packet));
    }
    assert_eq!(other.receive_within(SILENCE).await, None);
    let account = world.account(&alice, 20).await;
    assert_eq!((account.received, account.forwarded), (Count(20), Count(20)));
    assert_eq!(world.account(&bob, 0).await.sent, Count(20));
}

#[tokio::test]
async fn a_closed_leg_and_an_ended_call_are_silent_at_once_and_counted() {
    let world = World::new().await;
    let (alice, bob) = (world.open(1, 10, 1).await.unwrap(), world.open(2, 10, 1).await.unwrap());
    let (phone, laptop) = (world.bound(&alice).await, world.bound(&bob).await);
    world.delete(&format!("/v1/legs/{}", bob.id)).await;
    laptop.send(&rtp(bob.ssrc, 1, 0, b"late")).await;
    phone.send(&rtp(alice.ssrc, 1, 0, b"alone")).await;
    assert_eq!(world.account(&bob, 1).await.dropped_closed, Count(1));
    assert_eq!(world.account(&alice, 1).await.dropped_alone, Count(1));
    world.delete(&format!("/v1/instances/{}/1", Uuid::from_u128(10))).await;
    phone.send(&rtp(alice.ssrc, 2, 0, b"late")).await;
    assert_eq!(world.account(&alice, 2).await.dropped_closed, Count(1));
    assert_eq!(laptop.receive_within(SILENCE).await, None);
    match world.open(4, 10, 1).await {
        Err(PeerError::Refused(problem)) => assert_eq!(problem.code, Code::CallOver),
        other => panic!("a leg of an ended call: {other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_token_is_not_answered_and_junk_does_not_stop_the_relay() {
    let world = World::new().await;
    let alice = world.open(1, 10, 1).await.unwrap();
    let bob = world.open(2, 10, 1).await.unwrap();
    let intruder = world.device().await;
    intruder.send(&binding_request([1; 12], "guess")).await;
    for junk in [&[][..], &[0], &[0; 20], &[0x80; 11], &[0xff; 1_500], &[0x80; 1_501], &[0; 9_000]] {
        intruder.send(junk).await;
    }
    assert_eq!(intruder.receive_within(SILENCE).await, None);
    let (phone, laptop) = (world.bound(&alice).await, world.bound(&bob).await);
    phone.send(&[0x80; 1_501]).await;
    phone.send(&[1, 2, 3]).await;
    let packet = rtp(alice.ssrc, 1, 0, &[0; 160]);
    phone.send(&packet).await;
    assert_eq!(laptop.receive().await, Some(packet));
    let account = world.account(&alice, 3).await;
    assert_eq!((account.dropped_malformed, account.forwarded), (Count(2), Count(1)));
    assert!(world.relay.counters().unbound.0 >= 8);
}

#[tokio::test]
async fn what_piles_up_while_the_relay_stands_still_is_thrown_away() {
    let world = World::new().await;
    let (alice, bob) = (world.open(1, 10, 1).await.unwrap(), world.open(2, 10, 1).await.unwrap());
    let (phone, laptop) = (world.bound(&alice).await, world.bound(&bob).await);
    world.relay.host.clock.sleep(SILENCE).await;
    world.relay.host.tasks.pause();
    for sequence in 0..5 {
        phone.send(&rtp(alice.ssrc, sequence, 0, b"old")).await;
    }
    world.host.clock.sleep(Duration::from_secs(1)).await;
    world.relay.host.tasks.resume();
    assert_eq!(world.account(&alice, 5).await.dropped_late, Count(5));
    let packet = rtp(alice.ssrc, 5, 0, b"new");
    phone.send(&packet).await;
    assert_eq!(laptop.receive().await, Some(packet));
}

#[tokio::test]
async fn only_the_relays_own_cluster_may_open_legs_and_read_accounts() {
    let world = World::new().await;
    let open = OpenLeg { id: Uuid::from_u128(1), locus: Uuid::from_u128(1), instance: Count(1) };
    let url = world.control("/v1/legs");
    match peers::call(&world.stranger, Method::POST, &url, &open).await {
        Err(PeerError::Refused(problem)) => assert_eq!(problem.code, Code::Forbidden),
        other => panic!("a stranger opened a leg: {other:?}"),
    }
    let bare = ::http::Request::post(url.as_str()).body(serde_json::to_vec(&open).unwrap().into()).unwrap();
    let answer = http::Client::new(&world.host).send(bare).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(world.relay.counters().legs.is_empty());
    let accounts = peers::call(&world.home, Method::GET, &world.control("/v1/counters"), &()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Counters>(&accounts).unwrap(), Counters::default());
}

#[tokio::test]
async fn asking_again_for_a_leg_gives_the_same_one() {
    let world = World::new().await;
    let first = world.open(1, 10, 1).await.unwrap();
    assert_eq!(world.open(1, 10, 1).await.unwrap(), first);
    let device = world.bound(&first).await;
    let answer = binding_request([9; 12], &first.token);
    device.send(&answer).await;
    let again = device.receive().await.unwrap();
    assert!(
        matches!(parse(&again), Datagram::Bound { transaction: [9, ..], .. }),
        "a lost answer is repeated"
    );
}
