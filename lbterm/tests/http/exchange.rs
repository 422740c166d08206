//! One request and its answer, as client and instance see them.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::client::{Answer, Client, get};
use super::gateway::{Gateway, pause, poll_until};
use super::origin::{Origin, Request, ok, read_block, read_chunk};

/// Sends `text`, in which `|` stands for CR LF, to a group whose instance answers `answer`.
#[track_caller]
fn exchange(text: &str, answer: &str) -> (Answer, Request) {
    let origin = Origin::answering(answer.replace('|', "\r\n"));
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    client.send(text.replace('|', "\r\n"));
    let answer = if text.starts_with("HEAD") {
        client.head()
    } else {
        client.answer()
    };
    let request = origin
        .requests()
        .pop()
        .unwrap_or_else(|| panic!("{answer:?}"));
    (answer, request)
}

const OK: &str = "HTTP/1.1 200 OK|Content-Length: 2||ok";

#[test]
fn instances_learn_who_asked() {
    let (_, request) = exchange(
        "GET /path?query HTTP/1.1|Host: A.example:80|X-Forwarded-For: 1.1.1.1|\
         x_forwarded_for: 1.1.1.1|Forwarded: for=1.1.1.1|X-Forwarded-Proto: https|\
         X-Request-Id: mine-1|Connection: X-Forwarded-Host, X-Secret|X-Secret: 1|X-Own: 2||",
        OK,
    );
    assert!(request.head.starts_with("GET /path?query HTTP/1.1\r\n"));
    let field = |name| request.fields(name).join("; ");
    assert_eq!(field("host"), "A.example:80");
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(field("x_forwarded_for"), "");
    assert_eq!(field("x-forwarded-proto"), "http");
    assert_eq!(field("x-forwarded-host"), "A.example:80");
    assert_eq!(
        field("forwarded"),
        "for=127.0.0.1;proto=http;host=\"A.example:80\""
    );
    assert_eq!(field("x-request-id"), "mine-1");
    assert_eq!(
        (field("x-secret"), field("x-own")),
        (String::new(), "2".to_owned())
    );
    assert_eq!(field("connection"), "");
}

#[test]
fn what_was_for_the_neighbour_ends_at_the_gateway() {
    let (answer, request) = exchange(
        "POST / HTTP/1.1|Host: a.example|Connection: keep-alive, X-A|X-A: 1|Keep-Alive: 3|\
         Proxy-Connection: x|TE: trailers, deflate|Upgrade: h2c|HTTP2-Settings: AAA|\
         Proxy-Authorization: x|Transfer-Encoding: chunked||2|hi|0|X-Sum: 7||",
        "HTTP/1.1 200 OK|Connection: keep-alive, X-B|X-B: 1|Keep-Alive: timeout=5|\
         Proxy-Authenticate: x|Transfer-Encoding: chunked|Trailer: X-T|X-C: 2||2|ok|0|X-T: 9||",
    );
    let gone = [
        "x-a",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
    ];
    for name in gone.iter().chain(&["proxy-authorization"]) {
        assert_eq!(request.fields(name), [""; 0], "{name}");
    }
    assert_eq!(request.fields("te"), ["trailers"]);
    assert_eq!(request.fields("connection"), ["te"]);
    assert_eq!((&request.body[..], answer.text()), (&b"hi"[..], "ok"));
    for name in ["x-b", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(answer.fields(name), [""; 0], "{name}");
    }
    assert_eq!(answer.fields("x-c"), ["2"]);
    assert_eq!(answer.fields("transfer-encoding"), ["chunked"]);
}

#[test]
fn trailers_go_both_ways_where_they_are_announced() {
    let (answer, request) = exchange(
        "POST / HTTP/1.1|Host: a.example|TE: trailers|Trailer: X-Sum, X-Forwarded-For|Transfer-Encoding: chunked||\
         2|hi|0|X-Sum: 7|X-Forwarded-For: 1.1.1.1||",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Trailer: X-T||2|ok|0|X-T: 9||",
    );
    assert_eq!(request.trailers.to_lowercase(), "x-sum: 7\r\n");
    assert_eq!(answer.trailers.to_lowercase(), "x-t: 9\r\n");
}

#[test]
fn answers_keep_their_extent() {
    let head = "HTTP/1.1 200 OK|Content-Length: 1234||";
    let (answer, _) = exchange("HEAD / HTTP/1.1|Host: a.example||", head);
    assert_eq!(answer.fields("content-length"), ["1234"]);
    let get = "GET / HTTP/1.1|Host: a.example||";
    let (answer, _) = exchange(get, "HTTP/1.1 204 No Content|X: y||");
    assert_eq!((answer.status, answer.fields("x")), (204, vec!["y"]));
    let (answer, _) = exchange(
        get,
        "HTTP/1.1 304 Not Modified|ETag: \"1\"|Content-Length: 99||",
    );
    assert_eq!(answer.fields("etag"), ["\"1\""]);
    let (answer, _) = exchange(get, "HTTP/1.1 299 Quite Fine|Content-Length: 0||");
    assert!(
        answer.head.starts_with("HTTP/1.1 299 Quite Fine\r\n"),
        "{answer:?}"
    );
}

#[test]
fn connections_to_instances_are_used_again() {
    let origin = Origin::answering(ok("ok"));
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    let ids: Vec<_> = (0..10)
        .map(|_| {
            client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(client.answer().text(), "ok");
            let request = origin.requests().pop().unwrap();
            request.fields("x-request-id")[0].to_owned()
        })
        .collect();
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 10, "{ids:?}");
    assert_eq!(get(gateway.address(), "/").text(), "ok");
    assert_eq!(origin.connections(), 1);
    poll_until("all to be counted", || {
        gateway.load(origin.address) == (0, 11, 0)
    });
    assert_eq!(
        (gateway.count("requests"), gateway.count("responses_2xx")),
        (11, 11)
    );
    assert_eq!(gateway.count("bytes_out"), 22);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new(|request, stream| {
        let path = request.head.split(' ').nth(1).unwrap().to_owned();
        stream.get_mut().write_all(&ok(&path)).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    let requests = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    client.send(requests.collect::<String>());
    for i in 0..20 {
        assert_eq!(client.answer().text(), format!("/{i}"));
    }
}

#[test]
fn answers_that_end_with_the_connection() {
    let origin = Origin::new(|_, stream| {
        let _ = stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
        false
    });
    let gateway = Gateway::new(&[origin.address]);
    assert_eq!(get(gateway.address(), "/").text(), "until the end");
    let mut old = Client::new(gateway.address());
    old.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    let answer = old.answer();
    assert_eq!(answer.fields("transfer-encoding"), [""; 0]);
    assert_eq!(answer.text(), "until the end");
}

#[test]
fn nothing_is_gathered() {
    // Each side sends its next part only after the other has seen the former one.
    let (to_test, from_origin) = mpsc::sync_channel(1);
    let to_test = std::sync::Mutex::new(to_test);
    let address = Origin::raw("127.0.0.1:0", move |mut stream| {
        read_block(&mut stream).unwrap();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.get_mut().write_all(head).unwrap();
        while let Some(chunk) = read_chunk(&mut stream) {
            to_test.lock().unwrap().send(chunk.clone()).unwrap();
            let size = chunk.len();
            let answer = [format!("{size:x}\r\n").as_bytes(), &chunk, b"\r\n"].concat();
            stream.get_mut().write_all(&answer).unwrap();
        }
    });
    let gateway = Gateway::new(&[address]);
    let mut client = Client::new(gateway.address());
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(
        client.head().status,
        200,
        "an answer may begin before the request has ended"
    );
    for part in ["one", "second", "3"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        assert_eq!(from_origin.recv().unwrap(), part.as_bytes());
        assert_eq!(client.chunk(), part.as_bytes());
    }
}

#[test]
fn large_bodies_arrive_as_they_were() {
    let origin = Origin::new(|request, stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            request.body.len()
        );
        let stream = stream.get_mut();
        stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&request.body).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    let body: Vec<u8> = (0..20_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let mut client = Client::new(gateway.address());
    let length = body.len();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.send(&body);
    assert!(client.answer().body == body);
    client.send("PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", part.len()));
        client.send(part);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert!(client.answer().body == body);
    assert_eq!(gateway.count("bytes_out"), 2 * length as u64);
    assert_eq!(gateway.count("bytes_in"), 2 * length as u64);
}

#[test]
fn an_instance_decides_whether_a_body_is_wanted() {
    let post =
        "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let willing = Origin::raw("127.0.0.1:0", |mut stream| {
        let head = read_block(&mut stream).unwrap();
        assert!(
            head.to_lowercase().contains("expect: 100-continue"),
            "{head}"
        );
        pause(Duration::from_millis(100));
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .unwrap();
        let mut body = [0; 2];
        stream.read_exact(&mut body).unwrap();
        stream
            .get_mut()
            .write_all(&ok(std::str::from_utf8(&body).unwrap()))
            .unwrap();
    });
    let gateway = Gateway::new(&[willing]);
    let mut client = Client::new(gateway.address());
    let began = Instant::now();
    client.send(post);
    assert_eq!(client.head().status, 100);
    assert!(
        began.elapsed() >= Duration::from_millis(100),
        "said before the instance did"
    );
    client.send("hi");
    assert_eq!(client.answer().text(), "hi");

    let refusing = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream).unwrap();
        let answer = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
    });
    let gateway = Gateway::new(&[refusing]);
    let mut client = Client::new(gateway.address());
    client.send(post);
    assert_eq!(client.head().status, 417, "no 100 before it");
    assert!(client.is_closed());

    // Many instances never say 100, and wait for the body.
    let silent = Origin::answering(ok("ok"));
    let gateway = Gateway::new(&[silent.address]);
    let mut client = Client::new(gateway.address());
    client.send(post);
    assert_eq!(client.head().status, 100);
    client.send("hi");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let refusing = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream).unwrap();
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.get_mut().write_all(answer).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let gateway = Gateway::new(&[refusing]);
    let mut client = Client::new(gateway.address());
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n0123");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "big"));
}

#[test]
fn long_targets_are_passed_up_to_the_limit() {
    let origin = Origin::answering(ok("ok"));
    let gateway = Gateway::new(&[origin.address]);
    let path = format!("/{}", "a".repeat(60_000));
    assert_eq!(get(gateway.address(), &path).status, 200);
    assert_eq!(origin.requests()[0].head.split(' ').nth(1), Some(&path[..]));
    let mut client = Client::new(gateway.address());
    let target = "a".repeat(80_000);
    client.try_send(format!("GET /{target} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes());
    let answer = client.answer();
    assert!([414, 431].contains(&answer.status), "{answer:?}");
    poll_until("it is counted", || gateway.count("request_malformed") == 1);
}
