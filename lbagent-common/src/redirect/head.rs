//! Reads the head of a request: strictly, because whatever is not as expected is the terminator's.
//!
//! One call of [`Head::step`] reads up to eight bytes and what ends them. The programs make the calls by
//! `bpf_loop`, so that the verifier looks at one of them only; what is known from one to the next is in
//! memory.

use super::bytes::{
    CRLF, HOST, LABEL, LOWER, TOKEN, URI, VALUE, eight, first, is_plain, lower_case, run,
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

/// The names that a host is looked up under, as [`HostKey`]s in words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// As it is.
    pub exact: [u64; Self::WORDS as usize],
    /// What a wildcard is stored as that stands for its first label; zeros for a name of one label.
    pub wildcard: [u64; Self::WORDS as usize],
}

impl HostNames {
    /// Words of a name.
    pub const WORDS: u32 = HostKey::MAX_LEN as u32 / 8;
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
    authority: u32,
    authority_end: u32,
    target: u32,
    target_end: u32,
    host: u32,
    host_end: u32,
    /// The first dot in the host name; 0 before there is one.
    dot: u32,
    /// 1 where the authority of an absolute target is another than the host.
    differs: u32,
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
        if self.state == state::LINE {
            self.line(text);
            return true;
        }
        let class = match self.state {
            state::VALUE => VALUE,
            state::NAME => TOKEN,
            state::TARGET => URI,
            state::AUTHORITY => HOST,
            state::HOST => LABEL,
            state::HOST_START | state::HOST_END => {
                self.beside_host(text);
                return true;
            }
            _ => return true,
        };
        let bytes = text.eight(self.at);
        let count = if class == VALUE && self.is_long(text) {
            return true;
        } else if class == VALUE && is_plain(bytes) {
            8
        } else {
            run(bytes, left(self.at, self.len), class)
        };
        self.at += count;
        if count == 8 || self.at >= self.len {
            return true;
        }
        let byte = text.byte(self.at);
        match self.state {
            state::VALUE => self.line_end(text, byte, Passed::OddHeader),
            state::NAME => self.name_end(byte),
            state::TARGET => self.target_end(text, byte),
            state::HOST => self.host_end(text, byte),
            _ => self.authority_end(byte),
        }
        true
    }

    /// Takes 16 bytes of a value at once, where there are as many.
    #[inline(always)]
    fn is_long(&mut self, text: &Text) -> bool {
        let at = self.at;
        let is_long =
            at + 16 <= self.len && is_plain(text.eight(at)) && is_plain(text.eight(at + 8));
        if is_long {
            self.at = at + 16;
        }
        is_long
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
        } else if run(start, 1, TOKEN) == 0 {
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

    /// Before the host name, or behind it.
    #[inline(always)]
    fn beside_host(&mut self, text: &Text) {
        let byte = text.byte(self.at);
        if byte == b' ' || byte == b'\t' {
            self.at += 1;
        } else if self.state == state::HOST_END {
            self.line_end(text, byte, Passed::OddHost);
        } else if byte == b'.' {
            // What a wildcard is stored as.
            self.stop(Passed::OddHost);
        } else {
            self.host = self.at;
            self.state = state::HOST;
        }
    }

    #[inline(always)]
    fn host_end(&mut self, text: &Text, byte: u8) {
        let at = self.at;
        if byte == b'.' {
            self.dot = if self.dot == 0 { at } else { self.dot };
            self.at = at + 1;
            return;
        }
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
    fn authority_end(&mut self, byte: u8) {
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

    /// Fills in the names' words at an index, which are `WORDS`, once the head is read. A call a word, for
    /// the verifier's sake.
    #[inline(always)]
    pub fn name(&mut self, text: &Text, names: &mut HostNames, index: u32) {
        const MASK: u32 = HostNames::WORDS - 1;
        // A dot at the end of a full name is no part of it.
        let has_end = text.byte(self.host_end.wrapping_sub(1)) == b'.';
        let end = self.host_end.wrapping_sub(u32::from(has_end));
        // Without a dot before its end the name has no parent.
        let dot = if self.dot == 0 { end } else { self.dot };
        let (place, bytes) = ((index & MASK) as usize, 8 * (index & MASK));
        names.exact[place] = word_of_name(text, self.host + bytes, end);
        names.wildcard[place] = word_of_name(text, dot + bytes, end);
        // An absolute target names the same host, letter for letter, so that there is no doubt.
        let count = left(self.host + bytes, self.host_end);
        let other = first(count, text.eight(self.authority + bytes));
        if other != first(count, text.eight(self.host + bytes)) {
            self.differs = 1;
        }
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

/// How many of eight bytes are before an end.
#[inline(always)]
const fn left(at: u32, end: u32) -> u32 {
    match end.saturating_sub(at) {
        count @ 0..8 => count,
        _ => 8,
    }
}

/// Eight bytes of a name as a key has them: lower case, and zeros behind the end.
#[inline(always)]
fn word_of_name(text: &Text, at: u32, end: u32) -> u64 {
    lower_case(first(left(at, end), text.eight(at))).to_le()
}
