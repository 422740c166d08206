//! What passes as it came: cut and lying packets, and what is for somebody else.

use super::*;

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
