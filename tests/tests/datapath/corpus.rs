//! Frames of all shapes, and what damage makes of them.

use std::net::SocketAddr;

use lbagent_tests::packet_builder::{
    Segment, VLAN_CUSTOMER, VLAN_SERVICE, fragments, tcp, udp, with_extensions, with_ipv4_options,
    with_tags,
};

use lbagent_tests::random::Random;

/// The kernel makes no test run on less than an Ethernet header, and none of a TC program on less
/// than an IPv6 header.
pub const SHORTEST_XDP: usize = 14;
/// See [`SHORTEST_XDP`].
pub const SHORTEST_TC: usize = 54;

/// Offset of the EtherType, or of the first tag.
const ETHERTYPE: usize = 12;

/// Frames between these hosts: from and to, IPv4 and IPv6.
pub fn corpus(v4: [SocketAddr; 2], v6: [SocketAddr; 2]) -> Vec<Vec<u8>> {
    const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];
    const ATOMIC: &[u8] = &[0, 0, 0, 0, 0, 1];
    let payload: Vec<u8> = (0..90).collect();
    let mut frames = Vec::new();
    for [from, to] in [v4, v6] {
        for segment in [Segment::Syn, Segment::Ack, Segment::Rst] {
            frames.push(tcp(from, to, segment, &payload));
        }
        frames.push(udp(from, to, &payload));
        frames.extend(fragments(&udp(from, to, &payload), 40, 7));
        frames.extend(fragments(&tcp(from, to, Segment::Ack, &payload), 24, 8));
        for protocol in [
            0, 1, 2, 4, 41, 43, 44, 47, 50, 51, 58, 60, 89, 132, 135, 253,
        ] {
            let mut other = udp(from, to, &payload);
            other[if from.is_ipv4() { 23 } else { 20 }] = protocol;
            frames.push(other);
        }
        // Errors that quote a packet of the other direction: type, code, checksum, unused, quote.
        let (number, offset, kind) = if from.is_ipv4() {
            (1, 23, 3)
        } else {
            (58, 20, 1)
        };
        let mut quoting = udp(from, to, &[]);
        let quoted = tcp(to, from, Segment::Ack, b"12345678");
        quoting.truncate(quoting.len() - 8);
        quoting.extend([kind, 4, 0, 0, 0, 0, 5, 0]);
        quoting.extend(&quoted[14..]);
        quoting[offset] = number;
        let len = quoting.len() - 14;
        if from.is_ipv4() {
            quoting[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        } else {
            quoting[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        }
        frames.push(quoting);
    }
    for len in [4, 20, 40] {
        let plain = udp(v4[0], v4[1], &payload);
        frames.push(with_ipv4_options(plain, &[1; 40][..len]));
    }
    for chain in [
        &[(0, PADDING)][..],
        &[(60, PADDING), (43, PADDING)],
        &[(0, PADDING), (44, ATOMIC), (60, PADDING)],
        &[(60, PADDING); 7],
    ] {
        frames.push(with_extensions(udp(v6[0], v6[1], &payload), chain));
        let plain = tcp(v6[0], v6[1], Segment::Ack, &payload);
        frames.push(with_extensions(plain, chain));
    }
    let untagged = frames.clone();
    for (frame, tags) in untagged.iter().zip((1..=3).cycle()) {
        let tag = [
            (VLAN_SERVICE, 0x2064),
            (VLAN_CUSTOMER, 7),
            (VLAN_CUSTOMER, 8),
        ];
        frames.push(with_tags(frame.clone(), &tag[..tags]));
    }
    // ARP, LLDP, MPLS, PPPoE, EAPOL, an 802.3 length, and no type at all.
    for ethertype in [0x0806, 0x88cc, 0x8847, 0x8864, 0x888e, 0x0040, 0_u16] {
        let mut other = udp(v4[0], v4[1], &payload);
        other[ETHERTYPE..ETHERTYPE + 2].copy_from_slice(&ethertype.to_be_bytes());
        frames.push(other);
    }
    frames
}

/// Changes up to six bytes behind the link addresses, and cuts one frame of four off.
pub fn damage(random: &mut Random, frame: &[u8], shortest: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let numbers = random.next_u64();
    for _ in 0..numbers % 7 {
        let number = random.next_u64();
        // The headers, more often than the rest.
        let end = if number & 1 == 0 { 64 } else { frame.len() };
        let index = ETHERTYPE + (number >> 16) as usize % (end.min(frame.len()) - ETHERTYPE);
        frame[index] = (number >> 8) as u8;
    }
    if numbers & 0x30 == 0 {
        let len = (numbers >> 8) as usize % frame.len();
        frame.truncate(len.max(shortest));
    }
    frame
}
