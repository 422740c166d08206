//! The programs of `lbagent decap`: what is taken off, what passes as it came, and what the MSS
//! becomes.

mod clamp;
mod damage;
mod passes;

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
use lbagent_tests::random::Random;

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
