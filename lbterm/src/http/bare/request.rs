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

/// Takes a request off the front of what was read: how long its head is, and what it says. None for
/// whatever is not the whole head of a request of HTTP/1.1 that has no body, asks for nothing but an
/// answer and leaves the connection open, in fewer bytes than `most`: hyper has the last word about
/// all those, and about what is no HTTP.
pub fn parse(read: &[u8], most: usize) -> Option<(usize, request::Parts)> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut found = httparse::Request::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_request_with_uninit_headers(&mut found, read, &mut fields);
    let Ok(Status::Complete(length)) = parsed else {
        return None;
    };
    let (Some(method), Some(target), Some(1)) = (found.method, found.path, found.version) else {
        return None;
    };
    if length >= most || !found.headers.iter().all(is_plain) {
        return None;
    }
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    if method == Method::CONNECT {
        return None;
    }
    let target = place(read, target.as_bytes());
    let places: SmallVec<[_; 16]> = found
        .headers
        .iter()
        .map(|field| (place(read, field.name.as_bytes()), place(read, field.value)))
        .collect();
    let text = heads::keep(&read[..length]).freeze();
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
    Some((length, parts))
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
            let (length, parts) = parse(text.as_bytes(), 8192).unwrap();
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
        assert!(parse(kept.as_bytes(), 8192).is_some());
    }

    #[test]
    fn leaves_everything_else() {
        assert_eq!(parse(GET.as_bytes(), GET.len()).map(|_| ()), None);
        assert!(parse(GET.as_bytes(), GET.len() + 1).is_some());
        for end in 0..GET.len() {
            assert!(parse(&GET.as_bytes()[..end], 8192).is_none(), "{end}");
        }
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
            assert!(parse(text.as_bytes(), 8192).is_none(), "{line}");
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
            assert!(parse(text.as_bytes(), 8192).is_none(), "{line}");
        }
        let many = GET.replace("X: y", &["X: y"; 101].join("\r\n"));
        assert!(parse(many.as_bytes(), 8192).is_none());
    }
}
