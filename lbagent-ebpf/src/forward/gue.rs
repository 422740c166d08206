//! Forwarding mode `dsr-gue`: the packet travels inside a UDP packet, variant 1 of
//! draft-ietf-intarea-gue-09: the IP header follows the UDP header at once, and its version says
//! which one.

use lbagent_common::Port;
use network_types::udp::UdpHdr;

/// The port that IANA assigned to GUE.
const DESTINATION_PORT: Port = Port::new(6080);
/// Source ports are from the dynamic range, 49152 to 65535, and differ between flows (section 5.11).
const SOURCE_PORT_BASE: u16 = 0xc000;

/// The UDP header before an inner packet of `inner_len` bytes, as words of the wire. Without a
/// checksum: the inner packet has one, and RFC 6935 allows it for tunnels over IPv6 too.
#[inline(always)]
pub fn header(entropy: u32, inner_len: u16) -> [u32; 2] {
    let source = SOURCE_PORT_BASE | entropy as u16;
    let ports = u32::from(source) << 16 | u32::from(DESTINATION_PORT.get());
    let length = u32::from(inner_len.wrapping_add(UdpHdr::LEN as u16)) << 16;
    [ports.to_be(), length.to_be()]
}
