//! Requests that two readers might take for two different ones. As oracle serves the stricter of
//! what HAProxy and nginx do, by the sections of RFC 9110 and RFC 9112 that the rows name.

use super::client::Client;
use super::gateway::Gateway;
use super::origin::{Origin, ok};

/// What becomes of a request.
enum Verdict {
    /// It reaches the instance, and the connection goes on.
    Passes,
    /// It reaches the instance, and the connection ends after the answer.
    PassesAndCloses,
    /// It gets this status, reaches nobody whole, and the connection ends.
    Refused(u16),
    /// It gets this status and reaches nobody; the connection goes on.
    Answered(u16),
}

use Verdict::{Answered, Passes, PassesAndCloses, Refused};

/// Lines of a head end with `|`, which stands for CR LF.
#[track_caller]
fn check(text: &str, expected: Verdict) {
    check_bytes(text.replace('|', "\r\n").as_bytes(), expected);
}

#[track_caller]
fn check_bytes(bytes: &[u8], expected: Verdict) {
    let origin = Origin::answering(ok("instance"));
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    client.send(bytes);
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let answer = client.answer();
    let (status, reaches, goes_on) = match expected {
        Passes => (200, true, true),
        PassesAndCloses => (200, true, false),
        Refused(status) => (status, false, false),
        Answered(status) => (status, false, true),
    };
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    assert_eq!(answer.body == b"instance", reaches, "{shown:?}: {answer:?}");
    if goes_on {
        client.send("GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(client.answer().status, 200, "{shown:?}");
    } else {
        assert!(client.is_closed(), "{shown:?}: the connection goes on");
    }
    // What one request was must not have become two.
    let lines: Vec<_> = origin
        .requests()
        .iter()
        .map(|request| request.head.lines().next().unwrap_or_default().to_owned())
        .collect();
    let expected = usize::from(reaches) + usize::from(goes_on);
    assert_eq!(lines.len(), expected, "{shown:?}: {lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("smuggled")),
        "{shown:?}"
    );
}

#[test]
fn hosts() {
    // RFC 9112, section 3.2: a request of HTTP/1.1 has exactly one Host.
    check("GET / HTTP/1.1|Host: a.example||", Passes);
    check("GET / HTTP/1.1||", Refused(400));
    check(
        "GET / HTTP/1.1|Host: a.example|Host: a.example||",
        Refused(400),
    );
    check(
        "GET / HTTP/1.1|Host: a.example|hOST: b.example||",
        Refused(400),
    );
    check("GET / HTTP/1.1|Host:||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example, b.example||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example b.example||", Refused(400));
    check("GET / HTTP/1.1|Host: user@a.example||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example/x||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example:99999||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example:8x||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example:8080||", Passes);
    check("GET / HTTP/1.1|Host: A.Example.||", Passes);
    check("GET / HTTP/1.1|Host: [::1||", Refused(400));
    check("GET / HTTP/1.1|Host: [::1]||", Answered(404));
    check("GET / HTTP/1.1|Host: other.example||", Answered(404));
    check("GET / HTTP/1.0|Host: a.example||", PassesAndCloses);
    check("GET / HTTP/1.0||", Refused(404));
    check(
        "GET / HTTP/1.0|Host: a.example|Host: a.example||",
        Refused(400),
    );
}

#[test]
fn targets() {
    // RFC 9112, section 3.2.2: who reads the target and who reads Host must find the same.
    check("GET http://a.example/ HTTP/1.1|Host: a.example||", Passes);
    check(
        "GET http://a.example:80/ HTTP/1.1|Host: a.example||",
        Passes,
    );
    check(
        "GET http://a.example/ HTTP/1.1|Host: A.EXAMPLE:80||",
        Passes,
    );
    check(
        "GET http://b.example/ HTTP/1.1|Host: a.example||",
        Refused(400),
    );
    check(
        "GET http://a.example:81/ HTTP/1.1|Host: a.example||",
        Refused(400),
    );
    check("GET http://a.example/ HTTP/1.1||", Refused(400));
    check(
        "GET http://x@a.example/ HTTP/1.1|Host: a.example||",
        Refused(400),
    );
    check(
        "GET ftp://a.example/ HTTP/1.1|Host: a.example||",
        Refused(400),
    );
    check("GET * HTTP/1.1|Host: a.example||", Refused(400));
    check("OPTIONS * HTTP/1.1|Host: a.example||", Passes);
    check("GET a.example HTTP/1.1|Host: a.example||", Refused(400));
    check("GET a.example:80 HTTP/1.1|Host: a.example||", Refused(400));
    // RFC 9110, section 9.3.6: a gateway makes no tunnels.
    check(
        "CONNECT a.example:80 HTTP/1.1|Host: a.example:80||",
        Refused(405),
    );
    check(
        "CONNECT a.example:80 HTTP/1.1|Host: a.example||",
        Refused(405),
    );
}

#[test]
fn lengths() {
    // RFC 9112, section 6.3, items 3 and 5.
    let smuggled = "GET /smuggled HTTP/1.1|Host: a.example||";
    let post = "POST / HTTP/1.1|Host: a.example|";
    check(&format!("{post}Content-Length: 3||abc"), Passes);
    check(
        &format!("{post}Content-Length: 3|Content-Length: 3||abc"),
        Passes,
    );
    check(
        &format!("{post}Content-Length: 3|Content-Length: 4||abc{smuggled}"),
        Refused(400),
    );
    check(&format!("{post}Content-Length: 3, 3||abc"), Refused(400));
    check(&format!("{post}Content-Length: +3||abc"), Refused(400));
    check(&format!("{post}Content-Length: -3||abc"), Refused(400));
    check(&format!("{post}Content-Length: 0x3||abc"), Refused(400));
    check(&format!("{post}Content-Length: 3 4||abc"), Refused(400));
    check(&format!("{post}Content-Length:||abc"), Refused(400));
    check(
        &format!("{post}Content-Length: 99999999999999999999||abc"),
        Refused(400),
    );
    check(
        &format!("{post}Content-Length : 3||abc{smuggled}"),
        Refused(400),
    );
    check(
        &format!("{post}Content-Length: 0|Transfer-Encoding: chunked||0||{smuggled}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked|Content-Length: 0||0||{smuggled}"),
        Refused(400),
    );
    check(
        &format!("{post}transfer-encoding: chunked|X: y|content-length:5||0||{smuggled}"),
        Refused(400),
    );
    check(
        "GET / HTTP/1.1|Host: a.example|Content-Length: 3||abc",
        Passes,
    );
}

#[test]
fn a_length_and_a_coding_later_on_a_connection() {
    let origin = Origin::answering(ok("instance"));
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    let first = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let second = first.replace("Transfer", "Content-Length: 3\r\nTransfer");
    client.send(format!("{first}{second}"));
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(gateway.count("length_and_coding"), 1);
}

#[test]
fn codings() {
    // RFC 9112, section 6.1.
    let post = "POST / HTTP/1.1|Host: a.example|";
    let body = "|3|abc|0||";
    check(&format!("{post}Transfer-Encoding: chunked|{body}"), Passes);
    check(&format!("{post}Transfer-Encoding: CHUNKED|{body}"), Passes);
    check(
        &format!("{post}Transfer-Encoding: xchunked|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked, identity|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: identity|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: identity, chunked|{body}"),
        Refused(501),
    );
    check(
        &format!("{post}Transfer-Encoding: gzip, chunked|{body}"),
        Refused(501),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked, chunked|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked|Transfer-Encoding: chunked|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked|Transfer-Encoding: x|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: \u{b}chunked|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding : chunked|{body}"),
        Refused(400),
    );
    check(
        &format!("{post}Transfer-Encoding: chunked;q=1|{body}"),
        Refused(400),
    );
    check(&format!("{post}Transfer-Encoding:|{body}"), Refused(400));
    check(
        &format!("POST / HTTP/1.0|Host: a.example|Transfer-Encoding: chunked|{body}"),
        Refused(400),
    );
}

#[test]
fn chunks() {
    // RFC 9112, section 7.1.
    let post = "POST / HTTP/1.1|Host: a.example|Transfer-Encoding: chunked||";
    check(&format!("{post}0||"), Passes);
    check(&format!("{post}3;a=b|abc|0||"), Passes);
    check(&format!("{post}003|abc|0||"), Passes);
    check(&format!("{post}3|abc|0|X: y||"), Passes);
    check(&format!("{post}x|abc|0||"), Refused(400));
    check(&format!("{post}-3|abc|0||"), Refused(400));
    check(&format!("{post}0x3|abc|0||"), Refused(400));
    check(&format!("{post}|abc|0||"), Refused(400));
    check(&format!("{post}2|abc|0||"), Refused(400));
    check(&format!("{post}10000000000000000|abc|0||"), Refused(400));
    check_bytes(
        format!("{post}3|abc|0||")
            .replace('|', "\r\n")
            .replace("3\r\n", "3\n")
            .as_bytes(),
        Refused(400),
    );
    check_bytes(
        format!("{post}3|abc|0||")
            .replace('|', "\r\n")
            .replace("abc\r\n", "abc\n")
            .as_bytes(),
        Refused(400),
    );
}

#[test]
fn lines() {
    // RFC 9112, sections 2.2, 3 and 5.
    check(
        "GET / HTTP/1.1|Host: a.example|X: y| folded||",
        Refused(400),
    );
    check(
        "GET / HTTP/1.1|Host: a.example|X: y|\tfolded||",
        Refused(400),
    );
    check("GET / HTTP/1.1| Host: a.example||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example|X y||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example|: y||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example|X\u{1}: y||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example|X: a\0b||", Refused(400));
    check("GET / HTTP/1.1|Host: a.example|X: a\rb||", Refused(400));
    check("GET /\0 HTTP/1.1|Host: a.example||", Refused(400));
    check("GET / smuggled HTTP/1.1|Host: a.example||", Refused(400));
    check("GET  / HTTP/1.1|Host: a.example||", Refused(400));
    check("GET / HTTP/1.2|Host: a.example||", Refused(400));
    check("GET / HTTP/2.0|Host: a.example||", Refused(400));
    check("GET /|", Refused(400));
    check("G(T / HTTP/1.1|Host: a.example||", Refused(400));
    check("||GET / HTTP/1.1|Host: a.example||", Passes);
    check("GET / HTTP/1.1\nHost: a.example\n\n", Passes);
    check_bytes(
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX: \xff\r\n\r\n",
        Passes,
    );
    check_bytes(
        b"GET /\xff HTTP/1.1\r\nHost: a.example\r\n\r\n",
        Refused(400),
    );
    check_bytes(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        Refused(400),
    );
}
