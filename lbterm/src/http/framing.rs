//! Where a message of HTTP/1.1 begins and ends, read along with hyper from the same bytes.
//!
//! hyper drops a `Content-Length` beside a `Transfer-Encoding` before anyone sees it (RFC 9112,
//! section 6.3, permits that), but such a request is how requests are smuggled past a gateway, so
//! it is refused (same section: "ought to be handled as an error"). Nothing here decides what a
//! request is: where the two would disagree, hyper has already refused and closes. What is found
//! also tells a client that is slow with a head from one that is idle between two.

mod trailers;

use crate::heads::decimal;

use trailers::Trailers;

/// Longest start of a line that matters: `Transfer-Encoding` or a `Content-Length` of 20 digits
/// with the blanks that may surround them.
const LINE_START: usize = 80;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: a request may begin.
    Between,
    /// The head of a request.
    Head,
    /// Its body.
    Body,
    /// Bytes that are no requests: an upgraded connection, or one that hyper has given up.
    Beyond,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    line: Line,
    heads: u64,
    conflict: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head(Lengths),
    /// Bytes left of a body of known length, or of a chunk.
    Data {
        left: u64,
        is_chunk: bool,
    },
    ChunkSize,
    ChunkEnd,
    Trailers(Trailers),
    Beyond,
}

/// What the lines of a head so far say of the body.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    has_begun: bool,
    content_length: Option<u64>,
    has_coding: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head(Lengths::default()),
            line: Line::default(),
            heads: 0,
            conflict: None,
        }
    }
}

impl Framing {
    /// What the next byte belongs to.
    pub fn place(&self) -> Place {
        match self.state {
            State::Head(lengths) if lengths.has_begun || !self.line.is_empty() => Place::Head,
            State::Head(_) => Place::Between,
            State::Beyond => Place::Beyond,
            _ => Place::Body,
        }
    }

    /// Heads that were seen to their end.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// The first request, counted from 0, that has both a `Content-Length` and a
    /// `Transfer-Encoding`. Nothing of the connection counts after it.
    pub fn conflict(&self) -> Option<u64> {
        self.conflict
    }

    /// Reads along.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Beyond => return,
                State::Data { left, is_chunk } => {
                    let taken = left.min(bytes.len() as u64);
                    // `taken` is at most the length of the slice.
                    bytes = &bytes[taken as usize..];
                    self.state = after_data(left - taken, is_chunk);
                }
                State::Trailers(part) => (self.state, bytes) = part.read(bytes),
                _ => {
                    let end = memchr::memchr(b'\n', bytes);
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    bytes = rest;
                    if self.line.is_empty() && end.is_some() {
                        self.line(part);
                    } else {
                        self.line.extend(part);
                        if end.is_some() {
                            let line = std::mem::take(&mut self.line);
                            self.line(line.bytes());
                        }
                    }
                }
            }
        }
    }

    /// Takes a line with its end.
    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.state = match self.state {
            State::Head(lengths) => self.head_line(line, lengths),
            State::ChunkSize => match chunk_size(line) {
                Some(0) => State::Trailers(Trailers::default()),
                Some(left) => State::Data {
                    left,
                    is_chunk: true,
                },
                None => State::Beyond,
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => State::Beyond,
            other => other,
        };
    }

    fn head_line(&mut self, line: &[u8], mut lengths: Lengths) -> State {
        if !lengths.has_begun {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            lengths.has_begun = !line.is_empty();
            return State::Head(lengths);
        }
        if line.is_empty() {
            return self.head_end(lengths);
        }
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value_of(line, b"content-length") {
                    // A value that is no number, or another one than before, ends the connection
                    // in hyper.
                    match decimal(value) {
                        Some(length) => lengths.content_length = Some(length),
                        None => return State::Beyond,
                    }
                }
            }
            b't' | b'T' => {
                lengths.has_coding |= value_of(line, b"transfer-encoding").is_some();
            }
            _ => {}
        }
        State::Head(lengths)
    }

    fn head_end(&mut self, lengths: Lengths) -> State {
        let head = self.heads;
        self.heads += 1;
        match (lengths.has_coding, lengths.content_length) {
            (true, Some(_)) => {
                self.conflict.get_or_insert(head);
                State::Beyond
            }
            (true, None) => State::ChunkSize,
            (false, length) => after_data(length.unwrap_or(0), false),
        }
    }
}

fn after_data(left: u64, is_chunk: bool) -> State {
    match (left, is_chunk) {
        (0, true) => State::ChunkEnd,
        (0, false) => State::Head(Lengths::default()),
        _ => State::Data { left, is_chunk },
    }
}

/// The value of a line whose field has this name, in lower case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| trimmed(value))
}

/// A value without its line end and the blanks around it. Any other control character stays, so that it
/// is none of a number, wherever the line is cut.
fn trimmed(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let mut value = value.strip_suffix(b"\r").unwrap_or(value);
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The size that a chunk's first line says; extensions after it are ignored.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let digits = &line[..end.unwrap_or(line.len())];
    // However many zeros it begins with (RFC 9112, section 7.1): more than fits is an error.
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The start of a line that came in parts.
#[derive(Debug, Default)]
struct Line {
    kept: Vec<u8>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        &self.kept
    }

    fn extend(&mut self, part: &[u8]) {
        for byte in part {
            if self.kept.len() >= LINE_START {
                return;
            }
            if !self.is_filler(*byte) {
                self.kept.push(*byte);
            }
        }
    }

    /// Whether a byte means nothing after those that are kept: a blank after a blank, or a zero after
    /// the zero that a number begins with. Clients may send any number of them.
    fn is_filler(&self, byte: u8) -> bool {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        match (byte, &*self.kept) {
            (b' ' | b'\t', [.., last]) => is_blank(last),
            (b'0', [b'0']) => true,
            (b'0', [.., before, b'0']) => is_blank(before) || *before == b':',
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is seen of `bytes`, given in parts of `size`.
    fn seen(bytes: &[u8], size: usize) -> (u64, Option<u64>, Place) {
        let mut framing = Framing::default();
        for part in bytes.chunks(size.max(1)) {
            framing.read(part);
        }
        (framing.heads(), framing.conflict(), framing.place())
    }

    #[track_caller]
    fn check(text: &str, heads: u64, conflict: Option<u64>, place: Place) {
        for size in [1, 2, 3, 7, 79, 80, 81, text.len()] {
            let found = seen(text.as_bytes(), size);
            assert_eq!(found, (heads, conflict, place), "{text:?} by {size}");
        }
    }

    #[test]
    fn finds_the_ends_of_requests() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        check("", 0, None, Place::Between);
        check("\r\n", 0, None, Place::Between);
        check("G", 0, None, Place::Head);
        check("GET / HTTP/1.1\r\nHost: a\r\n", 0, None, Place::Head);
        check(get, 1, None, Place::Between);
        check(&get.repeat(3), 3, None, Place::Between);
        check(&get.replace("\r\n", "\n"), 1, None, Place::Between);
        let post = "POST / HTTP/1.1\r\ncontent-LENGTH:\t5 \r\n\r\n";
        check(&format!("{post}12"), 1, None, Place::Body);
        check(&format!("{post}GET /{get}"), 2, None, Place::Between);
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(500));
        check(&long, 1, None, Place::Between);
        check("A\r\nContent-Length: x\r\n\r\n", 0, None, Place::Beyond);
        // Nor is it when what spoils it comes after what is kept.
        let spoilt = format!("A\r\nContent-Length: 5{}x\r\n\r\n", "\r".repeat(90));
        check(&spoilt, 0, None, Place::Beyond);
        // What means nothing is not what is kept of a line that comes in parts.
        for filler in [" ", "\t ", "0", " 0"] {
            let post = format!("A\r\nContent-Length:{}05\r\n\r\n", filler.repeat(90));
            let is_length = !filler.contains(" 0");
            let place = if is_length {
                Place::Body
            } else {
                Place::Beyond
            };
            check(&post, u64::from(is_length), None, place);
        }
    }

    #[test]
    fn follows_chunks() {
        let post = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(post, 1, None, Place::Body);
        check(&format!("{post}0\r\n\r\n"), 1, None, Place::Between);
        check(
            &format!("{post}A;x=y\r\n\r\n\r\nGET /\r\n\r\n0\r\nContent-Length: 4\r\n\r\nG"),
            1,
            None,
            Place::Beyond,
        );
        check(
            &format!("{post}9\r\n\r\n\r\nGET /\r\n0\r\nContent-Length: 4\r\n\r\nG"),
            1,
            None,
            Place::Head,
        );
        check(&format!("{post}z\r\n"), 1, None, Place::Beyond);
        for (trailers, heads, place) in [
            ("A: b\r\n\r\n", 1, Place::Between),
            // Lines that end with less go on.
            ("\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2, Place::Between),
            ("A: b\n\r\n", 1, Place::Body),
            ("A: b\n\n", 1, Place::Body),
            ("A: b\rc", 1, Place::Beyond),
            ("\rA", 1, Place::Beyond),
        ] {
            check(&format!("{post}0\r\n{trailers}"), heads, None, place);
        }
        check(
            &format!("{post}{}1\r\n", "0".repeat(99)),
            1,
            None,
            Place::Body,
        );
        check(
            &format!("{post}11111111111111111\r\n"),
            1,
            None,
            Place::Beyond,
        );
    }

    #[test]
    fn finds_both_lengths() {
        let both = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n",
            "Transfer-Encoding:chunked\r\nContent-Length:0\r\n",
        ];
        for lines in both {
            let text = format!("GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n{lines}\r\n");
            check(&text, 2, Some(1), Place::Beyond);
        }
        let body = "POST / HTTP/1.1\r\nContent-Length: 48\r\n\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\r\n";
        assert_eq!(seen(body.as_bytes(), 9).1, None);
    }

    proptest! {
        #[test]
        fn parts_do_not_matter(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("GET / HTTP/1.1"), Just(""), Just("Content-Length: 3"), Just("abc"),
                    Just("Transfer-Encoding: chunked"), Just("3"), Just("0"), Just("X: y"),
                ],
                0..20,
            ),
            size in 1..40_usize,
        ) {
            let text = lines.join("\r\n");
            prop_assert_eq!(seen(text.as_bytes(), size), seen(text.as_bytes(), usize::MAX));
        }

        #[test]
        fn bytes_never_panic(bytes: Vec<u8>, size in 1..9_usize) {
            prop_assert_eq!(seen(&bytes, size), seen(&bytes, usize::MAX));
        }
    }
}
