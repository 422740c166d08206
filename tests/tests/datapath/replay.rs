//! `lbagent replay`: a capture and a state document in, packets and verdicts out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lbagent::replay::{Ingress, ReplayOptions, replay};
use lbagent_tests::packet_builder::{Segment, describe, tcp, with_ttl};
use lbagent_tests::require_root;
use serde_json::{Value, json};

use crate::at;

/// Interfaces of the host that the document was exported from.
const CLIENT_SIDE: u32 = 3;
const BACKEND_SIDE: u32 = 4;

/// Two groups, one of them empty; one backend behind another interface.
fn document(backend_side: u32) -> Value {
    let group = |number: u32, name: &str, port: u16| {
        json!({
            "uuid": format!("00000000-0000-4000-8000-{number:012}"),
            "name": name,
            "created_at": "2026-01-02T03:04:05Z",
            "services": [{"port": port, "destination_port": 8080, "protocol": "tcp"}],
        })
    };
    let path = |source: &str, onlink_prefix: u8| json!({"ifindex": backend_side, "source": source, "onlink_prefix": onlink_prefix});
    json!({
        "format": 1,
        "vips": ["192.0.2.10", "2001:db8:a::10"],
        "hash_seed": 42,
        "unpublished_ports": "drop",
        "service_groups": [group(1, "web", 80), group(2, "empty", 90)],
        "instances": [{
            "uuid": "00000000-0000-4000-8000-000000000011",
            "name": "web-1",
            "created_at": "2026-01-02T03:04:05Z",
            "state": "running",
            "service_group": "00000000-0000-4000-8000-000000000001",
            "addresses": ["10.66.0.11/32", "fd66::11/128"],
        }],
        "paths": {"10.66.0.11": path("10.66.0.1", 24), "fd66::11": path("fd66::1", 64)},
    })
}

/// Writes a pcap file of Ethernet packets, one a second.
fn write_capture(path: &Path, packets: &[Vec<u8>]) {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1]
        .map(u32::to_le_bytes)
        .concat();
    for (second, packet) in (0_u32..).zip(packets) {
        let len = packet.len() as u32;
        file.extend([second, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    fs::write(path, file).unwrap();
}

/// The packets of a pcap file in this machine's byte order.
fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        packets.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    packets
}

/// Replays, and returns the verdicts and the packets.
fn run(document: &Value, ingress: Ingress, packets: &[Vec<u8>]) -> (Vec<Value>, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("state.json"), document.to_string()).unwrap();
    write_capture(&file("in.pcap"), packets);
    let summary = replay(&ReplayOptions {
        state: file("state.json"),
        pcap_in: file("in.pcap"),
        pcap_out: file("out.pcap"),
        verdicts: file("verdicts.jsonl"),
        ingress,
        client_ifindexes: BTreeSet::from([CLIENT_SIDE]),
        object: std::env::var_os("LBAGENT_TEST_BPF_OBJECT").map(Into::into),
    })
    .unwrap();
    let verdicts = fs::read_to_string(file("verdicts.jsonl")).unwrap();
    let verdicts: Vec<Value> = verdicts
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(summary.reasons.values().sum::<u64>(), verdicts.len() as u64);
    (verdicts, read_capture(&file("out.pcap")))
}

#[test]
fn clients_packets_get_verdicts() {
    require_root!();
    let syn = |destination: &str| tcp(at("203.0.113.7:4000"), at(destination), Segment::Syn, b"");
    let packets = [
        syn("192.0.2.10:80"),
        tcp(
            at("[2001:db8:c::7]:4000"),
            at("[2001:db8:a::10]:80"),
            Segment::Syn,
            b"",
        ),
        syn("192.0.2.10:90"),
        syn("192.0.2.10:81"),
        syn("192.0.2.99:80"),
        with_ttl(syn("192.0.2.10:80"), 1),
    ];
    let backend = |address: &str| json!({"instance": "web-1", "address": address});
    let none = Value::Null;
    #[rustfmt::skip]
    let expected = [
        json!({"index": 0, "action": "redirect", "reason": "forward_redirect", "service_group": "web",
               "backend": backend("10.66.0.11"), "out_index": 0}),
        json!({"index": 1, "action": "redirect", "reason": "forward_redirect", "service_group": "web",
               "backend": backend("fd66::11"), "out_index": 1}),
        json!({"index": 2, "action": "drop", "reason": "drop_no_backend", "service_group": "empty",
               "backend": none, "out_index": none}),
        json!({"index": 3, "action": "drop", "reason": "drop_unpublished", "service_group": none,
               "backend": none, "out_index": none}),
        json!({"index": 4, "action": "pass", "reason": "pass_not_vip", "service_group": none,
               "backend": none, "out_index": 2}),
        json!({"index": 5, "action": "pass", "reason": "pass_ttl", "service_group": "web",
               "backend": none, "out_index": 3}),
    ];
    let (verdicts, out) = run(&document(BACKEND_SIDE), Ingress::Client, &packets);
    assert_eq!(verdicts, expected);
    assert_eq!(out.len(), 4);
    let forwarded = describe(&out[0]).unwrap();
    assert_eq!(forwarded.source, at("203.0.113.7:4000"));
    assert_eq!(forwarded.destination, at("10.66.0.11:8080"));
    assert_eq!(
        describe(&out[1]).unwrap().destination,
        at("[fd66::11]:8080")
    );
    assert_eq!(out[2], packets[4], "a foreign packet was changed");
}

#[test]
fn a_backend_on_the_client_side_is_reached_by_tx() {
    require_root!();
    let packet = tcp(
        at("203.0.113.7:4000"),
        at("192.0.2.10:80"),
        Segment::Syn,
        b"",
    );
    let (verdicts, _) = run(&document(CLIENT_SIDE), Ingress::Client, &[packet]);
    assert_eq!(verdicts[0]["action"], "tx");
    assert_eq!(verdicts[0]["reason"], "forward_tx");
}

#[test]
fn policies_of_the_document_hold() {
    require_root!();
    let packets: Vec<_> = (4000..4040)
        .map(|port| {
            let client = at(&format!("203.0.113.7:{port}"));
            tcp(client, at("192.0.2.10:80"), Segment::Syn, b"")
        })
        .collect();
    let mut document = document(BACKEND_SIDE);
    let mut other = document["instances"][0].clone();
    other["uuid"] = json!("00000000-0000-4000-8000-000000000012");
    other["name"] = json!("web-2");
    other["addresses"] = json!(["10.66.0.12/32"]);
    document["instances"].as_array_mut().unwrap().push(other);
    document["paths"]["10.66.0.12"] = document["paths"]["10.66.0.11"].clone();
    let to_the_other = |document: &Value| {
        let (verdicts, _) = run(document, Ingress::Client, &packets);
        let is_other = |verdict: &&Value| verdict["backend"]["instance"] == "web-2";
        verdicts.iter().filter(is_other).count()
    };
    assert!((1..packets.len()).contains(&to_the_other(&document)));
    document["instances"][0]["policy"] = json!({"weight": 0});
    assert_eq!(to_the_other(&document), packets.len());
}

#[test]
fn replies_get_verdicts() {
    require_root!();
    let client = at("203.0.113.7:4000");
    let packets = [
        tcp(at("10.66.0.11:8080"), client, Segment::Ack, b"reply"),
        tcp(at("10.66.0.11:22"), client, Segment::Ack, b"foreign"),
    ];
    let (verdicts, out) = run(&document(BACKEND_SIDE), Ingress::Return, &packets);
    assert_eq!(verdicts[0]["reason"], "return_redirect");
    assert_eq!(verdicts[0]["service_group"], "web");
    assert_eq!(verdicts[0]["backend"]["instance"], "web-1");
    assert_eq!(verdicts[1]["reason"], "pass_not_reply");
    assert_eq!(describe(&out[0]).unwrap().source, at("192.0.2.10:80"));
    assert_eq!(out[1], packets[1], "a foreign packet was changed");
}

#[test]
fn ports_that_redirect_answer_syns_and_leave_foreign_cookies_alone() {
    require_root!();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut state = document(BACKEND_SIDE);
    state["service_groups"][0]["services"][0] = json!({"port": 80, "destination_port": 443, "protocol": "tcp", "handlers": ["http", "redirect"]});
    state["service_groups"][0]["domains"] = json!(["shop.example"]);
    fs::write(path("state.json"), state.to_string()).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let mut packets = Vec::new();
    for (client, vip) in [
        ("203.0.113.7:40000", "192.0.2.10:80"),
        ("[2001:db8::7]:40000", "[2001:db8:a::10]:80"),
    ] {
        packets.push(tcp(at(client), at(vip), Segment::Syn, &[]));
        packets.push(tcp(at(client), at(vip), Segment::Ack, request));
    }
    write_capture(&path("in.pcap"), &packets);
    let summary = replay(&ReplayOptions {
        state: path("state.json"),
        pcap_in: path("in.pcap"),
        pcap_out: path("out.pcap"),
        verdicts: path("verdicts.jsonl"),
        ingress: Ingress::Client,
        client_ifindexes: BTreeSet::from([CLIENT_SIDE]),
        object: std::env::var_os("LBAGENT_TEST_BPF_OBJECT").map(Into::into),
    })
    .unwrap();
    let expected = [("answer_cookie", 2), ("pass_redirect", 2)];
    assert_eq!(summary.reasons, expected.into());
}
