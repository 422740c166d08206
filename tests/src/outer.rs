//! What an encapsulated packet says, read by a parser that is not ours.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};

const ETHERNET_LEN: usize = 14;

/// Outer headers of a frame, and what they carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeled {
    /// Link destination.
    pub mac_destination: [u8; 6],
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// Type of service or traffic class.
    pub class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: whether it may not be fragmented.
    pub dont_fragment: bool,
    /// IPv4: identification; IPv6: flow label.
    pub label: u32,
    /// What the outer IP header announces.
    pub protocol: IpNumber,
    /// Source port, destination port and checksum of a UDP header.
    pub udp: Option<(u16, u16, u16)>,
    /// The inner packet.
    pub inner: Vec<u8>,
}

/// Takes the outer headers of a frame apart.
///
/// # Errors
///
/// Says what is wrong: unparsable, a length that does not fit, a wrong header checksum.
pub fn peel(frame: &[u8]) -> Result<Peeled, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (ethernet, packet) = frame
        .split_at_checked(ETHERNET_LEN)
        .ok_or("no Ethernet header")?;
    let mut mac_destination = [0; 6];
    mac_destination.copy_from_slice(&ethernet[..6]);
    let mut peeled = match ethernet[12..] {
        [0x08, 0x00] => {
            let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| text(&error))?;
            let parsed = header.to_header();
            if parsed.calc_header_checksum() != parsed.header_checksum {
                return Err(format!(
                    "IPv4 header checksum {:#06x}",
                    parsed.header_checksum
                ));
            }
            let total = usize::from(header.total_len());
            let inner = packet.get(header.slice().len()..total);
            Peeled {
                mac_destination,
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                class: packet[1],
                ttl: header.ttl(),
                dont_fragment: header.dont_fragment(),
                label: header.identification().into(),
                protocol: header.protocol(),
                udp: None,
                inner: inner.ok_or("IPv4 total length")?.to_vec(),
            }
        }
        [0x86, 0xdd] => {
            let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| text(&error))?;
            let end = header.slice().len() + usize::from(header.payload_length());
            let inner = packet.get(header.slice().len()..end);
            Peeled {
                mac_destination,
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                class: header.traffic_class(),
                ttl: header.hop_limit(),
                dont_fragment: true,
                label: header.flow_label().value(),
                protocol: header.next_header(),
                udp: None,
                inner: inner.ok_or("IPv6 payload length")?.to_vec(),
            }
        }
        _ => return Err(format!("EtherType {:02x?}", &ethernet[12..])),
    };
    if peeled.protocol == IpNumber::UDP {
        peel_udp(&mut peeled)?;
    }
    Ok(peeled)
}

fn peel_udp(peeled: &mut Peeled) -> Result<(), String> {
    let header = UdpHeaderSlice::from_slice(&peeled.inner).map_err(|error| error.to_string())?;
    if usize::from(header.length()) != peeled.inner.len() {
        return Err(format!("UDP length {}", header.length()));
    }
    peeled.udp = Some((
        header.source_port(),
        header.destination_port(),
        header.checksum(),
    ));
    let len = header.slice().len();
    peeled.inner.drain(..len);
    Ok(())
}
