//! Bodies in chunks (RFC 9112, section 7.1). Pure.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Status};

use super::head::Malformed;

/// Longest line with a chunk's size and its extensions, and longest trailers.
const MAX_LINE: usize = 16 << 10;

/// Most fields of trailers.
const MAX_FIELDS: usize = 100;

/// Where in the body one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunks {
    /// Before a chunk's size.
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// Before the line end after a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// All has come.
    Done,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes of the body.
    Data(Bytes),
    /// What follows the body, which has ended.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
}

impl Chunks {
    /// Takes the next part off the front of what was read; none, if it has not come yet.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        loop {
            match *self {
                Self::Done => return Ok(Some(Part::End)),
                Self::Data(_) if read.is_empty() => return Ok(None),
                Self::Data(left) => {
                    let taken =
                        usize::try_from(left).map_or(read.len(), |left| left.min(read.len()));
                    *self = match left - taken as u64 {
                        0 => Self::DataEnd,
                        left => Self::Data(left),
                    };
                    return Ok(Some(Part::Data(read.split_to(taken).freeze())));
                }
                Self::Size => {
                    let Some(line) = take_line(read)? else {
                        return Ok(None);
                    };
                    *self = match size(&line)? {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::DataEnd => {
                    let Some(line) = take_line(read)? else {
                        return Ok(None);
                    };
                    if !line.is_empty() {
                        return Err(Malformed);
                    }
                    *self = Self::Size;
                }
                Self::Trailers => return self.trailers(read),
            }
        }
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let parsed = httparse::parse_headers(read, &mut fields).map_err(|_| Malformed)?;
        let Status::Complete((length, fields)) = parsed else {
            return match read.len() {
                ..MAX_LINE => Ok(None),
                _ => Err(Malformed),
            };
        };
        // However it came.
        if length > MAX_LINE {
            return Err(Malformed);
        }
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            trailers.append(name.map_err(|_| Malformed)?, value.map_err(|_| Malformed)?);
        }
        let _ = read.split_to(length);
        *self = Self::Done;
        Ok(Some(match trailers.is_empty() {
            true => Part::End,
            false => Part::Trailers(trailers),
        }))
    }
}

/// A line without its end. A line feed alone ends none: others would not see it.
fn take_line(read: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', read) else {
        return match read.len() {
            ..MAX_LINE => Ok(None),
            _ => Err(Malformed),
        };
    };
    let mut line = read.split_to(end + 1);
    if end >= MAX_LINE || !line.ends_with(b"\r\n") {
        return Err(Malformed);
    }
    line.truncate(end - 1);
    match memchr::memchr(b'\r', &line) {
        None => Ok(Some(line)),
        Some(_) => Err(Malformed),
    }
}

/// The size in hexadecimal digits; what follows it are extensions, which say nothing to a gateway.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (digits, rest) = line.split_at(end.unwrap_or(line.len()));
    let is_extension = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    if digits.is_empty() || !is_extension {
        return Err(Malformed);
    }
    digits.iter().try_fold(0_u64, |size, digit| {
        let digit = u64::from(char::from(*digit).to_digit(16).ok_or(Malformed)?);
        let size = size.checked_mul(16).ok_or(Malformed)?;
        Ok(size + digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body and what is left after it, read in pieces of `size`.
    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut chunks, mut read) = (Chunks::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), 0);
        for piece in bytes.chunks(size.max(1)) {
            read.extend_from_slice(piece);
            while let Some(part) = chunks.next(&mut read)? {
                match part {
                    Part::Data(data) => body.extend_from_slice(&data),
                    Part::Trailers(fields) => trailers = fields.len(),
                    Part::End => break,
                }
            }
        }
        Ok((body, trailers, chunks == Chunks::Done))
    }

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, usize, bool), Malformed>) {
        for size in [1, 2, 3, 5, text.len()] {
            let found = decode(text.as_bytes(), size);
            let expected = expected.map(|(body, fields, is_done)| (body.into(), fields, is_done));
            assert_eq!(found, expected, "{text:?} by {size}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        check("0\r\n\r\n", Ok(("", 0, true)));
        check(
            "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n",
            Ok(("abc0123456789", 0, true)),
        );
        check(
            "1 ; x\r\na\r\n0\r\nx: y\r\nz: a\r\n\r\n",
            Ok(("a", 2, true)),
        );
        check("3\r\nab", Ok(("ab", 0, false)));
        check("3\r\nabc\r\n0\r\n", Ok(("abc", 0, false)));
    }

    #[test]
    fn what_others_might_read_otherwise_is_malformed() {
        let bad = [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\n",
            "3 3\r\n",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3;a\rb\r\nabc",
            "11111111111111111\r\n",
            "0\r\n x\r\n\r\n",
            "0\r\nab\r\n\r\n",
        ];
        for text in bad {
            check(text, Err(Malformed));
        }
        let long = format!("1;{}", "a".repeat(MAX_LINE));
        assert_eq!(decode(long.as_bytes(), usize::MAX), Err(Malformed));
        let long = format!("0\r\nx: {}", "a".repeat(MAX_LINE));
        assert_eq!(decode(long.as_bytes(), usize::MAX), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_was_cut_comes_out_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            size in 1..700_usize,
        ) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&text, size), Ok((pieces.concat(), 0, true)));
        }

        #[test]
        fn bytes_never_panic(bytes: Vec<u8>, size in 1..9_usize) {
            let _ = decode(&bytes, size);
        }
    }
}
