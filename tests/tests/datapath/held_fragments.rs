//! Fragments that overtake the first one of their datagram: the programs hand them to the agent,
//! whose own code lets them go when the first one has come.

use std::net::SocketAddr;
use std::time::Duration;

use lbagent::dataplane::HeldFrame;
use lbagent::desired::{ForwardingMode, Transport};
use lbagent::fragments::{Gate, Holder};
use lbagent_common::{FragmentKey, HeldFragment, Outcome};
use lbagent_tests::outer::{Peeled, peel};
use lbagent_tests::packet_builder::{
    Segment, as_fragment, describe, fragments, reassemble, tcp, udp, with_tags,
};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Ran, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;
use nix::time::ClockId;

use crate::{assert_untouched, at};

/// Bytes behind the IP header of a fragment; outer headers and tags fit beside it into 1500.
const MOST: usize = 1_400;
const MODES: [ForwardingMode; 4] = [
    ForwardingMode::Nat,
    ForwardingMode::DsrL2,
    ForwardingMode::DsrIpip,
    ForwardingMode::DsrGue,
];
const TAGS: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 6)], &[(0x88a8, 5), (0x8100, 6)]];

fn rig(mode: ForwardingMode) -> Rig {
    let mut rig = Rig::new().unwrap();
    // Ports stay in all modes but `nat`.
    let (http, dns) = match mode {
        ForwardingMode::Nat => (8080, 5353),
        _ => (80, 53),
    };
    let services = [(80, http, Transport::Tcp), (53, dns, Transport::Udp)];
    let group = rig.group("bulk", &services);
    rig.set_mode(group, mode);
    for host in 11..14 {
        let addresses = [format!("10.66.0.{host}"), format!("fd66::{host}")];
        let addresses = addresses.each_ref().map(String::as_str);
        rig.instance(&format!("b{host}"), group, &addresses)
            .unwrap();
    }
    rig.reconcile().unwrap();
    rig
}

fn payload() -> Vec<u8> {
    (0..4_000_u32).map(|index| (index * 7) as u8).collect()
}

fn ends() -> [[SocketAddr; 2]; 2] {
    [
        [
            at(&format!("{CLIENT_V4}:4000")),
            at(&format!("{VIP_V4}:53")),
        ],
        [
            at(&format!("[{CLIENT_V6}]:4000")),
            at(&format!("[{VIP_V6}]:53")),
        ],
    ]
}

/// Datagrams of clients for VIPs, both families and protocols.
fn datagrams() -> Vec<Vec<u8>> {
    let payload = payload();
    let both = |[client, vip]: [SocketAddr; 2]| {
        let http = SocketAddr::new(vip.ip(), 80);
        [
            udp(client, vip, &payload),
            tcp(client, http, Segment::Ack, &payload),
        ]
    };
    ends().into_iter().flat_map(both).collect()
}

/// The rig as a holder sees it: what is sent runs through the program by hand, so that the test sees
/// what comes out.
struct Hand {
    rig: Rig,
    ran: Vec<Ran>,
}

impl Gate for Hand {
    fn pop(&mut self) -> Option<HeldFrame> {
        self.rig.dataplane.maps_mut().held.as_mut().unwrap().pop()
    }

    fn is_decided(&mut self, key: &FragmentKey) -> bool {
        let maps = self.rig.dataplane.maps_mut();
        maps.held.as_ref().unwrap().is_decided(key).unwrap()
    }

    fn send(&mut self, frame: &HeldFrame) -> bool {
        self.ran
            .push(self.rig.run(Side::Client, &frame.frame).unwrap());
        true
    }
}

/// The agent's holder on a rig.
struct Held {
    holder: Holder<Hand>,
}

impl Held {
    fn new(rig: Rig, capacity: usize) -> Self {
        let ran = Vec::new();
        Self {
            holder: Holder::new(Hand { rig, ran }, capacity),
        }
    }

    fn run(&mut self, frame: &[u8]) -> Ran {
        self.holder.gate().rig.run(Side::Client, frame).unwrap()
    }

    #[track_caller]
    fn assert_held(&mut self, frame: &[u8]) {
        let ran = self.run(frame);
        assert_untouched(&ran, Action::Drop, Outcome::HoldFragment, frame);
    }

    /// Has the holder work as if so much time had passed; returns what it sent.
    fn pass(&mut self, time: Duration) -> Vec<Ran> {
        let now = Duration::from(ClockId::CLOCK_MONOTONIC.now().unwrap()) + time;
        self.holder.pass(now.as_nanos() as u64);
        std::mem::take(&mut self.holder.gate().ran)
    }
}

/// Looks are put off for no longer, and with the real time that a test takes this is no deadline.
const LATER: Duration = Duration::from_millis(1_500);

#[track_caller]
fn assert_arrived(mode: ForwardingMode, sent: &[Vec<u8>], arrived: &[Vec<u8>], datagram: &[u8]) {
    match mode {
        ForwardingMode::Nat => {
            let whole = describe(&reassemble(arrived).unwrap()).expect("right checksums");
            assert_eq!(whole.payload, payload());
            assert!([8080, 5353].contains(&whole.destination.port()));
            assert_eq!(whole.source, describe(datagram).unwrap().source);
        }
        ForwardingMode::DsrL2 => {
            let first = &arrived[0];
            for (sent, arrived) in sent.iter().zip(arrived) {
                assert_eq!(sent[12..], arrived[12..]);
                assert_eq!(arrived[..6], first[..6], "all fragments go to one backend");
                assert_ne!(sent[..6], arrived[..6]);
            }
        }
        ForwardingMode::DsrIpip | ForwardingMode::DsrGue => {
            let path = |it: &Peeled| (it.mac_destination, it.destination, it.udp, it.label);
            let first = peel(&arrived[0]).unwrap();
            for (sent, arrived) in sent.iter().zip(arrived) {
                let peeled = peel(arrived).unwrap();
                assert_eq!(peeled.inner, sent[14..]);
                assert_eq!(path(&peeled), path(&first), "all fragments go one way");
            }
        }
    }
}

/// In order, and with the first fragment last: the same frames leave.
#[test]
fn fragments_follow_the_first_one_in_every_mode_whenever_they_come() {
    require_root!();
    for mode in MODES {
        let mut held = Held::new(rig(mode), 64);
        for (number, datagram) in datagrams().into_iter().enumerate() {
            let number = 2 * number as u16;
            let in_order = fragments(&datagram, MOST, number);
            let mut arrived = Vec::new();
            for fragment in &in_order {
                let ran = held.run(fragment);
                assert_eq!(ran.outcome, Outcome::ForwardRedirect, "{mode}");
                arrived.push(ran.frame);
            }
            assert_eq!(arrived.len(), 3);
            assert_arrived(mode, &in_order, &arrived, &datagram);

            for (index, tags) in TAGS.into_iter().enumerate() {
                let identification = 1_000 + 10 * number + index as u16;
                let pieces = fragments(&datagram, MOST, identification);
                let tagged = |piece: &Vec<u8>| with_tags(piece.clone(), tags);
                let [first, later @ ..] = &pieces[..] else {
                    panic!("no fragments")
                };
                for piece in later.iter().rev() {
                    held.assert_held(&tagged(piece));
                }
                assert!(held.pass(Duration::ZERO).is_empty(), "{mode}: too early");
                let ran = held.run(&tagged(first));
                assert_eq!(ran.outcome, Outcome::ForwardRedirect, "{mode}");
                let released = held.pass(LATER);
                assert_eq!(released.len(), later.len(), "{mode} {tags:?}");
                // What the same fragments become where they come after the first one.
                for (released, piece) in released.iter().zip(later.iter().rev()) {
                    assert_eq!(released.outcome, Outcome::ForwardRedirect, "{mode}");
                    let followed = held.run(&tagged(piece));
                    assert_eq!(released, &followed, "{mode} {tags:?}");
                }
                if tags.is_empty() {
                    let rest = released.into_iter().rev().map(|ran| ran.frame);
                    let all: Vec<_> = std::iter::once(ran.frame).chain(rest).collect();
                    assert_arrived(mode, &pieces, &all, &datagram);
                }
            }
        }
    }
}

/// What is for a VIP address but not balanced is the host's, also out of order.
#[test]
fn fragments_of_what_passes_wait_and_pass() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    for [client, vip] in ends() {
        let datagram = udp(client, SocketAddr::new(vip.ip(), 500), &payload());
        let pieces = fragments(&datagram, MOST, 7);
        for piece in &pieces[1..] {
            held.assert_held(piece);
        }
        let first = held.run(&pieces[0]);
        assert_eq!(first.action, Action::Pass);
        let released = held.pass(LATER);
        assert_eq!(released.len(), 2);
        for (ran, piece) in released.iter().zip(&pieces[1..]) {
            assert_untouched(ran, Action::Pass, Outcome::PassFragment, piece);
        }
    }
}

/// RFC 1858 holds for what waited, too.
#[test]
fn overlapping_fragments_are_dropped_when_they_are_let_go() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    let [client, vip] = ends()[0];
    let http = SocketAddr::new(vip.ip(), 80);
    let pieces = fragments(&tcp(client, http, Segment::Ack, &payload()), MOST, 8);
    let overlapping = as_fragment(pieces[1].clone(), 1, true);
    held.assert_held(&overlapping);
    held.run(&pieces[0]);
    let released = held.pass(LATER);
    assert_eq!(released.len(), 1);
    let ran = &released[0];
    assert_untouched(ran, Action::Drop, Outcome::DropFragment, &overlapping);
}

#[test]
fn a_first_fragment_that_is_too_late_finds_nothing() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    let pieces = fragments(&datagrams()[0], MOST, 9);
    held.assert_held(&pieces[1]);
    held.pass(Duration::ZERO);
    held.pass(Duration::from_secs(3));
    held.run(&pieces[0]);
    assert!(held.pass(LATER).is_empty());
    let counters = held.holder.counters();
    let expired = counters.expired.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(expired, 1);
}

/// More wait than there is room for: the newest are kept.
#[test]
fn a_full_store_gives_the_oldest_up() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 4);
    let datagram = &datagrams()[0];
    let all: Vec<_> = (0..6)
        .map(|number| fragments(datagram, MOST, number))
        .collect();
    for pieces in &all {
        held.assert_held(&pieces[1]);
    }
    held.pass(Duration::ZERO);
    for pieces in &all {
        held.run(&pieces[0]);
    }
    let released = held.pass(LATER);
    let expected: Vec<_> = all[2..].iter().map(|pieces| held.run(&pieces[1])).collect();
    assert_eq!(released, expected);
}

/// While nobody empties the ring, the programs do no more than fill it.
#[test]
fn a_full_ring_drops() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    let piece = &fragments(&datagrams()[0], MOST, 10)[1];
    let mut count = 0;
    let dropped = loop {
        let ran = held.run(piece);
        if ran.outcome != Outcome::HoldFragment {
            break ran;
        }
        count += 1;
    };
    assert_untouched(&dropped, Action::Drop, Outcome::DropFragment, piece);
    assert!((400..520).contains(&count), "room for {count}");
    let mut taken = 0;
    while let Some(frame) = held.holder.gate().pop() {
        assert_eq!(&frame.frame, piece);
        taken += 1;
    }
    assert_eq!(taken, count);
    held.assert_held(piece);
}

#[test]
fn frames_are_held_up_to_a_length() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    let [client, vip] = ends()[0];
    let datagram = udp(client, vip, &[7; 6_000]);
    let longest = HeldFragment::LONGEST as usize;
    for (most, tags) in [
        (2_008, TAGS[1]),
        (2_008, TAGS[2]),
        (2_016, TAGS[1]),
        (2_016, TAGS[0]),
    ] {
        let piece = with_tags(fragments(&datagram, most, 11)[1].clone(), tags);
        let outcome = if piece.len() <= longest {
            Outcome::HoldFragment
        } else {
            Outcome::DropFragment
        };
        let ran = held.run(&piece);
        assert_untouched(&ran, Action::Drop, outcome, &piece);
        if outcome == Outcome::HoldFragment {
            assert_eq!(held.holder.gate().pop().unwrap().frame, piece);
        }
    }
}

/// Replies can't wait: a later fragment does not say whether it is one. So it passes, as foreign ones
/// do; and what a backend sends to a VIP out of order is dropped.
#[test]
fn nothing_from_the_backend_side_waits() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    let payload = payload();
    for ([client, vip], backend) in ends().into_iter().zip(["10.66.0.12", "[fd66::12]"]) {
        let backend = at(&format!("{backend}:5353"));
        for (source, destination, outcome, action) in [
            (backend, client, Outcome::PassFragment, Action::Pass),
            (backend, vip, Outcome::DropFragment, Action::Drop),
        ] {
            let piece = &fragments(&udp(source, destination, &payload), MOST, 12)[1];
            let rig = &mut held.holder.gate().rig;
            let ran = rig.run(Side::Backend, piece).unwrap();
            assert_untouched(&ran, action, outcome, piece);
        }
    }
    assert!(held.holder.gate().pop().is_none());
}

/// Fragments for addresses that are no VIP's pass untouched, in any order.
#[test]
fn foreign_fragments_do_not_wait() {
    require_root!();
    let mut held = Held::new(rig(ForwardingMode::Nat), 64);
    for ([client, _], other) in ends().into_iter().zip(["192.0.2.99", "[2001:db8:f::1]"]) {
        let datagram = udp(client, at(&format!("{other}:53")), &payload());
        for tags in TAGS {
            for piece in fragments(&datagram, MOST, 13).iter().rev() {
                let piece = with_tags(piece.clone(), tags);
                let ran = held.run(&piece);
                assert_eq!((ran.action, &ran.frame), (Action::Pass, &piece));
            }
        }
    }
    assert!(held.holder.gate().pop().is_none());
}
