//! WebSockets by a kept library, both ways of asking for them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::client::Client;
use super::gateway::{Gateway, moment, poll_until};
use super::http2::{encrypted, run};
use super::origin::Origin;

/// An instance that sends every message back, and closes after the message `bye`.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        let is_last = message == Message::Text(Utf8Bytes::from_static("bye"));
                        socket.send(message).await.unwrap();
                        if is_last {
                            socket.close(None).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    address
}

/// Messages of all sizes go there and back, then the instance closes.
async fn talk<S>(socket: &mut WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let message = Message::binary(Bytes::from(vec![size as u8; size]));
        socket.send(message.clone()).await.unwrap();
        assert!(
            socket.next().await.unwrap().unwrap() == message,
            "{size} bytes"
        );
    }
    socket.send(Message::text("bye")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("bye"));
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert!(socket.next().await.is_none());
}

#[test]
fn over_http1() {
    run(async {
        let address = echo().await;
        let gateway = Gateway::new(&[address]);
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        let url = "ws://a.example/chat";
        let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            gateway.load(address).0,
            1,
            "in flight for as long as it is open"
        );
        talk(&mut socket).await;
        drop(socket);
        poll_until("it has ended", || gateway.load(address) == (0, 1, 0));
        assert_eq!(
            (gateway.count("upgraded"), gateway.count("responses_1xx")),
            (1, 1)
        );
        assert!(gateway.count("bytes_out") > 3_000_000);
        gateway.drain();
        poll_until("the worker has ended", || gateway.has_ended());
    });
}

#[test]
fn over_http2() {
    run(async {
        let address = echo().await;
        let (gateway, trust) = encrypted(address);
        let stream = trust.connect(gateway.second(), "a.example", "h2").await;
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let ask = |protocol: &'static str| {
            let request = Request::builder()
                .method(Method::CONNECT)
                .uri("https://a.example/chat")
                .header("sec-websocket-version", "13")
                .extension(Protocol::from_static(protocol));
            request.body(Empty::<Bytes>::new()).unwrap()
        };
        let response = sender.send_request(ask("webtransport")).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        // Two at once on one connection, and an ordinary request beside them.
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let response = sender.send_request(ask("websocket")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(!response.headers().contains_key("upgrade"));
            assert!(!response.headers().contains_key("sec-websocket-accept"));
            let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            sockets.push(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
        }
        let request = Request::builder().uri("https://c.example/");
        let request = request.body(Empty::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        response.collect().await.unwrap();
        for socket in &mut sockets {
            talk(socket).await;
        }
        drop(sockets);
        // The connection that they shared is still there.
        while gateway.load(address) != (0, 2, 0) {
            moment().await;
        }
        assert!(sender.is_ready());
    });
}

/// What a client gets that asks for a WebSocket.
fn ask(gateway: &Gateway, fields: &str) -> (Client, super::client::Answer) {
    let mut client = Client::new(gateway.address());
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n{fields}\r\n"
    ));
    let answer = client.head();
    (client, answer)
}

#[test]
fn an_instance_may_decline() {
    let origin = Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    let request =
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for _ in 0..2 {
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (403, "no"));
    }
    let seen = &origin.requests()[0];
    assert_eq!(seen.fields("upgrade"), ["websocket"]);
    assert_eq!(seen.fields("connection"), ["upgrade"]);
    assert_eq!(seen.fields("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn nothing_but_what_was_asked_for() {
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n";
    let origin = Origin::answering(other);
    let gateway = Gateway::new(&[origin.address]);
    let (_, answer) = ask(&gateway, "Upgrade: websocket\r\n");
    assert_eq!(answer.status, 502);
    // h2c and lists of protocols go on as ordinary requests, to which 101 is no answer.
    for fields in ["Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", ""] {
        let (_, answer) = ask(&gateway, fields);
        assert_eq!(answer.status, 502, "{fields:?}");
        assert_eq!(origin.requests().last().unwrap().fields("upgrade"), [""; 0]);
    }
}

#[test]
fn silence_ends_an_upgraded_connection() {
    use std::io::{Read, Write};
    let accept =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello";
    let address = Origin::raw("127.0.0.1:0", |mut stream| {
        super::origin::read_block(&mut stream);
        stream.get_mut().write_all(accept).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut gateway = Gateway::new(&[address]);
    gateway.change(|snapshot| snapshot.groups[0].services[0].policy.idle_timeout_ms = 300);
    // The gateway's clock begins later, whenever this thread goes on.
    let began = std::time::Instant::now();
    let (mut client, answer) = ask(&gateway, "Upgrade: x\r\n");
    assert_eq!((answer.status, answer.fields("upgrade")), (101, vec!["x"]));
    let mut rest = Vec::new();
    let _ = client.stream().read_to_end(&mut rest);
    assert_eq!(rest, b"hello", "what came with the head is not lost");
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_millis(300) && elapsed < Duration::from_secs(8));
}
