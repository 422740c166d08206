//! Echo requests for VIPs, and ICMP that is nobody's business.

use std::net::IpAddr;

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    CLIENT_MAC, GATEWAY_MAC, as_fragment, icmp, icmp_checksum_holds, with_ipv4_options, with_ttl,
};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;

use crate::assert_untouched;

fn rig(answers_per_second: u32) -> Rig {
    let mut rig = Rig::new().unwrap();
    rig.gateway.answers_per_second = answers_per_second;
    let group = rig.group("web", &[(80, 8080, Transport::Tcp)]);
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    rig.reconcile().unwrap();
    rig
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Client, VIP, request and reply of both families.
fn families() -> [(IpAddr, IpAddr, [u8; 2], [u8; 2]); 2] {
    [
        (ip(CLIENT_V4), ip(VIP_V4), [8, 0], [0, 0]),
        (ip(CLIENT_V6), ip(VIP_V6), [128, 0], [129, 0]),
    ]
}

#[test]
fn echo_requests_for_vips_are_answered() {
    require_root!();
    let mut rig = rig(u32::MAX);
    for (client, vip, request, reply) in families() {
        for payload in [&b""[..], b"x", b"an odd ping", &[0xa5; 1400]] {
            let frame = icmp((client, vip), request, [0x12, 0x34, 0, 1], payload);
            let ran = rig.run(Side::Client, &with_ttl(frame, 7)).unwrap();
            assert_eq!(
                (ran.action, ran.outcome),
                (Action::Transmit, Outcome::AnswerEcho)
            );
            let expected = icmp((vip, client), reply, [0x12, 0x34, 0, 1], payload);
            assert_eq!(ran.frame[..6], CLIENT_MAC);
            assert_eq!(ran.frame[6..12], GATEWAY_MAC);
            // Built from scratch, with a fresh TTL.
            assert_eq!(ran.frame[12..], expected[12..]);
        }
    }
}

/// Every value of the checksum field, the one that no sender computes included.
#[test]
fn echo_replies_have_right_checksums_for_every_request() {
    require_root!();
    let mut rig = rig(u32::MAX);
    for (client, vip, request, _) in families() {
        let mut seen = vec![false; 1 << 16];
        let check = if vip.is_ipv4() { 36..38 } else { 56..58 };
        for number in 0..=u16::MAX {
            let [high, low] = number.to_be_bytes();
            let mut frame = icmp((client, vip), request, [high, low, 0, 0], b"");
            for _ in 0..2 {
                let field = u16::from_be_bytes([frame[check.start], frame[check.start + 1]]);
                seen[usize::from(field)] = true;
                assert!(icmp_checksum_holds(&frame), "the test's own frame");
                let (action, out) = rig.run_uncounted(Side::Client, &frame).unwrap();
                assert_eq!(action, Action::Transmit);
                assert!(icmp_checksum_holds(&out), "request checksum {field:#06x}");
                if field != 0 {
                    break;
                }
                // The other form of zero.
                frame[check.clone()].fill(0xff);
            }
        }
        assert!(seen.iter().all(|seen| *seen), "a value was not tried");
    }
}

#[test]
fn answers_are_limited() {
    require_root!();
    let mut rig = rig(5);
    let [(client, vip, request, _), _] = families();
    let frame = icmp((client, vip), request, [0; 4], b"ping");
    let (mut answered, mut dropped) = (0, 0);
    for _ in 0..50 {
        let (action, out) = rig.run_uncounted(Side::Client, &frame).unwrap();
        match action {
            Action::Transmit => answered += 1,
            Action::Drop => {
                dropped += 1;
                assert_eq!(out, frame);
            }
            other => panic!("{other:?}"),
        }
    }
    // Fifty runs may see another tick, and other processors have budgets of their own.
    assert!(
        answered >= 5 && dropped > 0,
        "{answered} answered, {dropped} dropped"
    );
    assert_eq!(rig.outcomes().unwrap()[&Outcome::DropAnswerLimit], dropped);
}

#[test]
fn other_echo_requests_are_left_to_the_kernel() {
    require_root!();
    let mut rig = rig(u32::MAX);
    let mut to_group = icmp((ip(CLIENT_V4), ip(VIP_V4)), [8, 0], [0; 4], b"ping");
    to_group[0] |= 1;
    let plain = |source: &str| icmp((ip(source), ip(VIP_V4)), [8, 0], [0; 4], b"ping");
    let plain6 = |source: &str| icmp((ip(source), ip(VIP_V6)), [128, 0], [0; 4], b"ping");
    for (name, frame, outcome) in [
        ("a frame to many", to_group, Outcome::PassIcmp),
        (
            "from a multicast address",
            plain("224.0.0.1"),
            Outcome::PassIcmp,
        ),
        (
            "from everybody",
            plain("255.255.255.255"),
            Outcome::PassIcmp,
        ),
        ("from nobody", plain("0.0.0.0"), Outcome::PassIcmp),
        (
            "from the host itself",
            plain("127.0.0.1"),
            Outcome::PassIcmp,
        ),
        (
            "from an IPv6 multicast address",
            plain6("ff02::1"),
            Outcome::PassIcmp,
        ),
        ("from no IPv6 address", plain6("::"), Outcome::PassIcmp),
        (
            "from the IPv6 host itself",
            plain6("::1"),
            Outcome::PassIcmp,
        ),
        (
            "with options",
            with_ipv4_options(plain(CLIENT_V4), &[1; 4]),
            Outcome::PassIcmp,
        ),
        (
            "in fragments",
            as_fragment(plain(CLIENT_V4), 0, true),
            Outcome::PassFragment,
        ),
        (
            "with a code",
            icmp((ip(CLIENT_V4), ip(VIP_V4)), [8, 1], [0; 4], b"ping"),
            Outcome::PassIcmp,
        ),
        (
            "an echo reply",
            icmp((ip(CLIENT_V4), ip(VIP_V4)), [0, 0], [0; 4], b"ping"),
            Outcome::PassIcmp,
        ),
        (
            "for another address",
            icmp((ip(CLIENT_V4), ip("192.0.2.99")), [8, 0], [0; 4], b"ping"),
            Outcome::PassProtocol,
        ),
        (
            "for another IPv6 address",
            icmp(
                (ip(CLIENT_V6), ip("2001:db8:a::99")),
                [128, 0],
                [0; 4],
                b"ping",
            ),
            Outcome::PassProtocol,
        ),
    ] {
        let ran = rig.run(Side::Client, &frame).unwrap();
        println!("{name}: {:?}", ran.outcome);
        assert_untouched(&ran, Action::Pass, outcome, &frame);
    }
    // On the backend side the kernel answers.
    for (client, vip, request, _) in families() {
        let frame = icmp((client, vip), request, [0; 4], b"ping");
        let ran = rig.run(Side::Backend, &frame).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
    }
}

/// Without these the gateway would not be found on its own links.
#[test]
fn neighbour_discovery_passes() {
    require_root!();
    let mut rig = rig(u32::MAX);
    for kind in 133..=137 {
        for (to, outcome) in [
            (VIP_V6, Outcome::PassIcmp),
            ("ff02::1:ff00:10", Outcome::PassProtocol),
        ] {
            let frame = icmp((ip("fe80::1"), ip(to)), [kind, 0], [0; 4], &[0xfe; 24]);
            for side in [Side::Client, Side::Backend] {
                let ran = rig.run(side, &frame).unwrap();
                assert_untouched(&ran, Action::Pass, outcome, &frame);
            }
        }
    }
}

/// Policy `drop` is for ports; ICMP has none.
#[test]
fn icmp_is_not_unpublished() {
    require_root!();
    let mut rig = rig(u32::MAX);
    rig.gateway.unpublished_ports = lbagent::plan::UnpublishedPorts::Drop;
    rig.reconcile().unwrap();
    let frame = icmp((ip(CLIENT_V4), ip(VIP_V4)), [13, 0], [0; 4], &[0; 12]);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
}
