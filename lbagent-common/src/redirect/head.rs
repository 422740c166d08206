//! Reads the head of a request: strictly, because whatever is not as expected is the terminator's.
//!
//! One call of [`Head::step`] reads the target or a header line, if they are not very long or strange;
//! else a part of it. The programs make the calls by `bpf_loop`, so that the verifier looks at one of them
//! only; what is known from one to the next is in memory.

use super::bytes::{
    CLASSES, CRLF, HOST, LABEL, LOWER, TOKEN, URI, VALUE, before, eight, first, odd_in_host,
    odd_in_name, odd_in_target, odd_in_value,
};
use super::{LONGEST_ANSWER, Passed, Text, answer_len};
use crate::HostKey;

/// Where the reader is.
mod state {
    /// In the authority of an absolute target.
    pub const AUTHORITY: u32 = 0;
    /// In the target.
    pub const TARGET: u32 = 1;
    /// At the beginning of a header line, or of the empty line.
    pub const LINE: u32 = 2;
    /// In a field's name.
    pub const NAME: u32 = 3;
    /// In a field's value.
    pub const VALUE: u32 = 4;
    /// Before the host name.
    pub const HOST_START: u32 = 5;
    /// In the host name.
    pub const HOST: u32 = 6;
    /// Behind host name and port.
    pub const HOST_END: u32 = 7;
    /// At the end of the head.
    pub const DONE: u32 = 8;
    /// The rest does not matter; [`super::Head::reason`] says why.
    pub const ODD: u32 = 9;
}

/// How far a request has been read. Size 48, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    state: u32,
    reason: u32,
    /// Bytes that there are.
    len: u32,
    at: u32,
    pub(super) authority: u32,
    authority_end: u32,
    pub(super) target: u32,
    pub(super) target_end: u32,
    pub(super) host: u32,
    pub(super) host_end: u32,
    /// The first dot in the host name; 0 before there is one.
    pub(super) dot: u32,
    /// 1 where the authority of an absolute target is another than the host.
    pub(super) differs: u32,
}

impl Head {
    /// Begins to read the first `len` bytes of a text, whose rest is [ended](Text::end_at). The zero is
    /// one that the compiler of the programs does not know: of several that it knows and that lie side by
    /// side it makes a call, which goes byte by byte.
    #[inline(always)]
    pub fn begin(&mut self, text: &Text, len: u32, zero: u32) {
        self.len = len;
        self.reason = zero;
        self.authority = zero;
        self.authority_end = zero;
        self.host = zero;
        self.host_end = zero;
        self.dot = zero;
        self.differs = zero;
        let beginning = text.eight(0);
        let target = if first(4, beginning) == eight(b"GET ") {
            4
        } else if first(5, beginning) == eight(b"HEAD ") {
            5
        } else {
            // Another method, or not enough of it.
            let reason = if len < 5 {
                Passed::Segmented
            } else {
                Passed::OtherMethod
            };
            return self.stop(reason);
        };
        self.target = target;
        self.at = target;
        let start = text.eight(target);
        if first(1, start) == eight(b"/") {
            self.state = state::TARGET;
        } else if first(7, start) == eight(b"http://") {
            self.at = target + 7;
            self.authority = self.at;
            self.state = state::AUTHORITY;
        } else if len < target + 7 {
            self.stop(Passed::Segmented);
        } else {
            self.stop(Passed::OddTarget);
        }
    }

    #[inline(always)]
    fn stop(&mut self, reason: Passed) {
        self.state = state::ODD;
        self.reason = reason as u32;
    }

    /// Stops, unless what is missing may be in the next segment.
    #[inline(always)]
    fn stop_within(&mut self, wanted: u32, reason: Passed) {
        let reason = if self.at + wanted > self.len {
            Passed::Segmented
        } else {
            reason
        };
        self.stop(reason);
    }

    /// Reads on; false at the end. As many calls as there are bytes are enough.
    #[inline(always)]
    pub fn step(&mut self, text: &Text) -> bool {
        if self.state >= state::DONE || self.at >= self.len {
            return false;
        }
        match self.state {
            state::AUTHORITY => self.authority(text),
            state::TARGET => self.read_target(text),
            _ => self.read_line(text),
        }
        true
    }

    /// Reads a line from where its last part ended. Whatever ends a part leaves the state of the next one.
    #[inline(always)]
    fn read_line(&mut self, text: &Text) {
        if self.state == state::LINE {
            self.line(text);
        }
        if self.state == state::NAME {
            self.read_name(text);
        }
        if self.state == state::VALUE {
            self.read_value(text);
        }
        if self.state == state::HOST_START {
            self.host_start(text);
        }
        if self.state == state::HOST {
            self.read_host(text);
        }
        if self.state == state::HOST_END {
            self.behind_host(text);
        }
    }

    /// Goes to the first byte that is marked, over four words at most.
    #[inline(always)]
    fn skip(&mut self, text: &Text, marks: impl Fn(u64) -> u64) {
        let mut at = self.at;
        for _ in 0..4 {
            let count = before(marks(text.eight(at)));
            at += count;
            if count < 8 {
                break;
            }
        }
        self.at = at;
    }

    /// Reads a part of bytes of a class, most of which are not marked. The byte behind it, once there is
    /// one; `None` where it may go on, or what there is ends.
    #[inline(always)]
    fn part(&mut self, text: &Text, marks: impl Fn(u64) -> u64, class: u8) -> Option<u8> {
        self.skip(text, marks);
        if self.at >= self.len {
            return None;
        }
        let byte = text.byte(self.at);
        if CLASSES[usize::from(byte)] & class == 0 {
            return Some(byte);
        }
        self.at += 1;
        None
    }

    #[inline(always)]
    fn read_target(&mut self, text: &Text) {
        if let Some(byte) = self.part(text, odd_in_target, URI) {
            self.target_end(text, byte);
        }
    }

    #[inline(always)]
    fn read_name(&mut self, text: &Text) {
        if let Some(byte) = self.part(text, odd_in_name, TOKEN) {
            self.name_end(byte);
        }
    }

    #[inline(always)]
    fn read_value(&mut self, text: &Text) {
        let mut at = self.at;
        for _ in 0..8 {
            let odd = odd_in_value(text.eight(at))
                | odd_in_value(text.eight(at + 8))
                | odd_in_value(text.eight(at + 16))
                | odd_in_value(text.eight(at + 24));
            if odd != 0 || at + 32 > self.len {
                break;
            }
            at += 32;
        }
        self.at = at;
        if let Some(byte) = self.part(text, odd_in_value, VALUE) {
            self.line_end(text, byte, Passed::OddHeader);
        }
    }

    #[inline(always)]
    fn read_host(&mut self, text: &Text) {
        if self.dot == 0 {
            match self.part(text, odd_in_name, LABEL) {
                Some(b'.') => self.dot = self.at,
                Some(byte) => return self.host_end(text, byte),
                None => return,
            }
        }
        if let Some(byte) = self.part(text, odd_in_host, HOST) {
            self.host_end(text, byte);
        }
    }

    /// At a byte that should be the first one of a line's end.
    #[inline(always)]
    fn line_end(&mut self, text: &Text, byte: u8, reason: Passed) {
        if byte == b'\r' && text.byte(self.at + 1) == b'\n' {
            self.at += 2;
            self.state = state::LINE;
        } else if byte == b'\r' {
            self.stop_within(2, reason);
        } else {
            self.stop(reason);
        }
    }

    #[inline(always)]
    fn name_end(&mut self, byte: u8) {
        if byte == b':' {
            self.at += 1;
            self.state = state::VALUE;
        } else {
            self.stop(Passed::OddHeader);
        }
    }

    #[inline(always)]
    fn target_end(&mut self, text: &Text, byte: u8) {
        if byte != b' ' {
            return self.stop(Passed::OddTarget);
        }
        let at = self.at;
        self.target_end = at;
        let version = text.eight(at + 1);
        let is_known = version == eight(b"HTTP/1.1") || version == eight(b"HTTP/1.0");
        if is_known && first(2, text.eight(at + 9)) == CRLF {
            self.at = at + 11;
            self.state = state::LINE;
        } else {
            self.stop_within(11, Passed::OddVersion);
        }
    }

    #[inline(always)]
    fn line(&mut self, text: &Text) {
        let at = self.at;
        let start = text.eight(at);
        let lower = start | LOWER;
        if first(2, start) == CRLF {
            self.at = at + 2;
            self.state = state::DONE;
        } else if first(1, start) == eight(b"\r") {
            self.stop_within(2, Passed::OddHeader);
        } else if CLASSES[usize::from(start as u8)] & TOKEN == 0 {
            self.stop(Passed::OddHeader);
        } else if first(4, lower) == eight(b"host") && start >> 32 & 0xff == b':' as u64 {
            if self.host_end != 0 {
                return self.stop(Passed::OddHost);
            }
            self.at = at + 5;
            self.state = state::HOST_START;
        } else if lower == eight(b"transfer") || lower == eight(b"content-") {
            // `Content-Length` and `Transfer-Encoding`; nothing of that kind goes with a GET.
            self.stop(Passed::HasBody);
        } else {
            self.state = state::NAME;
        }
    }

    #[inline(always)]
    fn host_start(&mut self, text: &Text) {
        // Before most names there is one space.
        self.at += u32::from(text.byte(self.at) == b' ');
        if self.at >= self.len {
            return;
        }
        match text.byte(self.at) {
            b' ' | b'\t' => self.at += 1,
            // What a wildcard is stored as.
            b'.' => self.stop(Passed::OddHost),
            _ => {
                self.host = self.at;
                self.state = state::HOST;
            }
        }
    }

    #[inline(always)]
    fn behind_host(&mut self, text: &Text) {
        if self.at >= self.len {
            return;
        }
        match text.byte(self.at) {
            b' ' | b'\t' => self.at += 1,
            byte => self.line_end(text, byte, Passed::OddHost),
        }
    }

    #[inline(always)]
    fn host_end(&mut self, text: &Text, byte: u8) {
        let at = self.at;
        if at == self.host {
            return self.stop(Passed::OddHost);
        }
        if at - self.host > HostKey::MAX_LEN as u32 {
            return self.stop(Passed::TooLong);
        }
        self.host_end = at;
        self.state = state::HOST_END;
        if byte == b':' {
            self.at = at + 1;
            if first(2, text.eight(at + 1)) == eight(b"80") {
                self.at = at + 3;
            }
        }
    }

    #[inline(always)]
    fn authority(&mut self, text: &Text) {
        let Some(byte) = self.part(text, odd_in_host, HOST) else {
            return;
        };
        if byte == b'/' {
            self.authority_end = self.at;
            self.target = self.at;
            self.state = state::TARGET;
        } else {
            // An absolute target without a path or with a port, too.
            self.stop(Passed::OddTarget);
        }
    }

    /// What is to be answered if one of the names is wanted.
    ///
    /// # Errors
    ///
    /// Why the terminator has to read it.
    #[inline(always)]
    pub fn end(&self) -> Result<(), Passed> {
        if self.state == state::ODD {
            return Err(Passed::from_index(self.reason).unwrap_or(Passed::OddHeader));
        }
        if self.state != state::DONE || self.at > self.len {
            return Err(Passed::Segmented);
        }
        if self.host_end == 0 {
            return Err(Passed::OddHost);
        }
        if answer_len(self.host_len(), self.target_len()) > LONGEST_ANSWER {
            return Err(Passed::TooLong);
        }
        let is_same =
            self.differs == 0 && self.authority_end.wrapping_sub(self.authority) == self.host_len();
        if self.authority_end != 0 && !is_same {
            return Err(Passed::OddHost);
        }
        Ok(())
    }

    /// Whether all of it was read, and it names a host.
    #[inline(always)]
    pub(super) const fn is_read(&self) -> bool {
        self.state == state::DONE && self.host_end != 0
    }
}
