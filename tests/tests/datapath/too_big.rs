//! Packets that are larger than the way to the backend allows: who is told, and what.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Slice, Icmpv6Type, IpNumber, icmpv4, icmpv6};
use lbagent::desired::{ForwardingMode, Transport};
use lbagent_common::Outcome;
use lbagent_tests::outer::peel;
use lbagent_tests::packet_builder::{Segment, tcp, udp};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;

use crate::{assert_untouched, at};

fn rig(mode: ForwardingMode, mtu: u16, addresses: &[&str]) -> Rig {
    let mut rig = Rig::new().unwrap();
    rig.mtu = mtu;
    let group = rig.group("web", &[(80, 80, Transport::Tcp), (53, 53, Transport::Udp)]);
    rig.set_mode(group, mode);
    rig.instance("a", group, addresses).unwrap();
    rig.reconcile().unwrap();
    rig
}

/// A TCP or UDP packet whose IP length is this.
fn sized(is_v4: bool, transport: Transport, ip_len: usize) -> Vec<u8> {
    let (client, vip, ip) = if is_v4 {
        (CLIENT_V4.to_owned(), VIP_V4.to_owned(), 20)
    } else {
        (format!("[{CLIENT_V6}]"), format!("[{VIP_V6}]"), 40)
    };
    let client = at(&format!("{client}:4000"));
    let payload = |header: usize| -> Vec<u8> {
        (0..ip_len - ip - header)
            .map(|i| (i * 7 + i / 256) as u8)
            .collect()
    };
    match transport {
        Transport::Tcp => tcp(client, at(&format!("{vip}:80")), Segment::Ack, &payload(20)),
        Transport::Udp => udp(client, at(&format!("{vip}:53")), &payload(8)),
    }
}

/// Checks that an answer tells the sender of `frame` the MTU, with all checksums right.
#[track_caller]
fn assert_told(answer: &[u8], frame: &[u8], mtu: u32) {
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]));
    let peeled = peel(answer).expect("an IP packet");
    let (client, vip): (IpAddr, IpAddr) = match peeled.source {
        IpAddr::V4(_) => (CLIENT_V4.parse().unwrap(), VIP_V4.parse().unwrap()),
        IpAddr::V6(_) => (CLIENT_V6.parse().unwrap(), VIP_V6.parse().unwrap()),
    };
    assert_eq!((peeled.source, peeled.destination), (vip, client));
    let (icmp, quote) = peeled.inner.split_at(8);
    assert_eq!(quote, &frame[14..14 + quote.len()], "the quote");
    let check = u16::from_be_bytes([icmp[2], icmp[3]]);
    if let (IpAddr::V4(_), IpAddr::V4(_)) = (vip, client) {
        assert_eq!(peeled.protocol, IpNumber::ICMP);
        let header = icmpv4::DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu: mtu as u16,
        };
        assert_eq!((icmp[0], icmp[1]), (3, 4));
        assert_eq!(icmp[4..8], mtu.to_be_bytes());
        assert_eq!(
            check,
            Icmpv4Type::DestinationUnreachable(header).calc_checksum(quote)
        );
        assert!(answer.len() - 14 <= 576 && quote.len() >= 28);
    } else {
        assert_eq!(peeled.protocol, IpNumber::IPV6_ICMP);
        let slice = Icmpv6Slice::from_slice(&peeled.inner).unwrap();
        assert_eq!(slice.icmp_type(), Icmpv6Type::PacketTooBig { mtu });
        assert_eq!(slice.code_u8(), icmpv6::TYPE_DST_UNREACH - 1);
        let (IpAddr::V6(vip), IpAddr::V6(client)) = (vip, client) else {
            unreachable!("both are IPv6")
        };
        assert!(slice.is_checksum_valid(vip.octets(), client.octets()));
        assert_eq!(answer.len() - 14, 1280, "as much as the least MTU holds");
    }
}

#[test]
fn the_sender_of_what_does_not_fit_is_told_the_mtu() {
    require_root!();
    for (mode, backends, overhead) in [
        (ForwardingMode::Nat, &["10.66.0.11", "fd66::11"][..], 0),
        (ForwardingMode::DsrL2, &["10.66.0.11", "fd66::11"], 0),
        (ForwardingMode::DsrIpip, &["10.66.0.11"], 20),
        (ForwardingMode::DsrIpip, &["fd66::11"], 40),
        (ForwardingMode::DsrGue, &["10.66.0.11"], 28),
        (ForwardingMode::DsrGue, &["fd66::11"], 48),
    ] {
        for mtu in [1400_u16, 1500] {
            let mut rig = rig(mode, mtu, backends);
            let largest = usize::from(mtu) - overhead;
            for is_v4 in [true, false] {
                for transport in [Transport::Tcp, Transport::Udp] {
                    println!("{mode} {backends:?} {mtu} {is_v4} {transport:?}");
                    for len in [largest - 1, largest] {
                        let frame = sized(is_v4, transport, len);
                        let ran = rig.run(Side::Client, &frame).unwrap();
                        assert_eq!(ran.outcome, Outcome::ForwardRedirect, "{len} bytes");
                    }
                    let frame = sized(is_v4, transport, largest + 1);
                    let ran = rig.run(Side::Client, &frame).unwrap();
                    let outcome = (ran.action, ran.outcome);
                    assert_eq!(outcome, (Action::Transmit, Outcome::AnswerTooBig));
                    assert_told(&ran.frame, &frame, largest as u32);
                    assert_eq!(ran.backend, None, "a backend was counted");
                }
            }
        }
    }
}

#[test]
fn the_routing_table_tells_the_mtu_as_well() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    rig.resolved = false;
    rig.mtu = 0;
    let group = rig.group("web", &[(80, 80, Transport::Tcp)]);
    rig.set_mode(group, ForwardingMode::DsrIpip);
    rig.instance("a", group, &["10.66.0.11"]).unwrap();
    rig.reconcile().unwrap();
    let frame = sized(true, Transport::Tcp, 1480);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.outcome, Outcome::ForwardRedirect);
    let frame = sized(true, Transport::Tcp, 1481);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.outcome, Outcome::AnswerTooBig);
    assert_told(&ran.frame, &frame, 1480);
}

#[test]
fn what_no_answer_helps_is_dropped() {
    require_root!();
    // Every IPv6 link must carry 1280 bytes, so the sender would not send less.
    let mut low = rig(ForwardingMode::DsrGue, 1300, &["fd66::11"]);
    let frame = sized(false, Transport::Udp, 1280);
    let ran = low.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropTooBig, &frame);
    // Nobody is there to be told.
    let mut rig = rig(ForwardingMode::DsrIpip, 1400, &["10.66.0.11"]);
    for source in [
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
    ] {
        let mut frame = sized(true, Transport::Udp, 1390);
        frame[26..30].copy_from_slice(&source);
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, Action::Drop, Outcome::DropTooBig, &frame);
    }
    // The header announces more than there is.
    let mut frame = sized(true, Transport::Udp, 300);
    frame[16..18].copy_from_slice(&1390_u16.to_be_bytes());
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropTooBig, &frame);
    // Backends send super-packets, which devices cut up: what is not one is dropped.
    let frame = sized(true, Transport::Udp, 1390);
    let ran = rig.run(Side::Backend, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropTooBig, &frame);
}

#[test]
fn answers_are_limited() {
    require_root!();
    let mut rig = rig(ForwardingMode::DsrIpip, 1400, &["10.66.0.11"]);
    rig.gateway.answers_per_second = 0;
    rig.reconcile().unwrap();
    let frame = sized(true, Transport::Udp, 1390);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropAnswerLimit, &frame);
}
