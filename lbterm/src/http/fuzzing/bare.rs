//! Requests that are not left to hyper.

use http::Version;

use super::served_by_hyper;
use crate::http::bare::request;

/// Bytes of a client. If a request is taken off them, hyper finds the same one there, without a body,
/// and ends it at the same place.
pub fn bare(input: &[u8]) {
    let Some((length, found)) = request::parse(input, input.len() + 1) else {
        return;
    };
    assert_eq!(found.version, Version::HTTP_11);
    let next = b"GET /next HTTP/1.1\r\n\r\n";
    let served = served_by_hyper(&[&input[..length], next].concat());
    let [first, second] = &served[..] else {
        panic!("{} requests", served.len());
    };
    assert_eq!(first.method, found.method);
    assert_eq!(first.uri, found.uri);
    assert_eq!(first.version, found.version);
    assert!(first.headers.iter().eq(&found.headers));
    assert_eq!(second.uri, "/next");
    // All of it was needed.
    assert!(request::parse(&input[..length - 1], input.len() + 1).is_none());
}
