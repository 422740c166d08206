//! Tells the neighbours of a client interface that a VIP is here now, so that those who knew it
//! elsewhere do not wait for their caches to expire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::interfaces::Interface;
use super::syscalls::send_frame;

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Protocol number of ICMPv6.
const ICMPV6: u8 = 58;
/// All nodes of the link, `ff02::1`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Announces a VIP, as well as can be: neighbours that miss it ask again anyway.
pub(super) fn announce(vip: IpAddr, interface: &Interface) {
    let Some(mac) = interface.mac else { return };
    let frame = match vip {
        IpAddr::V4(vip) => arp_announcement(mac, vip),
        IpAddr::V6(vip) => neighbour_advertisement(mac, vip),
    };
    if let Err(error) = send_frame(interface.index, &frame) {
        tracing::debug!(%vip, ifindex = interface.index, %error, "cannot announce a VIP");
    }
}

/// An ARP request of the address for itself (RFC 5227, section 3).
fn arp_announcement(mac: [u8; 6], vip: Ipv4Addr) -> Vec<u8> {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    [
        &BROADCAST[..],
        &mac,
        &ETHERTYPE_ARP,
        &ETHERNET_IPV4_REQUEST,
        &mac,
        &vip.octets(),
        &[0; 6],
        &vip.octets(),
    ]
    .concat()
}

/// An unsolicited neighbour advertisement that overrides what is cached (RFC 4861, section 7.2.6).
fn neighbour_advertisement(mac: [u8; 6], vip: Ipv6Addr) -> Vec<u8> {
    /// Router and override.
    const FLAGS: [u8; 4] = [0b1010_0000, 0, 0, 0];
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    let body = [&FLAGS[..], &vip.octets(), &TARGET_LINK_ADDRESS, &mac].concat();
    let length = (body.len() + 4) as u16;
    let pseudo_header = [
        &vip.octets()[..],
        &ALL_NODES.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, ICMPV6],
    ]
    .concat();
    let head = [136, 0];
    let checksum = internet_checksum(&[&pseudo_header[..], &head, &[0, 0], &body].concat());
    let multicast_mac = [0x33, 0x33, 0, 0, 0, 1];
    let hop_limit = 255;
    [
        &multicast_mac[..],
        &mac,
        &ETHERTYPE_IPV6,
        &[0x60, 0, 0, 0],
        &length.to_be_bytes(),
        &[ICMPV6, hop_limit],
        &vip.octets(),
        &ALL_NODES.octets(),
        &head,
        &checksum.to_be_bytes(),
        &body,
    ]
    .concat()
}

/// The checksum of RFC 1071 over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_announcement_names_the_vip_twice() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], [192, 0, 2, 1]);
        assert_eq!(frame[38..42], [192, 0, 2, 1]);
        assert_eq!(frame[6..12], MAC);
    }

    #[test]
    fn an_advertisement_sums_up_to_all_ones() {
        let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let frame = neighbour_advertisement(MAC, vip);
        assert_eq!(frame.len(), 14 + 40 + 32);
        // Source and destination, then length and protocol, then the message with its checksum.
        let checked = [
            &frame[22..54],
            &[0, 0, 0, 32],
            &[0, 0, 0, ICMPV6],
            &frame[54..],
        ]
        .concat();
        assert_eq!(internet_checksum(&checked), 0);
    }
}
