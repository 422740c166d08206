//! Instances: plain TCP servers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Sends back what it gets, and ends its way when the client's has ended.
pub async fn echo() -> SocketAddr {
    serve(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        // The client may go at any time.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Answers each connection's request, and closes.
pub async fn http() -> SocketAddr {
    serve(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // A client that goes away has no answer coming.
            let Ok(byte) = stream.read_u8().await else {
                return;
            };
            head.push(byte);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        let _ = stream.write_all(answer).await;
    })
    .await
}

/// Hands each connection to the test.
pub async fn by_hand() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let address = serve(move |stream| {
        let _ = sender.send(stream);
        std::future::ready(())
    })
    .await;
    (address, receiver)
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn serve<F, R>(each: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    address
}
