//! Fragments: those of balanced datagrams follow their first one, both ways; foreign ones pass.

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Segment, as_fragment, describe, fragments, reassemble, tcp, udp, with_tags,
};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, GATEWAY_V4, Rig, Side, VIP_V4, VIP_V6,
};
use lbagent_tests::require_root;

use crate::{assert_untouched, at};

/// Bytes behind the IP header of a fragment that fits into 1500.
const MOST: usize = 1_424;

fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "bulk",
        &[(80, 8080, Transport::Tcp), (53, 5353, Transport::Udp)],
    );
    for host in 11..15 {
        rig.instance(
            &format!("b{host}"),
            group,
            &[&format!("10.66.0.{host}"), &format!("fd66::{host}")],
        )
        .unwrap();
    }
    rig.reconcile().unwrap();
    rig
}

fn payload() -> Vec<u8> {
    (0..4_000_u32).map(|index| (index * 7) as u8).collect()
}

/// A datagram, from both sides and in both families.
struct Datagram {
    side: Side,
    frame: Vec<u8>,
    outcome: Outcome,
}

fn datagrams() -> Vec<Datagram> {
    let payload = payload();
    let (v4, v6) = (
        at(&format!("{CLIENT_V4}:4000")),
        at(&format!("[{CLIENT_V6}]:4000")),
    );
    let (vip4, vip6) = (VIP_V4.to_owned(), format!("[{VIP_V6}]"));
    let mut all = Vec::new();
    for (client, vip, backend) in [(v4, vip4, "10.66.0.12"), (v6, vip6, "[fd66::12]")] {
        for frame in [
            udp(client, at(&format!("{vip}:53")), &payload),
            tcp(client, at(&format!("{vip}:80")), Segment::Ack, &payload),
        ] {
            all.push(Datagram {
                side: Side::Client,
                frame,
                outcome: Outcome::ForwardRedirect,
            });
        }
        for frame in [
            udp(at(&format!("{backend}:5353")), client, &payload),
            tcp(
                at(&format!("{backend}:8080")),
                client,
                Segment::Ack,
                &payload,
            ),
        ] {
            all.push(Datagram {
                side: Side::Backend,
                frame,
                outcome: Outcome::ReturnRedirect,
            });
        }
    }
    all
}

/// Whole, the datagram is as it would be had it fitted into one packet.
#[test]
fn fragments_follow_the_first_one() {
    require_root!();
    let mut rig = rig();
    for (number, datagram) in datagrams().into_iter().enumerate() {
        let sent = describe(&datagram.frame).unwrap();
        let mut arrived = Vec::new();
        let mut backends = Vec::new();
        for fragment in fragments(&datagram.frame, MOST, number as u16) {
            let ran = rig.run(datagram.side, &fragment).unwrap();
            assert_eq!(
                (ran.action, ran.outcome),
                (Action::Redirect, datagram.outcome)
            );
            backends.push(ran.backend.expect("a counted backend"));
            arrived.push(ran.frame);
        }
        assert_eq!(arrived.len(), 3);
        backends.dedup();
        assert_eq!(backends.len(), 1, "all fragments count for one backend");
        let whole = describe(&reassemble(&arrived).unwrap()).expect("right checksums");
        assert_eq!(whole.payload, sent.payload);
        match datagram.side {
            Side::Client => {
                assert_eq!(whole.source, sent.source);
                assert!([8080, 5353].contains(&whole.destination.port()));
            }
            Side::Backend => {
                assert_eq!(whole.destination, sent.destination);
                assert!([80, 53].contains(&whole.source.port()));
            }
        }
    }
}

#[test]
fn tagged_fragments_follow_too() {
    require_root!();
    let mut rig = rig();
    let tags = [(0x88a8, 5), (0x8100, 6)];
    let datagram = &datagrams()[0];
    for fragment in fragments(&datagram.frame, MOST, 1) {
        let plain = rig.run(Side::Client, &fragment).unwrap();
        let ran = rig.run(Side::Client, &with_tags(fragment, &tags)).unwrap();
        assert_eq!(ran.outcome, Outcome::ForwardRedirect);
        assert_eq!(ran.frame, plain.frame);
    }
}

/// The gateway's own address became the source, which only the first fragment's decision tells.
#[test]
fn a_rewritten_source_holds_for_all_fragments() {
    require_root!();
    let mut rig = rig();
    let client = at("10.66.0.200:4000");
    rig.add_neighbour(client.ip(), "be0", [2, 0, 0, 0, 9, 9])
        .unwrap();
    let frame = udp(client, at(&format!("{VIP_V4}:53")), &payload());
    for side in [Side::Client, Side::Backend] {
        let mut arrived = Vec::new();
        for fragment in fragments(&frame, MOST, 77) {
            let ran = rig.run(side, &fragment).unwrap();
            assert_eq!(ran.outcome, Outcome::ForwardRedirect);
            arrived.push(ran.frame);
        }
        let whole = describe(&reassemble(&arrived).unwrap()).expect("right checksums");
        assert_eq!(whole.source.ip().to_string(), GATEWAY_V4);
        assert_eq!(whole.payload, payload());
    }
}

#[test]
fn foreign_fragments_pass() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let client6 = at(&format!("[{CLIENT_V6}]:4000"));
    for frame in [
        udp(client, at("192.0.2.99:53"), &payload()),
        tcp(client, at("192.0.2.99:80"), Segment::Ack, &payload()),
        udp(client6, at("[2001:db8:f::1]:53"), &payload()),
    ] {
        let mut pieces = fragments(&frame, MOST, 9);
        for _ in 0..2 {
            for side in [Side::Client, Side::Backend] {
                for fragment in &pieces {
                    let ran = rig.run(side, fragment).unwrap();
                    assert_eq!(ran.action, Action::Pass);
                    assert_eq!(&ran.frame, fragment);
                }
            }
            pieces.reverse();
        }
    }
}

/// What is for a VIP address but not balanced is the host's, all fragments of it.
#[test]
fn fragments_of_what_passes_pass() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let client6 = at(&format!("[{CLIENT_V6}]:4000"));
    let mut ping = udp(client, at(&format!("{VIP_V4}:53")), &payload());
    ping[23] = 1;
    for frame in [
        udp(client, at(&format!("{VIP_V4}:500")), &payload()),
        udp(client6, at(&format!("[{VIP_V6}]:500")), &payload()),
        ping,
    ] {
        for side in [Side::Client, Side::Backend] {
            for fragment in fragments(&frame, MOST, 10) {
                let ran = rig.run(side, &fragment).unwrap();
                assert_eq!(ran.action, Action::Pass, "{:?}", ran.outcome);
                assert_eq!(ran.frame, fragment);
            }
        }
    }
}

/// RFC 1858: a later fragment that would overwrite what the first was judged by.
#[test]
fn overlapping_fragments_are_dropped() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let frame = tcp(
        client,
        at(&format!("{VIP_V4}:80")),
        Segment::Ack,
        &payload(),
    );
    let pieces = fragments(&frame, MOST, 11);
    let first = rig.run(Side::Client, &pieces[0]).unwrap();
    assert_eq!(first.outcome, Outcome::ForwardRedirect);
    for (offset, outcome) in [
        (1, Outcome::DropFragment),
        (2, Outcome::DropFragment),
        (3, Outcome::ForwardRedirect),
    ] {
        let overlapping = as_fragment(pieces[1].clone(), offset, true);
        let ran = rig.run(Side::Client, &overlapping).unwrap();
        assert_eq!(ran.outcome, outcome, "offset {offset}");
        if outcome == Outcome::DropFragment {
            assert_untouched(&ran, Action::Drop, outcome, &overlapping);
        }
    }
}

/// A later fragment for a VIP whose first one did not come, or has another identification.
/// `held_fragments.rs` tells what becomes of those from clients.
#[test]
fn fragments_without_a_first_one_do_not_arrive() {
    require_root!();
    let mut rig = rig();
    for datagram in datagrams() {
        if datagram.side == Side::Backend {
            continue;
        }
        let first = &fragments(&datagram.frame, MOST, 20)[0];
        rig.run(Side::Client, first).unwrap();
        let later = &fragments(&datagram.frame, MOST, 21)[1];
        for (side, outcome) in [
            (Side::Client, Outcome::HoldFragment),
            (Side::Backend, Outcome::DropFragment),
        ] {
            let ran = rig.run(side, later).unwrap();
            assert_untouched(&ran, Action::Drop, outcome, later);
        }
    }
}
