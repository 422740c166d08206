//! Reads the head of a request: strictly, because whatever is not as expected is the terminator's.
//!
//! One call of [`Head::step`] reads a byte or eight. The programs make the calls by `bpf_loop`, so
//! that the verifier looks at one of them only; what is known from one to the next is in memory.

use super::bytes::{CLASSES, CRLF, HOST, LOWER, TOKEN, URI, VALUE, eight, first, is_plain};
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

/// The names that a host is looked up under.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// As it is.
    pub exact: HostKey,
    /// What a wildcard is stored as that stands for its first label.
    pub wildcard: HostKey,
}

/// How far a request has been read. Size 56, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    state: u32,
    reason: u32,
    /// Bytes that there are.
    len: u32,
    at: u32,
    authority: u32,
    authority_end: u32,
    target: u32,
    target_end: u32,
    host: u32,
    host_end: u32,
    /// Where the field that is read begins.
    name: u32,
    /// Bytes in both names so far.
    exact_len: u32,
    wildcard_len: u32,
    /// The last byte of the host name.
    last: u32,
}

impl Head {
    /// Begins to read the first `len` bytes of a text, whose rest is [ended](Text::end_at).
    #[inline(always)]
    pub fn begin(&mut self, text: &Text, len: u32) {
        self.len = len;
        self.reason = 0;
        self.authority = 0;
        self.authority_end = 0;
        self.host = 0;
        self.host_end = 0;
        self.exact_len = 0;
        self.wildcard_len = 0;
        self.last = 0;
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
    pub fn step(&mut self, text: &Text, names: &mut HostNames) -> bool {
        let at = self.at;
        if self.state >= state::DONE || at >= self.len {
            return false;
        }
        let byte = text.byte(at);
        let class = CLASSES[byte as usize];
        match self.state {
            state::VALUE => self.value(text, at, byte, class),
            state::NAME => self.name(at, byte, class),
            state::TARGET => self.target(text, at, byte, class),
            state::LINE => self.line(text, at, class),
            state::HOST => self.host(text, names, at, byte, class),
            state::HOST_START => self.host_start(at, byte),
            state::HOST_END => self.host_end(text, at, byte),
            _ => self.authority(at, byte, class),
        }
        true
    }

    #[inline(always)]
    fn value(&mut self, text: &Text, at: u32, byte: u8, class: u8) {
        if at & 7 == 0 && at + 8 <= self.len && is_plain(text.eight(at)) {
            self.at = at + 8;
        } else if class & VALUE != 0 {
            self.at = at + 1;
        } else {
            self.line_end(text, byte, Passed::OddHeader);
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
    fn name(&mut self, at: u32, byte: u8, class: u8) {
        if class & TOKEN != 0 {
            self.at = at + 1;
        } else if byte == b':' {
            self.at = at + 1;
            self.state = state::VALUE;
        } else {
            self.stop(Passed::OddHeader);
        }
    }

    #[inline(always)]
    fn target(&mut self, text: &Text, at: u32, byte: u8, class: u8) {
        if class & URI != 0 {
            self.at = at + 1;
            return;
        }
        if byte != b' ' {
            return self.stop(Passed::OddTarget);
        }
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
    fn line(&mut self, text: &Text, at: u32, class: u8) {
        let start = text.eight(at);
        let lower = start | LOWER;
        self.name = at;
        if first(2, start) == CRLF {
            self.at = at + 2;
            self.state = state::DONE;
        } else if first(1, start) == eight(b"\r") {
            self.stop_within(2, Passed::OddHeader);
        } else if class & TOKEN == 0 {
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
            self.at = at + 1;
            self.state = state::NAME;
        }
    }

    #[inline(always)]
    fn host_start(&mut self, at: u32, byte: u8) {
        if byte == b' ' || byte == b'\t' {
            self.at = at + 1;
        } else if byte == b'.' {
            // What a wildcard is stored as.
            self.stop(Passed::OddHost);
        } else {
            self.host = at;
            self.state = state::HOST;
        }
    }

    #[inline(always)]
    fn host(&mut self, text: &Text, names: &mut HostNames, at: u32, byte: u8, class: u8) {
        const MASK: u32 = HostKey::MAX_LEN as u32 - 1;
        if class & HOST != 0 {
            if self.exact_len > MASK {
                return self.stop(Passed::TooLong);
            }
            // An absolute target names the same host, letter for letter, so that there is no doubt.
            let same = self.authority + (at - self.host);
            if self.authority_end != 0 && text.byte(same) != byte {
                return self.stop(Passed::OddHost);
            }
            let lower = if byte.is_ascii_uppercase() {
                byte | 0x20
            } else {
                byte
            };
            names.exact.name[(self.exact_len & MASK) as usize] = lower;
            self.exact_len += 1;
            if byte == b'.' || self.wildcard_len != 0 {
                names.wildcard.name[(self.wildcard_len & MASK) as usize] = lower;
                self.wildcard_len += 1;
            }
            self.last = u32::from(byte);
            self.at = at + 1;
            return;
        }
        self.host_end = at;
        if at == self.host {
            return self.stop(Passed::OddHost);
        }
        if self.last == u32::from(b'.') {
            // The dot at the end of a full name, which is the last byte of both names.
            names.exact.name[(self.exact_len.wrapping_sub(1) & MASK) as usize] = 0;
            names.wildcard.name[(self.wildcard_len.wrapping_sub(1) & MASK) as usize] = 0;
        }
        self.state = state::HOST_END;
        if byte == b':' {
            self.at = at + 1;
            if first(2, text.eight(at + 1)) == eight(b"80") {
                self.at = at + 3;
            }
        }
    }

    #[inline(always)]
    fn host_end(&mut self, text: &Text, at: u32, byte: u8) {
        if byte == b' ' || byte == b'\t' {
            self.at = at + 1;
        } else {
            self.line_end(text, byte, Passed::OddHost);
        }
    }

    #[inline(always)]
    fn authority(&mut self, at: u32, byte: u8, class: u8) {
        if class & HOST != 0 || byte == b':' {
            self.at = at + 1;
        } else if byte == b'/' {
            self.authority_end = at;
            self.target = at;
            self.state = state::TARGET;
        } else {
            // An absolute target without a path, too.
            self.stop(Passed::OddTarget);
        }
    }

    /// What is to be answered if the names are wanted.
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
        // So far the authority begins as the host does.
        if self.authority_end != 0 && self.authority_end - self.authority != self.host_len() {
            return Err(Passed::OddHost);
        }
        if answer_len(self.host_len(), self.target_len()) > LONGEST_ANSWER {
            return Err(Passed::TooLong);
        }
        Ok(())
    }

    /// Where the host name begins, as the client wrote it.
    #[inline(always)]
    pub const fn host_at(&self) -> u32 {
        self.host
    }

    /// How many bytes it has: at least one.
    #[inline(always)]
    pub const fn host_len(&self) -> u32 {
        self.host_end.wrapping_sub(self.host)
    }

    /// Where the target begins: with a slash.
    #[inline(always)]
    pub const fn target_at(&self) -> u32 {
        self.target
    }

    /// How many bytes it has.
    #[inline(always)]
    pub const fn target_len(&self) -> u32 {
        self.target_end.wrapping_sub(self.target)
    }
}
