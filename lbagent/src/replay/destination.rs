//! The destination of a captured packet, for naming the service group that it asked for. What
//! becomes of the packet is the programs' business, not this file's.

use std::net::IpAddr;

use lbagent_common::{Addr, Port, Protocol, VipKey};

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Destination address, port and protocol of an Ethernet packet with TCP or UDP directly behind
/// the IP header, and in no later fragment.
pub(super) fn parse(packet: &[u8]) -> Option<VipKey> {
    let kind: [u8; 2] = packet.get(12..14)?.try_into().ok()?;
    let ip = packet.get(14..)?;
    let (address, protocol, transport) = match kind {
        IPV4 => {
            let header_len = usize::from(ip.first()? & 0x0f) * 4;
            let fragment_offset = u16::from_be_bytes([*ip.get(6)? & 0x1f, *ip.get(7)?]);
            if header_len < 20 || fragment_offset != 0 {
                return None;
            }
            let address: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            (
                Addr::from(IpAddr::from(address)),
                *ip.get(9)?,
                ip.get(header_len..)?,
            )
        }
        IPV6 => {
            let address: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            (
                Addr::from(IpAddr::from(address)),
                *ip.get(6)?,
                ip.get(40..)?,
            )
        }
        _ => return None,
    };
    let protocol = Protocol(protocol);
    if protocol != Protocol::TCP && protocol != Protocol::UDP {
        return None;
    }
    let port = u16::from_be_bytes(transport.get(2..4)?.try_into().ok()?);
    Some(VipKey::new(address, Port::new(port), protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        #[track_caller]
        fn check(packet: &[u8], expected: Option<(&str, u16, Protocol)>) {
            let expected = expected.map(|(address, port, protocol)| {
                let address: IpAddr = address.parse().unwrap();
                VipKey::new(address.into(), Port::new(port), protocol)
            });
            assert_eq!(parse(packet), expected);
        }
        let v4 = |first: u8, offset: u8, protocol: u8, options: usize| {
            let mut packet = [&[0; 12][..], &IPV4, &[first, 0, 0, 0, 0, 0, 0, offset, 64]].concat();
            packet.extend([protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7]);
            packet.extend(vec![1; options]);
            packet.extend([0x12, 0x34, 0x01, 0xbb, 0, 0]);
            packet
        };
        check(&v4(0x45, 0, 6, 0), Some(("192.0.2.7", 443, Protocol::TCP)));
        check(&v4(0x46, 0, 17, 4), Some(("192.0.2.7", 443, Protocol::UDP)));
        check(&v4(0x45, 1, 6, 0), None);
        check(&v4(0x45, 0, 1, 0), None);
        check(&v4(0x44, 0, 6, 0), None);
        check(&v4(0x45, 0, 6, 0)[..36], None);
        let mut v6 = [
            &[0; 12][..],
            &IPV6,
            &[0x60, 0, 0, 0, 0, 8, 17, 64],
            &[0; 16],
        ]
        .concat();
        v6.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        v6.extend([0, 1, 0, 53, 0, 8, 0, 0]);
        check(&v6, Some(("2001:db8::7", 53, Protocol::UDP)));
        check(&[0; 60], None);
    }
}
