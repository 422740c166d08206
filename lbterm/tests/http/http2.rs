//! HTTP/2 from clients over TLS, and to instances without it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use lbagent_api::terminator::UpstreamProtocol;
use tokio::net::{TcpListener, TcpStream};

use super::gateway::{Gateway, group, moment, poll_until};
use super::origin::{Origin, ok};
use super::tls::{Trust, encrypt};

/// A gateway that speaks TLS for groups `a.example` and `b.example`.
pub fn encrypted(instance: SocketAddr) -> (Gateway, Trust) {
    let mut gateway = Gateway::with(|ports| {
        let names = ["a.example", "b.example"];
        names.map(|name| group(name, ports[1], &[instance])).into()
    });
    let mut trust = None;
    gateway.change(|snapshot| trust = Some(encrypt(snapshot)));
    (gateway, trust.unwrap())
}

/// Runs a test's asynchronous part.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let limit = Duration::from_secs(30);
    let run = async {
        tokio::time::timeout(limit, future)
            .await
            .expect("the test hangs")
    };
    runtime.unwrap().block_on(run)
}

/// A client's HTTP/2 connection with this server name.
pub async fn client(gateway: &Gateway, trust: &Trust, name: &str) -> SendRequest<Bytes> {
    let stream = trust.connect(gateway.second(), name, "h2").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

pub fn request(method: Method, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

async fn body(response: Response<h2::RecvStream>) -> (StatusCode, String, Option<HeaderMap>) {
    let (parts, mut stream) = response.into_parts();
    let mut text = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap();
    (parts.status, String::from_utf8(text).unwrap(), trailers)
}

pub async fn send(sender: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, String) {
    let (response, _) = sender.send_request(request, true).unwrap();
    let (status, text, _) = body(response.await.unwrap()).await;
    (status, text)
}

#[test]
fn many_requests_share_a_connection_and_reach_instances_as_http1() {
    let origin = Origin::answering(ok("ok"));
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let mut sender = client(&gateway, &trust, "a.example").await;
        let sent: Vec<_> = (0..50)
            .map(|i| {
                let mut request = request(Method::GET, &format!("https://a.example/{i}?q"));
                let headers = request.headers_mut();
                headers.append("cookie", HeaderValue::from_static("a=1"));
                headers.append("cookie", HeaderValue::from_static("b=2"));
                sender.send_request(request, true).unwrap().0
            })
            .collect();
        for response in sent {
            let (status, text, _) = body(response.await.unwrap()).await;
            assert_eq!((status, &text[..]), (StatusCode::OK, "ok"));
        }
    });
    let requests = origin.requests();
    assert_eq!(requests.len(), 50);
    for request in requests {
        assert!(request.head.starts_with("GET /"), "{request:?}");
        assert_eq!(request.fields("host"), ["a.example"]);
        assert_eq!(request.fields("cookie"), ["a=1; b=2"]);
        assert_eq!(request.fields("x-forwarded-proto"), ["https"]);
        assert_eq!(request.fields("x-forwarded-host"), ["a.example"]);
    }
}

#[test]
fn bodies_without_a_length_become_chunks() {
    let origin = Origin::new(|request, stream| {
        use std::io::Write;
        let body = std::str::from_utf8(&request.body).unwrap();
        stream.get_mut().write_all(&ok(body)).is_ok()
    });
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let mut sender = client(&gateway, &trust, "a.example").await;
        for method in [Method::POST, Method::GET] {
            let request = request(method, "https://a.example/");
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            stream
                .send_data(Bytes::from_static(b"one "), false)
                .unwrap();
            stream.send_data(Bytes::from_static(b"two"), true).unwrap();
            assert_eq!(body(response.await.unwrap()).await.1, "one two");
        }
    });
}

#[test]
fn authorities_that_differ_are_refused() {
    let origin = Origin::answering(ok("ok"));
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let mut sender = client(&gateway, &trust, "a.example").await;
        let mut differing = request(Method::GET, "https://a.example/");
        let other = HeaderValue::from_static("b.example");
        differing.headers_mut().insert("host", other);
        assert_eq!(
            send(&mut sender, differing).await.0,
            StatusCode::BAD_REQUEST
        );
        let mut same = request(Method::GET, "https://a.example/");
        same.headers_mut()
            .insert("host", HeaderValue::from_static("A.example:443"));
        assert_eq!(send(&mut sender, same).await.0, StatusCode::OK);
        // RFC 9110, section 7.4: the connection was made for another group.
        let of_another = request(Method::GET, "https://b.example/");
        assert_eq!(
            send(&mut sender, of_another).await.0,
            StatusCode::MISDIRECTED_REQUEST
        );
        let of_nobody = request(Method::GET, "https://c.example/");
        assert_eq!(send(&mut sender, of_nobody).await.0, StatusCode::NOT_FOUND);
        let tunnel = request(Method::CONNECT, "a.example:443");
        assert_eq!(
            send(&mut sender, tunnel).await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
        let (status, _) = send(&mut sender, request(Method::GET, "https://a.example/")).await;
        assert_eq!(status, StatusCode::OK, "the connection goes on");
    });
    assert_eq!(gateway.count("misdirected"), 1);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn two_names_of_one_group_share_a_connection() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = Gateway::with(|ports| {
        let mut group = group("a.example", ports[1], &[origin.address]);
        group.domains.push(super::gateway::domain("www.a.example"));
        vec![group]
    });
    let mut trust = None;
    gateway.change(|snapshot| trust = Some(encrypt(snapshot)));
    run(async {
        let mut sender = client(&gateway, trust.as_ref().unwrap(), "a.example").await;
        let (status, _) = send(&mut sender, request(Method::GET, "https://www.a.example/")).await;
        assert_eq!(status, StatusCode::OK);
    });
}

/// An instance that speaks HTTP/2 without TLS and answers as gRPC does: each message comes back at
/// once, and the status in trailers. Returns its address and a count of its connections.
async fn grpc_instance() -> (SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = std::sync::Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(serve_grpc(stream));
        }
    });
    (address, connections)
}

async fn serve_grpc(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.uri().authority().unwrap(), "a.example");
            assert!(!request.headers().contains_key("host"));
            let mut incoming = request.into_body();
            let response = Response::builder().header("content-type", "application/grpc");
            let mut stream = respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            while let Some(data) = incoming.data().await {
                let data = data.unwrap();
                incoming
                    .flow_control()
                    .release_capacity(data.len())
                    .unwrap();
                stream.send_data(data, false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
        });
    }
}

#[test]
fn grpc_streams_both_ways_and_ends_with_trailers() {
    run(async {
        let (address, connections) = grpc_instance().await;
        let (mut gateway, trust) = encrypted(address);
        gateway.change(|snapshot| {
            for group in &mut snapshot.groups {
                group.services[0].policy.upstream = UpstreamProtocol::H2c;
            }
        });
        let mut sender = client(&gateway, &trust, "a.example").await;
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let mut request = request(Method::POST, "https://a.example/Service/Method");
                let headers = request.headers_mut();
                headers.insert("te", HeaderValue::from_static("trailers"));
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                sender.send_request(request, false).unwrap()
            })
            .collect();
        for (response, mut stream) in calls {
            let response = response.await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let (_, mut incoming) = response.into_parts();
            for message in ["first", "second"] {
                stream
                    .send_data(Bytes::from_static(message.as_bytes()), false)
                    .unwrap();
                let data = incoming.data().await.unwrap().unwrap();
                assert_eq!(
                    data, message,
                    "each message comes back before the next is sent"
                );
            }
            stream.send_data(Bytes::new(), true).unwrap();
            assert!(incoming.data().await.is_none());
            let trailers = incoming.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
        let connections = connections.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(connections, 1, "a burst of requests shares one connection");
        poll_until("nothing is in flight", || {
            gateway.load(address) == (0, 20, 0)
        });
    });
}

/// An instance that speaks h2c, takes one request of each connection, and closes it.
async fn closing_h2c(address: &str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<AtomicUsize>::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            if let Some(Ok(_)) = connection.accept().await {
                noted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (address, seen)
}

#[test]
fn only_requests_that_may_be_repeated_are_sent_again_by_h2c() {
    run(async {
        let (one, seen_by_one) = closing_h2c("127.0.0.1:0").await;
        let (two, seen_by_two) = closing_h2c(&format!("127.0.0.2:{}", one.port())).await;
        let mut gateway = Gateway::with(|ports| vec![group("a.example", ports[1], &[one, two])]);
        let mut trust = None;
        gateway.change(|snapshot| {
            trust = Some(encrypt(snapshot));
            snapshot.groups[0].services[0].policy.upstream = UpstreamProtocol::H2c;
        });
        let seen = || seen_by_one.load(Ordering::SeqCst) + seen_by_two.load(Ordering::SeqCst);
        let mut sender = client(&gateway, &trust.unwrap(), "a.example").await;
        let mut before = 0;
        for (method, times) in [(Method::GET, 2), (Method::POST, 1), (Method::DELETE, 2)] {
            let request = request(method.clone(), "https://a.example/");
            let status = send(&mut sender, request).await.0;
            assert_eq!(status, StatusCode::BAD_GATEWAY, "{method}");
            assert_eq!(seen() - before, times, "{method}");
            before = seen();
        }
    });
}

#[test]
fn large_bodies_arrive_over_http2() {
    let origin = Origin::new(|request, stream| {
        use std::io::Write;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            request.body.len()
        );
        let stream = stream.get_mut();
        stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&request.body).is_ok()
    });
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let mut sender = client(&gateway, &trust, "a.example").await;
        let request = request(Method::POST, "https://a.example/");
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        let part = Bytes::from("0123456789abcdef".repeat(64 * 1024));
        let sent = tokio::spawn({
            let part = part.clone();
            async move {
                for _ in 0..8 {
                    let mut rest = part.clone();
                    while !rest.is_empty() {
                        stream.reserve_capacity(rest.len());
                        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                        let room = room.unwrap().unwrap().min(rest.len());
                        stream.send_data(rest.split_to(room), false).unwrap();
                    }
                }
                stream.send_data(Bytes::new(), true).unwrap();
            }
        });
        let (status, text, _) = body(response.await.unwrap()).await;
        sent.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(text.as_bytes() == part.repeat(8));
    });
}

#[test]
fn a_drain_lets_streams_finish() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::new(move |_, stream| {
        use std::io::Write;
        let _ = wait.lock().unwrap().recv();
        stream.get_mut().write_all(&ok("ok")).is_ok()
    });
    let (gateway, trust) = encrypted(origin.address);
    run(async {
        let stream = trust.connect(gateway.second(), "a.example", "h2").await;
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let get = || request(Method::GET, "https://a.example/");
        let (response, _) = sender.send_request(get(), true).unwrap();
        while origin.requests().is_empty() {
            moment().await;
        }
        gateway.drain();
        // GOAWAY: the client's own side refuses new streams.
        while sender.clone().ready().await.is_ok() {
            moment().await;
        }
        release.send(()).unwrap();
        let (status, text, _) = body(response.await.unwrap()).await;
        assert_eq!((status, &text[..]), (StatusCode::OK, "ok"));
        connection.await.unwrap().unwrap();
    });
    poll_until("the worker has ended", || gateway.has_ended());
}
