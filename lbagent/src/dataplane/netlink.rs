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
/// Questions that are asked at once: the socket has room for their answers.
const AT_ONCE: usize = 32;
/// No answer about one object is as long as this.
const ANSWER_LEN: usize = 32 << 10;

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

    /// Asks for one object each; the kernel answers with it or with an error, in this order. Few system
    /// calls for many questions.
    pub(super) fn ask(
        &mut self,
        questions: &[RouteNetlinkMessage],
    ) -> io::Result<Vec<io::Result<RouteNetlinkMessage>>> {
        let mut answers = Vec::with_capacity(questions.len());
        let mut datagram = Vec::with_capacity(ANSWER_LEN);
        for questions in questions.chunks(AT_ONCE) {
            let mut bytes = Vec::new();
            for question in questions {
                self.sequence = self.sequence.wrapping_add(1);
                let start = bytes.len();
                let message = numbered(question.clone(), NLM_F_REQUEST, self.sequence);
                let length = message.buffer_len();
                bytes.resize(start + length.next_multiple_of(4), 0);
                message.serialize(&mut bytes[start..start + length]);
            }
            self.socket.send(&bytes, 0)?;
            for left in (0..questions.len()).rev() {
                let sequence = self.sequence.wrapping_sub(left as u32);
                answers.push(loop {
                    datagram.clear();
                    self.socket.recv(&mut datagram, 0)?;
                    let mut messages = split(&datagram);
                    if let Some(answer) = messages.find_map(|bytes| answer_to(bytes, sequence)) {
                        break answer;
                    }
                });
            }
        }
        Ok(answers)
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
        let message = numbered(message, flags, self.sequence);
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

fn numbered(
    message: RouteNetlinkMessage,
    flags: u16,
    sequence: u32,
) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    message
}

/// The answer to the question with this number, if the message is that.
fn answer_to(bytes: &[u8], sequence: u32) -> Option<io::Result<RouteNetlinkMessage>> {
    let number = bytes.get(8..12)?.first_chunk::<4>()?;
    if u32::from_ne_bytes(*number) != sequence {
        return None;
    }
    let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
    Some(match parsed.map(|parsed| parsed.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => Ok(message),
        Ok(NetlinkPayload::Error(error)) => Err(error.to_io()),
        Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    })
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
