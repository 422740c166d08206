//! Fields that are between two neighbours only, and what a gateway puts in their place.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// What the sender of a message said to its neighbour alone, and is gone from its fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The one protocol that it wants to go on with, where `Connection` says so too.
    pub upgrade: Option<HeaderValue>,
    /// It takes trailers (`TE: trailers`, RFC 9110, section 10.1.4).
    pub takes_trailers: bool,
    /// Its body came in chunks.
    pub is_chunked: bool,
}

/// Removes the hop-by-hop fields: those that `Connection` names and those of RFC 9110, section
/// 7.6.1. `Connection` cannot name what decides about extent or origin of a message (see
/// [`is_end_to_end`]): whoever could would erase it behind the gateway's back.
pub fn strip_response(headers: &mut HeaderMap) -> Hop {
    strip(headers, |_| false)
}

/// As [`strip_response`], and also what a client says about where its request came from: only the
/// gateway knows, and a proxy that is trusted, in fields that are spelled as they should be.
pub fn strip_request(headers: &mut HeaderMap, is_trusted: bool) -> Hop {
    strip(headers, |name| {
        is_origin(name) && (!is_trusted || name.contains('_'))
    })
}

/// Removes from a request's trailers what means something in its head only: whoever merges them into
/// it would believe the client (RFC 9110, section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let means_more = |name: &HeaderName| {
        is_hop_by_hop(name) || is_end_to_end(name) || name == header::CONTENT_TYPE
    };
    let doomed: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| means_more(name))
        .cloned()
        .collect();
    for name in doomed {
        trailers.remove(name);
    }
}

fn strip(headers: &mut HeaderMap, is_untrue: impl Fn(&str) -> bool) -> Hop {
    // Most messages have none of these: nothing is allocated for up to four.
    let mut doomed: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for name in headers.keys() {
        if is_hop_by_hop(name) || is_untrue(name.as_str()) {
            doomed.push(name.clone());
        }
    }
    if doomed.is_empty() {
        return Hop::default();
    }
    let hop = Hop {
        upgrade: wanted_upgrade(headers),
        takes_trailers: has_token(headers, &header::TE, "trailers"),
        is_chunked: headers.contains_key(header::TRANSFER_ENCODING),
    };
    for value in headers.get_all(header::CONNECTION) {
        for token in tokens(value) {
            // Tokens like `close` and `keep-alive` are no fields: then there is nothing to remove.
            if let Ok(name) = HeaderName::from_bytes(token)
                && !is_end_to_end(&name)
                && headers.contains_key(&name)
            {
                doomed.push(name);
            }
        }
    }
    for name in doomed {
        headers.remove(name);
    }
    hop
}

/// RFC 9110, section 7.6.1, and the two fields for proxies that RFC 9110, section 11.7, addresses
/// to the next one only.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    // The first letter spares most names the comparisons.
    match name.as_str().as_bytes()[0] {
        b'c' => name == header::CONNECTION,
        b't' => name == header::TE || name == header::TRANSFER_ENCODING,
        b'u' => name == header::UPGRADE,
        b'k' => name == "keep-alive",
        b'p' => {
            name == "proxy-connection"
                || name == header::PROXY_AUTHENTICATE
                || name == header::PROXY_AUTHORIZATION
        }
        b'h' => name == "http2-settings",
        _ => false,
    }
}

/// Fields that tell an instance who asks and for what. Servers that turn fields into variables
/// cannot tell `_` from `-`.
fn is_origin(name: &str) -> bool {
    match name.as_bytes()[0] {
        b'f' => name == "forwarded",
        b'x' => {
            let start = b"x-forwarded-";
            name.len() > start.len()
                && name
                    .bytes()
                    .zip(start)
                    .all(|(byte, expected)| byte == *expected || byte == b'_' && *expected == b'-')
        }
        _ => false,
    }
}

/// What `Connection` cannot name. RFC 9110, section 7.6.1, forbids senders to name fields that are
/// for all recipients.
fn is_end_to_end(name: &HeaderName) -> bool {
    name == header::HOST
        || name == header::CONTENT_LENGTH
        || name == header::AUTHORIZATION
        || name == header::COOKIE
        || name == header::CACHE_CONTROL
        || name == "x-request-id"
        || is_origin(name.as_str())
}

/// The protocol to go on with. `h2c` is never among them: an instance that took it would speak
/// past the gateway's balancing and checks (RFC 9113, section 3.1, has withdrawn it).
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let is_one = !value.as_bytes().contains(&b',');
    let is_h2c = value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c");
    (is_one && !is_h2c && has_token(headers, &header::CONNECTION, "upgrade")).then(|| value.clone())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes())))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let parts = value.as_bytes().split(|byte| *byte == b',');
    parts
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
            headers.append(name, value.parse().expect("a field value"));
        }
        headers
    }

    #[track_caller]
    fn check(before: &[(&str, &str)], after: &[(&str, &str)], hop: &Hop) {
        let mut headers = map(before);
        let found = strip_request(&mut headers, false);
        assert_eq!(headers, map(after), "{before:?}");
        assert_eq!(&found, hop, "{before:?}");
    }

    #[test]
    fn keeps_what_a_trusted_proxy_says_of_the_client() {
        let mut headers = map(&[
            ("x-forwarded-for", "203.0.113.5"),
            ("x_forwarded_for", "6.6.6.6"),
            ("forwarded", "for=203.0.113.5"),
            ("connection", "close"),
        ]);
        strip_request(&mut headers, true);
        let kept = [
            ("x-forwarded-for", "203.0.113.5"),
            ("forwarded", "for=203.0.113.5"),
        ];
        assert_eq!(headers, map(&kept));
    }

    #[test]
    fn removes_what_is_for_the_neighbour() {
        let none = Hop::default();
        check(&[("host", "a")], &[("host", "a")], &none);
        check(
            &[
                ("connection", "close, X-Own ,,"),
                ("x-own", "1"),
                ("x-other", "2"),
            ],
            &[("x-other", "2")],
            &none,
        );
        check(
            &[
                ("connection", "keep-alive"),
                ("connection", "a"),
                ("a", "1"),
                ("keep-alive", "5"),
            ],
            &[],
            &none,
        );
        check(
            &[
                ("connection", "host, content-length, authorization"),
                ("host", "a"),
                ("content-length", "3"),
            ],
            &[("host", "a"), ("content-length", "3")],
            &none,
        );
        check(
            &[
                ("te", "trailers, deflate"),
                ("proxy-connection", "x"),
                ("trailer", "a"),
            ],
            &[("trailer", "a")],
            &Hop {
                takes_trailers: true,
                ..Hop::default()
            },
        );
        check(
            &[("transfer-encoding", "chunked")],
            &[],
            &Hop {
                is_chunked: true,
                ..Hop::default()
            },
        );
    }

    #[test]
    fn only_the_gateway_says_where_a_request_came_from() {
        check(
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x_forwarded-for", "1.2.3.4"),
                ("x_forwarded_proto", "https"),
                ("x-forwarded-user", "root"),
                ("forwarded", "for=1.2.3.4"),
                ("x-forwarder", "kept"),
            ],
            &[("x-forwarder", "kept")],
            &Hop::default(),
        );
        let mut headers = map(&[
            ("x-forwarded-host", "a"),
            ("connection", "x-forwarded-host"),
        ]);
        strip_response(&mut headers);
        assert_eq!(headers, map(&[("x-forwarded-host", "a")]));
    }

    #[test]
    fn trailers_cannot_pose_as_a_head() {
        let mut trailers = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x_forwarded_proto", "https"),
            ("host", "b"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("authorization", "x"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", "0")]));
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_one_protocol() {
        let upgrade = |lines: &[(&str, &str)]| strip_request(&mut map(lines), false).upgrade;
        let websocket = Some(HeaderValue::from_static("websocket"));
        let connection = ("connection", "keep-alive, Upgrade");
        assert_eq!(upgrade(&[("upgrade", "websocket"), connection]), websocket);
        assert_eq!(upgrade(&[("upgrade", "websocket")]), None);
        assert_eq!(upgrade(&[connection]), None);
        assert_eq!(upgrade(&[("upgrade", "h2c"), connection]), None);
        assert_eq!(upgrade(&[("upgrade", "websocket, h2c"), connection]), None);
        assert_eq!(
            upgrade(&[("upgrade", "websocket"), ("upgrade", "h2c"), connection]),
            None
        );
    }

    proptest! {
        /// Whatever comes, nothing hop-by-hop is left, nothing that `Connection` named, and all
        /// the rest is as it was.
        #[test]
        fn exactly_the_hop_by_hop_fields_go(
            names in proptest::collection::vec(
                prop_oneof![
                    3 => "[a-c]{1,2}",
                    1 => Just("te".to_owned()), 1 => Just("upgrade".to_owned()),
                    1 => Just("keep-alive".to_owned()), 1 => Just("transfer-encoding".to_owned()),
                    1 => Just("x-forwarded-for".to_owned()), 1 => Just("forwarded".to_owned()),
                    1 => Just("host".to_owned()), 1 => Just("content-length".to_owned()),
                ],
                0..12,
            ),
            named in proptest::collection::vec("([a-cA-C]{1,2}|close|[Hh]ost|X-Forwarded-For)", 0..5),
            is_request: bool,
        ) {
            let mut headers = HeaderMap::new();
            for (index, name) in names.iter().enumerate() {
                let name: HeaderName = name.parse().expect("a field name");
                headers.append(name, HeaderValue::from(index));
            }
            if !named.is_empty() {
                let value = named.join(" , ").parse().expect("a field value");
                headers.append(header::CONNECTION, value);
            }
            let before = headers.clone();
            if is_request {
                strip_request(&mut headers, false);
            } else {
                strip_response(&mut headers);
            }
            for (name, value) in &before {
                let is_named = named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()));
                let goes = match name.as_str() {
                    "te" | "upgrade" | "keep-alive" | "transfer-encoding" | "connection" => true,
                    "x-forwarded-for" | "forwarded" => is_request,
                    "host" | "content-length" => false,
                    _ => is_named,
                };
                let is_there = headers.get_all(name).iter().any(|kept| kept == value);
                prop_assert_eq!(is_there, !goes, "{} of {:?}", name, &before);
            }
            prop_assert!(headers.len() <= before.len());
        }
    }
}
