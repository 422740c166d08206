//! Frames for the data plane, and what a frame says.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// Link address of the sender in every built frame.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Link address of the gateway in every built frame.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// TTL or hop limit of every built frame.
pub const TTL: u8 = 64;

/// The part of a TCP header that decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens a connection.
    Syn,
    /// Answers a SYN.
    SynAck,
    /// Within a connection.
    Ack,
    /// Ends a connection.
    Fin,
    /// Breaks a connection.
    Rst,
}

/// Ethernet and IP headers of a frame from a client to the gateway.
pub(crate) fn write_ip(
    source: SocketAddr,
    destination: SocketAddr,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, GATEWAY_MAC);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet.ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                source: source.octets(),
                destination: destination.octets(),
                time_to_live: TTL,
                identification: 0x4c42,
                ..Default::default()
            },
            Default::default(),
        )),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet.ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                hop_limit: TTL,
                ..Default::default()
            },
            Default::default(),
        )),
        _ => panic!("a packet from {source} to {destination} would mix the families"),
    }
}

/// A TCP frame with right checksums.
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    segment: Segment,
    payload: &[u8],
) -> Vec<u8> {
    let step = write_ip(source, destination).tcp(source.port(), destination.port(), 1_000, 65_535);
    let step = match segment {
        Segment::Syn => step.syn(),
        Segment::SynAck => step.syn().ack(1),
        Segment::Ack => step.ack(1),
        Segment::Fin => step.fin().ack(1),
        Segment::Rst => step.rst(),
    };
    let mut frame = Vec::with_capacity(step.size(payload.len()));
    step.write(&mut frame, payload).expect("writing to memory");
    frame
}

/// A SYN with these bytes as options, a multiple of 4, and right checksums.
pub fn syn(source: SocketAddr, destination: SocketAddr, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let step = write_ip(source, destination).tcp(source.port(), destination.port(), 1_000, 65_535);
    let step = step
        .syn()
        .options_raw(options)
        .expect("options of a TCP header");
    let mut frame = Vec::with_capacity(step.size(payload.len()));
    step.write(&mut frame, payload).expect("writing to memory");
    frame
}

/// A UDP frame with right checksums.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let step = write_ip(source, destination).udp(source.port(), destination.port());
    let mut frame = Vec::with_capacity(step.size(payload.len()));
    step.write(&mut frame, payload).expect("writing to memory");
    frame
}

/// An ICMP frame of the addresses' family with right checksums: type, code, the four bytes behind the
/// checksum, and what follows.
pub fn icmp(
    (source, destination): (IpAddr, IpAddr),
    [kind, code]: [u8; 2],
    rest: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let step = write_ip(SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
    let mut frame = Vec::new();
    if source.is_ipv4() {
        let step = step.icmpv4_raw(kind, code, rest);
        step.write(&mut frame, payload)
    } else {
        let step = step.icmpv6_raw(kind, code, rest);
        step.write(&mut frame, payload)
    }
    .expect("writing to memory");
    frame
}

/// Whether the ICMP checksum of a frame without IP options holds, recomputed in full.
pub fn icmp_checksum_holds(frame: &[u8]) -> bool {
    let address = |range: std::ops::Range<usize>| -> IpAddr {
        IpAddr::V6(
            <[u8; 16]>::try_from(&frame[range])
                .expect("16 bytes")
                .into(),
        )
    };
    if frame[12..14] == [0x08, 0x00] {
        let mut covered = frame[34..].to_vec();
        covered.resize(covered.len().next_multiple_of(2), 0);
        ones_complement_sum(&covered) == 0xffff
    } else {
        transport_checksum_holds(address(22..38), address(38..54), 58, &frame[54..])
    }
}

/// Inserts an IPv6 fragment header: offset in units of 8 bytes, and whether more follow.
pub fn with_ipv6_fragment(mut frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let next = std::mem::replace(&mut frame[20], 44);
    frame.splice(54..54, [next, 0, high, low, 0, 0, 0, 7]);
    let len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

/// Inserts IPv4 options (a multiple of 4 bytes) and repairs length and header checksum.
pub fn with_ipv4_options(mut frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4) && options.len() <= 40);
    frame.splice(34..34, options.iter().copied());
    frame[14] = 0x40 | (5 + options.len() / 4) as u8;
    let total = u16::from_be_bytes([frame[16], frame[17]]) + options.len() as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    repair_ipv4_checksum(&mut frame);
    frame
}

/// Makes an IPv4 frame a fragment: offset in units of 8 bytes, and whether more follow.
pub fn as_fragment(mut frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | if more { 0x2000 } else { 0 };
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    repair_ipv4_checksum(&mut frame);
    frame
}

/// EtherType of an 802.1Q tag.
pub const VLAN_CUSTOMER: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const VLAN_SERVICE: u16 = 0x88a8;

/// Inserts an 802.1Q tag.
pub fn with_vlan(frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    with_tags(frame, &[(VLAN_CUSTOMER, vlan)])
}

/// Inserts VLAN tags, the outer one first: EtherType and content of each.
pub fn with_tags(mut frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    let bytes = tags
        .iter()
        .flat_map(|&(ethertype, content)| [ethertype, content])
        .flat_map(u16::to_be_bytes);
    frame.splice(12..12, bytes);
    frame
}

/// An IPv6 extension header: its number, and its bytes behind "next header" and length (6 and a
/// multiple of 8 more).
pub type Extension<'a> = (u8, &'a [u8]);

/// Inserts IPv6 extension headers and repairs the length.
pub fn with_extensions(mut frame: Vec<u8>, headers: &[Extension<'_>]) -> Vec<u8> {
    let numbers: Vec<u8> = headers
        .iter()
        .map(|&(number, _)| number)
        .chain([frame[20]])
        .collect();
    let mut bytes = Vec::new();
    for (&(_, content), next) in headers.iter().zip(&numbers[1..]) {
        assert_eq!(content.len() % 8, 6);
        bytes.extend([*next, ((content.len() - 6) / 8) as u8]);
        bytes.extend(content);
    }
    let len = u16::from_be_bytes([frame[18], frame[19]]) + bytes.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame[20] = numbers[0];
    frame.splice(54..54, bytes);
    frame
}

/// Splits an IP frame into fragments of at most that many bytes (a multiple of 8) behind the IP
/// header, extension headers included.
pub fn fragments(frame: &[u8], most: usize, identification: u16) -> Vec<Vec<u8>> {
    assert!(most.is_multiple_of(8));
    let is_v4 = frame[12..14] == [0x08, 0x00];
    let header = if is_v4 { 34 } else { 54 };
    let content = &frame[header..];
    let count = content.len().div_ceil(most);
    let piece = |(index, bytes): (usize, &[u8])| {
        let offset = (index * most / 8) as u16;
        let more = index + 1 < count;
        let mut piece = frame[..header].to_vec();
        if is_v4 {
            piece[16..18].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
            piece[18..20].copy_from_slice(&identification.to_be_bytes());
            piece.extend(bytes);
            as_fragment(piece, offset, more)
        } else {
            piece[18..20].copy_from_slice(&(8 + bytes.len() as u16).to_be_bytes());
            piece.extend([piece[20], 0]);
            piece[20] = 44;
            piece.extend((offset << 3 | u16::from(more)).to_be_bytes());
            piece.extend(u32::from(identification).to_be_bytes());
            piece.extend(bytes);
            piece
        }
    };
    content.chunks(most).enumerate().map(piece).collect()
}

/// Puts fragments together again, in any order: the whole frame, with the first fragment's link
/// and IP header.
///
/// # Errors
///
/// Says which bytes are missing, or that headers of the fragments differ.
pub fn reassemble(fragments: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let is_v4 = fragments[0][12..14] == [0x08, 0x00];
    let (header, start) = if is_v4 { (34, 34) } else { (54, 62) };
    let field = |frame: &[u8]| {
        if is_v4 {
            let field = u16::from_be_bytes([frame[20], frame[21]]);
            (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0)
        } else {
            let field = u16::from_be_bytes([frame[56], frame[57]]);
            (usize::from(field >> 3) * 8, field & 1 != 0)
        }
    };
    let mut sorted: Vec<&Vec<u8>> = fragments.iter().collect();
    sorted.sort_by_key(|frame| field(frame));
    let mut whole = sorted[0][..header].to_vec();
    for (index, frame) in sorted.iter().enumerate() {
        let (offset, more) = field(frame);
        if whole.len() - header != offset || more != (index + 1 < sorted.len()) {
            return Err(format!("fragment {index} at {offset}, more: {more}"));
        }
        let same = if is_v4 {
            frame[..16] == whole[..16] && frame[26..34] == whole[26..34]
        } else {
            frame[..18] == whole[..18] && frame[21..54] == whole[21..54]
        };
        if !same {
            return Err(format!("fragment {index} has another header"));
        }
        if is_v4 && ones_complement_sum(&frame[14..34]) != 0xffff {
            return Err(format!("fragment {index} has a wrong header checksum"));
        }
        whole.extend(&frame[start..]);
    }
    let len = (whole.len() - header) as u16;
    if is_v4 {
        whole[16..18].copy_from_slice(&(20 + len).to_be_bytes());
        Ok(as_fragment(whole, 0, false))
    } else {
        whole[18..20].copy_from_slice(&len.to_be_bytes());
        whole[20] = sorted[0][54];
        Ok(whole)
    }
}

/// Sets TTL or hop limit.
pub fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        frame[22] = ttl;
        repair_ipv4_checksum(&mut frame);
    } else {
        frame[21] = ttl;
    }
    frame
}

fn repair_ipv4_checksum(frame: &mut [u8]) {
    let header_len = usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].fill(0);
    let checksum = !ones_complement_sum(&frame[14..14 + header_len]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// What a TCP or UDP frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Link source.
    pub mac_source: [u8; 6],
    /// Link destination.
    pub mac_destination: [u8; 6],
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

/// Parses a frame and recomputes every checksum in it.
///
/// # Errors
///
/// Says what is wrong with the frame: unparsable, or which checksum is not what it should be.
pub fn describe(frame: &[u8]) -> Result<Described, String> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let Some(etherparse::LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
        return Err("no Ethernet header".into());
    };
    let (source, destination, ttl) = match &sliced.net {
        Some(NetSlice::Ipv4(ipv4)) => {
            let header = ipv4.header().to_header();
            if header.calc_header_checksum() != header.header_checksum {
                return Err(format!(
                    "IPv4 header checksum {:#06x}",
                    header.header_checksum
                ));
            }
            (
                IpAddr::from(header.source),
                IpAddr::from(header.destination),
                header.time_to_live,
            )
        }
        Some(NetSlice::Ipv6(ipv6)) => {
            let header = ipv6.header().to_header();
            (
                IpAddr::from(header.source),
                IpAddr::from(header.destination),
                header.hop_limit,
            )
        }
        _ => return Err("neither IPv4 nor IPv6".into()),
    };
    let (source_port, destination_port, payload) = transport(&sliced, source, destination)?;
    Ok(Described {
        mac_source: ethernet.source(),
        mac_destination: ethernet.destination(),
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
        ttl,
        payload,
    })
}

fn transport(
    sliced: &SlicedPacket<'_>,
    source: IpAddr,
    destination: IpAddr,
) -> Result<(u16, u16, Vec<u8>), String> {
    let (protocol, segment, ports, payload) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (
            6,
            tcp.slice(),
            (tcp.source_port(), tcp.destination_port()),
            tcp.payload(),
        ),
        Some(TransportSlice::Udp(udp)) => (
            17,
            udp.slice(),
            (udp.source_port(), udp.destination_port()),
            udp.payload(),
        ),
        _ => return Err("neither TCP nor UDP".into()),
    };
    let absent = protocol == 17 && source.is_ipv4() && segment[6..8] == [0, 0];
    if !absent && !transport_checksum_holds(source, destination, protocol, segment) {
        return Err(format!("wrong transport checksum of protocol {protocol}"));
    }
    Ok((ports.0, ports.1, payload.to_vec()))
}

/// RFC 1071 over the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) and the segment:
/// with a right checksum in place, the sum is all ones.
fn transport_checksum_holds(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    segment: &[u8],
) -> bool {
    let mut covered = Vec::with_capacity(40 + segment.len() + 1);
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => covered.extend(v4.octets()),
            IpAddr::V6(v6) => covered.extend(v6.octets()),
        }
    }
    covered.extend((segment.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(segment);
    if covered.len() % 2 == 1 {
        covered.push(0);
    }
    ones_complement_sum(&covered) == 0xffff
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
