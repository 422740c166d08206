//! What a flood of first packets does to the flows that are stored: nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lbagent::dataplane::Capacity;
use lbagent::desired::{InstanceState, Transport};
use lbagent_tests::packet_builder::{Segment, describe, tcp, udp};
use lbagent_tests::prog_run::{CLIENT_V4, Rig, Side, VIP_V4};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use crate::at;

/// Room for stored flows, a fraction of the flood.
const CONNS: u32 = 1 << 12;
const FLOOD: u32 = 24_000;
const FLOWS: u16 = 500;
const PORT: u16 = 5432;

/// A group all of whose slots changed hands: two draining instances, and two for new flows.
fn rig() -> Rig {
    let mut rig = Rig::with_capacity(Capacity {
        slots: 1 << 14,
        conns: CONNS,
        ..Capacity::default()
    })
    .unwrap();
    let services = [(PORT, PORT, Transport::Tcp), (PORT, PORT, Transport::Udp)];
    let group = rig.group("db", &services);
    let old: Vec<_> = ["10.66.0.11", "10.66.0.12"]
        .iter()
        .map(|address| rig.instance(address, group, &[address]).unwrap())
        .collect();
    rig.reconcile().unwrap();
    for address in ["10.66.0.13", "10.66.0.14"] {
        rig.instance(address, group, &[address]).unwrap();
    }
    let deadline = rig.now + time::Duration::hours(1);
    for instance in old {
        let since = rig.now;
        rig.set_state(instance, InstanceState::draining(since, deadline));
    }
    rig.reconcile().unwrap();
    rig
}

fn destination(rig: &mut Rig, frame: &[u8]) -> Option<SocketAddr> {
    let (_, out) = rig.run_uncounted(Side::Client, frame).unwrap();
    (out != frame).then(|| describe(&out).expect("right checksums").destination)
}

fn vip() -> SocketAddr {
    at(&format!("{VIP_V4}:{PORT}"))
}

fn segment(rig: &mut Rig, flow: u16, segment: Segment) -> Option<SocketAddr> {
    let client = at(&format!("{CLIENT_V4}:{}", 10_000 + flow));
    destination(rig, &tcp(client, vip(), segment, b""))
}

fn datagram(rig: &mut Rig, flow: u16) -> Option<SocketAddr> {
    let client = at(&format!("{CLIENT_V4}:{}", 10_000 + flow));
    destination(rig, &udp(client, vip(), b"x"))
}

/// Packets of as many clients as there are packets.
fn flood(rig: &mut Rig, frame: impl Fn(SocketAddr) -> Vec<u8>) {
    for number in 0..repetitions(FLOOD) {
        let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
        let client = SocketAddr::new(IpAddr::V4(client), 1024 + (number % 50_000) as u16);
        rig.run_uncounted(Side::Client, &frame(client)).unwrap();
    }
}

/// Checks that stored flows outlive a flood, and that flows which start within it live on.
#[track_caller]
fn check(frame: impl Fn(SocketAddr) -> Vec<u8> + Copy) {
    let mut rig = rig();
    let mut tracked: BTreeMap<u16, [SocketAddr; 2]> = BTreeMap::new();
    for flow in 0..FLOWS {
        let first = segment(&mut rig, flow, Segment::Syn).expect("forwarded");
        let second = segment(&mut rig, flow, Segment::Ack).expect("forwarded");
        assert_eq!(first, second, "flow {flow} moved within its handshake");
        let first = datagram(&mut rig, flow).expect("forwarded");
        let second = datagram(&mut rig, flow).expect("forwarded");
        assert_eq!(first, second, "UDP flow {flow} moved at once");
        tracked.insert(
            flow,
            [second, segment(&mut rig, flow, Segment::Ack).unwrap()],
        );
    }
    let stored = stored(&rig);
    assert!(
        stored >= usize::from(FLOWS),
        "only {stored} flows are stored"
    );
    flood(&mut rig, frame);
    for (flow, [by_udp, by_tcp]) in &tracked {
        assert_eq!(
            segment(&mut rig, *flow, Segment::Ack),
            Some(*by_tcp),
            "TCP flow {flow}"
        );
        assert_eq!(datagram(&mut rig, *flow), Some(*by_udp), "UDP flow {flow}");
    }
    for flow in FLOWS..FLOWS + 200 {
        let first = segment(&mut rig, flow, Segment::Syn).expect("forwarded");
        flood_once(&mut rig, frame, flow);
        let second = segment(&mut rig, flow, Segment::Ack).expect("forwarded");
        assert_eq!(first, second, "flow {flow}, begun in the flood, moved");
    }
}

fn flood_once(rig: &mut Rig, frame: impl Fn(SocketAddr) -> Vec<u8>, flow: u16) {
    for number in 0..20 {
        let client = at(&format!("198.19.{}.{}:{}", flow % 250, number, 2000 + flow));
        rig.run_uncounted(Side::Client, &frame(client)).unwrap();
    }
}

/// Stored flows that sent more than once.
fn stored(rig: &Rig) -> usize {
    let entries = rig.dataplane.maps().conns.entries();
    entries.filter(|entry| entry.is_established()).count()
}

#[test]
fn a_flood_of_syns_moves_no_flow() {
    require_root!();
    check(|client| tcp(client, vip(), Segment::Syn, b""));
}

#[test]
fn a_flood_of_udp_moves_no_flow() {
    require_root!();
    check(|client| udp(client, vip(), b"flood"));
}

#[test]
fn a_flood_of_segments_out_of_nowhere_moves_no_flow() {
    require_root!();
    check(|client| tcp(client, vip(), Segment::Ack, b""));
}
