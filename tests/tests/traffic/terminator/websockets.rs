//! WebSockets by a kept library, both ways of asking for them.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lbagent_tests::require_root;
use lbagent_tests::resident::{Resident, block_on};
use lbagent_tests::site::Site;
use lbagent_tests::topology::VIPS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const ECHO_PORT: u16 = 8091;
const NAME: &str = "socket.lb.internal";

async fn listen() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    Ok(())
}

/// Sends every message back, and closes after the message `bye`.
async fn echo(stream: TcpStream) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            let is_last = message == Message::text("bye");
            socket.send(message).await?;
            if is_last {
                socket.close(None).await?;
            }
        }
    }
    Ok(())
}

/// Messages of all sizes go there and back, then the instance closes.
async fn talk(mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) -> Result<()> {
    for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let message = Message::binary(Bytes::from(vec![size as u8; size]));
        socket.send(message.clone()).await?;
        let answer = socket.next().await.unwrap()?;
        assert!(answer == message, "{size} bytes");
    }
    socket.send(Message::text("bye")).await?;
    assert_eq!(socket.next().await.unwrap()?, Message::text("bye"));
    assert!(socket.next().await.unwrap()?.is_close());
    assert!(socket.next().await.is_none());
    Ok(())
}

async fn over_http1(site: &Site, to: SocketAddr) -> Result<()> {
    let stream = site.trust.connect_http1(to, NAME).await?;
    // TLS is done already, so the scheme is the plain one.
    let url = format!("ws://{NAME}/chat");
    let (socket, answer) = tokio_tungstenite::client_async(url, stream).await?;
    assert_eq!(answer.status(), 101);
    talk(socket).await
}

/// RFC 8441: two at once on one connection.
async fn over_http2(site: &Site, to: SocketAddr) -> Result<()> {
    let stream = TokioIo::new(site.trust.connect_http2(to, NAME).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    // An ordinary request, for another group; with its answer the client knows what the server allows.
    let request = Request::get("https://web.lb.internal/").body(Empty::<Bytes>::new())?;
    assert_eq!(sender.send_request(request).await?.status(), 421);
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{NAME}/chat"))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(Empty::new())?;
        let answer = sender.send_request(request).await?;
        assert_eq!(answer.status(), 200);
        let stream = TokioIo::new(hyper::upgrade::on(answer).await?);
        sockets.push(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
    }
    for socket in sockets {
        talk(socket).await?;
    }
    Ok(())
}

#[test]
fn websockets_work_over_both_versions_of_http() {
    require_root!();
    let site = Site::start_with_guest().unwrap();
    let _echo = Resident::start(&site.guest().ns, "websockets", listen).unwrap();
    site.publish_guest("socket", ECHO_PORT).unwrap();
    for vip in VIPS {
        let to = SocketAddr::new(vip, 443);
        let client = &site.gateway.topology.client;
        block_on(client, || over_http1(&site, to)).unwrap();
        block_on(client, || over_http2(&site, to)).unwrap();
    }
}
