//! The head of a request in the form that an instance of HTTP/1.1 takes (RFC 9112, section 3.2.1).

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Version, request};

/// The head of a request to an instance that speaks HTTP/1.1.
pub fn origin_form(parts: &mut request::Parts, host: &HeaderValue) {
    let was_http2 = parts.version == Version::HTTP_2;
    parts.version = Version::HTTP_11;
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    }
    // Also after an absolute target (RFC 9112, section 3.2.2).
    parts
        .headers
        .entry(header::HOST)
        .or_insert_with(|| host.clone());
    if was_http2 {
        join_cookies(&mut parts.headers);
    }
}

/// HTTP/2 may split what is one field elsewhere (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    // Field values joined by these bytes are a field value.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}
