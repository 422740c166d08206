//! Requests that need nothing but an answer do not pass hyper's server. Whatever a client sends, nobody
//! can tell: it gets the same bytes, and so does the instance, as on a connection that hyper serves from
//! its first byte on.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::client::Client;
use super::gateway::{Gateway, pause};
use super::origin::{Origin, Request};

/// Sequences of requests.
const CASES: u32 = 150;

/// A request without a body that is left to hyper, with all that follows it.
const FIRST: &str = "POST /first HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n";

/// Ends the connection.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// Answers of each kind, by the path.
fn answer(request: &Request, output: &mut impl Write) -> bool {
    let line = request.head.lines().next().unwrap_or_default();
    let is_head = line.starts_with("HEAD ");
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (head, body) = match path.split('?').next().unwrap_or_default() {
        "/chunks" => (
            "200 OK\r\nTransfer-Encoding: chunked\r\nX: y",
            "3\r\nabc\r\n1A;x=y\r\n01234567890123456789012345\r\n0\r\n\r\n".to_owned(),
        ),
        "/trailers" => (
            "200 OK\r\nTrailer: X-T\r\nTrailer: X-U\r\nTransfer-Encoding: chunked",
            "1\r\na\r\n0\r\nX-T: 1\r\n\r\n".to_owned(),
        ),
        "/close" => (
            "200 OK\r\nConnection: close, X-A\r\nX-A: 1",
            "abc".to_owned(),
        ),
        "/none" => (
            "204 No Content\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d",
            String::new(),
        ),
        "/same" => (
            "304 Not Modified\r\nContent-Length: 9\r\nETag: \"1\"",
            String::new(),
        ),
        "/empty" => ("404 Where Is It\r\nContent-Length: 0", String::new()),
        "/dated" => (
            "299 Fine\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2",
            "ok".to_owned(),
        ),
        "/early" => (
            "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2",
            "ok".to_owned(),
        ),
        "/broken" => ("200 OK\r\nContent-Length: 9", "abc".to_owned()),
        "/bad" => ("200 OK\r\nContent-Length: x", String::new()),
        "/large" => (
            "200 OK\r\nContent-Length: 100000",
            "0123456789".repeat(10_000),
        ),
        _ => (
            "200 OK\r\nContent-Length: 8\r\nX-Own: 1",
            "instance".to_owned(),
        ),
    };
    let body = if is_head { "" } else { &body };
    let text = format!("HTTP/1.1 {head}\r\n\r\n{body}");
    // Whoever closes after a whole answer without saying so crosses the next request.
    let closes = !is_head && matches!(path, "/close" | "/broken" | "/bad");
    output.write_all(text.as_bytes()).is_ok() && !closes
}

/// A head, with lines that end in CR LF or in LF alone.
fn request() -> impl Strategy<Value = String> {
    let methods = [
        "GET", "GET", "GET", "HEAD", "HEAD", "OPTIONS", "DELETE", "POST", "BREW",
    ];
    let targets = [
        "/",
        "/",
        "/a?b",
        "/chunks",
        "/trailers",
        "/close",
        "/none",
        "/same",
        "/empty",
        "/dated",
        "/early",
        "/broken",
        "/bad",
        "/large",
        "*",
        "http://a.example/",
        "http://b.example/",
        "//",
        "/%zz",
        "/{}",
        "a",
    ];
    let hosts = [
        "Host: a.example",
        "Host: a.example",
        "Host: a.example",
        "Host: a.example",
        "host: A.example:80",
        "Host: b.example",
        "Host: a b",
        "Host: a.example|Host: a.example",
        "X: y",
    ];
    let fields = [
        "Connection: keep-alive",
        "Connection: Keep-Alive",
        "Accept: application/json",
        "Cookie: a=b; c",
        "X-Forwarded-For: 1.1.1.1",
        "X-Request-Id: mine",
        "X-Request-Id: not sane",
        "Content-Type: text/plain",
        "Trailer: X",
        "X: \t y ",
        "X:",
        "Connection: close",
        "Connection: X-A|X-A: 1",
        "TE: trailers",
        "Expect: 100-continue",
        "Upgrade: h2c",
        "Content-Length: 0",
        "X y: z",
        "X: y| folded",
    ];
    let version = prop_oneof![20 => Just("1.1"), 1 => Just("1.0"), 1 => Just("2.0")];
    let line_end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n")];
    let fields = proptest::collection::vec(select(fields.to_vec()), 0..3);
    let line = (select(methods.to_vec()), select(targets.to_vec()), version);
    let before = prop_oneof![9 => Just(""), 1 => Just("|")];
    (before, line, select(hosts.to_vec()), fields, line_end).prop_map(
        |(before, (method, target, version), host, fields, line_end)| {
            let mut lines = vec![format!("{before}{method} {target} HTTP/{version}")];
            lines.push(host.to_owned());
            lines.extend(fields.into_iter().map(str::to_owned));
            lines.push("|".to_owned());
            lines.join("|").replace('|', line_end)
        },
    )
}

/// What the client of these bytes gets until the connection ends, without what is of its moment alone, and
/// whether it was cut off while it sent.
fn answers(gateway: &Gateway, first: &str, bytes: &[u8], cuts: &[usize]) -> (String, bool) {
    let mut client = Client::new(gateway.address());
    if !first.is_empty() {
        client.send(first);
        assert_eq!(client.answer().status, 200);
    }
    let (mut rest, mut is_cut) = (bytes, false);
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        // The gateway may have had enough.
        is_cut |= !client.try_send(piece);
        // Mostly it reads now what has come.
        pause(Duration::from_micros(300));
    }
    is_cut |= !client.try_send(rest);
    let mut all = Vec::new();
    let ended = client.stream().read_to_end(&mut all);
    // A reset is an end, too.
    is_cut |= ended.is_err();
    assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    let _ = client.stream().get_ref().shutdown(Shutdown::Both);
    let all = String::from_utf8_lossy(&all);
    let kept = all
        .split_inclusive("\r\n")
        .map(|line| match line.starts_with("date: ") {
            true => "date\r\n",
            false => line,
        });
    (kept.collect(), is_cut)
}

/// The heads of what an instance was asked, without ids that the gateway makes.
fn asked(origin: &Origin, since: usize) -> Vec<String> {
    let without_id = |request: &Request| {
        let lines = request.head.split_inclusive("\r\n");
        let kept = lines.filter(|line| {
            let id = line.strip_prefix("x-request-id: ");
            id.is_none_or(|id| id.trim() == "mine")
        });
        kept.collect()
    };
    origin.requests()[since..].iter().map(without_id).collect()
}

#[test]
fn nobody_can_tell_whether_hyper_serves() {
    let origin = Origin::new(|request, stream| answer(request, stream.get_mut()));
    let gateway = Gateway::new(&[origin.address]);
    let requests = proptest::collection::vec(request(), 1..4);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    // Most heads come in one piece, some by the byte.
    let piece = prop_oneof![3 => 0..300_usize, 1 => 0..4_usize];
    let strategy = (requests, proptest::collection::vec(piece, 0..6));
    let ran = TestRunner::new(config).run(&strategy, |(requests, cuts)| {
        let text = requests.concat() + LAST;
        let before = origin.requests().len();
        let (bare, bare_is_cut) = answers(&gateway, "", text.as_bytes(), &cuts);
        let bare_asked = asked(&origin, before);
        let before = origin.requests().len() + 1;
        let (hyper, hyper_is_cut) = answers(&gateway, FIRST, text.as_bytes(), &cuts);
        // A reset may overtake the last answer, for a client that goes on after it.
        let is_start = bare.starts_with(&hyper) || hyper.starts_with(&bare);
        if !((bare_is_cut || hyper_is_cut) && is_start) {
            prop_assert_eq!(&bare, &hyper, "{:?} {:?}", text, cuts);
        }
        prop_assert_eq!(bare_asked, asked(&origin, before), "{:?} {:?}", text, cuts);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}
