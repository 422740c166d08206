//! The head of an instance's answer, and what it says of the extent of its body (RFC 9112, section
//! 6.3). Pure.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};

use crate::heads::{self, decimal, place};

/// Most fields of a head.
const MAX_FIELDS: usize = 100;

/// What an instance sent is not HTTP, or in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How far a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes, perhaps none.
    Length(u64),
    /// Up to its last chunk.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Status and fields.
    pub response: Response<()>,
    /// Of what follows.
    pub extent: Extent,
    /// Whether the connection may be used again.
    pub is_kept: bool,
}

/// Takes the head of the answer to a request with this method off the front of what was read; none,
/// if it has not come to its end. Interim answers before it (RFC 9110, section 15.2) are told.
pub fn parse(
    read: &mut BytesMut,
    method: &Method,
    tell: impl Fn(StatusCode, &HeaderMap),
) -> Result<Option<Head>, Malformed> {
    loop {
        let Some(head) = parse_one(read, method)? else {
            return Ok(None);
        };
        match head.response.status() {
            // Nobody has asked for that.
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed),
            status if status.is_informational() => tell(status, head.response.headers()),
            _ => return Ok(Some(head)),
        }
    }
}

fn parse_one(read: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    if read.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut answer, read, &mut fields);
    let Status::Complete(length) = parsed.map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let (Some(code), Some(minor)) = (answer.code, answer.version) else {
        return Err(Malformed);
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed)?;
    let own_reason = answer
        .reason
        .filter(|reason| status.canonical_reason() != Some(reason))
        .map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
    let places: smallvec::SmallVec<[_; 16]> = answer
        .headers
        .iter()
        .map(|field| (place(read, field.name.as_bytes()), place(read, field.value)))
        .collect();
    let text = read.split_to(length).freeze();
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    *headers = heads::fields();
    for (name, value) in places {
        let name = HeaderName::from_bytes(&text[name]).map_err(|_| Malformed)?;
        let value = text.slice(value);
        headers.append(
            name,
            HeaderValue::from_maybe_shared(value).map_err(|_| Malformed)?,
        );
    }
    let version = if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let extent = extent(headers, status, version, method)?;
    // An instance of HTTP/1.0 that would keep the connection says so in ways of its own.
    let is_kept =
        version == Version::HTTP_11 && extent != Extent::UntilClose && !says_close(headers);
    if let Some(reason) = own_reason
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason)
    {
        response.extensions_mut().insert(reason);
    }
    Ok(Some(Head {
        response,
        extent,
        is_kept,
    }))
}

fn extent(
    headers: &mut HeaderMap,
    status: StatusCode,
    version: Version,
    method: &Method,
) -> Result<Extent, Malformed> {
    let is_bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || method == Method::HEAD;
    if is_bodiless {
        return Ok(Extent::Length(0));
    }
    if let Some(coding) = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .next_back()
    {
        if version == Version::HTTP_10 {
            return Err(Malformed);
        }
        let last = coding.as_bytes().rsplit(|byte| *byte == b',').next();
        let is_chunked =
            last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        // The coding overrides the length, which must not be passed on (RFC 9112, section 6.3).
        headers.remove(header::CONTENT_LENGTH);
        return Ok(match is_chunked {
            true => Extent::Chunked,
            false => Extent::UntilClose,
        });
    }
    length(headers)
}

/// By `Content-Length`, which may come more than once, but not with different values.
fn length(headers: &HeaderMap) -> Result<Extent, Malformed> {
    let values = headers.get_all(header::CONTENT_LENGTH).iter();
    let parts = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut length = None;
    for part in parts {
        let value = decimal(part.trim_ascii()).ok_or(Malformed)?;
        if length.replace(value).is_some_and(|other| other != value) {
            return Err(Malformed);
        }
    }
    Ok(length.map_or(Extent::UntilClose, Extent::Length))
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// Extent and whether the connection is kept, of an answer to GET; what is left is `rest`.
    #[track_caller]
    fn check(text: &str, expected: Result<Option<(u16, Extent, bool)>, Malformed>) {
        check_for(&Method::GET, text, expected);
    }

    #[track_caller]
    fn check_for(
        method: &Method,
        text: &str,
        expected: Result<Option<(u16, Extent, bool)>, Malformed>,
    ) {
        let mut read = BytesMut::from(text.as_bytes());
        let found = parse(&mut read, method, |_, _| {});
        let found = found.map(|head| {
            head.map(|head| (head.response.status().as_u16(), head.extent, head.is_kept))
        });
        assert_eq!(found, expected, "{text:?}");
        if let Ok(Some(_)) = found {
            assert_eq!(read, "rest", "{text:?}");
        }
    }

    fn length(length: u64) -> Result<Option<(u16, Extent, bool)>, Malformed> {
        Ok(Some((200, Extent::Length(length), true)))
    }

    #[test]
    fn lengths() {
        let ok = "HTTP/1.1 200 OK\r\n";
        check("", Ok(None));
        check(ok, Ok(None));
        check(&format!("{ok}content-length: 5\r\n\r\nrest"), length(5));
        check(
            &format!("{ok}content-length: 5, 5\r\ncontent-length:5\r\n\r\nrest"),
            length(5),
        );
        let bad = ["5, 6", "+5", "-1", "5 5", "", "0x5", "99999999999999999999"];
        for value in bad {
            check(
                &format!("{ok}content-length: {value}\r\n\r\nrest"),
                Err(Malformed),
            );
        }
        check(
            &format!("{ok}content-length: 5\r\ncontent-length: 6\r\n\r\nrest"),
            Err(Malformed),
        );
        let until_close = Ok(Some((200, Extent::UntilClose, false)));
        check(&format!("{ok}\r\nrest"), until_close);
        let closing = Ok(Some((200, Extent::Length(5), false)));
        let close = "connection: x, Close\r\ncontent-length: 5\r\n\r\nrest";
        check(&format!("{ok}{close}"), closing);
        check("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nrest", closing);
        for garbage in [
            "HTTP/2 200 OK\r\n\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y\r\n\r\n",
        ] {
            check(garbage, Err(Malformed));
        }
    }

    #[test]
    fn codings() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let chunked = Ok(Some((200, Extent::Chunked, true)));
        check(
            &format!("{ok}transfer-encoding: chunked\r\n\r\nrest"),
            chunked,
        );
        check(
            &format!("{ok}transfer-encoding: gzip, Chunked\r\n\r\nrest"),
            chunked,
        );
        let until_close = Ok(Some((200, Extent::UntilClose, false)));
        check(
            &format!("{ok}transfer-encoding: gzip\r\n\r\nrest"),
            until_close,
        );
        check(
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\nrest",
            Err(Malformed),
        );
        let both = format!("{ok}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nrest");
        check(&both, chunked);
        let head = parse(
            &mut BytesMut::from(both.as_bytes()),
            &Method::GET,
            |_, _| {},
        );
        let head = head.unwrap().unwrap();
        assert!(!head.response.headers().contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn answers_without_a_body() {
        let none = |status| Ok(Some((status, Extent::Length(0), true)));
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nrest";
        check_for(&Method::HEAD, text, none(200));
        check("HTTP/1.1 204 No Content\r\n\r\nrest", none(204));
        check("HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\nrest", none(304));
        check("HTTP/1.1 101 X\r\n\r\nrest", Err(Malformed));
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
        check(interim, Ok(None));
        check(&format!("{interim}HTTP/1.1 204 X\r\n\r\nrest"), none(204));
    }

    proptest! {
        /// Whatever comes in whatever pieces is the same answer, and nothing panics.
        #[test]
        fn pieces_do_not_matter(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("HTTP/1.1 200 OK"), Just("HTTP/1.1 100 Continue"), Just(""),
                    Just("content-length: 3"), Just("transfer-encoding: chunked"), Just("x: y"), Just("abc"),
                ],
                0..8,
            ),
            cut in 0..100_usize,
        ) {
            let text = lines.join("\r\n");
            let mut whole = BytesMut::from(text.as_bytes());
            let told = RefCell::new(Vec::new());
            let tell = |status: StatusCode, fields: &HeaderMap| {
                told.borrow_mut().push((status, fields.clone()));
            };
            let expected = parse(&mut whole, &Method::GET, tell);
            let expected_told = told.take();
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            let mut read = BytesMut::from(first);
            let mut found = parse(&mut read, &Method::GET, tell);
            if let Ok(None) = found {
                read.extend_from_slice(second);
                found = parse(&mut read, &Method::GET, tell);
            } else {
                read.extend_from_slice(second);
            }
            let short = |head: Result<Option<Head>, Malformed>| {
                head.map(|head| head.map(|head| (head.response.status(), head.extent, head.is_kept)))
            };
            prop_assert_eq!(short(found), short(expected));
            prop_assert_eq!(told.take(), expected_told);
        }
    }
}
