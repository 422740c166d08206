//! The programs of `lbagent decap`: what is taken off, what passes as it came, and what the MSS
//! becomes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::programs::{TestRun, TestRunOptions};
use lbagent::dataplane::decap::Decapsulator;
use lbagent_common::Port;
use lbagent_common::decap::DecapOutcome::{self, *};
use lbagent_common::decap::{DecapSettings, ROLE_HOST, ROLE_VIP};
use lbagent_tests::packet_builder::{
    Segment, as_fragment, describe, tcp, udp, with_ipv4_options, with_vlan,
};
use lbagent_tests::tunnel::{Encapsulation, Outer, encapsulate};
use lbagent_tests::{require_root, slowness::repetitions};

use crate::at;

const HOST_V4: &str = "10.66.0.11";
const HOST_V6: &str = "fd66::11";
const GATEWAY_V4: &str = "10.66.0.1";
const GATEWAY_V6: &str = "fd66::1";
const PORT: u16 = 6080;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

const ENCAPSULATIONS: [Encapsulation; 5] = [
    Encapsulation::Ipip,
    Encapsulation::GueVariant1 { port: PORT },
    Encapsulation::GueVariant0 {
        port: PORT,
        options: 0,
    },
    Encapsulation::GueVariant0 {
        port: PORT,
        options: 2,
    },
    Encapsulation::GueVariant0 {
        port: PORT,
        options: 31,
    },
];

struct Rig {
    programs: Decapsulator,
}

impl Rig {
    fn new() -> Self {
        Self::with(DecapSettings::MODE_IPIP | DecapSettings::MODE_GUE)
    }

    fn with(modes: u32) -> Self {
        let mut programs = Decapsulator::load().unwrap();
        let settings = DecapSettings {
            modes,
            gue_port: Port::new(PORT),
            mss_v4: 1412,
            mss_v6: 1392,
            ..DecapSettings::default()
        };
        let roles: BTreeMap<IpAddr, u32> = [
            (HOST_V4, ROLE_HOST),
            (HOST_V6, ROLE_HOST),
            ("192.0.2.10", ROLE_HOST | ROLE_VIP),
            ("2001:db8:a::10", ROLE_HOST | ROLE_VIP),
        ]
        .map(|(text, roles)| (text.parse().unwrap(), roles))
        .into();
        programs.configure(&settings, &roles).unwrap();
        Self { programs }
    }

    fn packets(&self) -> BTreeMap<DecapOutcome, u64> {
        let counters = self.programs.counters().unwrap();
        let packets =
            |(outcome, counter): (_, lbagent_common::PacketCounter)| (outcome, counter.packets);
        counters.into_iter().map(packets).collect()
    }

    fn counted<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> (T, DecapOutcome) {
        let before = self.packets();
        let done = run(self);
        let moved: Vec<_> = self
            .packets()
            .into_iter()
            .filter(|(outcome, packets)| before[outcome] != *packets)
            .collect();
        assert_eq!(moved.len(), 1, "a packet has one outcome, not {moved:?}");
        let (outcome, packets) = moved[0];
        assert_eq!(packets - before[&outcome], 1);
        (done, outcome)
    }

    fn decap(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        run(self.programs.decap_program().unwrap(), frame)
    }

    fn clamp(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        run(self.programs.clamp_program().unwrap(), frame)
    }

    #[track_caller]
    fn takes_off(&mut self, frame: &[u8], expected: &[u8], outcome: DecapOutcome, case: &str) {
        let ((action, out), counted) = self.counted(|rig| rig.decap(frame));
        assert_eq!((action, counted), (XDP_PASS, outcome), "{case}");
        assert_eq!(out, expected, "{case}");
    }

    #[track_caller]
    fn passes(&mut self, frame: &[u8], outcome: DecapOutcome, case: &str) {
        self.takes_off(frame, frame, outcome, case);
    }
}

fn run<P>(program: &P, frame: &[u8]) -> (u32, Vec<u8>)
where
    for<'a> P: TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
{
    let mut out = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// A client's packet to the VIP, of either family.
fn inner(v4: bool) -> Vec<u8> {
    if v4 {
        tcp(
            at("203.0.113.7:4000"),
            at("192.0.2.10:80"),
            Segment::Ack,
            b"payload",
        )
    } else {
        udp(
            at("[2001:db8:c::7]:4000"),
            at("[2001:db8:a::10]:53"),
            b"a question",
        )
    }
}

fn outer(v4: bool) -> Outer {
    if v4 {
        Outer::new(GATEWAY_V4, HOST_V4)
    } else {
        Outer::new(GATEWAY_V6, HOST_V6)
    }
}

fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for tag in 0..tags {
        frame = with_vlan(frame, 0x2064 + tag as u16);
    }
    if tags == 2 {
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
    }
    frame
}

fn expected(encapsulation: Encapsulation) -> DecapOutcome {
    match encapsulation {
        Encapsulation::Ipip => DecapIpip,
        _ => DecapGue,
    }
}

#[test]
fn every_mix_of_families_encapsulations_and_tags_is_taken_off() {
    require_root!();
    let mut rig = Rig::new();
    let mut cases = 0;
    for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        for encapsulation in ENCAPSULATIONS {
            for options in [0, 1, 2, 10] {
                for tags in 0..=2 {
                    let outer = Outer {
                        options,
                        ..outer(outer_v4)
                    };
                    let plain = inner(inner_v4);
                    let frame = encapsulate(&plain, &outer, encapsulation);
                    rig.takes_off(
                        &tagged(&frame, tags),
                        &tagged(&plain, tags),
                        expected(encapsulation),
                        &format!("{outer:?} {encapsulation:?} inner v4 {inner_v4}, {tags} tags"),
                    );
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 240);
}

#[test]
fn lengths_at_the_edge_are_right() {
    require_root!();
    let mut rig = Rig::new();
    // Ethernet pads short frames, and an outer packet may be longer than what it carries.
    let plain = inner(true);
    let padded = [plain.clone(), vec![0; 9]].concat();
    let mut frame = encapsulate(&plain, &outer(true), Encapsulation::Ipip);
    frame.extend([0; 9]);
    rig.takes_off(
        &frame,
        &padded,
        DecapIpip,
        "padding behind the outer packet",
    );
    let frame = encapsulate(&padded, &outer(true), Encapsulation::Ipip);
    rig.takes_off(
        &frame,
        &padded,
        DecapIpip,
        "padding behind the inner packet",
    );
    let plain = with_ipv4_options(inner(true), &[1; 40]);
    let frame = encapsulate(&plain, &outer(false), ENCAPSULATIONS[1]);
    rig.takes_off(&frame, &plain, DecapGue, "inner options");
    // More than one page takes the kernel several buffers.
    let plain = udp(at("203.0.113.7:9"), at("192.0.2.10:9"), &[7; 8000]);
    let frame = encapsulate(&plain, &outer(true), Encapsulation::Ipip);
    rig.takes_off(&frame, &plain, DecapIpip, "a jumbo frame");
}

#[test]
fn nested_tunnels_lose_one_header() {
    require_root!();
    let mut rig = Rig::new();
    let to_vip = Outer::new(GATEWAY_V4, "192.0.2.10");
    let once = encapsulate(&inner(true), &to_vip, Encapsulation::Ipip);
    let twice = encapsulate(&once, &outer(true), Encapsulation::Ipip);
    rig.takes_off(&twice, &once, DecapIpip, "two headers");
}

#[test]
fn cut_packets_pass_as_they_came() {
    require_root!();
    let mut rig = Rig::new();
    for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        for encapsulation in &ENCAPSULATIONS[..4] {
            for (tags, options) in [(0, 0), (1, 0), (2, 1)] {
                let outer = Outer {
                    options,
                    ..outer(outer_v4)
                };
                let frame = encapsulate(&inner(inner_v4), &outer, *encapsulation);
                let frame = tagged(&frame, tags);
                for length in 14..frame.len() {
                    let case = format!("{outer:?} {encapsulation:?} {tags} tags, cut to {length}");
                    // Before its EtherType is there, nothing is known of a packet.
                    let known = length >= 14 + tags * 4;
                    let outcome = if known { PassTruncated } else { PassForeign };
                    rig.passes(&frame[..length], outcome, &case);
                }
            }
        }
    }
}

/// Frames whose lengths contradict each other.
#[test]
fn lying_lengths_pass_as_they_came() {
    #[track_caller]
    fn check(rig: &mut Rig, case: &str, encapsulation: Encapsulation, changes: &[(usize, u8)]) {
        let mut frame = encapsulate(&inner(true), &outer(true), encapsulation);
        for (offset, byte) in changes {
            frame[*offset] = *byte;
        }
        rig.passes(&frame, PassTruncated, case);
    }
    require_root!();
    let mut rig = Rig::new();
    let (ipip, gue) = (ENCAPSULATIONS[0], ENCAPSULATIONS[1]);
    check(&mut rig, "outer header of 16 bytes", ipip, &[(14, 0x44)]);
    check(&mut rig, "outer longer than the frame", ipip, &[(17, 0xff)]);
    check(&mut rig, "outer shorter than the inner", ipip, &[(17, 66)]);
    check(&mut rig, "outer shorter than its header", ipip, &[(17, 19)]);
    check(&mut rig, "inner longer than the outer", ipip, &[(37, 0xff)]);
    check(&mut rig, "inner shorter than its header", ipip, &[(37, 19)]);
    check(&mut rig, "UDP longer than the outer", gue, &[(39, 0xff)]);
    check(&mut rig, "UDP without payload", gue, &[(39, 8)]);
    check(&mut rig, "UDP shorter than the inner", gue, &[(39, 40)]);
}

#[test]
fn what_is_not_ours_passes_as_it_came() {
    require_root!();
    let mut rig = Rig::new();
    let ours = |encapsulation| encapsulate(&inner(true), &outer(true), encapsulation);
    let (ipip, gue1, gue0) = (
        ours(ENCAPSULATIONS[0]),
        ours(ENCAPSULATIONS[1]),
        ours(ENCAPSULATIONS[2]),
    );
    let with = |frame: &[u8], offset: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[offset] = byte;
        frame
    };
    rig.passes(&inner(true), PassForeign, "a plain packet to the VIP");
    rig.passes(&inner(false), PassForeign, "a plain datagram to the VIP");
    rig.passes(&with(&ipip, 12, 0x86), PassForeign, "another EtherType");
    rig.passes(&with(&ipip, 23, 47), PassForeign, "GRE");
    rig.passes(&with(&gue1, 37, 0xc1), PassForeign, "another UDP port");
    rig.passes(&tagged(&tagged(&ipip, 2), 1), PassForeign, "three tags");
    rig.passes(
        &with(&ipip, 33, 12),
        PassOtherHost,
        "another outer destination",
    );
    rig.passes(
        &with(&gue1, 33, 12),
        PassOtherHost,
        "another outer destination",
    );
    rig.passes(
        &with(&ipip, 53, 11),
        PassNotVip,
        "another inner destination",
    );
    rig.passes(
        &with(&gue1, 61, 11),
        PassNotVip,
        "another inner destination",
    );
    rig.passes(&with(&ipip, 23, 41), PassNotIp, "IPv4 announced as IPv6");
    rig.passes(
        &with(&ipip, 34, 0x65),
        PassNotIp,
        "version 6 announced as IPv4",
    );
    rig.passes(
        &with(&ipip, 34, 0x44),
        PassNotIp,
        "an inner header of 16 bytes",
    );
    rig.passes(&with(&gue0, 43, 41), PassNotIp, "GUE announces IPv6");
    rig.passes(
        &with(&gue0, 42, 0x20),
        PassGueUnknown,
        "a GUE control message",
    );
    rig.passes(&with(&gue0, 43, 6), PassGueUnknown, "GUE with TCP");
    rig.passes(&with(&gue0, 44, 0x80), PassGueUnknown, "GUE flags");
    rig.passes(&with(&gue0, 45, 0x01), PassGueUnknown, "GUE private flags");
    rig.passes(&with(&gue1, 42, 0x55), PassGueUnknown, "version 5");
    rig.passes(&with(&gue1, 42, 0x85), PassGueUnknown, "GUE version 2");
    rig.passes(
        &as_fragment(ipip.clone(), 0, true),
        PassFragment,
        "a first fragment",
    );
    rig.passes(
        &as_fragment(ipip.clone(), 9, true),
        PassFragment,
        "a later fragment",
    );
    rig.passes(
        &as_fragment(gue1.clone(), 9, false),
        PassFragment,
        "a last fragment",
    );
    let mut fragment = encapsulate(&inner(true), &outer(false), ENCAPSULATIONS[0]);
    fragment[20] = 44;
    fragment[19] += 8;
    fragment.splice(54..54, [4, 0, 0, 1, 0, 0, 0, 9]);
    rig.passes(&fragment, PassFragment, "an IPv6 fragment");
}

#[test]
fn switched_off_encapsulations_pass() {
    require_root!();
    for (modes, off) in [
        (DecapSettings::MODE_IPIP, &ENCAPSULATIONS[1..]),
        (DecapSettings::MODE_GUE, &ENCAPSULATIONS[..1]),
    ] {
        let mut rig = Rig::with(modes);
        for encapsulation in ENCAPSULATIONS {
            let frame = encapsulate(&inner(false), &outer(true), encapsulation);
            let case = format!("{modes} {encapsulation:?}");
            if off.contains(&encapsulation) {
                rig.passes(&frame, PassForeign, &case);
            } else {
                rig.takes_off(&frame, &inner(false), expected(encapsulation), &case);
            }
        }
    }
}

#[test]
fn congestion_marks_are_handed_on() {
    /// Outer and inner bits, and what they become; `None` is dropped (RFC 6040, figure 4).
    const CASES: [(u8, u8, Option<u8>); 10] = [
        (0, 0, Some(0)),
        (0, 2, Some(2)),
        (2, 0, Some(0)),
        (2, 2, Some(2)),
        (1, 1, Some(1)),
        (0, 3, Some(3)),
        (3, 0, None),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ];
    let mark = |v4: bool, ecn: u8| {
        let plain = inner(v4);
        // Built as an outer header, so that its checksum is right.
        let shell = if v4 {
            Outer::new("203.0.113.7", "192.0.2.10")
        } else {
            Outer::new("2001:db8:c::7", "2001:db8:a::10")
        };
        encapsulate(&plain, &Outer { ecn, ..shell }, Encapsulation::Ipip)
    };
    require_root!();
    let mut rig = Rig::new();
    for (ecn, inner_ecn, becomes) in CASES {
        for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
            let outer = Outer {
                ecn,
                ..outer(outer_v4)
            };
            let frame = encapsulate(&mark(inner_v4, inner_ecn), &outer, Encapsulation::Ipip);
            let case = format!("{ecn} over {inner_ecn}, {outer_v4} {inner_v4}");
            match becomes {
                Some(ecn) => rig.takes_off(&frame, &mark(inner_v4, ecn), DecapIpip, &case),
                None => {
                    let ((action, out), outcome) = rig.counted(|rig| rig.decap(&frame));
                    assert_eq!((action, outcome), (XDP_DROP, DropCongestion), "{case}");
                    assert_eq!(out, frame, "{case}");
                }
            }
        }
    }
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

/// An encapsulated packet whose outer or inner destination is not ours, damaged elsewhere.
fn foreign(random: &mut Random) -> Vec<u8> {
    let inner_v4 = random.below(2) == 0;
    let outer_v4 = random.below(2) == 0;
    let encapsulation = ENCAPSULATIONS[random.below(ENCAPSULATIONS.len())];
    // Addresses that no single damaged bit field makes ours: their first byte differs.
    let plain = match (random.below(2) == 0, inner_v4) {
        (_, true) => udp(at("203.0.113.7:1"), at("198.18.0.1:2"), &[9; 30]),
        (_, false) => udp(at("[2001:db8::7]:1"), at("[fd01::1]:2"), &[9; 30]),
    };
    let outer = match outer_v4 {
        true => Outer::new(GATEWAY_V4, "172.16.0.1"),
        false => Outer::new(GATEWAY_V6, "fc00::1"),
    };
    let mut frame = encapsulate(&plain, &outer, encapsulation);
    let protected = if outer_v4 { 30..34 } else { 38..54 };
    for _ in 0..random.below(6) {
        let index = random.below(frame.len());
        // The first 14 bytes decide how the rest is read: damaging them moves the destination.
        if index >= 14 && !protected.contains(&index) {
            frame[index] = random.next() as u8;
        }
    }
    if random.below(4) == 0 {
        frame.truncate(14.max(random.below(frame.len())));
    }
    frame
}

#[test]
fn foreign_packets_never_change() {
    let packets = u64::from(repetitions(50_000));
    require_root!();
    let mut rig = Rig::new();
    let mut random = Random(11);
    let before: u64 = rig.packets().values().sum();
    for number in 0..packets {
        let frame = foreign(&mut random);
        let (action, out) = rig.decap(&frame);
        assert_eq!(action, XDP_PASS, "packet {number}: {frame:02x?}");
        assert_eq!(out, frame, "packet {number} was changed");
    }
    let after: u64 = rig.packets().values().sum();
    assert_eq!(after - before, packets, "one reason a packet");
}

/// Whatever happens to our own packets on the way, they are left alone or lose exactly what lies
/// before an inner packet for the VIP.
#[test]
fn damaged_packets_lose_their_outer_header_or_nothing() {
    let packets = u64::from(repetitions(60_000));
    require_root!();
    let mut rig = Rig::new();
    let mut random = Random(12);
    let vips: [&[u8]; 2] = [
        &[192, 0, 2, 10],
        &[
            0x20, 1, 0x0d, 0xb8, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ],
    ];
    let mut taken_off = 0;
    let before: u64 = rig.packets().values().sum();
    for number in 0..packets {
        let outer = Outer {
            options: random.below(3) as u8,
            ecn: random.below(4) as u8,
            ..outer(random.below(2) == 0)
        };
        let encapsulation = ENCAPSULATIONS[random.below(ENCAPSULATIONS.len())];
        let tags = random.below(3);
        let plain = inner(random.below(2) == 0);
        let mut frame = tagged(&encapsulate(&plain, &outer, encapsulation), tags);
        for _ in 0..random.below(4) {
            let index = random.below(frame.len());
            frame[index] = random.next() as u8;
        }
        if random.below(8) == 0 {
            frame.truncate(14.max(random.below(frame.len())));
        }
        let (action, out) = rig.decap(&frame);
        let case = format!("packet {number}: {frame:02x?}");
        if action == XDP_DROP {
            assert_eq!(out, frame, "{case}");
            continue;
        }
        assert_eq!(action, XDP_PASS, "{case}");
        if out == frame {
            continue;
        }
        taken_off += 1;
        assert_eq!(out[..12], frame[..12], "{case}");
        // A damaged EtherType may make the tags fewer than they were.
        let l3 = match (&out[12..14], &out[16..18]) {
            ([0x81, 0] | [0x88, 0xa8], [0x81, 0] | [0x88, 0xa8]) => 22,
            ([0x81, 0] | [0x88, 0xa8], _) => 18,
            _ => 14,
        };
        assert_eq!(out[12..l3 - 2], frame[12..l3 - 2], "{case}");
        let rest = &frame[frame.len() - (out.len() - l3)..];
        let (vip, is_v4) = match out[l3 - 2..l3] {
            [0x08, 0] => (&out[l3 + 16..l3 + 20], true),
            [0x86, 0xdd] => (&out[l3 + 24..l3 + 40], false),
            _ => panic!("{case}"),
        };
        assert!(vips.contains(&vip), "{case}");
        for (index, (new, old)) in out[l3..].iter().zip(rest).enumerate() {
            // The congestion bits may differ, and with them the checksum.
            let may_differ = index == 1 || is_v4 && (10..12).contains(&index);
            assert!(may_differ || new == old, "byte {index} of {case}");
        }
    }
    let after: u64 = rig.packets().values().sum();
    assert_eq!(after - before, packets, "one reason a packet");
    assert!(taken_off > packets / 4, "only {taken_off} were taken off");
}

/// A SYN or SYN-ACK with these TCP options.
fn syn(source: &str, answers: bool, options: &[u8]) -> Vec<u8> {
    use etherparse::PacketBuilder;
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let step = match source.parse().unwrap() {
        IpAddr::V4(source) => ethernet.ipv4(source.octets(), [203, 0, 113, 7], 64),
        IpAddr::V6(source) => ethernet.ipv6(source.octets(), [0xfd; 16], 64),
    };
    let step = step.tcp(80, 4000, 77, 65_000).syn();
    let step = if answers { step.ack(9) } else { step };
    let step = step.options_raw(options).unwrap();
    let mut frame = Vec::new();
    step.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn the_mss_is_lowered_wherever_it_stands() {
    /// Options before and after lowering.
    #[track_caller]
    fn check(rig: &mut Rig, source: &str, options: &[u8], becomes: Option<&[u8]>) {
        for answers in [true, false] {
            for tags in 0..=2 {
                let frame = syn(source, answers, options);
                let expected = syn(source, answers, becomes.unwrap_or(options));
                describe(&expected).expect("right checksums");
                let ((action, out), outcome) = rig.counted(|rig| rig.clamp(&tagged(&frame, tags)));
                let case = format!("{source} {options:?} {tags}");
                assert_eq!(action, TC_ACT_UNSPEC, "{case}");
                assert_eq!(out, tagged(&expected, tags), "{case}");
                let lowered = becomes.is_some();
                let counted = if lowered { ClampLowered } else { ClampKept };
                assert_eq!(outcome, counted, "{case}");
            }
        }
    }
    const V4: &str = "192.0.2.10";
    const V6: &str = "2001:db8:a::10";
    /// 1460, 1412, 1392.
    const FULL: [u8; 4] = [2, 4, 0x05, 0xb4];
    const LOW_V4: [u8; 4] = [2, 4, 0x05, 0x84];
    const LOW_V6: [u8; 4] = [2, 4, 0x05, 0x70];
    require_root!();
    let mut rig = Rig::new();
    for before in 0..=36 {
        // Single bytes, so that every offset occurs, the odd ones too.
        let padding = vec![1; before];
        let with = |mss: [u8; 4]| [&padding[..], &mss[..]].concat();
        check(&mut rig, V4, &with(FULL), Some(&with(LOW_V4)));
        check(&mut rig, V6, &with(FULL), Some(&with(LOW_V6)));
    }
    let linux = |mss: [u8; 4]| {
        let rest = [4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        [&mss[..], &rest[..]].concat()
    };
    check(&mut rig, V4, &linux(FULL), Some(&linux(LOW_V4)));
    let last = |mss: [u8; 4]| [&[8, 10, 2, 4, 5, 0xb4, 2, 4, 9, 9, 4, 2][..], &mss[..]].concat();
    check(&mut rig, V4, &last(FULL), Some(&last(LOW_V4)));
    check(&mut rig, V4, &linux(LOW_V4), None);
    check(&mut rig, V4, &[2, 4, 2, 0x18], None);
    check(&mut rig, V4, &[], None);
    check(&mut rig, V4, &[4, 2, 1, 1], None);
    // Behind the end of the options, and in options that make no sense.
    check(&mut rig, V4, &[0, 2, 4, 5, 0xb4, 0, 0, 0], None);
    check(&mut rig, V4, &[5, 0, 2, 4, 5, 0xb4, 0, 0], None);
    check(&mut rig, V4, &[5, 1, 2, 4, 5, 0xb4, 0, 0], None);
    check(&mut rig, V4, &[5, 255, 2, 4, 5, 0xb4, 0, 0], None);
    check(&mut rig, V4, &[2, 3, 5, 0xb4], None);
}

#[test]
fn other_outgoing_packets_pass_as_they_came() {
    #[track_caller]
    fn check(rig: &mut Rig, frame: &[u8], case: &str) {
        let ((action, out), outcome) = rig.counted(|rig| rig.clamp(frame));
        assert_eq!((action, outcome), (TC_ACT_UNSPEC, ClampForeign), "{case}");
        assert_eq!(out, frame, "{case}");
    }
    require_root!();
    let mut rig = Rig::new();
    let full = [2, 4, 0x05, 0xb4];
    check(&mut rig, &syn(HOST_V4, true, &full), "of the host itself");
    check(&mut rig, &syn("192.0.2.11", true, &full), "of no VIP");
    let (vip, client) = (at("192.0.2.10:80"), at("203.0.113.7:4000"));
    check(&mut rig, &tcp(vip, client, Segment::Ack, &full), "no SYN");
    check(&mut rig, &udp(vip, client, &full), "UDP");
    let mut random = Random(13);
    for number in 0..repetitions(20_000) {
        let mut frame = syn("192.0.2.10", true, &[&full[..], &[1; 12]].concat());
        // The source is no VIP any more; everything else may be damaged.
        frame[26] = 193;
        for _ in 0..random.below(6) {
            let index = random.below(frame.len());
            if index >= 16 && index != 26 {
                frame[index] = random.next() as u8;
            }
        }
        frame.truncate(54.max(random.below(frame.len() + 1)));
        let (action, out) = rig.clamp(&frame);
        assert_eq!((action, &out), (TC_ACT_UNSPEC, &frame), "packet {number}");
    }
}

/// The verifier's work stays small: backends run older kernels too.
#[test]
fn programs_are_small() {
    require_root!();
    let mut rig = Rig::new();
    let decap = rig.programs.decap_program().unwrap().info().unwrap();
    let clamp = rig.programs.clamp_program().unwrap().info().unwrap();
    for (name, info) in [("lb_decap", decap), ("lb_clamp", clamp)] {
        let verified = info.verified_instruction_count().unwrap();
        let translated = info.size_translated().unwrap();
        println!("{name}: {verified} instructions verified, {translated} bytes");
        assert!(
            verified < 50_000,
            "{name}: {verified} instructions verified"
        );
    }
}
