//! Outer headers, as a gateway puts them before a packet.

use std::net::IpAddr;

const ETHERNET_LEN: usize = 14;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_OPTIONS: u8 = 60;
const TTL: u8 = 64;

/// What lies between the outer and the inner IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// UDP to this port.
    GueVariant1 {
        /// Destination port.
        port: u16,
    },
    /// UDP to this port, and a GUE header.
    GueVariant0 {
        /// Destination port.
        port: u16,
        /// Words of options behind the header, without flags.
        options: u8,
    },
}

/// The outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Congestion bits.
    pub ecn: u8,
    /// Words of IPv4 options, or units of 8 bytes of an IPv6 options header.
    pub options: u8,
}

impl Outer {
    /// A header without options.
    ///
    /// # Panics
    ///
    /// On what is no address.
    #[track_caller]
    pub fn new(source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("address {text}"));
        Self {
            source: address(source),
            destination: address(destination),
            ecn: 0,
            options: 0,
        }
    }
}

/// Encapsulates the IP packet of an untagged Ethernet frame; its link addresses stay.
pub fn encapsulate(frame: &[u8], outer: &Outer, encapsulation: Encapsulation) -> Vec<u8> {
    let (ethernet, inner) = frame.split_at(ETHERNET_LEN);
    let inner_protocol = match inner[0] >> 4 {
        4 => PROTOCOL_IPV4,
        _ => PROTOCOL_IPV6,
    };
    let (protocol, payload) = match encapsulation {
        Encapsulation::Ipip => (inner_protocol, inner.to_vec()),
        Encapsulation::GueVariant1 { port } => (PROTOCOL_UDP, udp(port, &[inner])),
        Encapsulation::GueVariant0 { port, options } => {
            let header = [options, inner_protocol, 0, 0];
            let rest = vec![0xee; usize::from(options) * 4];
            (PROTOCOL_UDP, udp(port, &[&header, &rest, inner]))
        }
    };
    let mut out = ethernet[..12].to_vec();
    let (ethertype, header) = match (outer.source, outer.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (0x0800_u16, ipv4(outer, protocol, payload.len())),
        (IpAddr::V6(_), IpAddr::V6(_)) => (0x86dd, ipv6(outer, protocol, payload.len())),
        _ => panic!("an outer header of two families: {outer:?}"),
    };
    out.extend(ethertype.to_be_bytes());
    out.extend(header);
    out.extend(payload);
    out
}

/// Without a checksum (RFC 768; over IPv6, RFC 6935).
fn udp(port: u16, parts: &[&[u8]]) -> Vec<u8> {
    let payload = parts.concat();
    let mut out = 40_000_u16.to_be_bytes().to_vec();
    out.extend(port.to_be_bytes());
    out.extend((8 + payload.len() as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

fn ipv4(outer: &Outer, protocol: u8, payload_len: usize) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (outer.source, outer.destination) else {
        unreachable!("the caller compared the families");
    };
    let header_len = 20 + usize::from(outer.options) * 4;
    let total_len = (header_len + payload_len) as u16;
    let mut header = vec![0x45 + outer.options, outer.ecn];
    header.extend(total_len.to_be_bytes());
    header.extend([0, 0, 0x40, 0, TTL, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    // "No operation".
    header.resize(header_len, 1);
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn ipv6(outer: &Outer, protocol: u8, payload_len: usize) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (outer.source, outer.destination) else {
        unreachable!("the caller compared the families");
    };
    let options_len = usize::from(outer.options) * 8;
    let next = if outer.options == 0 {
        protocol
    } else {
        PROTOCOL_OPTIONS
    };
    let mut header = vec![0x60, outer.ecn << 4, 0, 0];
    header.extend(((options_len + payload_len) as u16).to_be_bytes());
    header.extend([next, TTL]);
    header.extend(source.octets());
    header.extend(destination.octets());
    if outer.options > 0 {
        // Encapsulation limit 4 (RFC 2473, section 4.1.1), then padding of one byte each.
        header.extend([protocol, outer.options - 1, 4, 1, 4]);
        header.resize(40 + options_len, 0);
    }
    header
}

/// The Internet checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
