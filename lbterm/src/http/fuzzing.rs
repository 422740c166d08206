//! What has to hold whatever somebody sends: the bodies of the fuzz targets in `tests/fuzz`, which this
//! crate's tests run over the seeds and over changes of them.

mod agent;
mod bare;
mod instance;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Version, request};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lbagent_api::terminator::TicketKey;
use rustls::server::ProducesTickets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::framing::{Framing, Place};
use super::{authority, forwarded, hop};
use crate::conn::{Alpn, ConnMeta, TlsMeta};
use crate::proxies;
use crate::route::canonical_host;
use crate::stream::proxy;
use crate::tls::tickets::{SealingKey, Tickets};

pub use agent::{link, snapshot};
pub use bare::bare;
pub use instance::answer;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this crate.
pub const TARGETS: [Target; 11] = [
    ("answer", answer),
    ("bare", bare),
    ("framing", framing),
    ("authority", authority),
    ("fields", fields),
    ("client", client),
    ("proxied", proxied),
    ("link", link),
    ("snapshot", snapshot),
    ("proxy", proxy),
    ("ticket", ticket),
];

/// Where requests begin and end: the same however they come in parts, and never fewer than hyper
/// sees. The first byte says how large the parts are.
pub fn framing(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let whole = framing_of(bytes, bytes.len());
    let parts = framing_of(bytes, usize::from(*size));
    assert_eq!(
        (whole.heads(), whole.conflict(), whole.place()),
        (parts.heads(), parts.conflict(), parts.place()),
    );
    // After a conflict nothing counts.
    if whole.conflict().is_none() {
        assert!(served_by_hyper(bytes).len() as u64 <= whole.heads());
    }
    // What is there is seen to its end.
    let mut on = whole;
    if on.place() == Place::Between {
        let heads = on.heads();
        on.read(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(on.heads(), heads + 1);
    }
}

fn framing_of(bytes: &[u8], size: usize) -> Framing {
    let mut framing = Framing::default();
    for part in bytes.chunks(size.max(1)) {
        framing.read(part);
    }
    framing
}

/// The requests that hyper finds in a connection's bytes.
fn served_by_hyper(bytes: &[u8]) -> Vec<request::Parts> {
    let served = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&served);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (parts, mut body) = request.into_parts();
        noted.borrow_mut().push(parts);
        async move {
            // To its end, or hyper reads no further.
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            Ok::<_, Infallible>(Response::new(Answer))
        }
    });
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1) + (1 << 20));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), answer);
    let mut connection = pin!(connection);
    let wrote = client.write_all(bytes).now_or_never();
    assert!(wrote.is_some_and(|wrote| wrote.is_ok()));
    assert!(client.shutdown().now_or_never().is_some());
    // Everything is there already, so nothing waits and no runtime is needed; hyper only pauses now and
    // then. An error ends the connection, as it does in the terminator.
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..=bytes.len() {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    served.take()
}

struct Answer;

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Lines of text: a target, then values of `Host`. A request that is let through is for one host, and
/// everybody reads the same one.
pub fn authority(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let Ok(target) = http::Uri::try_from(target) else {
        return;
    };
    let hosts: Vec<_> = lines.map(HeaderValue::from_bytes).collect();
    let Ok(hosts) = hosts.into_iter().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let request = Request::builder().uri(target.clone()).version(version);
        let Ok(request) = request.body(()) else {
            return;
        };
        let (mut parts, ()) = request.into_parts();
        for host in &hosts {
            parts.headers.append(header::HOST, host.clone());
        }
        let Ok(found) = authority::check(&parts) else {
            continue;
        };
        let (host, _) = authority::split(found).expect("it was checked");
        assert!(hosts.len() <= 1);
        assert!(version != Version::HTTP_11 || hosts.len() == 1);
        let name = canonical_host(host);
        assert_eq!(name, name.to_ascii_lowercase());
        let names: Vec<&str> = [target.authority().map(|it| it.as_str()), Some(found)]
            .into_iter()
            .flatten()
            .collect();
        for other in names {
            let (other, _) = authority::split(other).expect("both say the same");
            assert!(other.eq_ignore_ascii_case(host), "{other} and {host}");
        }
        let is_plain = |c: char| !c.is_whitespace() && !"/@?#\\\"',;<>".contains(c);
        assert!(name.chars().all(is_plain), "{name}");
    }
}

/// Lines of text: fields of a head. What is between neighbours only goes, and what tells of extent and
/// origin cannot be made to.
pub fn fields(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(halves.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for is_trusted in [false, true] {
        check_stripped(&headers, is_trusted);
    }
}

fn check_stripped(before: &HeaderMap, is_trusted: bool) {
    let mut headers = before.clone();
    hop::strip_request(&mut headers, is_trusted);
    let values = |headers: &HeaderMap, name: &HeaderName| headers.get_all(name).iter().count();
    for gone in [
        "connection",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(!headers.contains_key(gone), "{gone} of {before:?}");
    }
    for name in [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ] {
        let name = HeaderName::from_static(name);
        let kept = if is_trusted { values(before, &name) } else { 0 };
        assert_eq!(values(&headers, &name), kept, "{name} of {before:?}");
    }
    // Whoever turns fields into variables cannot tell `_` from `-`.
    let is_forged = |name: &HeaderName| {
        let plain = name.as_str().replace('_', "-");
        let is_true = is_trusted && plain == name.as_str();
        plain.len() > 12 && plain.starts_with("x-forwarded-") && !is_true
    };
    assert!(!headers.keys().any(is_forged), "{before:?}");
    for kept in [
        header::HOST,
        header::CONTENT_LENGTH,
        header::COOKIE,
        header::AUTHORIZATION,
    ] {
        assert_eq!(
            values(before, &kept),
            values(&headers, &kept),
            "{kept} of {before:?}"
        );
    }
    let once = headers.clone();
    hop::strip_request(&mut headers, is_trusted);
    assert_eq!(once, headers);
}

/// Lines of text: values of `X-Forwarded-For` as a client sends them. Whatever they are, the client is
/// who the trusted proxy says, however it adds to them.
pub fn client(input: &[u8]) {
    let peer = "203.0.113.7";
    let trusted: Vec<_> = ["10.0.0.0/8", "fd00::/8"]
        .iter()
        .filter_map(|it| it.parse().ok())
        .collect();
    assert_eq!(trusted.len(), 2);
    let name = HeaderName::from_static("x-forwarded-for");
    let mut values: Vec<Vec<u8>> = input
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let joined = values.join(&b", "[..]);
    let last = values.pop().unwrap_or_default();
    let as_line = [&values[..], &[last.clone(), peer.into()]].concat();
    let to_last = [
        &values[..],
        &[[&last, &b", "[..], peer.as_bytes()].concat()],
    ]
    .concat();
    let to_all = vec![[&joined, &b", "[..], peer.as_bytes(), b", 10.1.2.3:80"].concat()];
    for lines in [as_line, to_last, to_all] {
        let lines: Result<Vec<_>, _> = lines
            .iter()
            .map(|line| HeaderValue::from_bytes(line))
            .collect();
        let Ok(lines) = lines else {
            return;
        };
        let headers: HeaderMap = lines.into_iter().map(|line| (name.clone(), line)).collect();
        let found = forwarded::client(&headers, &trusted);
        assert_eq!(found, peer.parse().ok(), "{headers:?}");
    }
}

/// Runs what waits for a socket.
fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The other end of a connection that has sent these bytes, and ended.
fn sent(bytes: &[u8]) -> UnixStream {
    let (mut sender, receiver) = UnixStream::pair().expect("sockets");
    // More than fits would wait for a reader.
    let bytes = &bytes[..bytes.len().min(32 << 10)];
    sender.write_all(bytes).expect("room for it");
    receiver.set_nonblocking(true).expect("a socket");
    receiver
}

/// Bytes from a proxy: of its connection exactly the header of the PROXY protocol is taken.
pub fn proxied(input: &[u8]) {
    block_on(async {
        let stream = std::net::TcpStream::from(OwnedFd::from(sent(input)));
        let mut stream = TcpStream::from_std(stream).expect("a stream");
        let Ok(client) = proxies::read_header(&mut stream).await else {
            return;
        };
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("what was sent");
        let taken = input
            .strip_suffix(&rest[..])
            .expect("nothing but the header is gone");
        let header = ppp::HeaderResult::parse(taken);

        let length = match header {
            ppp::HeaderResult::V1(header) => header.expect("a header").header.len(),
            ppp::HeaderResult::V2(header) => header.expect("a header").len(),
        };
        assert_eq!(length, taken.len(), "{client:?}");
    });
}

/// Text as a server name: whoever reads the header of the PROXY protocol finds it and the addresses.
pub fn proxy(input: &[u8]) {
    let Ok(name) = std::str::from_utf8(input) else {
        return;
    };
    let mut meta = ConnMeta {
        id: 1,
        peer: "192.0.2.9:50000".parse().expect("an address"),
        dialled: "198.51.100.1:443".parse().expect("an address"),
        tls: Some(TlsMeta {
            server_name: Some(name.into()),
            alpn: Alpn::None,
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            is_resumed: false,
        }),
    };
    for address in ["192.0.2.9:1", "[2001:db8::9]:1"] {
        meta.peer = address.parse().expect("an address");
        meta.dialled = meta.peer;
        let Ok(bytes) = proxy::header(&meta) else {
            assert!(name.len() > 60_000, "{} bytes", name.len());
            continue;
        };
        let read = ppp::v2::Header::try_from(&bytes[..]).expect("a header");
        assert_eq!(read.len(), bytes.len());
        let mut tlvs = read.tlvs().map(|tlv| tlv.expect("a TLV"));
        assert!(tlvs.any(|tlv| *tlv.value == *input));
    }
}

/// Bytes as a session ticket: nobody but the key's owner has made one.
pub fn ticket(input: &[u8]) {
    thread_local! {
        static TICKETS: Tickets = {
            let secret = lbagent_api::certificate::Secret::new("5a".repeat(32));
            let keys = SealingKey::derive_all(&[TicketKey { secret }]).expect("a key");
            let tickets = Tickets::default();
            tickets.replace(keys);
            tickets
        };
    }
    TICKETS.with(|tickets| {
        assert_eq!(tickets.decrypt(input), None);
        let sealed = tickets.encrypt(input).expect("a ticket");
        assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(input));
    });
}

#[cfg(test)]
#[path = "../../../tests/fuzz/src/drive.rs"]
mod drive;

#[test]
fn hyper_is_asked_in_earnest() {
    let requests = b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(served_by_hyper(requests).len(), 2);
    let many = b"GET / HTTP/1.1\r\n\r\n".repeat(500);
    assert_eq!(served_by_hyper(&many).len(), 500);
}

#[test]
fn inputs_like_the_seeds_hold() {
    TARGETS
        .iter()
        .for_each(|(name, target)| drive::drive(name, *target));
}
