//! One packet, one reason: the way from clients to backends.

use lbagent::dataplane::{Dataplane, Step};
use lbagent::desired::{InstanceState, Transport};
use lbagent::plan::UnpublishedPorts;
use lbagent_common::{Outcome, Port, Protocol, VipEntry, VipKey};
use lbagent_tests::packet_builder::{Segment, as_fragment, tcp, udp, with_ipv4_options, with_ttl};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6, backend_mac,
};
use lbagent_tests::require_root;

use crate::{assert_rewritten, assert_untouched, at};

fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "web",
        &[
            (5432, 15432, Transport::Tcp),
            (53, 5353, Transport::Udp),
            (80, 80, Transport::Tcp),
        ],
    );
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    rig.reconcile().unwrap();
    rig
}

/// A packet to a published port, and where it must go.
struct Forwarded {
    name: &'static str,
    frame: Vec<u8>,
    from: String,
    to: &'static str,
    payload: &'static [u8],
}

#[test]
fn published_ports_reach_the_backend() {
    require_root!();
    let mut rig = rig();
    let v4 = |port: u16| format!("{CLIENT_V4}:{port}");
    let v6 = |port: u16| format!("[{CLIENT_V6}]:{port}");
    let vip4 = |port: u16| at(&format!("{VIP_V4}:{port}"));
    let vip6 = |port: u16| at(&format!("[{VIP_V6}]:{port}"));
    let mut no_checksum = udp(at(&v4(4006)), vip4(53), b"plain");
    no_checksum[40..42].fill(0);
    for case in [
        Forwarded {
            name: "TCP over IPv4, port rewritten",
            frame: tcp(at(&v4(4000)), vip4(5432), Segment::Syn, b""),
            from: v4(4000),
            to: "10.66.0.11:15432",
            payload: b"",
        },
        Forwarded {
            name: "TCP over IPv4 with a payload of odd length",
            frame: tcp(at(&v4(4001)), vip4(5432), Segment::Ack, b"odd"),
            from: v4(4001),
            to: "10.66.0.11:15432",
            payload: b"odd",
        },
        Forwarded {
            name: "TCP over IPv4, same port",
            frame: tcp(at(&v4(4002)), vip4(80), Segment::Syn, b""),
            from: v4(4002),
            to: "10.66.0.11:80",
            payload: b"",
        },
        Forwarded {
            name: "TCP over IPv6",
            frame: tcp(at(&v6(4003)), vip6(5432), Segment::Syn, b"x"),
            from: v6(4003),
            to: "[fd66::11]:15432",
            payload: b"x",
        },
        Forwarded {
            name: "UDP over IPv4",
            frame: udp(at(&v4(4004)), vip4(53), b"query"),
            from: v4(4004),
            to: "10.66.0.11:5353",
            payload: b"query",
        },
        Forwarded {
            name: "UDP over IPv6",
            frame: udp(at(&v6(4005)), vip6(53), b"query"),
            from: v6(4005),
            to: "[fd66::11]:5353",
            payload: b"query",
        },
        Forwarded {
            name: "UDP over IPv4 without a checksum",
            frame: no_checksum,
            from: v4(4006),
            to: "10.66.0.11:5353",
            payload: b"plain",
        },
        Forwarded {
            name: "IPv4 options are kept",
            frame: with_ipv4_options(
                tcp(at(&v4(4007)), vip4(5432), Segment::Syn, b""),
                &[1, 1, 1, 0, 1, 1, 1, 0],
            ),
            from: v4(4007),
            to: "10.66.0.11:15432",
            payload: b"",
        },
    ] {
        let ran = rig.run(Side::Client, &case.frame).unwrap();
        println!("{}", case.name);
        assert_eq!(ran.action, Action::Redirect);
        let (from, to) = (at(&case.from), at(case.to));
        let described = assert_rewritten(&ran, Outcome::ForwardRedirect, from, to, case.payload);
        assert_eq!(described.mac_destination, backend_mac(to.ip()));
        assert_eq!(ran.backend.as_deref(), Some("a"));
        assert_eq!(ran.frame.len(), case.frame.len());
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    require_root!();
    let mut rig = rig();
    let mut frame = udp(
        at(&format!("{CLIENT_V4}:1")),
        at(&format!("{VIP_V4}:53")),
        b"x",
    );
    frame[40..42].fill(0);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.frame[40..42], [0, 0]);
}

#[test]
fn a_backend_on_the_client_interface_is_reached_by_tx() {
    require_root!();
    let mut rig = rig();
    let group = rig.group("one-armed", &[(7000, 7000, Transport::Tcp)]);
    rig.instance("near", group, &[]).unwrap();
    let uuid = *rig.desired.instances.keys().last().unwrap();
    rig.desired.instances.get_mut(&uuid).unwrap().addresses =
        vec!["198.51.100.21".parse().unwrap()];
    let near = "198.51.100.21".parse().unwrap();
    rig.add_neighbour(near, "cl0", backend_mac(near)).unwrap();
    rig.set_path(near, "cl0").unwrap();
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V4}:9"));
    let frame = tcp(client, at(&format!("{VIP_V4}:7000")), Segment::Syn, b"");
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.action, Action::Transmit);
    assert_rewritten(
        &ran,
        Outcome::ForwardTx,
        client,
        at("198.51.100.21:7000"),
        b"",
    );
}

#[test]
fn an_unknown_link_address_is_left_to_the_kernel() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &[(80, 8080, Transport::Tcp)]);
    let uuid = rig.instance("silent", group, &[]).unwrap();
    rig.resolved = false;
    rig.desired.instances.get_mut(&uuid).unwrap().addresses = vec!["10.66.0.99".parse().unwrap()];
    rig.set_path("10.66.0.99".parse().unwrap(), "be0").unwrap();
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V4}:9"));
    let frame = tcp(client, at(&format!("{VIP_V4}:80")), Segment::Syn, b"");
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.action, Action::Pass);
    let described = assert_rewritten(
        &ran,
        Outcome::ForwardKernel,
        client,
        at("10.66.0.99:8080"),
        b"",
    );
    assert_eq!(
        described.mac_destination,
        frame[..6],
        "the kernel must still take the frame"
    );
}

/// A packet that goes nowhere, and why.
struct Stopped {
    name: &'static str,
    frame: Vec<u8>,
    action: Action,
    outcome: Outcome,
}

#[test]
fn everything_else_has_its_reason() {
    require_root!();
    let mut rig = rig();
    let empty = rig.group("empty", &[(7001, 7001, Transport::Tcp)]);
    let far = rig.group("far", &[(7002, 7002, Transport::Tcp)]);
    let uuid = rig.instance("far", far, &[]).unwrap();
    // The rig has a default route for IPv4, so only a prohibited destination has no way.
    rig.desired.instances.get_mut(&uuid).unwrap().addresses = vec!["127.0.0.2".parse().unwrap()];
    rig.resolved = false;
    rig.set_path("127.0.0.2".parse().unwrap(), "be0").unwrap();
    assert!(rig.desired.service_groups.contains_key(&empty));
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let vip = |port: u16| at(&format!("{VIP_V4}:{port}"));
    let syn = |port: u16| tcp(client, vip(port), Segment::Syn, b"");
    let pass = |name, frame, outcome| Stopped {
        name,
        frame,
        action: Action::Pass,
        outcome,
    };
    let drop = |name, frame, outcome| Stopped {
        name,
        frame,
        action: Action::Drop,
        outcome,
    };
    let mut icmp = udp(client, vip(53), b"x");
    icmp[23] = 1;
    let mut bad_ihl = syn(5432);
    bad_ihl[14] = 0x44;
    let mut bad_version = syn(5432);
    bad_version[14] = 0x65;
    let mut arp = syn(5432);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for case in [
        pass("ARP", arp, Outcome::PassNotIp),
        pass(
            "only an Ethernet header",
            syn(5432)[..14].to_vec(),
            Outcome::PassTruncated,
        ),
        pass(
            "half an IP header",
            syn(5432)[..30].to_vec(),
            Outcome::PassTruncated,
        ),
        pass(
            "half a TCP header",
            syn(5432)[..50].to_vec(),
            Outcome::PassTruncated,
        ),
        pass("IPv4 header of 16 bytes", bad_ihl, Outcome::PassTruncated),
        pass("IPv4 with version 6", bad_version, Outcome::PassTruncated),
        pass("ICMP to the VIP", icmp, Outcome::PassIcmp),
        drop(
            "later fragment",
            as_fragment(syn(5432), 100, false),
            Outcome::HoldFragment,
        ),
        pass("unpublished port", syn(5433), Outcome::PassNotVip),
        pass(
            "published for UDP only",
            tcp(client, vip(53), Segment::Syn, b""),
            Outcome::PassNotVip,
        ),
        pass(
            "not a VIP",
            tcp(client, at("192.0.2.99:5432"), Segment::Syn, b""),
            Outcome::PassNotVip,
        ),
        pass("TTL 1", with_ttl(syn(5432), 1), Outcome::PassTtl),
        drop(
            "a group without instances",
            syn(7001),
            Outcome::DropNoBackend,
        ),
        drop("a backend without a route", syn(7002), Outcome::DropNoRoute),
    ] {
        let ran = rig.run(Side::Client, &case.frame).unwrap();
        println!("{}: {:?}", case.name, ran.outcome);
        assert_untouched(&ran, case.action, case.outcome, &case.frame);
    }
}

#[test]
fn unpublished_ports_are_dropped_on_request() {
    require_root!();
    let mut rig = rig();
    rig.gateway.unpublished_ports = UnpublishedPorts::Drop;
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V6}:1").replace(CLIENT_V6, &format!("[{CLIENT_V6}]")));
    for (destination, action, outcome) in [
        (
            format!("[{VIP_V6}]:22"),
            Action::Drop,
            Outcome::DropUnpublished,
        ),
        (
            "[2001:db8:a::99]:22".into(),
            Action::Pass,
            Outcome::PassNotVip,
        ),
    ] {
        let frame = tcp(client, at(&destination), Segment::Syn, b"");
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, action, outcome, &frame);
    }
}

#[test]
fn a_stopped_last_instance_refuses_everything() {
    require_root!();
    let mut rig = rig();
    let uuid = *rig.desired.instances.keys().next().unwrap();
    rig.set_state(uuid, InstanceState::Stopped);
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V4}:4000"));
    for segment in [Segment::Syn, Segment::Ack] {
        let frame = tcp(client, at(&format!("{VIP_V4}:5432")), segment, b"");
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, Action::Drop, Outcome::DropNoBackend, &frame);
    }
}

/// A table outside of the map, which only damage can make.
#[test]
fn an_entry_that_no_plan_writes_harms_nothing() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let vip = at(&format!("{VIP_V4}:443"));
    let key = VipKey::new(vip.ip().into(), Port::new(443), Protocol::TCP);
    let frame = tcp(client, vip, Segment::Syn, b"");
    let damaged = VipEntry {
        table_offset: u32::MAX - 600,
        table_len: 509,
        ..VipEntry::default()
    };
    rig.dataplane.apply(&Step::PutVip(key, damaged)).unwrap();
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropNotConfigured, &frame);
    // The next pass puts right what is not as planned.
    rig.reconcile().unwrap();
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Pass, Outcome::PassNotVip, &frame);
}
