//! Requests that are not left to hyper.

use http::Version;
use http::request::Parts;

use super::served_by_hyper;
use crate::http::bare::unread::Unread;

/// Longest head.
const MOST: usize = 8 << 10;

/// Bytes of a client. The requests that are taken off them are the same however they come in parts, and
/// hyper finds the same ones there, without bodies, and ends each at the same place.
pub fn bare(input: &[u8]) {
    let (found, rest) = taken(input, input.len().max(1));
    let size = 1 + input.len() % 7;
    let (in_parts, rest_in_parts) = taken(input, size);
    assert_eq!(
        (found.len(), &rest),
        (in_parts.len(), &rest_in_parts),
        "{size}"
    );
    for (one, other) in found.iter().zip(&in_parts) {
        assert!(are_same(one, other), "{one:?} {other:?}");
    }
    let taken = &input[..input.len() - rest.len()];
    let next = b"GET /next HTTP/1.1\r\n\r\n";
    let served = served_by_hyper(&[taken, next].concat());
    assert_eq!(served.len(), found.len() + 1);
    for (one, other) in found.iter().zip(&served) {
        assert_eq!(one.version, Version::HTTP_11);
        assert!(are_same(one, other), "{one:?} {other:?}");
    }
    assert_eq!(served[found.len()].uri, "/next");
}

fn are_same(one: &Parts, other: &Parts) -> bool {
    (&one.method, &one.uri, one.version) == (&other.method, &other.uri, other.version)
        && one.headers.iter().eq(&other.headers)
}

/// The requests in bytes that come in parts of this size, and what is left after them.
fn taken(input: &[u8], size: usize) -> (Vec<Parts>, Vec<u8>) {
    let (mut unread, mut found) = (Unread::default(), Vec::new());
    let mut parts = input.chunks(size);
    while let Some(mut came) = parts.next() {
        loop {
            match unread.take(came, MOST) {
                Ok(Some(request)) => found.push(request),
                Ok(None) => break,
                Err(bytes) => {
                    let rest: Vec<&[u8]> = [&bytes[..]].into_iter().chain(parts).collect();
                    return (found, rest.concat());
                }
            }
            came = &[];
            if unread.needs_more() {
                break;
            }
        }
    }
    (found, unread.into_bytes().into())
}
