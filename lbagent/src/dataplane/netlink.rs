//! Blocking rtnetlink requests in the network namespace of the calling thread.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// A dump that the kernel calls inconsistent is asked for again this often.
const DUMP_ATTEMPTS: usize = 5;

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket; it stays in this network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes a change, or asks for one object; `flags` beside "request" and "acknowledge".
    pub(super) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive().map(|answer| answer.messages)
    }

    /// Asks for all objects of a kind.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut attempt = 1;
        loop {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let answer = self.receive()?;
            if !answer.interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(answer.messages);
            }
            attempt += 1;
        }
    }

    /// Asks for the objects that agree with the header of `message`. The kernel selects (Linux
    /// 4.20), because a gateway may know a million routes.
    pub(super) fn dump_selected(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.socket.set_netlink_get_strict_chk(true)?;
        let found = self.dump(message);
        self.socket.set_netlink_get_strict_chk(false)?;
        found
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads until the kernel has acknowledged or ended the dump.
    fn receive(&mut self) -> io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for bytes in split(&datagram) {
                if answer.take(bytes, self.sequence)? {
                    return Ok(answer);
                }
            }
        }
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Answer {
    /// Takes one message; true when it was the last.
    fn take(&mut self, bytes: &[u8], sequence: u32) -> io::Result<bool> {
        let parsed = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(parsed) => parsed,
            // A kernel newer than the parser may describe a device in a way that it does not
            // know; such a device is no interface of ours.
            Err(error) => {
                tracing::debug!(%error, "skipped a netlink message");
                return Ok(false);
            }
        };
        if parsed.header.sequence_number != sequence {
            return Ok(false);
        }
        self.interrupted |= parsed.header.flags & NLM_F_DUMP_INTR != 0;
        match parsed.payload {
            NetlinkPayload::InnerMessage(message) => {
                self.messages.push(message);
                Ok(false)
            }
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => Ok(true),
            _ => Ok(false),
        }
    }
}

/// The messages of one datagram, each with its header.
pub(super) fn split(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk::<4>()?) as usize;
        if length < HEADER_LEN {
            return None;
        }
        let message = datagram.get(..length)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn datagrams_split_at_aligned_lengths() {
        #[track_caller]
        fn check(lengths: &[u32], cut: usize, expected: &[usize]) {
            let mut datagram = Vec::new();
            for length in lengths {
                let start = datagram.len();
                datagram.extend(length.to_ne_bytes());
                datagram.resize(start + (*length as usize).next_multiple_of(4).max(4), 0);
            }
            datagram.truncate(datagram.len() - cut);
            let found: Vec<_> = split(&datagram).map(<[u8]>::len).collect();
            assert_eq!(found, expected, "{lengths:?} cut by {cut}");
        }
        check(&[], 0, &[]);
        check(&[16, 20], 0, &[16, 20]);
        check(&[17, 16], 0, &[17, 16]);
        check(&[16, 20], 1, &[16]);
        check(&[4], 0, &[]);
    }
}
