//! Answers of instances before the final one (RFC 9110, section 15.2): where both sides speak HTTP/1.1, the
//! client gets them, and they leave everything else as it is.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use http::{Method, Response, StatusCode};
use lbagent_api::terminator::UpstreamProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{Answer, Client};
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

/// What a client of HTTP/1.1 gets of it: neither what says something of a body or of the connection, nor
/// the 100 that nobody waits for.
const PASSED_ON: [&str; 4] = [
    "HTTP/1.1 102 Processing\r\n",
    "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nset-cookie: early=1\r\n",
    "HTTP/1.1 103 Early Hints\r\n",
    "HTTP/1.1 199 \r\n",
];

/// The heads before the final answer, and that.
#[track_caller]
fn answers(connection: &mut Client) -> (Vec<String>, Answer) {
    let mut interims = Vec::new();
    loop {
        let answer = connection.answer();
        if answer.status >= 200 {
            return (interims, answer);
        }
        interims.push(answer.head);
    }
}

const POST: &str = "POST /pieces HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn they_come_before_the_final_answer() {
    let origin = talkative();
    let gateway = Gateway::new(&[origin.address]);
    let mut connection = Client::new(gateway.address());
    let old = "GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n";
    let pieces = GET.replace("GET /", "GET /pieces");
    // From the first POST on hyper serves the connection.
    let all = [GET, &pieces, GET, POST, GET, POST, old, GET];
    connection.send(all.concat());
    for sent in all {
        let (interims, answer) = answers(&mut connection);
        let expected = if sent == old { &[][..] } else { &PASSED_ON };
        assert_eq!(interims, expected, "{sent}");
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{sent}");
        for name in ["link", "set-cookie", "transfer-encoding"] {
            assert_eq!(answer.fields(name), [""; 0], "{sent}");
        }
    }
    // The instance's connections, one for requests with a body and one for those without, were used
    // again, and nobody has failed.
    assert_eq!(origin.connections(), 2);
    poll_until("all to be counted", || {
        gateway.load(origin.address) == (0, 8, 0)
    });
    assert_eq!(gateway.count("responses_1xx"), 0);
}

#[test]
fn they_come_by_tls() {
    run(async {
        let origin = talkative();
        let (gateway, trust) = encrypted(origin.address);
        let mut stream = trust
            .connect(gateway.second(), "a.example", "http/1.1")
            .await;
        for request in [GET, POST] {
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut came = String::new();
            while !came.ends_with("\r\n\r\nok") {
                let byte = stream.read_u8().await.unwrap();
                came.push(char::from(byte));
            }
            let interims = PASSED_ON.map(|head| format!("{head}\r\n")).concat();
            let rest = came.strip_prefix(&interims);
            assert!(
                rest.is_some_and(|it| it.starts_with("HTTP/1.1 200 ")),
                "{came}"
            );
        }
    });
}

#[test]
fn they_do_not_wait_for_the_final_answer() {
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let origin = Origin::new(move |_, stream| {
        let output = stream.get_mut();
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let told = output.write_all(hint).is_ok();
        let wait = wait.lock().unwrap();
        told && wait.recv_timeout(Duration::from_secs(20)).is_ok()
            && output.write_all(&ok("ok")).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    for sent in [GET, POST] {
        let mut connection = Client::new(gateway.address());
        connection.send(sent);
        let hint = connection.head();
        assert_eq!((hint.status, hint.fields("link")), (103, vec!["</a>"]));
        go_on.send(()).unwrap();
        assert_eq!(connection.answer().text(), "ok", "{sent}");
    }
}

#[test]
fn they_are_bounded() {
    let origin = Origin::new(|_, stream| {
        let long = "x".repeat(9000);
        let long = format!("HTTP/1.1 103 Early Hints\r\nX: {long}\r\n\r\n");
        let short = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
        let all = [
            long.as_bytes(),
            long.as_bytes(),
            short.as_bytes(),
            &ok("ok"),
        ]
        .concat();
        stream.get_mut().write_all(&all).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    let mut connection = Client::new(gateway.address());
    for sent in [GET, GET, POST, GET] {
        connection.send(sent);
        let (interims, answer) = answers(&mut connection);
        assert_eq!(answer.text(), "ok", "{sent}");
        // How many of the long ones depends on how soon the first is with the client.
        assert_eq!(interims.len(), 32, "{sent}");
    }
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
    let (interims, answer) = answers(&mut connection);
    assert_eq!((interims.len(), answer.status), (32, 504));
    poll_until("it is counted", || gateway.count("upstream_late") == 1);

    let broken = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream);
        let _ = stream.get_mut().write_all(INTERIM.as_bytes());
    });
    let gateway = Gateway::new(&[broken]);
    let mut connection = Client::new(gateway.address());
    connection.send(POST);
    let (interims, answer) = answers(&mut connection);
    assert_eq!(
        (&interims[..], answer.status),
        (&PASSED_ON.map(str::to_owned)[..], 502)
    );
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
    let (interims, answer) = answers(&mut connection);
    assert_eq!(interims, ["HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n"]);
    assert_eq!((answer.status, answer.text()), (401, "no"));
    drop(connection);
    let rest = wait.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(rest, b"", "the body was never asked for");
}

#[test]
fn they_come_before_an_upgrade() {
    let origin = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream).unwrap();
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi";
        let output = stream.get_mut();
        output
            .write_all([hint, agreed].concat().as_bytes())
            .unwrap();
        let _ = stream.read(&mut [0]);
    });
    let gateway = Gateway::new(&[origin]);
    let mut connection = Client::new(gateway.address());
    let upgrade = "\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    connection.send(GET.replace("\r\n\r\n", upgrade));
    assert_eq!(connection.head().fields("link"), ["</a>"]);
    assert_eq!(connection.head().status, 101);
    let mut came = [0; 2];
    connection.stream().read_exact(&mut came).unwrap();
    assert_eq!(&came, b"hi");
}
