//! What a client has sent and nobody has looked at yet. Pure.

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;

use super::request::{self, Other};

/// What a client has sent of its next requests.
#[derive(Debug, Default)]
pub struct Unread {
    bytes: BytesMut,
    /// It ends before the head with which it begins.
    is_part: bool,
}

impl Unread {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it ends before the head with which it begins.
    pub fn is_part(&self) -> bool {
        self.is_part
    }

    /// Whether more has to come before a request may be taken.
    pub fn needs_more(&self) -> bool {
        self.is_part || self.bytes.is_empty()
    }

    /// Whether a head has begun; empty lines before it are none of it (RFC 9112, section 2.2).
    pub fn has_begun(&self) -> bool {
        self.bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Keeps what came while nobody wants it.
    pub fn keep(&mut self, came: &[u8]) {
        self.bytes.extend_from_slice(came);
    }

    /// Adds what came, and takes a request off the front; none, if its head, shorter than `most`, has
    /// not come to its end.
    ///
    /// # Errors
    ///
    /// All of it is hyper's to answer.
    pub fn take(&mut self, came: &[u8], most: usize) -> Result<Option<Parts>, Bytes> {
        if self.bytes.is_empty() {
            // Most requests come in one piece: nothing of them is copied.
            let found = self.find(came, most)?;
            self.keep(&came[found.as_ref().map_or(0, |(length, _)| *length)..]);
            return Ok(found.map(|(_, parts)| parts));
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(came);
        // A head that comes byte by byte is not read again and again.
        let tail = &self.bytes[before.saturating_sub(3)..];
        if self.is_part && self.bytes.len() < most && !has_empty_line(tail) {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.bytes);
        let found = self.find(&bytes, most)?;
        let length = found.as_ref().map_or(0, |(length, _)| *length);
        if length < bytes.len() {
            self.bytes = bytes;
            self.bytes.advance(length);
        }
        Ok(found.map(|(_, parts)| parts))
    }

    /// The request with which the bytes begin, and how long its head is.
    fn find(&mut self, bytes: &[u8], most: usize) -> Result<Option<(usize, Parts)>, Bytes> {
        let found = request::parse(bytes, most);
        self.is_part = matches!(found, Ok(None));
        found.map_err(|Other| Bytes::copy_from_slice(bytes))
    }

    /// All of it.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// Whether a head may end here.
fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|end| {
        let next = &bytes[end + 1..];
        next.starts_with(b"\n") || next.starts_with(b"\r\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets of what is taken from pieces, then what is hyper's.
    fn taken(pieces: &[&str], most: usize) -> (Vec<String>, Option<String>) {
        let (mut unread, mut targets) = (Unread::default(), Vec::new());
        for piece in pieces {
            let mut came = piece.as_bytes();
            loop {
                match unread.take(came, most) {
                    Ok(Some(parts)) => targets.push(parts.uri.to_string()),
                    Ok(None) => break,
                    Err(bytes) => {
                        let bytes = String::from_utf8_lossy(&bytes).into_owned();
                        return (targets, Some(bytes));
                    }
                }
                came = &[];
                if unread.needs_more() {
                    break;
                }
            }
        }
        (targets, None)
    }

    #[test]
    fn heads_are_put_together() {
        let text = "\r\nGET /a HTTP/1.1\r\nA: b\r\n\r\nGET /b HTTP/1.1\n\nPUT /c HTTP/1.1\r\nTE: x\r\n\r\nrest";
        let (simple, rest) = text.split_at(text.find("PUT").unwrap());
        for first in 0..simple.len() {
            for second in [first, first + 1, first + 4, simple.len()] {
                let (one, more) = simple.split_at(first);
                let (two, three) = more.split_at((second - first).min(more.len()));
                let (targets, hyper) = taken(&[one, two, three, rest], 100);
                assert_eq!(targets, ["/a", "/b"], "{one:?} {two:?} {three:?}");
                assert_eq!(hyper.as_deref(), Some(rest), "{one:?} {two:?} {three:?}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_handed_over() {
        let pieces = ["GET / HTTP/1.1\r\n", "A: b\r\n", "C: d\r\n", "\r\n"];
        let head = pieces.concat();
        assert_eq!(taken(&pieces, head.len() + 1), (vec!["/".to_owned()], None));
        assert_eq!(taken(&pieces, head.len()), (vec![], Some(head)));
        let most = pieces[0].len() + 1;
        assert_eq!(taken(&pieces, most), (vec![], Some(pieces[..2].concat())));
    }

    #[test]
    fn empty_lines_begin_no_head() {
        let mut unread = Unread::default();
        for (came, has_begun) in [("\r", false), ("\n\r\n", false), ("G", true)] {
            assert!(matches!(unread.take(came.as_bytes(), 100), Ok(None)));
            assert_eq!((unread.is_part(), unread.has_begun()), (true, has_begun));
        }
        assert_eq!(unread.into_bytes(), "\r\n\r\nG");
    }
}
