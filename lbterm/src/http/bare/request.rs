//! The head of a request that needs nothing but an answer. Pure.

use std::mem::MaybeUninit;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::Uri;
use http::{Method, Request, Version, request};
use httparse::{Header, ParserConfig, Status};
use smallvec::SmallVec;

use crate::heads::{self, place};

/// Most fields of a head, as hyper has it.
const MAX_FIELDS: usize = 100;

/// What was read is not a request that needs nothing but an answer: hyper has the last word about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other;

/// Takes a request off the front of what was read: how long its head is, and what it says. None, if
/// the head has not come to its end.
///
/// # Errors
///
/// [`Other`], for whatever is not the head of a request of HTTP/1.1, in fewer bytes than `most`, that
/// has no body, asks for nothing but an answer and leaves the connection open.
pub fn parse(read: &[u8], most: usize) -> Result<Option<(usize, request::Parts)>, Other> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut found = httparse::Request::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_request_with_uninit_headers(&mut found, read, &mut fields) {
        Ok(Status::Complete(length)) if length < most => {
            let parts = plain(&found, &read[..length]).ok_or(Other)?;
            Ok(Some((length, parts)))
        }
        Ok(Status::Partial) if read.len() < most => Ok(None),
        _ => Err(Other),
    }
}

/// What a head says, if that is nothing out of the ordinary.
fn plain(found: &httparse::Request<'_, '_>, head: &[u8]) -> Option<request::Parts> {
    let (Some(method), Some(target), Some(1)) = (found.method, found.path, found.version) else {
        return None;
    };
    if !found.headers.iter().all(is_plain) {
        return None;
    }
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    if method == Method::CONNECT {
        return None;
    }
    let target = place(head, target.as_bytes());
    let places: SmallVec<[_; 16]> = found
        .headers
        .iter()
        .map(|field| (place(head, field.name.as_bytes()), place(head, field.value)))
        .collect();
    let text = heads::keep(head).freeze();
    let mut headers = heads::fields();
    for (name, value) in places {
        let name = HeaderName::from_bytes(&text[name]).ok()?;
        let value = HeaderValue::from_maybe_shared(text.slice(value)).ok()?;
        headers.append(name, value);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = Uri::from_maybe_shared(text.slice(target)).ok()?;
    parts.version = Version::HTTP_11;
    parts.headers = headers;
    Some(parts)
}

/// Whether a field says nothing about a body, the connection or another protocol.
fn is_plain(field: &Header<'_>) -> bool {
    let is = |name: &HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
    // The first letter spares most names the comparisons.
    match field.name.as_bytes().first() {
        Some(b'c' | b'C') => {
            let is_kept = || field.value.eq_ignore_ascii_case(b"keep-alive");
            !is(&header::CONTENT_LENGTH) && (!is(&header::CONNECTION) || is_kept())
        }
        Some(b'e' | b'E') => !is(&header::EXPECT),
        // With `TE` come trailers.
        Some(b't' | b'T') => !is(&header::TRANSFER_ENCODING) && !is(&header::TE),
        Some(b'u' | b'U') => !is(&header::UPGRADE),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET /a?b HTTP/1.1\r\nHost: a.example\r\nX: y\r\nx:z \r\n\r\n";

    #[test]
    fn takes_what_is_plain() {
        for before in ["", "\r\n", "\n\r\n"] {
            let text = format!("{before}{GET}GET /next");
            let (length, parts) = parse(text.as_bytes(), 8192).unwrap().unwrap();
            assert_eq!(&text[length..], "GET /next");
            assert_eq!(
                (parts.method, parts.version),
                (Method::GET, Version::HTTP_11)
            );
            assert_eq!(parts.uri, "/a?b");
            assert_eq!(parts.headers["host"], "a.example");
            let all: Vec<_> = parts.headers.get_all("x").iter().collect();
            assert_eq!(all, ["y", "z"]);
        }
        let kept = GET.replace(
            "X: y",
            "Connection: Keep-Alive\r\nContent-Type: a\r\nTest: u",
        );
        assert!(parse(kept.as_bytes(), 8192).unwrap().is_some());
    }

    #[test]
    fn leaves_everything_else() {
        let is_other = |text: &str, most| parse(text.as_bytes(), most).is_err();
        assert!(is_other(GET, GET.len()));
        assert!(!is_other(GET, GET.len() + 1));
        for line in [
            "Content-Length: 0",
            "content-length: 3",
            "Transfer-Encoding: chunked",
            "Expect: 100-continue",
            "Upgrade: websocket",
            "TE: trailers",
            "Connection: close",
            "Connection: keep-alive, close",
            "Connection: X",
            "Connection:",
            "X Y: z",
            "X: a\0b",
            " folded",
            "Content-Length : 3",
        ] {
            let text = GET.replace("X: y", line);
            assert!(is_other(&text, 8192), "{line}");
        }
        for line in [
            "GET /a?b HTTP/1.0",
            "GET /a?b HTTP/2.0",
            "CONNECT a.example:80 HTTP/1.1",
            "GET  / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET a^b HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            let text = GET.replace("GET /a?b HTTP/1.1", line);
            assert!(is_other(&text, 8192), "{line}");
        }
        let many = GET.replace("X: y", &["X: y"; 101].join("\r\n"));
        assert!(is_other(&many, 8192));
    }

    #[test]
    fn waits_for_the_end_of_a_head() {
        for end in 0..GET.len() {
            let found = parse(&GET.as_bytes()[..end], 8192);
            assert!(matches!(found, Ok(None)), "{end}");
        }
        assert!(parse(&GET.as_bytes()[..30], 31).is_ok());
        assert!(parse(&GET.as_bytes()[..30], 30).is_err());
    }
}
