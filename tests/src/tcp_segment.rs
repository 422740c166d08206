//! TCP segments in which every field counts.

use std::net::SocketAddr;

use etherparse::{NetSlice, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};

use crate::packet_builder::{CLIENT_MAC, GATEWAY_MAC, TTL, describe, write_ip};

/// Flags of a TCP header (RFC 9293, section 3.1; RFC 3168, section 6.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was noticed.
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced.
    pub const CWR: u8 = 0x80;
}

/// What a segment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpSegment {
    /// Number of its first byte.
    pub sequence: u32,
    /// What the sender expects next.
    pub acknowledged: u32,
    /// Bits of [`flags`].
    pub flags: u8,
    /// What the sender takes.
    pub window: u16,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl TcpSegment {
    /// A frame from a client to the gateway, with right checksums.
    pub fn frame(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut header = TcpHeader::new(
            source.port(),
            destination.port(),
            self.sequence,
            self.window,
        );
        header.acknowledgment_number = self.acknowledged;
        header
            .set_options_raw(&self.options)
            .expect("options of a TCP header");
        let is = |flag| self.flags & flag != 0;
        (header.fin, header.syn) = (is(flags::FIN), is(flags::SYN));
        (header.rst, header.psh) = (is(flags::RST), is(flags::PSH));
        (header.ack, header.urg) = (is(flags::ACK), is(flags::URG));
        (header.ece, header.cwr) = (is(flags::ECE), is(flags::CWR));
        let step = write_ip(source, destination).tcp_header(header);
        let mut frame = Vec::with_capacity(step.size(self.payload.len()));
        step.write(&mut frame, &self.payload)
            .expect("writing to memory");
        frame
    }

    /// What the gateway's answer to a client's frame says, whose headers are checked in full: addresses,
    /// ports, lengths, checksums, and that nothing is behind it.
    pub fn of_answer(frame: &[u8], client: SocketAddr, vip: SocketAddr) -> Result<Self, String> {
        let described = describe(frame)?;
        if (described.mac_source, described.mac_destination) != (GATEWAY_MAC, CLIENT_MAC) {
            return Err(format!("link addresses: {described:?}"));
        }
        if (described.source, described.destination) != (vip, client) || described.ttl != TTL {
            return Err(format!("addresses or TTL: {described:?}"));
        }
        let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            return Err("no TCP header".into());
        };
        let ip_len = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                if !ip.header().dont_fragment() || ip.header().identification() != 0 {
                    return Err("it could be fragmented, without an identification".into());
                }
                usize::from(ip.header().total_len())
            }
            Some(NetSlice::Ipv6(ip)) => 40 + usize::from(ip.header().payload_length()),
            _ => return Err("no IP header".into()),
        };
        if 14 + ip_len != frame.len() {
            return Err(format!("{ip_len} bytes in a frame of {}", frame.len()));
        }
        let bits = [
            (tcp.fin(), flags::FIN),
            (tcp.syn(), flags::SYN),
            (tcp.rst(), flags::RST),
            (tcp.psh(), flags::PSH),
            (tcp.ack(), flags::ACK),
            (tcp.urg(), flags::URG),
            (tcp.ece(), flags::ECE),
            (tcp.cwr(), flags::CWR),
        ];
        Ok(Self {
            sequence: tcp.sequence_number(),
            acknowledged: tcp.acknowledgment_number(),
            flags: bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum(),
            window: tcp.window_size(),
            options: tcp.options().to_vec(),
            payload: described.payload,
        })
    }

    /// The maximum segment size among the options.
    pub fn mss(&self) -> Option<u16> {
        let header = TcpHeader::default();
        let mut header = header;
        header.set_options_raw(&self.options).ok()?;
        header.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
            _ => None,
        })
    }
}
