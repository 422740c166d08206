//! What may stand in front of a TCP or UDP header: VLAN tags and IPv6 extension headers. All of it is
//! kept, and the rest is rewritten as without it.

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Extension, Segment, VLAN_CUSTOMER, VLAN_SERVICE, tcp, udp, with_extensions, with_ipv4_options,
    with_tags, with_vlan,
};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;

use crate::{assert_untouched, at};

fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "web",
        &[(80, 8080, Transport::Tcp), (53, 5353, Transport::Udp)],
    );
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    rig.reconcile().unwrap();
    rig
}

/// Clients' packets to VIPs, both families and transports.
fn requests() -> [Vec<u8>; 4] {
    let (v4, v6) = (
        at(&format!("{CLIENT_V4}:4000")),
        at(&format!("[{CLIENT_V6}]:4000")),
    );
    [
        tcp(v4, at(&format!("{VIP_V4}:80")), Segment::Syn, b""),
        udp(v4, at(&format!("{VIP_V4}:53")), b"question"),
        tcp(v6, at(&format!("[{VIP_V6}]:80")), Segment::Ack, b"request"),
        udp(v6, at(&format!("[{VIP_V6}]:53")), b"question"),
    ]
}

/// Backends' replies.
fn replies() -> [Vec<u8>; 2] {
    let client = at(&format!("[{CLIENT_V6}]:4000"));
    [
        tcp(at("[fd66::11]:8080"), client, Segment::SynAck, b""),
        udp(at("[fd66::11]:5353"), client, b"answer"),
    ]
}

/// One or two tags, with priorities.
const TAGS: [&[(u16, u16)]; 6] = [
    &[],
    &[(VLAN_CUSTOMER, 0x2007)],
    &[(VLAN_CUSTOMER, 0xe000)],
    &[(VLAN_SERVICE, 0x3fff)],
    &[(VLAN_SERVICE, 100), (VLAN_CUSTOMER, 7)],
    &[(VLAN_CUSTOMER, 7), (VLAN_CUSTOMER, 0xf008)],
];

/// Frames leave as their next hop wants them: without a tag, or with that of its VLAN in the priority
/// that they came with.
#[test]
fn frames_leave_with_the_tag_of_their_next_hop() {
    require_root!();
    let mut rig = rig();
    let untagged = requests().map(|frame| rig.run(Side::Client, &frame).unwrap());
    for vlan in [0, 7, 4094] {
        for address in ["10.66.0.11", "fd66::11"] {
            rig.set_vlan(address, vlan).unwrap();
        }
        rig.reconcile().unwrap();
        for (frame, plain) in requests().iter().zip(&untagged) {
            assert_eq!(plain.outcome, Outcome::ForwardRedirect);
            for tags in TAGS {
                let ran = rig
                    .run(Side::Client, &with_tags(frame.clone(), tags))
                    .unwrap();
                let priority = tags.first().map_or(0, |(_, outer)| outer & 0xf000);
                let expected = match vlan {
                    0 => plain.frame.clone(),
                    _ => with_vlan(plain.frame.clone(), priority | vlan),
                };
                assert_eq!(
                    (ran.action, ran.outcome, ran.frame),
                    (Action::Redirect, Outcome::ForwardRedirect, expected),
                    "{tags:x?} to {vlan}"
                );
            }
        }
    }
}

/// What the kernel sends on keeps the tags that it came with, by which the kernel finds the VLAN's
/// device.
#[test]
fn what_the_kernel_sends_on_keeps_its_tags() {
    require_root!();
    let mut rig = rig();
    let neighbour = "10.66.0.11".parse().unwrap();
    rig.set_sender(neighbour, false).unwrap();
    rig.reconcile().unwrap();
    let [frame, ..] = requests();
    let plain = rig.run(Side::Client, &frame).unwrap();
    for tags in TAGS {
        let ran = rig
            .run(Side::Client, &with_tags(frame.clone(), tags))
            .unwrap();
        assert_eq!(
            (ran.action, ran.outcome),
            (Action::Pass, Outcome::ForwardKernel)
        );
        assert_eq!(ran.frame, with_tags(plain.frame.clone(), tags), "{tags:x?}");
    }
}

#[test]
fn tagged_frames_for_nobody_leave_as_they_came() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let foreign = tcp(client, at("192.0.2.99:80"), Segment::Syn, b"");
    let [request, ..] = requests();
    let tag = (VLAN_CUSTOMER, 7);
    let double = with_tags(request.clone(), &[tag, tag]);
    for (name, frame, outcome) in [
        (
            "foreign",
            with_vlan(foreign.clone(), 7),
            Outcome::PassNotVip,
        ),
        (
            "foreign, two tags",
            with_tags(foreign, &[(VLAN_SERVICE, 1), tag]),
            Outcome::PassNotVip,
        ),
        (
            "three tags",
            with_tags(request.clone(), &[tag; 3]),
            Outcome::PassNotIp,
        ),
        (
            "ends in the tag",
            with_vlan(request.clone(), 7)[..16].to_vec(),
            Outcome::PassNotIp,
        ),
        (
            "ends behind the tag",
            with_vlan(request, 7)[..18].to_vec(),
            Outcome::PassNotIp,
        ),
        (
            "ends in the second tag",
            double[..20].to_vec(),
            Outcome::PassNotIp,
        ),
    ] {
        println!("{name}");
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, Action::Pass, outcome, &frame);
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const OPTIONS: u8 = 60;
/// One option of padding (RFC 8200, section 4.2).
const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];
/// Type 2, no segments left.
const ROUTED: &[u8] = &[
    2, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];
/// Offset 0 and no more to come (RFC 6946).
const ATOMIC: &[u8] = &[0, 0, 0, 0, 0, 1];

#[test]
fn extension_headers_are_walked_and_kept() {
    require_root!();
    let mut rig = rig();
    let long = [1; 254];
    let chains: [&[Extension<'_>]; 7] = [
        &[(HOP_BY_HOP, PADDING)],
        &[(OPTIONS, PADDING)],
        &[(ROUTING, ROUTED)],
        &[(FRAGMENT, ATOMIC)],
        &[(OPTIONS, &long)],
        &[
            (HOP_BY_HOP, PADDING),
            (OPTIONS, PADDING),
            (ROUTING, ROUTED),
            (FRAGMENT, ATOMIC),
            (OPTIONS, PADDING),
        ],
        &[(OPTIONS, PADDING); 6],
    ];
    let [_, _, request_tcp, request_udp] = requests();
    let [reply_tcp, reply_udp] = replies();
    for (side, frame) in [
        (Side::Client, request_tcp),
        (Side::Client, request_udp),
        (Side::Backend, reply_tcp),
        (Side::Backend, reply_udp),
    ] {
        let plain = rig.run(side, &frame).unwrap();
        assert_eq!(plain.action, Action::Redirect);
        for chain in chains {
            let longer = with_extensions(frame.clone(), chain);
            let ran = rig.run(side, &longer).unwrap();
            assert_eq!(
                (ran.action, ran.outcome),
                (plain.action, plain.outcome),
                "{side:?} {chain:?}"
            );
            let expected = with_extensions(plain.frame.clone(), chain);
            assert_eq!(ran.frame, expected, "{side:?} {chain:?}");
        }
    }
}

#[test]
fn other_extension_headers_pass() {
    require_root!();
    let mut rig = rig();
    let [_, _, request, _] = requests();
    let [reply, _] = replies();
    let mut onwards = ROUTED.to_vec();
    onwards[1] = 1;
    let long = [1; 262];
    let chains: [(&str, &[Extension<'_>]); 7] = [
        ("a segment left", &[(ROUTING, &onwards)]),
        ("signed", &[(AUTHENTICATION, PADDING)]),
        ("seven headers", &[(OPTIONS, PADDING); 7]),
        ("more than 256 bytes", &[(OPTIONS, &long)]),
        (
            "hop-by-hop options behind others",
            &[(OPTIONS, PADDING), (HOP_BY_HOP, PADDING)],
        ),
        ("nothing behind", &[(NO_NEXT_HEADER, PADDING)]),
        ("unknown", &[(OPTIONS, PADDING), (253, PADDING)]),
    ];
    for (side, frame) in [(Side::Client, request), (Side::Backend, reply)] {
        for (name, chain) in chains {
            println!("{side:?}: {name}");
            let frame = with_extensions(frame.clone(), chain);
            let ran = rig.run(side, &frame).unwrap();
            assert_untouched(&ran, Action::Pass, Outcome::PassProtocol, &frame);
        }
        let whole = with_extensions(
            frame,
            &[(HOP_BY_HOP, PADDING), (ROUTING, ROUTED), (OPTIONS, PADDING)],
        );
        for len in 54..54 + 8 + 24 + 8 + 20 {
            let frame = &whole[..len];
            let ran = rig.run(side, frame).unwrap();
            assert_untouched(&ran, Action::Pass, Outcome::PassTruncated, frame);
        }
    }
}

#[test]
fn tags_extension_headers_and_options_together() {
    require_root!();
    let mut rig = rig();
    let tags = [(VLAN_SERVICE, 9), (VLAN_CUSTOMER, 10)];
    let [_, request_v4, request_v6, _] = requests();
    let insert = |frame: Vec<u8>| {
        if frame[12..14] == [0x08, 0x00] {
            with_ipv4_options(frame, &[1; 40])
        } else {
            with_extensions(frame, &[(HOP_BY_HOP, PADDING), (OPTIONS, PADDING)])
        }
    };
    for frame in [request_v4, request_v6] {
        let plain = rig.run(Side::Client, &frame).unwrap();
        let ran = rig
            .run(Side::Client, &with_tags(insert(frame), &tags))
            .unwrap();
        assert_eq!(ran.outcome, Outcome::ForwardRedirect);
        assert_eq!(ran.frame, insert(plain.frame));
    }
}
