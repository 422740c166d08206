//! Damaged ICMP of all kinds: what passes is unchanged, and whatever is sent keeps its length.

use lbagent::desired::Transport;
use lbagent_tests::packet_builder::{Segment, icmp, tcp, udp, with_ipv4_options};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use crate::at;
use lbagent_tests::random::Random;

fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "web",
        &[(80, 8080, Transport::Tcp), (53, 53, Transport::Udp)],
    );
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    rig.reconcile().unwrap();
    rig
}

/// A message that may be about a balanced flow, damaged in up to five bytes and cut off now and then.
fn damaged(random: &mut Random, side: Side, to_vip: bool) -> Vec<u8> {
    let (host, vip, backend) = if random.below(2) == 0 {
        (
            format!("{CLIENT_V4}:4000"),
            format!("{VIP_V4}:80"),
            "10.66.0.11:8080".to_owned(),
        )
    } else {
        (
            format!("[{CLIENT_V6}]:4000"),
            format!("[{VIP_V6}]:80"),
            "[fd66::11]:8080".to_owned(),
        )
    };
    let (host, vip, backend) = (at(&host), at(&vip), at(&backend));
    let payload = vec![0xab; random.below(60)];
    // Towards a VIP an error is about what it sent, towards a client about what went to a backend.
    let (from, to) = if to_vip { (vip, host) } else { (host, backend) };
    let mut quoted = match random.below(2) {
        0 => tcp(from, to, Segment::Ack, &payload),
        _ => udp(from, to, &payload),
    };
    if host.is_ipv4() {
        quoted = with_ipv4_options(quoted, &[1; 40][..4 * random.below(11)]);
    }
    let kinds: &[u8] = if host.is_ipv4() {
        &[0, 3, 3, 4, 5, 8, 11, 12, 13, 17]
    } else {
        &[1, 2, 3, 4, 100, 127, 128, 129, 134, 135, 137]
    };
    let kind = [kinds[random.below(kinds.len())], random.below(6) as u8];
    let rest = (random.next_u64() as u32).to_be_bytes();
    let destination = if to_vip { vip } else { from };
    let mut frame = icmp((host.ip(), destination.ip()), kind, rest, &quoted[14..]);
    if host.is_ipv4() {
        frame = with_ipv4_options(frame, &[1; 40][..4 * random.below(11)]);
    }
    for _ in 0..random.below(6) {
        let index = 14 + random.below(frame.len() - 14);
        frame[index] = random.next_u64() as u8;
    }
    if random.below(4) == 0 {
        // The kernel makes no test run of a TC program on less than an IPv6 header.
        let least = match side {
            Side::Client => 14,
            Side::Backend => 54,
        };
        frame.truncate(least.max(random.below(frame.len())));
    }
    frame
}

#[test]
fn damaged_icmp_is_sent_or_left_alone() {
    require_root!();
    let mut rig = rig();
    let mut random = Random::new(4);
    let packets = repetitions(20_000);
    let before: u64 = rig.outcomes().unwrap().values().sum();
    let (mut sent, mut passed) = (0, 0);
    for number in 0..packets {
        let side = [Side::Client, Side::Backend][random.below(2)];
        let to_vip = random.below(2) == 0;
        let frame = damaged(&mut random, side, to_vip);
        let (action, out) = rig.run_uncounted(side, &frame).unwrap();
        match action {
            Action::Pass => {
                passed += 1;
                assert_eq!(out, frame, "{side:?} packet {number} was changed");
            }
            // Dropped over the limit of answers.
            Action::Drop => assert_eq!(out, frame, "{side:?} packet {number} was changed"),
            Action::Transmit | Action::Redirect => {
                sent += 1;
                assert_eq!(out.len(), frame.len(), "{side:?} packet {number}");
            }
        }
    }
    assert!(
        sent > packets / 20 && passed > packets / 20,
        "{sent} sent, {passed} passed"
    );
    let after: u64 = rig.outcomes().unwrap().values().sum();
    assert_eq!(after - before, u64::from(packets), "one reason a packet");
}
