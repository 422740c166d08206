//! What instances are told about where a request came from: `X-Forwarded-*`, `Forwarded` (RFC
//! 7239) and a request id.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use lbagent_api::policy::IpNetwork;

use crate::proxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// Identifies a request in the logs of everyone who sees it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client that is kept.
const MAX_REQUEST_ID: usize = 128;

/// What is the same for all requests of a connection.
#[derive(Debug)]
pub struct Forwarded {
    client: HeaderValue,
    proto: HeaderValue,
    /// `Forwarded` up to the host.
    start: String,
    is_trusting: bool,
    /// The last host and its `Forwarded`: connections seldom ask for two.
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarded {
    /// Of a connection from this client, or from a proxy whose word is taken.
    pub fn new(peer: SocketAddr, is_tls: bool, is_trusting: bool) -> Self {
        let client = peer.ip().to_canonical();
        let proto = if is_tls { "https" } else { "http" };
        // RFC 7239, section 6: an IPv6 address is bracketed, and so quoted.
        let node = match client {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        Self {
            client: field(client.to_string().as_bytes()),
            proto: HeaderValue::from_static(proto),
            start: format!("for={node};proto={proto};host="),
            is_trusting,
            last: RefCell::new(None),
        }
    }

    /// Whether the peer is a proxy whose word is taken.
    pub const fn is_trusting(&self) -> bool {
        self.is_trusting
    }

    /// Adds the fields to a request: it has none of them, unless a trusted proxy has sent it.
    pub fn add(&self, headers: &mut HeaderMap, host: HeaderValue) {
        let forwarded = self.forwarded(&host);
        if self.is_trusting {
            append(headers, X_FORWARDED_FOR, &self.client);
            append(headers, FORWARDED, &forwarded);
            // What the client asked for is what the first proxy saw.
            for (name, value) in [(X_FORWARDED_PROTO, &self.proto), (X_FORWARDED_HOST, &host)] {
                headers.entry(name).or_insert_with(|| value.clone());
            }
            return;
        }
        headers.insert(X_FORWARDED_FOR, self.client.clone());
        headers.insert(X_FORWARDED_PROTO, self.proto.clone());
        headers.insert(X_FORWARDED_HOST, host);
        headers.insert(FORWARDED, forwarded);
    }

    /// As [`Self::add`] for a request of a client, as lines of a head: that costs far less than
    /// fields which are only put in to be taken out.
    pub fn write(&self, lines: &mut Vec<u8>, host: &HeaderValue) {
        let forwarded = self.forwarded(host);
        write_line(lines, &X_FORWARDED_FOR, &self.client);
        write_line(lines, &X_FORWARDED_PROTO, &self.proto);
        write_line(lines, &X_FORWARDED_HOST, host);
        write_line(lines, &FORWARDED, &forwarded);
    }

    fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut last = self.last.borrow_mut();
        if let Some((last_host, value)) = &*last
            && last_host == host
        {
            return value.clone();
        }
        // RFC 7239, section 4: what is no token (a port's colon, brackets) is quoted; the host was
        // checked to have nothing that would have to be escaped.
        let name = String::from_utf8_lossy(host.as_bytes());
        let is_token = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let start = &self.start;
        let value = if is_token {
            field(format!("{start}{name}").as_bytes())
        } else {
            field(format!("{start}\"{name}\"").as_bytes())
        };
        // A copy: the host as it came is a part of what was read, all of which it would keep.
        *last = Some((field(host.as_bytes()), value.clone()));
        value
    }
}

/// Makes a list of what was said before and one more.
fn append(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let former = headers.get_all(&name).iter();
    let values: Vec<&[u8]> = former.chain([last]).map(HeaderValue::as_bytes).collect();
    let joined = field(&values.join(&b", "[..]));
    headers.insert(name, joined);
}

/// The client that trusted proxies tell of: the last address in `X-Forwarded-For` that is none of
/// theirs. What stands before it anybody may have written.
pub fn client(headers: &HeaderMap, trusted: &[IpNetwork]) -> Option<IpAddr> {
    let values: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let values = values.iter().rev().map(|value| value.as_bytes());
    let words = values.flat_map(|value| value.rsplit(|byte| *byte == b','));
    words
        // What cannot be read ends what the proxies have said.
        .map_while(|word| parse_address(std::str::from_utf8(word).ok()?.trim()))
        .find(|address| !proxies::hold(trusted, *address))
}

/// Some proxies add the client's port, and bracket IPv6 addresses.
fn parse_address(word: &str) -> Option<IpAddr> {
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    let whole = || word.parse::<SocketAddr>().ok().map(|it| it.ip());
    bare.parse().ok().or_else(whole)
}

/// A field value of bytes that were checked to be one; empty if they are not.
fn field(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A field as a line of a head.
pub fn write_line(lines: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}

/// The client's request id if it is a sane one, else a new one, which the request has from then on.
pub fn ensure_request_id(headers: &mut HeaderMap) -> HeaderValue {
    kept_request_id(headers).unwrap_or_else(|| {
        let id = new_request_id();
        headers.insert(X_REQUEST_ID, id.clone());
        id
    })
}

/// As [`ensure_request_id`]; a new one is a line of the head.
pub fn write_request_id(headers: &mut HeaderMap, lines: &mut Vec<u8>) -> HeaderValue {
    kept_request_id(headers).unwrap_or_else(|| {
        let id = new_request_id();
        headers.remove(X_REQUEST_ID);
        write_line(lines, &X_REQUEST_ID, &id);
        id
    })
}

fn kept_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut ids = headers.get_all(X_REQUEST_ID).iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) if is_sane(id.as_bytes()) => Some(id.clone()),
        _ => None,
    }
}

/// Nothing that a log or a shell might take for something else.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=:@".contains(b);
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(is_plain)
}

thread_local! {
    /// What tells the ids of this thread from all others, and how many there were.
    static IDS: (u64, Cell<u64>) = (fastrand::u64(..), Cell::new(fastrand::u64(..)));
    /// Room for the next ids: one allocation serves 32 of them.
    static ROOM: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// All 16 digits; `format!` takes five times as long.
fn hexadecimal(number: u64) -> [u8; 16] {
    let digit = |index| number >> (60 - 4 * index) & 15;
    std::array::from_fn(|index| b"0123456789abcdef"[digit(index) as usize])
}

fn new_request_id() -> HeaderValue {
    let (thread, count) = IDS.with(|(thread, count)| {
        count.set(count.get().wrapping_add(1));
        (*thread, count.get())
    });
    ROOM.with_borrow_mut(|room| {
        room.reserve(32);
        room.extend_from_slice(&hexadecimal(thread));
        room.extend_from_slice(&hexadecimal(count));
        HeaderValue::from_maybe_shared(room.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[track_caller]
    fn check(peer: &str, is_tls: bool, host: &'static str, expected: [&str; 3]) {
        let peer = peer.parse().expect("an address");
        let forwarded = Forwarded::new(peer, is_tls, false);
        // Twice: the second time from memory.
        for _ in 0..2 {
            let mut headers = HeaderMap::new();
            forwarded.add(&mut headers, HeaderValue::from_static(host));
            let names = [X_FORWARDED_FOR, X_FORWARDED_PROTO, FORWARDED];
            assert_eq!(names.map(|name| headers[name].clone()), expected);
            assert_eq!(headers[X_FORWARDED_HOST], host);
        }
    }

    #[test]
    fn says_who_asked_and_how() {
        check(
            "192.0.2.1:99",
            true,
            "a.example",
            [
                "192.0.2.1",
                "https",
                "for=192.0.2.1;proto=https;host=a.example",
            ],
        );
        check(
            "[2001:db8::1]:99",
            false,
            "a.example:8080",
            [
                "2001:db8::1",
                "http",
                "for=\"[2001:db8::1]\";proto=http;host=\"a.example:8080\"",
            ],
        );
        check(
            "[::ffff:192.0.2.1]:99",
            false,
            "[::1]",
            [
                "192.0.2.1",
                "http",
                "for=192.0.2.1;proto=http;host=\"[::1]\"",
            ],
        );
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let trusting = Forwarded::new("192.0.2.1:99".parse().unwrap(), false, true);
        let host = HeaderValue::from_static("a.example");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (X_FORWARDED_FOR, "203.0.113.5"),
            (X_FORWARDED_FOR, "198.51.100.1"),
            (X_FORWARDED_PROTO, "https"),
            (FORWARDED, "for=203.0.113.5;proto=https"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let trusted = ["198.51.100.0/24".parse().unwrap()];
        let told: Option<IpAddr> = client(&headers, &trusted);
        assert_eq!(told, Some("203.0.113.5".parse().unwrap()));
        trusting.add(&mut headers, host.clone());
        assert_eq!(
            headers[X_FORWARDED_FOR],
            "203.0.113.5, 198.51.100.1, 192.0.2.1"
        );
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
        assert_eq!(headers[X_FORWARDED_HOST], "a.example");
        let own = "for=192.0.2.1;proto=http;host=a.example";
        assert_eq!(
            headers[FORWARDED],
            format!("for=203.0.113.5;proto=https, {own}")
        );
        // Without anything said before, it is as with any client.
        let mut bare = HeaderMap::new();
        trusting.add(&mut bare, host);
        assert_eq!(bare[X_FORWARDED_FOR], "192.0.2.1");
        assert_eq!(bare[FORWARDED], own);
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_client() {
        let trusted = ["198.51.100.0/24".parse().unwrap()];
        let check = |text: &'static str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_static(text));
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(client(&headers, &trusted), expected, "{text}");
        };
        check("6.6.6.6, 203.0.113.5,198.51.100.1", Some("203.0.113.5"));
        check("203.0.113.5:5000", Some("203.0.113.5"));
        check("[2001:db8::1]", Some("2001:db8::1"));
        check("[2001:db8::1]:443, 198.51.100.9", Some("2001:db8::1"));
        check("203.0.113.5, unknown", None);
        check("198.51.100.1", None);
        check("", None);
    }

    #[test]
    fn lines_say_what_fields_say() {
        let peer = "[2001:db8::1]:99".parse().expect("an address");
        let forwarded = Forwarded::new(peer, true, false);
        for ids in [&[][..], &["own"], &["not sane"], &["two", "ids"]] {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(X_REQUEST_ID, HeaderValue::from_static(id));
            }
            let (mut lines, host) = (Vec::new(), HeaderValue::from_static("a.example:8080"));
            forwarded.write(&mut lines, &host);
            let mut expected = HeaderMap::new();
            forwarded.add(&mut expected, host);
            let id = write_request_id(&mut headers, &mut lines);
            expected.insert(X_REQUEST_ID, id);
            let mut fields = [httparse::EMPTY_HEADER; 8];
            lines.extend_from_slice(b"\r\n");
            let parsed = httparse::parse_headers(&lines, &mut fields);
            let (_, fields) = parsed.expect("lines").unwrap();
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
                let value = HeaderValue::from_bytes(field.value).expect("a value");
                headers.append(name, value);
            }
            assert_eq!(headers, expected);
        }
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[track_caller]
    fn check_id(ids: &[&str], is_kept: bool) {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(X_REQUEST_ID, id.parse().expect("a field value"));
        }
        let id = ensure_request_id(&mut headers);
        assert_eq!(
            headers.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(),
            [&id]
        );
        assert_eq!(
            ids.contains(&id.to_str().expect("plain")),
            is_kept,
            "{ids:?}"
        );
        assert!(is_sane(id.as_bytes()));
    }

    #[test]
    fn keeps_sane_ids_only() {
        check_id(&[], false);
        check_id(&["3f2b-A_1.x/+=:"], true);
        check_id(&["a b"], false);
        check_id(&["a\"b"], false);
        check_id(&["$(x)"], false);
        check_id(&["a", "b"], false);
        check_id(&[&"a".repeat(128)], true);
        check_id(&[&"a".repeat(129)], false);
    }

    #[test]
    fn ids_are_unique() {
        let ids: HashSet<_> = (0..1000)
            .map(|_| ensure_request_id(&mut HeaderMap::new()))
            .collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
