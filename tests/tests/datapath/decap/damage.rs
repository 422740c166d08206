//! Random packets: foreign ones never change, damaged ones lose their outer header or nothing.

use super::*;

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
            frame[index] = random.next_u64() as u8;
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
    let mut random = Random::new(11);
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
    let mut random = Random::new(12);
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
            frame[index] = random.next_u64() as u8;
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
