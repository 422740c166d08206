//! Echo requests from a namespace, by the kernel's own ping sockets: what comes back was accepted by
//! its ICMP, checksum included.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::netns::set_sysctl;

/// A socket for echo requests to one address.
#[derive(Debug)]
pub struct Pinger {
    // Reads and writes as a connected datagram socket does, whatever the protocol.
    socket: UdpSocket,
    request: u8,
    reply: u8,
}

impl Pinger {
    /// Opens it in this thread's namespace.
    pub fn open_here(to: IpAddr) -> Result<Self> {
        // No user may open ping sockets by default.
        set_sysctl("net/ipv4/ping_group_range", "0 0")?;
        let (family, protocol, request, reply) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
        };
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
            .context("opening a ping socket")?;
        let socket = UdpSocket::from(socket);
        socket.connect(SocketAddr::new(to, 0))?;
        Ok(Self {
            socket,
            request,
            reply,
        })
    }

    /// Sends a request.
    pub fn send(&self, sequence: u16, payload: &[u8]) -> Result<()> {
        let [high, low] = sequence.to_be_bytes();
        // The kernel fills checksum and identifier in.
        let mut message = vec![self.request, 0, 0, 0, 0, 0, high, low];
        message.extend_from_slice(payload);
        self.socket.send(&message).context("sending a ping")?;
        Ok(())
    }

    /// Sequence and payload of the next reply; `None` when none comes in time.
    pub fn receive(&self, timeout: Duration) -> Result<Option<(u16, Vec<u8>)>> {
        self.socket.set_read_timeout(Some(timeout))?;
        let mut buffer = [0; 2048];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("receiving a reply"),
            };
            if length >= 8 && buffer[0] == self.reply {
                let sequence = u16::from_be_bytes([buffer[6], buffer[7]]);
                return Ok(Some((sequence, buffer[8..length].to_vec())));
            }
        }
    }
}
