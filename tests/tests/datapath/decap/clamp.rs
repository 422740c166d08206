//! What leaves: the segment size in SYNs, and nothing else.

use super::*;

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
    let mut random = Random::new(13);
    for number in 0..repetitions(20_000) {
        let mut frame = syn("192.0.2.10", true, &[&full[..], &[1; 12]].concat());
        // The source is no VIP any more; everything else may be damaged.
        frame[26] = 193;
        for _ in 0..random.below(6) {
            let index = random.below(frame.len());
            if index >= 16 && index != 26 {
                frame[index] = random.next_u64() as u8;
            }
        }
        frame.truncate(54.max(random.below(frame.len() + 1)));
        let (action, out) = rig.clamp(&frame);
        assert_eq!((action, &out), (TC_ACT_UNSPEC, &frame), "packet {number}");
    }
}
