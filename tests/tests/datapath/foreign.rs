//! Do no harm: what is not for a VIP leaves as it came, and every packet has one reason.

use lbagent::desired::Transport;
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use crate::at;
use crate::corpus::{SHORTEST_TC, SHORTEST_XDP, corpus, damage};
use lbagent_tests::random::Random;

/// Foreign packets of a run, through each program.
fn foreign_packets() -> u32 {
    repetitions(1_000_000)
}

/// Packets to VIPs of a run.
fn vip_packets() -> u32 {
    repetitions(200_000)
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

const SIDES: [(Side, usize); 2] = [(Side::Client, SHORTEST_XDP), (Side::Backend, SHORTEST_TC)];

/// Every length of every frame once, then frames with damage.
#[test]
fn foreign_packets_pass_unchanged_whatever_they_look_like() {
    require_root!();
    let mut rig = rig();
    let mut random = Random::new(1);
    let corpus = corpus(
        [at(&format!("{CLIENT_V4}:4000")), at("198.18.0.1:80")],
        [at(&format!("[{CLIENT_V6}]:4000")), at("[2001:db8:f::1]:53")],
    );
    let before: u64 = rig.outcomes().unwrap().values().sum();
    let mut sent = 0;
    for (side, shortest) in SIDES {
        let mut check = |frame: &[u8]| {
            let (action, out) = rig.run_uncounted(side, frame).unwrap();
            assert_eq!(action, Action::Pass, "{side:?}: {frame:02x?}");
            assert_eq!(out, frame, "{side:?}: a frame was changed");
            sent += 1;
        };
        for frame in &corpus {
            for len in shortest..=frame.len() {
                check(&frame[..len]);
            }
        }
        for _ in 0..foreign_packets() {
            let frame = &corpus[random.below(corpus.len())];
            check(&damage(&mut random, frame, shortest));
        }
    }
    let after: u64 = rig.outcomes().unwrap().values().sum();
    assert_eq!(after - before, sent, "one reason a packet");
}

/// Whatever happens to a packet for a VIP, it has one reason, and it is sent, answered or left as it
/// came: [`Rig::run_uncounted`] knows no other action.
#[test]
fn outcomes_add_up_to_the_packets_seen() {
    require_root!();
    let mut rig = rig();
    let mut random = Random::new(2);
    let mut frames = Vec::new();
    for port in [80, 53, 22] {
        frames.extend(corpus(
            [
                at(&format!("{CLIENT_V4}:4000")),
                at(&format!("{VIP_V4}:{port}")),
            ],
            [
                at(&format!("[{CLIENT_V6}]:4000")),
                at(&format!("[{VIP_V6}]:{port}")),
            ],
        ));
    }
    for port in [8080, 53] {
        frames.extend(corpus(
            [
                at(&format!("10.66.0.11:{port}")),
                at(&format!("{CLIENT_V4}:4000")),
            ],
            [
                at(&format!("[fd66::11]:{port}")),
                at(&format!("[{CLIENT_V6}]:4000")),
            ],
        ));
    }
    let before: u64 = rig.outcomes().unwrap().values().sum();
    let mut sent = 0_u64;
    let mut forwarded = 0_u64;
    for (side, shortest) in SIDES {
        for _ in 0..vip_packets() / 2 {
            let frame = &frames[random.below(frames.len())];
            let frame = damage(&mut random, frame, shortest);
            let (action, out) = rig.run_uncounted(side, &frame).unwrap();
            sent += 1;
            if action == Action::Redirect {
                forwarded += 1;
            } else if action == Action::Drop {
                assert_eq!(out, frame, "{side:?}: a dropped frame was changed");
            }
        }
    }
    let after: u64 = rig.outcomes().unwrap().values().sum();
    assert_eq!(after - before, sent, "one reason a packet");
    // Most shapes are not balanced on this side, but thousands reach the stages behind parsing.
    assert!(forwarded > sent / 50, "{forwarded} of {sent}");
}
