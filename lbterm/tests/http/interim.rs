//! Answers of instances before the final one (RFC 9110, section 15.2): they end at the gateway, but for the
//! `100 Continue` that a client waits for, and leave everything else as it is.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use lbagent_api::terminator::UpstreamProtocol;
use tokio::net::TcpListener;

use super::client::Client;
use super::gateway::{Gateway, pause, poll_until};
use super::http2::{client, encrypted, request, run, send};
use super::origin::{Origin, ok, read_block};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Fields that would mean something in a final answer, of every kind.
const INTERIM: &str = "HTTP/1.1 102 Processing\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\nConnection: close\r\n\r\n\
    HTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 199 Unheard Of\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An instance that says all of it before each answer, at once or in pieces.
fn talkative() -> Origin {
    Origin::new(|request, stream| {
        let answer = [INTERIM.as_bytes(), &ok("ok")].concat();
        let size = match request.head.contains("/pieces") {
            true => 7,
            false => answer.len(),
        };
        let mut pieces = answer.chunks(size);
        pieces.all(|piece| stream.get_mut().write_all(piece).is_ok())
    })
}

#[test]
fn the_final_answer_alone_comes_by_http1() {
    let origin = talkative();
    let gateway = Gateway::new(&[origin.address]);
    let mut connection = Client::new(gateway.address());
    let post = "POST /pieces HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi";
    let old = "GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n";
    for sent in [GET, post, old, GET] {
        connection.send(sent);
        let answer = connection.answer();
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{sent}");
        for name in ["link", "set-cookie", "transfer-encoding"] {
            assert_eq!(answer.fields(name), [""; 0], "{sent}");
        }
    }
    // The instance's connections, one for requests with a body and one for those without, were used
    // again, and nobody has failed.
    assert_eq!(origin.connections(), 2);
    poll_until("all to be counted", || {
        gateway.load(origin.address) == (0, 4, 0)
    });
    assert_eq!(gateway.count("responses_1xx"), 0);
}

#[test]
fn the_final_answer_alone_comes_by_http2() {
    run(async {
        let origin = talkative();
        let (gateway, trust) = encrypted(origin.address);
        let mut sender = client(&gateway, &trust, "a.example").await;
        for path in ["", "pieces"] {
            let get = request(Method::GET, &format!("https://a.example/{path}"));
            assert_eq!(
                send(&mut sender, get).await,
                (StatusCode::OK, "ok".to_owned())
            );
        }
    });
}

/// An instance that speaks h2c and sends hints before each answer.
async fn talkative_h2c() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            for status in [102, 103, 103] {
                let interim = Response::builder().status(status).header("link", "</a>");
                let interim = interim.body(()).unwrap();
                respond.send_informational(interim).unwrap();
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data("ok".into(), true).unwrap();
        }
    });
    address
}

#[test]
fn the_final_answer_alone_comes_from_h2c() {
    run(async {
        let address = talkative_h2c().await;
        let (mut gateway, trust) = encrypted(address);
        gateway.change(|snapshot| {
            for group in &mut snapshot.groups {
                group.services[0].policy.upstream = UpstreamProtocol::H2c;
            }
        });
        let mut sender = client(&gateway, &trust, "a.example").await;
        for _ in 0..3 {
            let get = request(Method::GET, "https://a.example/");
            assert_eq!(
                send(&mut sender, get).await,
                (StatusCode::OK, "ok".to_owned())
            );
        }
    });
}

#[test]
fn an_instance_that_says_nothing_final_is_given_up() {
    let endless = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream);
        let hints = INTERIM.repeat(100);
        while stream.get_mut().write_all(hints.as_bytes()).is_ok() {}
    });
    let mut gateway = Gateway::new(&[endless]);
    gateway.change(|snapshot| snapshot.groups[0].services[0].policy.response_timeout_ms = 300);
    let mut connection = Client::new(gateway.address());
    connection.send(GET);
    assert_eq!(connection.answer().status, 504);
    poll_until("it is counted", || gateway.count("upstream_late") == 1);

    let broken = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream);
        let _ = stream.get_mut().write_all(INTERIM.as_bytes());
    });
    let gateway = Gateway::new(&[broken]);
    let mut connection = Client::new(gateway.address());
    connection.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(connection.answer().status, 502);
}

#[test]
fn hints_do_not_release_a_body_that_waits_for_100() {
    let (ended, wait) = mpsc::channel();
    let origin = Origin::raw("127.0.0.1:0", move |mut stream| {
        read_block(&mut stream).unwrap();
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        stream.get_mut().write_all(hints).unwrap();
        pause(Duration::from_millis(100));
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
        stream.get_mut().write_all(answer).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        ended.send(rest).unwrap();
    });
    let gateway = Gateway::new(&[origin]);
    let mut connection = Client::new(gateway.address());
    connection.send(
        "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    );
    // No 100 comes before it.
    let answer = connection.answer();
    assert_eq!((answer.status, answer.text()), (401, "no"));
    drop(connection);
    let rest = wait.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(rest, b"", "the body was never asked for");
}
