//! Forwarding modes in which the backend answers the client directly: what the backend gets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use etherparse::IpNumber;
use lbagent::desired::{ForwardingMode, Transport};
use lbagent_common::Outcome;
use lbagent_tests::outer::{Peeled, peel};
use lbagent_tests::packet_builder::{
    Segment, describe, syn, tcp, udp, with_ipv4_options, with_ttl,
};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, Rig, Side, VIP_V4, VIP_V6, backend_mac,
};
use lbagent_tests::require_root;
use uuid::Uuid;

use crate::{assert_untouched, at};

const SERVICES: [(u16, u16, Transport); 2] = [(80, 80, Transport::Tcp), (53, 53, Transport::Udp)];
const ENCAPSULATED: [ForwardingMode; 2] = [ForwardingMode::DsrIpip, ForwardingMode::DsrGue];
/// Type of service of an IPv4 packet in these tests: expedited forwarding, ECN-capable.
const CLASS: u8 = 0xba;

fn rig(mode: ForwardingMode, addresses: &[&str]) -> (Rig, Uuid) {
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &SERVICES);
    rig.set_mode(group, mode);
    rig.instance("a", group, addresses).unwrap();
    rig.reconcile().unwrap();
    (rig, group)
}

/// Clients' packets of both families and both protocols, with a class of their own.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (client, vip) in [
        (CLIENT_V4.to_owned(), VIP_V4.to_owned()),
        (format!("[{CLIENT_V6}]"), format!("[{VIP_V6}]")),
    ] {
        let client = |port: u16| at(&format!("{client}:{port}"));
        let vip = |port: u16| at(&format!("{vip}:{port}"));
        packets.push(with_class(tcp(client(4000), vip(80), Segment::Syn, b"")));
        packets.push(with_class(tcp(client(4000), vip(80), Segment::Ack, b"odd")));
        packets.push(with_class(udp(client(4001), vip(53), b"query")));
    }
    packets
}

fn with_class(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        frame[15] = CLASS;
        // Repairs the header checksum.
        let ttl = frame[22];
        with_ttl(frame, ttl)
    } else {
        frame[14] |= CLASS >> 4;
        frame[15] |= CLASS << 4;
        frame
    }
}

/// Checks the outer headers of a packet that was encapsulated for a backend.
#[track_caller]
fn assert_encapsulated(peeled: &Peeled, mode: ForwardingMode, backend: &str, frame: &[u8]) {
    let backend: IpAddr = backend.parse().unwrap();
    let gateway = if backend.is_ipv4() {
        GATEWAY_V4
    } else {
        GATEWAY_V6
    };
    assert_eq!(peeled.mac_destination, backend_mac(backend));
    assert_eq!(peeled.destination, backend);
    assert_eq!(peeled.source, gateway.parse::<IpAddr>().unwrap());
    assert_eq!(
        (peeled.class, peeled.ttl, peeled.dont_fragment),
        (CLASS, 64, true)
    );
    assert_eq!(
        peeled.label == 0,
        backend.is_ipv4(),
        "identification or flow label"
    );
    let inner_v4 = frame[12..14] == [0x08, 0x00];
    match (mode, peeled.udp) {
        (ForwardingMode::DsrGue, Some((source, 6080, 0))) => assert!(source >= 0xc000),
        (ForwardingMode::DsrIpip, None) if inner_v4 => assert_eq!(peeled.protocol, IpNumber::IPV4),
        (ForwardingMode::DsrIpip, None) => assert_eq!(peeled.protocol, IpNumber::IPV6),
        (mode, udp) => panic!("{mode} with {udp:?}"),
    }
    assert_eq!(peeled.inner, frame[14..], "the inner packet, TTL included");
}

#[test]
fn packets_travel_inside_others_of_either_family() {
    require_root!();
    for mode in ENCAPSULATED {
        for backend in ["10.66.0.11", "fd66::11"] {
            for resolved in [true, false] {
                let mut rig = Rig::new().unwrap();
                rig.resolved = resolved;
                let group = rig.group("web", &SERVICES);
                rig.set_mode(group, mode);
                rig.instance("a", group, &[backend]).unwrap();
                rig.reconcile().unwrap();
                for (side, outcome) in [
                    (Side::Client, Outcome::ForwardRedirect),
                    (Side::Backend, Outcome::ForwardRedirect),
                ] {
                    for frame in packets() {
                        let ran = rig.run(side, &frame).unwrap();
                        println!("{mode} {backend} {resolved} {side:?}");
                        assert_eq!((ran.action, ran.outcome), (Action::Redirect, outcome));
                        assert_eq!(ran.backend.as_deref(), Some("a"));
                        let peeled = peel(&ran.frame).unwrap();
                        assert_encapsulated(&peeled, mode, backend, &frame);
                    }
                }
            }
        }
    }
}

#[test]
fn an_instance_of_both_families_serves_each_with_its_own() {
    require_root!();
    for mode in ENCAPSULATED {
        let (mut rig, _) = rig(mode, &["10.66.0.11", "fd66::11"]);
        for frame in packets() {
            let ran = rig.run(Side::Client, &frame).unwrap();
            let backend = if frame[12] == 0x08 {
                "10.66.0.11"
            } else {
                "fd66::11"
            };
            assert_encapsulated(&peel(&ran.frame).unwrap(), mode, backend, &frame);
        }
    }
}

#[test]
fn outer_headers_differ_between_flows() {
    require_root!();
    for (mode, backend) in [
        (ForwardingMode::DsrGue, "10.66.0.11"),
        (ForwardingMode::DsrGue, "fd66::11"),
        (ForwardingMode::DsrIpip, "fd66::11"),
    ] {
        let (mut rig, _) = rig(mode, &[backend]);
        let vip = at(&format!("{VIP_V4}:80"));
        let mut seen = BTreeSet::new();
        for port in 1000..1100 {
            let client = at(&format!("{CLIENT_V4}:{port}"));
            let mut labels = BTreeSet::new();
            for segment in [Segment::Syn, Segment::Ack] {
                let frame = tcp(client, vip, segment, b"");
                let (_, out) = rig.run_uncounted(Side::Client, &frame).unwrap();
                let peeled = peel(&out).unwrap();
                labels.insert((peeled.udp, peeled.label));
            }
            assert_eq!(labels.len(), 1, "one flow, one way");
            seen.extend(labels);
        }
        assert!(seen.len() > 90, "{mode} {backend}: {} of 100", seen.len());
    }
}

#[test]
fn options_and_padding_change_nothing() {
    require_root!();
    let (mut rig, _) = rig(ForwardingMode::DsrIpip, &["10.66.0.11"]);
    let (client, vip) = (at(&format!("{CLIENT_V4}:7")), at(&format!("{VIP_V4}:80")));
    let frame = with_ipv4_options(tcp(client, vip, Segment::Ack, b"x"), &[1, 1, 1, 0]);
    let mut padded = frame.clone();
    padded.extend([0xee; 9]);
    let ran = rig.run(Side::Client, &padded).unwrap();
    let peeled = peel(&ran.frame).unwrap();
    assert_eq!(
        peeled.inner,
        frame[14..],
        "the padding is no part of the packet"
    );
    assert_eq!(ran.frame[14 + 20..], padded[14..]);
}

#[test]
fn dsr_l2_changes_link_addresses_only() {
    require_root!();
    for resolved in [true, false] {
        let mut rig = Rig::new().unwrap();
        rig.resolved = resolved;
        let group = rig.group("web", &SERVICES);
        rig.set_mode(group, ForwardingMode::DsrL2);
        rig.instance("a", group, &["10.66.0.11", "fd66::11"])
            .unwrap();
        rig.reconcile().unwrap();
        for side in [Side::Client, Side::Backend] {
            for frame in packets() {
                // A TTL of 1 suffices: no router is on the way.
                let frame = with_ttl(frame, 1);
                let ran = rig.run(side, &frame).unwrap();
                let outcome = (ran.action, ran.outcome);
                assert_eq!(outcome, (Action::Redirect, Outcome::ForwardRedirect));
                assert_eq!(ran.frame[12..], frame[12..]);
                let described = describe(&ran.frame).unwrap();
                assert_eq!(
                    described.mac_destination,
                    if frame[12] == 0x08 {
                        backend_mac("10.66.0.11".parse().unwrap())
                    } else {
                        backend_mac("fd66::11".parse().unwrap())
                    }
                );
                assert_ne!(described.mac_source, frame[6..12]);
            }
        }
    }
}

#[test]
fn dsr_l2_needs_a_common_link() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &SERVICES);
    rig.set_mode(group, ForwardingMode::DsrL2);
    let uuid = rig.instance("far", group, &[]).unwrap();
    rig.desired.instances.get_mut(&uuid).unwrap().addresses = vec!["10.99.0.1".parse().unwrap()];
    rig.set_far_path("10.99.0.1".parse().unwrap(), "be0")
        .unwrap();
    rig.reconcile().unwrap();
    let frame = tcp(
        at(&format!("{CLIENT_V4}:9")),
        at(&format!("{VIP_V4}:80")),
        Segment::Syn,
        b"",
    );
    for side in [Side::Client, Side::Backend] {
        let ran = rig.run(side, &frame).unwrap();
        assert_untouched(&ran, Action::Drop, Outcome::DropNoRoute, &frame);
    }
}

/// What only the kernel could send on: the link address of the backend is not known.
#[test]
fn an_unknown_link_address_has_its_reason() {
    require_root!();
    for (mode, address, action, outcome) in [
        (
            ForwardingMode::DsrL2,
            "10.66.0.99",
            Action::Drop,
            Outcome::DropNoRoute,
        ),
        // The kernel refuses packets from its own address.
        (
            ForwardingMode::DsrIpip,
            "10.66.0.99",
            Action::Drop,
            Outcome::DropNoSource,
        ),
        (
            ForwardingMode::DsrGue,
            "10.66.0.99",
            Action::Drop,
            Outcome::DropNoSource,
        ),
        (
            ForwardingMode::DsrIpip,
            "fd66::99",
            Action::Pass,
            Outcome::ForwardKernel,
        ),
        (
            ForwardingMode::DsrGue,
            "fd66::99",
            Action::Pass,
            Outcome::ForwardKernel,
        ),
    ] {
        let mut rig = Rig::new().unwrap();
        let group = rig.group("web", &SERVICES);
        rig.set_mode(group, mode);
        let uuid = rig.instance("silent", group, &[]).unwrap();
        rig.resolved = false;
        let ip: IpAddr = address.parse().unwrap();
        rig.desired.instances.get_mut(&uuid).unwrap().addresses = vec![address.parse().unwrap()];
        rig.set_path(ip, "be0").unwrap();
        rig.reconcile().unwrap();
        let frame = with_class(tcp(
            at(&format!("{CLIENT_V4}:9")),
            at(&format!("{VIP_V4}:80")),
            Segment::Ack,
            b"x",
        ));
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_eq!(
            (ran.action, ran.outcome),
            (action, outcome),
            "{mode} {address}"
        );
        if action == Action::Drop {
            assert_eq!(ran.frame, frame);
            continue;
        }
        let peeled = peel(&ran.frame).unwrap();
        assert_eq!(
            peeled.mac_destination,
            frame[..6],
            "the kernel must still take the frame"
        );
        assert_eq!((peeled.destination, &peeled.inner[..]), (ip, &frame[14..]));
        // TC asks the kernel to resolve, whose own packets these then are.
        let ran = rig.run(Side::Backend, &frame).unwrap();
        assert_eq!(
            (ran.action, ran.outcome),
            (Action::Redirect, Outcome::ForwardKernel)
        );
    }
}

#[test]
fn without_an_address_of_its_own_the_gateway_encapsulates_nothing() {
    require_root!();
    let (mut rig, _) = rig(ForwardingMode::DsrIpip, &["10.66.0.11"]);
    rig.forget_source("10.66.0.11".parse().unwrap());
    rig.reconcile().unwrap();
    for frame in packets() {
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, Action::Drop, Outcome::DropEncapsulation, &frame);
    }
}

#[test]
fn the_mss_of_a_syn_is_what_fits_inside() {
    require_root!();
    let mss = |value: u16| [2, 4, value.to_be_bytes()[0], value.to_be_bytes()[1]];
    // Kinds and lengths before the option: at even and odd places, and at the very end.
    let layouts: [&[u8]; 5] = [
        &[],
        &[1],
        &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7],
        &[4, 2, 3, 3, 7, 1],
        &[
            8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 1, 8, 10, 1, 2, 3,
            4, 5, 6, 7, 8, 1, 1, 1,
        ],
    ];
    for (mode, backend, overhead) in [
        (ForwardingMode::DsrIpip, "10.66.0.11", 20),
        (ForwardingMode::DsrIpip, "fd66::11", 40),
        (ForwardingMode::DsrGue, "10.66.0.11", 28),
        (ForwardingMode::DsrGue, "fd66::11", 48),
    ] {
        let (mut rig, _) = rig(mode, &[backend]);
        for (client, vip, headers) in [
            (format!("{CLIENT_V4}:5"), format!("{VIP_V4}:80"), 40),
            (format!("[{CLIENT_V6}]:5"), format!("[{VIP_V6}]:80"), 60),
        ] {
            let limit = 1500 - overhead - headers;
            for (side, value) in [
                (Side::Client, 1460),
                (Side::Client, limit + 1),
                (Side::Client, limit),
                (Side::Client, 536),
                (Side::Backend, 8960),
            ] {
                for before in layouts {
                    let mut options = before.to_vec();
                    options.extend(mss(value));
                    options.resize(options.len().next_multiple_of(4), 0);
                    let frame = syn(at(&client), at(&vip), &options, b"");
                    let ran = rig.run(side, &frame).unwrap();
                    let peeled = peel(&ran.frame).unwrap();
                    // With right checksums, which `describe` computes in full.
                    let mut inner = ran.frame[..14].to_vec();
                    inner[12..14].copy_from_slice(&frame[12..14]);
                    inner.extend(&peeled.inner);
                    describe(&inner).unwrap();
                    let want = mss(value.min(limit));
                    let place = inner.len() - options.len() + before.len();
                    assert_eq!(inner[place..place + 4], want, "{mode} {backend} {before:?}");
                }
            }
        }
    }
}

#[test]
fn damaged_options_are_left_alone() {
    require_root!();
    let (mut rig, _) = rig(ForwardingMode::DsrIpip, &["10.66.0.11"]);
    let (client, vip) = (format!("{CLIENT_V4}:5"), format!("{VIP_V4}:80"));
    for options in [
        vec![0, 2, 4, 0xff, 0xff, 0, 0, 0],
        vec![2, 3, 0xff, 0xff],
        vec![3, 0, 2, 4, 0xff, 0xff, 0, 0],
        vec![3, 1, 2, 4, 0xff, 0xff, 0, 0],
        vec![8, 255, 2, 4, 0xff, 0xff, 0, 0],
        vec![1, 1, 1, 2],
        vec![1; 40],
        vec![],
    ] {
        let frame = syn(at(&client), at(&vip), &options, b"");
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_eq!(peel(&ran.frame).unwrap().inner, frame[14..], "{options:?}");
    }
    // A header that ends before its options do.
    let mut frame = syn(at(&client), at(&vip), &[], b"");
    frame[46] = 0xf0;
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(peel(&ran.frame).unwrap().inner, frame[14..]);
}

#[test]
fn a_change_of_mode_changes_the_next_packet() {
    require_root!();
    let (mut rig, group) = rig(ForwardingMode::Nat, &["10.66.0.11", "fd66::11"]);
    let frame = tcp(
        at(&format!("{CLIENT_V4}:9")),
        at(&format!("{VIP_V4}:80")),
        Segment::Syn,
        b"",
    );
    for mode in [
        ForwardingMode::DsrIpip,
        ForwardingMode::DsrL2,
        ForwardingMode::DsrGue,
        ForwardingMode::Nat,
    ] {
        rig.set_mode(group, mode);
        rig.reconcile().unwrap();
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_eq!(ran.outcome, Outcome::ForwardRedirect, "{mode}");
        let grown = ran.frame.len() - frame.len();
        let want = match mode {
            ForwardingMode::Nat | ForwardingMode::DsrL2 => 0,
            ForwardingMode::DsrIpip => 20,
            ForwardingMode::DsrGue => 28,
        };
        assert_eq!(grown, want, "{mode}");
    }
}
