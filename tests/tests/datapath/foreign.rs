//! Do no harm: what is not for a VIP leaves as it came, and every packet has one reason.

use lbagent::desired::Transport;
use lbagent_tests::packet_builder::{Segment, tcp, udp, with_ipv4_options, with_vlan};
use lbagent_tests::prog_run::{Action, CLIENT_V4, Rig, Side, VIP_V4};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use crate::at;

/// Packets of a run.
fn packets() -> u32 {
    repetitions(20_000)
}

/// A small deterministic generator (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

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

/// A well-formed frame to somewhere else, then damaged anywhere but in its destination.
fn foreign(random: &mut Random, side: Side) -> Vec<u8> {
    let client = at(&format!("{CLIENT_V4}:{}", 1 + random.below(65_000)));
    let to = at(&format!("192.0.2.{}:80", 100 + random.below(100)));
    let (client6, to6) = (at("[2001:db8:c::7]:9"), at("[2001:db8:f::1]:80"));
    let payload = vec![0xab; random.below(200)];
    let mut frame = match random.below(6) {
        0 => tcp(client, to, Segment::Syn, &payload),
        1 => udp(client, to, &payload),
        2 => tcp(client6, to6, Segment::Ack, &payload),
        3 => udp(client6, to6, &payload),
        4 => with_vlan(
            tcp(client, to, Segment::Ack, &payload),
            random.next() as u16,
        ),
        _ => with_ipv4_options(udp(client, to, &payload), &[1; 40][..4 * random.below(11)]),
    };
    let protected = match frame[12..14] {
        [0x08, 0x00] => 30..34,
        [0x86, 0xdd] => 38..54,
        _ => 0..0,
    };
    for _ in 0..random.below(6) {
        let index = random.below(frame.len());
        // The first 14 bytes decide how the rest is read: damaging them moves the destination.
        if index >= 14 && !protected.contains(&index) {
            frame[index] = random.next() as u8;
        }
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
fn foreign_packets_pass_unchanged_whatever_they_look_like() {
    require_root!();
    let mut rig = rig();
    let mut random = Random(1);
    let before: u64 = rig.outcomes().unwrap().values().sum();
    for side in [Side::Client, Side::Backend] {
        for number in 0..packets() {
            let frame = foreign(&mut random, side);
            let (action, out) = rig.run_uncounted(side, &frame).unwrap();
            assert_eq!(
                action,
                Action::Pass,
                "{side:?} packet {number}: {frame:02x?}"
            );
            assert_eq!(out, frame, "{side:?} packet {number} was changed");
        }
    }
    let after: u64 = rig.outcomes().unwrap().values().sum();
    assert_eq!(
        after - before,
        u64::from(packets()) * 2,
        "one reason a packet"
    );
}

#[test]
fn outcomes_add_up_to_the_packets_seen() {
    require_root!();
    let mut rig = rig();
    let mut random = Random(2);
    let before: u64 = rig.outcomes().unwrap().values().sum();
    for number in 0..packets() {
        let client = at(&format!("{CLIENT_V4}:{}", 1 + random.below(65_000)));
        let mut frame = match random.below(2) {
            0 => tcp(
                client,
                at(&format!("{VIP_V4}:80")),
                Segment::Ack,
                b"payload",
            ),
            _ => udp(client, at(&format!("{VIP_V4}:53")), b"payload"),
        };
        for _ in 0..random.below(4) {
            let index = random.below(frame.len());
            frame[index] = random.next() as u8;
        }
        let side = if number % 2 == 0 {
            Side::Client
        } else {
            Side::Backend
        };
        rig.run_uncounted(side, &frame).unwrap();
    }
    let after: u64 = rig.outcomes().unwrap().values().sum();
    assert_eq!(after - before, u64::from(packets()), "one reason a packet");
}
