//! What becomes of the first segment with data: every form of a request.

use lbagent_common::Outcome;
use lbagent_common::redirect::Passed;
use lbagent_tests::require_root;
use lbagent_tests::tcp_segment::flags;

use super::{Web, answer_to, families};

/// Redirected to this location, or left to the terminator.
type Expected = Result<&'static str, Passed>;

fn fields(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

fn start(line: &str) -> String {
    format!("{line}\r\nHost: shop.example\r\n\r\n")
}

fn field(field: &str) -> String {
    format!("GET / HTTP/1.1\r\n{field}\r\nHost: shop.example\r\n\r\n")
}

const SHOP: Expected = Ok("https://shop.example/");

fn methods() -> Vec<(String, Expected)> {
    use Passed::{HasBody, OddTarget, OddVersion, OtherMethod, Segmented};
    vec![
        (start("GET / HTTP/1.1"), SHOP),
        (start("HEAD / HTTP/1.1"), SHOP),
        (start("GET / HTTP/1.0"), SHOP),
        (start("POST / HTTP/1.1"), Err(OtherMethod)),
        (start("PUT / HTTP/1.1"), Err(OtherMethod)),
        (start("OPTIONS * HTTP/1.1"), Err(OtherMethod)),
        (start("CONNECT shop.example:443 HTTP/1.1"), Err(OtherMethod)),
        (start("PRI * HTTP/2.0"), Err(OtherMethod)),
        (start("get / HTTP/1.1"), Err(OtherMethod)),
        (start("GETT / HTTP/1.1"), Err(OtherMethod)),
        (start("XGET / HTTP/1.1"), Err(OtherMethod)),
        (start("\r\nGET / HTTP/1.1"), Err(OtherMethod)),
        (start(" GET / HTTP/1.1"), Err(OtherMethod)),
        (start("GET\t/ HTTP/1.1"), Err(OtherMethod)),
        (start("\u{16}\u{3}\u{1}\u{2}\0"), Err(OtherMethod)),
        (start("GET  / HTTP/1.1"), Err(OddTarget)),
        (start("GET / HTTP/1.2"), Err(OddVersion)),
        (start("GET / HTTP/2.0"), Err(OddVersion)),
        (start("GET / http/1.1"), Err(OddVersion)),
        (start("GET / HTTP/1.1 "), Err(OddVersion)),
        (start("GET /  HTTP/1.1"), Err(OddVersion)),
        (start("GET /"), Err(OddTarget)),
        (
            "GET / HTTP/1.1\nHost: shop.example\n\n".into(),
            Err(OddVersion),
        ),
        (
            "GET / HTTP/1.1\rHost: shop.example\r\r".into(),
            Err(OddVersion),
        ),
        ("G".into(), Err(Segmented)),
        ("GET / HTTP/1.1\r\n\r\n".into(), Err(Passed::OddHost)),
        (field("Content-Length: 0"), Err(HasBody)),
        (field("content-length: 5"), Err(HasBody)),
        (field("Transfer-Encoding: chunked"), Err(HasBody)),
        (
            field("transfer-encoding:\tchunked\r\nContent-Length: 3"),
            Err(HasBody),
        ),
    ]
}

fn targets() -> Vec<(String, Expected)> {
    use Passed::{OddHost, OddTarget, TooLong};
    vec![
        (
            target("/a/b.html?c=d&e=%20f"),
            Ok("https://shop.example/a/b.html?c=d&e=%20f"),
        ),
        (
            target("/%0d%0aSet-Cookie:x=y"),
            Ok("https://shop.example/%0d%0aSet-Cookie:x=y"),
        ),
        (
            target("//evil.example/"),
            Ok("https://shop.example//evil.example/"),
        ),
        (
            target("/@evil.example/"),
            Ok("https://shop.example/@evil.example/"),
        ),
        (
            target("/?http://evil.example"),
            Ok("https://shop.example/?http://evil.example"),
        ),
        (target("/../..//."), Ok("https://shop.example/../..//.")),
        (
            target("/-._~!$&'()*+,;=:@/?"),
            Ok("https://shop.example/-._~!$&'()*+,;=:@/?"),
        ),
        (
            target("http://shop.example/x"),
            Ok("https://shop.example/x"),
        ),
        (target("http://shop.example"), Err(OddTarget)),
        (target("http://shop.example?x"), Err(OddTarget)),
        (target("http://SHOP.example/x"), Err(OddHost)),
        (target("http://shop.example:80/x"), Err(OddTarget)),
        (target("http://shop.exampl/x"), Err(OddHost)),
        (target("http://evil.example/x"), Err(OddHost)),
        (target("http://user@shop.example/x"), Err(OddTarget)),
        (target("http:///x"), Err(OddHost)),
        (target("https://shop.example/x"), Err(OddTarget)),
        (target("HTTP://shop.example/x"), Err(OddTarget)),
        (target("ftp://shop.example/x"), Err(OddTarget)),
        (target("*"), Err(OddTarget)),
        (target("shop.example"), Err(OddTarget)),
        (target("?x"), Err(OddTarget)),
        (target("\\evil.example"), Err(OddTarget)),
        (target("/\\evil.example"), Err(OddTarget)),
        (target("/#x"), Err(OddTarget)),
        (target("/\"x"), Err(OddTarget)),
        (target("/<x>"), Err(OddTarget)),
        (target("/{x}|^`"), Err(OddTarget)),
        (target("/[x]"), Err(OddTarget)),
        (target("/\u{e4}"), Err(OddTarget)),
        (target("/a\0b"), Err(OddTarget)),
        (target("/a\tb"), Err(OddTarget)),
        (target("/a\rb"), Err(OddTarget)),
        (target("/a\nb"), Err(OddTarget)),
        (target("/a\x7fb"), Err(OddTarget)),
        (target(&format!("/{}", "a".repeat(407))), Err(TooLong)),
    ]
}

fn hosts() -> Vec<(String, Expected)> {
    use Passed::{OddHost, OtherHandler, TooLong, UnknownHost};
    vec![
        (fields("www.shop.example"), Ok("https://www.shop.example/")),
        (fields("SHOP.Example"), Ok("https://SHOP.Example/")),
        (fields("shop.example."), Ok("https://shop.example./")),
        (
            fields("WWW.shop.example.:80"),
            Ok("https://WWW.shop.example./"),
        ),
        (fields("shop.example:80"), SHOP),
        (fields("shop.example:"), SHOP),
        (fields(" \t shop.example \t"), SHOP),
        (fields("example"), Ok("https://example/")),
        (fields("shop.example:443"), Err(OddHost)),
        (fields("shop.example:8"), Err(OddHost)),
        (fields("shop.example:080"), Err(OddHost)),
        (fields("shop.example:800"), Err(OddHost)),
        (fields("shop.example:x"), Err(OddHost)),
        (fields("shop.example:80:80"), Err(OddHost)),
        (fields("shop.example, evil.example"), Err(OddHost)),
        (fields("shop.example evil.example"), Err(OddHost)),
        (fields("user@shop.example"), Err(OddHost)),
        (fields("shop.example/"), Err(OddHost)),
        (fields("shop.example\u{e4}"), Err(OddHost)),
        (fields("shop.example\0"), Err(OddHost)),
        (fields("[::1]"), Err(OddHost)),
        (fields("[2001:db8:a::10]:80"), Err(OddHost)),
        (fields(""), Err(OddHost)),
        (fields(" "), Err(OddHost)),
        (fields(":80"), Err(OddHost)),
        (fields(".shop.example"), Err(OddHost)),
        (fields("."), Err(OddHost)),
        (fields("192.0.2.10"), Err(UnknownHost)),
        (fields("evil.example"), Err(UnknownHost)),
        (fields("shop.example.evil"), Err(UnknownHost)),
        (fields("xshop.example"), Err(UnknownHost)),
        (fields("a.www.shop.example"), Err(UnknownHost)),
        (fields("shop.example.."), Err(UnknownHost)),
        (fields("xn--bcher-kva.example"), Err(UnknownHost)),
        (fields("plain.shop.example"), Err(OtherHandler)),
        (fields("PLAIN.shop.example."), Err(OtherHandler)),
        (fields("a.plain.example"), Err(OtherHandler)),
        (fields("plain.example"), Err(UnknownHost)),
        (
            fields(&format!("{}.shop.example", "a".repeat(63))),
            Err(TooLong),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: shop.example\r\n\r\n".into(),
            Err(OddHost),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\nA: b\r\nhost:evil.example\r\n\r\n".into(),
            Err(OddHost),
        ),
    ]
}

fn header_lines() -> Vec<(String, Expected)> {
    use Passed::{OddHeader, OddHost, Segmented};
    let long = "x".repeat(1200);
    vec![
        (field("Accept: */*\r\nUser-Agent: curl/7.88.1"), SHOP),
        (field("X-Empty:"), SHOP),
        (field("X-Tab:\ta\tb\t"), SHOP),
        (field("!#$%&'*+-.^_`|~09aZ: every byte of a token"), SHOP),
        (field("Hos: a\r\nHostt: b\r\nX-Host: evil.example"), SHOP),
        (field("Upgrade: h2c\r\nConnection: Upgrade"), SHOP),
        (field(&format!("Cookie: {long}")), SHOP),
        (
            "GET / HTTP/1.1\r\nhost:shop.example\r\nA: b\r\n\r\n".into(),
            SHOP,
        ),
        (
            "GET / HTTP/1.1\r\nHOST: shop.example\r\n\r\nGET /2 HTTP/1.1\r\n".into(),
            SHOP,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\nany \0 thing".into(),
            SHOP,
        ),
        (field("Host : evil.example"), Err(OddHeader)),
        (field(" Host: evil.example"), Err(OddHeader)),
        (field("A: b\r\n folded"), Err(OddHeader)),
        (field("A: b\r\n\tfolded"), Err(OddHeader)),
        (field("A: b\rHost: evil.example"), Err(OddHeader)),
        (field("A: b\nHost: evil.example"), Err(OddHeader)),
        (field("A: b\0"), Err(OddHeader)),
        (field("A: b\x7f"), Err(OddHeader)),
        (field("A: \u{fc}"), Err(OddHeader)),
        (field("A\u{fc}: b"), Err(OddHeader)),
        (field("no colon"), Err(OddHeader)),
        (field("nocolon"), Err(OddHeader)),
        (field(": no name"), Err(OddHeader)),
        (field("A(b): c"), Err(OddHeader)),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\n\r\n".into(),
            Err(OddHost),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\r\n".into(),
            Err(OddHost),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\n\n".into(),
            Err(OddHeader),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\n\rx\r\n".into(),
            Err(OddHeader),
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\n".into(),
            Err(Segmented),
        ),
        ("GET / HTTP/1.1\r\nHost: shop.exam".into(), Err(Segmented)),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\n\r".into(),
            Err(Segmented),
        ),
        ("GET / HTTP/1.1\r".into(), Err(Segmented)),
        ("GET http".into(), Err(Segmented)),
    ]
}

#[track_caller]
fn check(web: &mut Web, port: u16, request: &str, expected: Expected) {
    for family in families(port) {
        let connection = web.open(family);
        let frame = connection.frame(flags::PSH, request.as_bytes());
        match expected {
            Ok(location) => {
                let ran = web.run(&frame);
                assert_eq!(
                    ran.outcome,
                    Outcome::AnswerRedirect,
                    "{request:?}: {:?}",
                    web.passed()
                );
                let answer = connection.assert_answer(
                    &ran,
                    Outcome::AnswerRedirect,
                    flags::PSH | flags::FIN,
                    request.len(),
                );
                let text = String::from_utf8(answer.payload).unwrap();
                assert_eq!(text, answer_to(location), "{request:?}");
            }
            Err(reason) => {
                let before = web.passed();
                let ran = web.run(&frame);
                let after = web.passed();
                let risen: Vec<_> = after
                    .iter()
                    .filter(|(reason, count)| **count > before[*reason])
                    .map(|(reason, _)| *reason)
                    .collect();
                assert_eq!(risen, [reason], "{request:?}: {:?}", ran.outcome);
                assert_eq!(ran.frame, frame, "{request:?}");
            }
        }
    }
}

#[test]
fn every_form_gets_its_answer() {
    require_root!();
    let mut web = Web::new();
    let forms = [methods(), targets(), hosts(), header_lines()].concat();
    assert!(forms.len() >= 130, "{} forms", forms.len());
    for (port, (request, expected)) in (2000..).zip(&forms) {
        check(&mut web, port, request, *expected);
    }
}

/// The longest answer fits, and is as long as the least that every host takes.
#[test]
fn answers_may_be_512_bytes_long() {
    require_root!();
    let mut web = Web::new();
    let longest = format!("/{}", "a".repeat(406));
    let location = format!("https://shop.example{longest}");
    let location: &'static str = location.leak();
    assert_eq!(answer_to(location).len(), 512);
    check(&mut web, 2000, &target(&longest), Ok(location));
}

/// All segments that a client may send first, up to the largest.
#[test]
fn long_requests_are_read_as_far_as_memory_goes() {
    require_root!();
    let mut web = Web::new();
    let of_len = |len: usize| {
        let rest = field("A: ").len();
        field(&format!("A: {}", "x".repeat(len - rest)))
    };
    for (port, len) in (2000..).zip([61, 511, 512, 513, 1024, 1025, 1460, 1537, 2031, 2032]) {
        check(&mut web, port, &of_len(len), SHOP);
    }
    check(&mut web, 2100, &of_len(2033), Err(Passed::TooLong));
    check(&mut web, 2101, &of_len(3000), Err(Passed::TooLong));
}

/// A byte that changed on the way is the kernel's to notice, wherever it is.
#[test]
fn damaged_requests_are_not_answered() {
    require_root!();
    let mut web = Web::new();
    for (index, family) in families(2000).into_iter().enumerate() {
        let connection = web.open(family);
        let long = field(&format!("A: {}", "x".repeat(1300)));
        let whole = connection.frame(flags::PSH, long.as_bytes());
        let payload = whole.len() - long.len();
        for at in [payload + 4, payload + 600, payload + 1100, whole.len() - 1] {
            let mut frame = whole.clone();
            frame[at] ^= 1;
            web.assert_passed(&frame, Passed::OddSegment);
        }
        let untouched = super::families(2010 + index as u16)[index];
        let connection = web.open(untouched);
        let ran = web.run(&connection.frame(flags::PSH, long.as_bytes()));
        assert_eq!(ran.outcome, Outcome::AnswerRedirect);
    }
}

/// Nothing is kept about a connection that its answers depend on.
#[test]
fn what_is_repeated_gets_the_same_answer() {
    require_root!();
    let mut web = Web::new();
    for family in families(2000) {
        let connection = web.open(family);
        let frame = connection.frame(flags::PSH, super::REQUEST);
        let first = web.run(&frame);
        assert_eq!(first.outcome, Outcome::AnswerRedirect);
        assert_eq!(web.run(&frame), first);
        // A client that sends more now, because nothing was acknowledged yet.
        let more = [super::REQUEST, b"GET /2 HTTP/1.1\r\n"].concat();
        let ran = web.run(&connection.frame(flags::PSH, &more));
        let answer = connection.assert_answer(
            &ran,
            Outcome::AnswerRedirect,
            flags::PSH | flags::FIN,
            more.len(),
        );
        let expected = answer_to("https://www.shop.example/a?b=c");
        assert_eq!(answer.payload, expected.as_bytes());
    }
}

/// What the kernel may have got a part of, it gets as a whole.
#[test]
fn what_was_passed_once_is_passed_again() {
    require_root!();
    let mut web = Web::new();
    for family in families(2000) {
        let connection = web.open(family);
        web.assert_passed(
            &connection.frame(flags::PSH, &super::REQUEST[..9]),
            Passed::Segmented,
        );
        web.assert_passed(
            &connection.frame(flags::PSH, super::REQUEST),
            Passed::Segmented,
        );
    }
}
