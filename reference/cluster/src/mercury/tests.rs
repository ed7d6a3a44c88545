//! A device and its connection server, over a network in memory.

use std::time::Duration;

use fusion_protocol::mercury::{ClientFrame, Device, Event, Notification, ServerFrame};
use fusion_protocol::{Code, Count, Service, Url, UserRef, Uuid};
use fusion_runtime::store::Batch;
use fusion_runtime::ws::{self, Frame, Socket};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Hint, enqueue, erase, subject};
use crate::peers::{self, PeerError};
use crate::rows::{self, Committed};
use crate::testing::World;

struct Alice {
    world: World,
    user: UserRef,
    token: String,
}

impl Alice {
    async fn new() -> Self {
        let world = World::new(&["a", "b"]).await;
        let user = world.user("a", "alice@a.example").await;
        let token = world.token("a", &user);
        Self { world, user, token }
    }

    async fn register(&self) -> Device {
        let (status, body) = self
            .world
            .post("a", Service::Mercury, "/v1/devices", &self.token, json!({"name": "phone"}))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn connect(&self, device: &Device, resume: Option<u64>) -> Socket {
        let mut socket = ws::connect(&self.world.client, &device.web_socket_url).await.unwrap();
        let frame = ClientFrame::Authenticate { token: self.token.clone(), resume: resume.map(Count) };
        socket.send(&serde_json::to_string(&frame).unwrap()).await.unwrap();
        socket
    }

    /// Commits an event, as a service does with what it announces.
    async fn notify(&self, n: u128) {
        let cluster = self.world.cluster("a");
        loop {
            let mut batch = Batch::default();
            let wake = enqueue(cluster, &mut batch, &self.user.user, &self.notification(n)).await.unwrap();
            if rows::commit(&*cluster.host.store, batch).await.unwrap() == Committed::Yes {
                return wake.now(cluster);
            }
        }
    }

    fn notification(&self, n: u128) -> Notification {
        let resource = self.world.url("a", Service::Conv, "/v1/conversations/x");
        serde_json::from_value(json!({
            "id": Uuid::from_u128(n), "eventType": "conversation.activity", "resource": resource,
            "data": {"n": n.to_string()},
        }))
        .unwrap()
    }
}

async fn recv(socket: &mut Socket) -> ServerFrame {
    let text = socket.recv_text().await.expect("a frame").expect("no error");
    serde_json::from_str(&text).unwrap()
}

async fn ready(socket: &mut Socket) -> (u64, u64) {
    match recv(socket).await {
        ServerFrame::Ready { session, base } => (session.0, base.0),
        other => panic!("{other:?}"),
    }
}

async fn event(socket: &mut Socket) -> (u64, u128) {
    match recv(socket).await {
        ServerFrame::Event(Event { seq, id, .. }) => (seq.0, id.as_u128()),
        other => panic!("{other:?}"),
    }
}

async fn closing(socket: &mut Socket) -> Code {
    match recv(socket).await {
        ServerFrame::Closing { code } => code,
        other => panic!("{other:?}"),
    }
}

async fn ack(socket: &mut Socket, seq: u64) {
    socket.send(&json!({"type": "ack", "seq": seq.to_string()}).to_string()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_device_gets_what_is_announced_in_order_and_without_gaps() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    assert_eq!(ready(&mut socket).await, (1, 0));
    for n in 1..=3 {
        alice.notify(n).await;
    }
    for n in 1..=3 {
        assert_eq!(event(&mut socket).await, (n as u64, n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_device_gets_what_it_has_not_got_and_nothing_twice() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    for n in 1..=4 {
        alice.notify(n).await;
    }
    assert_eq!(event(&mut socket).await, (1, 1));
    assert_eq!(event(&mut socket).await, (2, 2));
    drop(socket);
    let mut socket = alice.connect(&device, Some(2)).await;
    assert_eq!(ready(&mut socket).await, (2, 2));
    assert_eq!(event(&mut socket).await, (3, 3));
    assert_eq!(event(&mut socket).await, (4, 4));
}

#[tokio::test(start_paused = true)]
async fn nothing_unacknowledged_is_lost_when_the_connection_server_dies() {
    let mut alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    alice.notify(1).await;
    assert_eq!(event(&mut socket).await, (1, 1));
    alice.world.restart("a").await;
    alice.notify(2).await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    assert_eq!(event(&mut socket).await, (1, 1));
    assert_eq!(event(&mut socket).await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_newer_socket_ends_the_older() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut older = alice.connect(&device, None).await;
    ready(&mut older).await;
    let mut newer = alice.connect(&device, None).await;
    assert_eq!(ready(&mut newer).await.0, 2);
    assert_eq!(closing(&mut older).await, Code::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_notification_is_one_event() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    alice.notify(1).await;
    alice.notify(1).await;
    alice.notify(2).await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    assert_eq!(event(&mut socket).await, (1, 1));
    assert_eq!(event(&mut socket).await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn several_events_of_one_commit_all_arrive() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let cluster = alice.world.cluster("a");
    let mut batch = Batch::default();
    for n in [1, 2, 2, 3] {
        let wake = enqueue(cluster, &mut batch, &alice.user.user, &alice.notification(n)).await.unwrap();
        drop(wake);
    }
    assert_eq!(rows::commit(&*cluster.host.store, batch).await.unwrap(), Committed::Yes);
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    for n in 1..=3 {
        assert_eq!(event(&mut socket).await, (n as u64, n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_hint_only_delays() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    let cluster = alice.world.cluster("a");
    let mut batch = Batch::default();
    drop(enqueue(cluster, &mut batch, &alice.user.user, &alice.notification(1)).await.unwrap());
    assert_eq!(rows::commit(&*cluster.host.store, batch).await.unwrap(), Committed::Yes);
    assert_eq!(event(&mut socket).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn taken_events_leave_no_rows_behind() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    for n in 1..=40 {
        alice.notify(n).await;
        event(&mut socket).await;
    }
    ack(&mut socket, 40).await;
    alice.world.clock.sleep(Duration::from_secs(1)).await;
    let store = alice.world.store("a");
    for concept in ["device-event", "device-event-id"] {
        let prefix = rows::key(concept, &[]);
        let left = fusion_runtime::Store::scan(store, &prefix, &prefix.end(), 10).await.unwrap();
        assert!(left.is_empty(), "{concept}: {} rows", left.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_acknowledge_has_a_bounded_window_and_then_goes_on() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    for n in 1..=200 {
        alice.notify(n).await;
    }
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    for n in 1..=64 {
        assert_eq!(event(&mut socket).await.0, n);
    }
    let more = alice.world.clock.timeout(Duration::from_secs(1), socket.recv_text()).await;
    assert!(more.is_err(), "nothing beyond the window");
    for n in 64..200 {
        ack(&mut socket, n).await;
        assert_eq!(event(&mut socket).await.0, n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_retention_has_dropped_ends_in_resync() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    alice.notify(1).await;
    alice.world.clock.sleep(Duration::from_secs(25 * 3_600)).await;
    alice.notify(2).await;
    let token = alice.world.token("a", &alice.user);
    let alice = Alice { token, ..alice };
    let mut socket = alice.connect(&device, None).await;
    assert_eq!(ready(&mut socket).await, (1, 0));
    assert!(matches!(recv(&mut socket).await, ServerFrame::Resync { base: Count(1) }));
    assert_eq!(event(&mut socket).await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_is_ended_in_time() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = ws::connect(&alice.world.client, &device.web_socket_url).await.unwrap();
    let before = alice.world.clock.now();
    assert_eq!(closing(&mut socket).await, Code::Unauthorized);
    assert_eq!((alice.world.clock.now() - before).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_answer_pings_is_given_up() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    // Nobody reads the socket meanwhile, so that nothing answers.
    let mut socket = alice.connect(&device, None).await;
    alice.world.clock.sleep(Duration::from_secs(50)).await;
    ready(&mut socket).await;
    let rest = async { while let Some(Ok(Frame::Ping)) = socket.recv().await {} };
    alice.world.clock.timeout(Duration::from_secs(1), rest).await.expect("the connection has ended");
}

/// MER-004: dead after 30 s, wherever between two pings the device fell silent.
#[tokio::test(start_paused = true)]
async fn a_device_that_falls_silent_between_two_pings_is_given_up_as_soon() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    alice.world.clock.sleep(Duration::from_secs(8)).await;
    alice.notify(1).await;
    assert_eq!(event(&mut socket).await, (1, 1));
    ack(&mut socket, 1).await;
    alice.world.clock.sleep(Duration::from_secs(31)).await;
    let rest = async { while let Some(Ok(Frame::Ping)) = socket.recv().await {} };
    alice.world.clock.timeout(Duration::from_secs(1), rest).await.expect("the connection has ended");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_answers_pings_stays() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    let silence = alice.world.clock.timeout(Duration::from_secs(300), socket.recv_text()).await;
    assert!(silence.is_err(), "nothing but pings");
    alice.notify(1).await;
    assert_eq!(event(&mut socket).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_opens_a_socket() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mallory = alice.world.user("a", "mallory@a.example").await;
    let stolen = Alice { token: alice.world.token("a", &mallory), ..alice };
    let mut socket = stolen.connect(&device, None).await;
    assert_eq!(closing(&mut socket).await, Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_user_has_at_most_a_hundred_devices() {
    let alice = Alice::new().await;
    for _ in 0..100 {
        alice.register().await;
    }
    let (status, body) =
        alice.world.post("a", Service::Mercury, "/v1/devices", &alice.token, json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("too-many")));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_notifies_only_of_its_own_objects() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let own = alice.world.url("b", Service::Conv, "/v1/conversations/x");
    let foreign = alice.world.url("a", Service::Conv, "/v1/conversations/x");
    let evil: Url = "https://b-conv.provider.example.evil.test/x".parse().unwrap();
    let url = &device.notification_url;
    assert_eq!(post_notification(&alice, url, &own).await, Ok(()));
    assert_eq!(post_notification(&alice, url, &foreign).await, Err(Code::NotYourObject));
    assert_eq!(post_notification(&alice, url, &evil).await, Err(Code::UntrustedUrl));
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    assert_eq!(event(&mut socket).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_notification_for_a_user_reaches_all_their_devices() {
    let alice = Alice::new().await;
    let devices = [alice.register().await, alice.register().await];
    let url = alice.world.url("a", Service::Mercury, "/v1/users/alice%40a.example/notifications");
    let own = alice.world.url("b", Service::Conv, "/v1/conversations/x");
    assert_eq!(post_notification(&alice, &url, &own).await, Ok(()));
    for device in &devices {
        let mut socket = alice.connect(device, None).await;
        ready(&mut socket).await;
        assert_eq!(event(&mut socket).await.0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_person_at_an_old_address_inherits_no_notification() {
    let alice = Alice::new().await;
    alice.register().await;
    let cluster = alice.world.cluster("a");
    let mut notification = alice.notification(1);
    notification.incarnation = Some(fusion_protocol::Incarnation(Uuid::from_u128(99)));
    let mut batch = Batch::default();
    drop(enqueue(cluster, &mut batch, &alice.user.user, &notification).await.unwrap());
    assert!(batch.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_erased_user_leaves_no_device_and_no_event() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    alice.notify(1).await;
    event(&mut socket).await;
    erase(alice.world.cluster("a"), &alice.user.user).await.unwrap();
    assert_eq!(closing(&mut socket).await, Code::Gone);
    let store = alice.world.store("a");
    for concept in ["device", "device-tail", "device-head", "device-event", "device-event-id"] {
        let prefix = rows::key(concept, &[]);
        let left = fusion_runtime::Store::scan(store, &prefix, &prefix.end(), 10).await.unwrap();
        assert!(left.is_empty(), "{concept}");
    }
}

#[tokio::test(start_paused = true)]
async fn registering_again_with_the_same_key_is_the_same_device() {
    let alice = Alice::new().await;
    let request = || {
        http::Request::post(alice.world.url("a", Service::Mercury, "/v1/devices").as_str())
            .header("authorization", format!("Bearer {}", alice.token))
            .header("idempotency-key", "k1")
            .body("{}".into())
            .unwrap()
    };
    let first = alice.world.send_raw(request()).await;
    let again = alice.world.send_raw(request()).await;
    assert_eq!((first.0, again.0), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.2, again.2);
}

#[tokio::test(start_paused = true)]
async fn draining_sends_the_devices_elsewhere() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    alice.world.cluster("a").drain_sockets();
    assert_eq!(closing(&mut socket).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_oversized_event_goes_without_its_data() {
    let alice = Alice::new().await;
    let device = alice.register().await;
    let cluster = alice.world.cluster("a");
    let mut notification = alice.notification(1);
    notification.data = Value::String("x".repeat(70_000));
    let mut batch = Batch::default();
    drop(enqueue(cluster, &mut batch, &alice.user.user, &notification).await.unwrap());
    assert_eq!(rows::commit(&*cluster.host.store, batch).await.unwrap(), Committed::Yes);
    let mut socket = alice.connect(&device, None).await;
    ready(&mut socket).await;
    assert!(matches!(recv(&mut socket).await, ServerFrame::Event(Event { data: Value::Null, .. })));
}

#[test]
fn a_hint_of_a_later_version_means_look() {
    assert_eq!(Hint::read(b"{\"Later\":1}"), Hint::Events);
    assert_eq!(subject(&"Alice@A.example".parse().unwrap()), "mercury.alice@a.example");
}

/// A notification from cluster `b`, signed by it: accepted, or refused with a code.
async fn post_notification(alice: &Alice, url: &Url, resource: &Url) -> Result<(), Code> {
    let body = json!({
        "id": Uuid::from_u128(7), "eventType": "conversation.created", "resource": resource, "data": {},
    });
    match peers::call(alice.world.cluster("b"), Method::POST, url, &body).await {
        Ok(_) => Ok(()),
        Err(PeerError::Refused(problem)) => Err(problem.code),
        Err(PeerError::Unreachable) => panic!("the cluster answers"),
    }
}
