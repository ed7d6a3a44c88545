//! What an analyser makes of a run's packets: `tshark` is asked, where there is one.
//!
//! Each test plays a scenario, writes its packets to a file and asks `tshark` for the fields that it decoded.
//! Without `tshark` nothing is tested, and a line says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use fusion_sim::engines::fabric::{Options, captured, hosts};
use fusion_sim::fabric::TcpSign;
use fusion_sim::library::Library;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::show::pcapng::{Selection, Written};
use fusion_sim::show::pick::Pick;

use crate::scratch;

/// How Wireshark tells errors from remarks: `PI_ERROR` of its `proto.h`.
const EXPERT_ERROR: &str = "_ws.expert.severity >= 0x00800000";

/// A run's packets in a file.
struct Packets {
    file: PathBuf,
    written: Written,
}

impl Packets {
    /// `None` where there is no `tshark`.
    fn of(scenario: &str, mode: Mode, pick: &Pick) -> Option<Self> {
        if Command::new("tshark").arg("--version").output().is_err() {
            eprintln!("skipped: there is no tshark to read {scenario} with (Debian: apt-get install tshark)");
            return None;
        }
        let scenario =
            Library::nearest().and_then(|all| all.find(scenario)).expect("a scenario of the library");
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).expect("a topology that can be"), 3, mode);
        let (run, capture) = captured(&plan, &Options::default());
        assert_eq!(run.failure, None);
        let name = format!("{}-{mode:?}-{}.pcapng", scenario.name, pick.about.join("-").replace('/', "-"));
        let file = scratch(&name);
        let selection = Selection::of(&capture, &run.history, pick).expect("hosts of the run");
        let written = selection
            .write(File::create(&file).expect("a folder to write to"), "a test")
            .expect("room to write");
        Some(Self { file, written })
    }

    /// The fields of each packet that the filter lets through, as `tshark` decodes it.
    fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut asked = Command::new("tshark");
        asked.arg("-n").arg("-r").arg(&self.file).args(["-Y", filter, "-T", "fields"]);
        for check in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"] {
            asked.args(["-o", &format!("{check}:TRUE")]);
        }
        asked.args(["-d", "udp.port==5004,rtp"]);
        for field in fields {
            asked.args(["-e", field]);
        }
        let output = asked.output().expect("it was there before");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{filter}: {said}");
        let lines = String::from_utf8(output.stdout).expect("fields are text");
        lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    fn count(&self, filter: &str) -> u64 {
        self.fields(filter, &["frame.number"]).len() as u64
    }

    /// Nothing that an analyser would shake its head at.
    fn assert_is_sound(&self) {
        assert_eq!(self.fields("_ws.malformed", &["frame.number", "_ws.col.Info"]), [[""; 0]; 0]);
        assert_eq!(self.fields(EXPERT_ERROR, &["frame.number", "_ws.expert.message"]), [[""; 0]; 0]);
        for checksum in ["ip", "tcp", "udp"] {
            assert_eq!(
                self.count(&format!("{checksum}.checksum.status == 0")),
                0,
                "bad checksums of {checksum}"
            );
        }
        assert_eq!(self.count("frame"), self.written.packets);
    }
}

#[test]
fn http_and_websockets_are_decoded() {
    let Some(packets) = Packets::of("alice-chats-bob", Mode::Story, &Pick::default()) else { return };
    packets.assert_is_sound();
    let requests = packets.fields("http.request", &["http.request.method", "http.host", "http.request.uri"]);
    let is_asked = |method: &str, host: &str, path: &str| {
        requests.iter().any(|it| it[0] == method && it[1] == host && it[2].starts_with(path))
    };
    assert!(is_asked("POST", "a-conv.provider.example", "/v1/conversations"), "{requests:?}");
    assert!(
        is_asked("GET", "c-conv.provider.example", "/v1/users/bob%40gmail.example/index"),
        "{requests:?}"
    );
    let answers = packets.count("http.response");
    assert!(
        answers > 0 && answers <= requests.len() as u64,
        "{answers} answers to {} requests",
        requests.len()
    );
    assert_eq!(packets.count("http && !http.request && !http.response"), 0, "nothing of unknown meaning");
    let told = packets.fields("websocket.opcode == 1", &["websocket.payload.text"]).concat();
    for words in ["\"type\":\"authenticate\"", "\"type\":\"ready\"", "conversation.activity"] {
        assert!(told.iter().any(|text| text.contains(words)), "{words}: {told:?}");
    }
}

#[test]
fn every_connection_is_opened_and_closed_and_nothing_is_missing_in_a_calm_run() {
    let Some(packets) = Packets::of("alice-chats-bob", Mode::Story, &Pick::default()) else { return };
    assert_eq!(packets.written.lost, 0);
    let opened = packets.count("tcp.flags.syn == 1 && tcp.flags.ack == 0");
    assert_eq!(
        packets.count("tcp.flags.syn == 1 && tcp.flags.ack == 1"),
        opened,
        "each request has its consent"
    );
    let ended: BTreeSet<String> = packets
        .fields("tcp.flags.fin == 1 || tcp.flags.reset == 1", &["tcp.stream"])
        .concat()
        .into_iter()
        .collect();
    assert!(!ended.is_empty());
    for trouble in
        ["lost_segment", "ack_lost_segment", "out_of_order", "retransmission", "duplicate_ack", "window_full"]
    {
        let seen = packets
            .fields(&format!("tcp.analysis.{trouble}"), &["frame.number", "tcp.stream", "_ws.col.Info"]);
        assert!(seen.is_empty(), "{trouble}: {seen:?}");
    }
}

#[test]
fn media_is_rtp() {
    let Some(packets) = Packets::of("alice-calls-bob", Mode::Story, &Pick::default()) else { return };
    packets.assert_is_sound();
    assert!(packets.count("udp") > 50);
    let sources: BTreeSet<String> = packets.fields("rtp.ssrc", &["rtp.ssrc"]).concat().into_iter().collect();
    assert_eq!(sources.len(), 2, "one source for each of the two: {sources:?}");
}

#[test]
fn a_lost_packet_says_so_and_why() {
    let Some(packets) = Packets::of("one-to-one-race", Mode::Swarm, &Pick::default()) else { return };
    packets.assert_is_sound();
    assert!(packets.written.lost > 0);
    assert_eq!(packets.count("frame.comment contains \"lost: \""), packets.written.lost);
    let comments = packets.fields("frame.comment contains \"lost: loss\"", &["frame.comment"]).concat();
    assert!(comments.iter().any(|comment| comment.contains("loss (")), "{comments:?}");
    let again = packets.count("frame.comment contains \"sent again\"");
    assert!(again > 0);
}

#[test]
fn hosts_have_interfaces_and_can_be_picked() {
    let only = Pick { about: vec!["alice/phone".into()], ..Pick::default() };
    let Some(packets) = Packets::of("alice-chats-bob", Mode::Story, &only) else { return };
    packets.assert_is_sound();
    let interfaces: BTreeSet<String> =
        packets.fields("frame", &["frame.interface_name"]).concat().into_iter().collect();
    assert!(interfaces.contains("alice/phone") && interfaces.contains("a"), "{interfaces:?}");
    assert!(!interfaces.contains("bob/phone"), "nothing goes from phone to phone");
    let address =
        packets.fields("frame.interface_name == \"alice/phone\"", &["ip.src"]).concat().swap_remove(0);
    assert_eq!(packets.count(&format!("!(ip.addr == {address})")), 0, "packets of others alone");
    let sent = packets.fields("frame.interface_name == \"alice/phone\"", &["frame.time_epoch"]).concat();
    assert!(
        sent.iter().all(|at| at.starts_with("17672256") || at.starts_with("17672257")),
        "virtual time begins with 2026: {sent:?}"
    );
}

/// Without an analyser: what is kept is what was sent, in the order of each stream.
#[test]
fn a_capture_has_every_byte_of_every_stream_once_but_for_what_was_sent_again() {
    let scenario = Library::nearest().unwrap().find("one-to-one-race").unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 3, Mode::Swarm);
    let (run, capture) = captured(&plan, &Options::default());
    assert_eq!(
        run.history.hash(),
        fusion_sim::engines::fabric::run(&plan, &Options::default()).history.hash()
    );
    let mut next = std::collections::BTreeMap::new();
    let mut again = 0;
    for packet in capture.packets() {
        let Some(tcp) = packet.tcp.filter(|tcp| tcp.sign == TcpSign::Goes) else { continue };
        let next = next.entry((packet.connection, packet.from.1)).or_insert(0);
        again += u64::from(packet.again);
        if !packet.again && !packet.bytes.is_empty() {
            assert_eq!(tcp.at, *next, "connection {}", packet.connection);
            *next += packet.bytes.len() as u64;
        }
    }
    assert!(next.len() > 10 && again > 0);
}
