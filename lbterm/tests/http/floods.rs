//! HTTP/2 clients that ask for more than they may (RFC 9113, section 10.5).

use http::{HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::gateway::{Gateway, poll_until};
use super::http2::{encrypted, request, run, send};
use super::origin::{Origin, ok};
use super::tls::Trust;

/// A client that sends frames as it is told to.
async fn raw_client(gateway: &Gateway, trust: &Trust) -> TlsStream<TcpStream> {
    let mut stream = trust.connect(gateway.second(), "a.example", "h2").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    stream.write_all(preface).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    stream
}

/// A frame's bytes.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn rapid_resets_end_the_connection() {
    // CVE-2023-44487.
    let silent = Origin::new(|_, _| true);
    let (gateway, trust) = encrypted(silent.address);
    run(async {
        let mut stream = raw_client(&gateway, &trust).await;
        // GET, https, / and the authority without Huffman's code (RFC 7541, section 6).
        let get = [&[0x82, 0x87, 0x84, 0x41, 9][..], b"a.example"].concat();
        let mut sent = 0;
        while sent < 100_000 {
            let id = 2 * sent + 1;
            let both = [frame(1, 5, id, &get), frame(3, 0, id, &8_u32.to_be_bytes())];
            if stream.write_all(&both.concat()).await.is_err() {
                break;
            }
            sent += 1;
        }
        assert!(sent < 20_000, "{sent} were taken");
    });
    // What was under way when the client hung up is not many.
    let reached = silent.requests().len();
    assert!(reached < 500, "{reached}");
    poll_until("it is counted", || gateway.count("http2_flooded") == 1);
    poll_until("nothing is in flight", || {
        gateway.load(silent.address).0 == 0
    });
}

#[test]
fn a_flood_of_continuations_ends_the_connection() {
    // CVE-2024-27316.
    let origin = Origin::answering(ok("ok"));
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let mut stream = raw_client(&gateway, &trust).await;
        // HEADERS without END_HEADERS, then a literal field of 1,000 bytes in each CONTINUATION.
        stream.write_all(&frame(1, 0, 1, &[0x82])).await.unwrap();
        let field = [&[0x00, 0x01, b'x', 0x7f, 0xe9, 0x06][..], &[b'y'; 1000][..]].concat();
        let mut sent = 0_usize;
        while sent < 64 << 20 && stream.write_all(&frame(9, 0, 1, &field)).await.is_ok() {
            sent += field.len();
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(sent < 8 << 20, "{sent} bytes were taken");
    });
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn heads_and_streams_are_bounded() {
    let origin = Origin::answering(ok("ok"));
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let stream = trust.connect(gateway.second(), "a.example", "h2").await;
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        assert_eq!(
            send(&mut sender, request(Method::GET, "https://a.example/"))
                .await
                .0,
            200
        );
        assert_eq!(sender.current_max_send_streams(), 128);
        let mut large = request(Method::GET, "https://a.example/");
        let value = HeaderValue::from_str(&"y".repeat(15_000)).unwrap();
        for i in 0..6 {
            let name: http::HeaderName = format!("x-{i}").parse().unwrap();
            large.headers_mut().insert(name, value.clone());
        }
        let (status, _) = send(&mut sender, large).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    });
}
