//! gRPC by a kept library on both sides: HTTP/2 all the way, trailers at the end.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Result, ensure};
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use lbagent_tests::poll::{SOON, retry};
use lbagent_tests::require_root;
use lbagent_tests::resident::{Resident, block_on};
use lbagent_tests::site::Site;
use lbagent_tests::topology::VIPS;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const HOST: &str = "calls.lb.internal";
const SERVER_PORT: u16 = 8092;
/// Messages of a stream.
const MESSAGES: usize = 200;
/// Bytes of a large message; a message has 4 MiB at most by default.
const LARGE: usize = 3_000_000;

/// A string is a message, as of google.protobuf.StringValue: nothing has to be generated.
type Codec = ProstCodec<String, String>;

/// What generated code would be: `Once` answers one message with one, `Count` with many and an error
/// in the trailers, `Talk` each as it comes.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match &*path {
                "/test.Echo/Once" => grpc.unary(tower::service_fn(once), request).await,
                "/test.Echo/Count" => {
                    let count = tower::service_fn(count);
                    grpc.server_streaming(count, request).await
                }
                "/test.Echo/Talk" => grpc.streaming(tower::service_fn(talk), request).await,
                _ => Status::unimplemented(path).into_http(),
            })
        })
    }
}

async fn once(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(request.into_inner()))
}

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

async fn count(request: Request<String>) -> Result<Response<Answers>, Status> {
    let text = request.into_inner();
    let messages = (0..MESSAGES).map(move |index| Ok(format!("{text} {index}")));
    let mut metadata = MetadataMap::new();
    metadata.insert("x-count", MESSAGES.into());
    let end = Status::with_metadata(Code::OutOfRange, "no more", metadata);
    Ok(Response::new(Box::pin(stream::iter(
        messages.chain([Err(end)]),
    ))))
}

async fn talk(request: Request<Streaming<String>>) -> Result<Response<Answers>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}

async fn listen() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, SERVER_PORT)).await?;
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(Echo)
            .serve_with_incoming(incoming),
    );
    Ok(())
}

async fn connect(site: &Site, to: SocketAddr) -> Result<tonic::client::Grpc<Channel>> {
    let authority = Certificate::from_pem(site.browser.authority()?);
    let tls = ClientTlsConfig::new()
        .ca_certificate(authority)
        .domain_name(HOST);
    let endpoint = Endpoint::from_shared(format!("https://{to}"))?.tls_config(tls)?;
    let endpoint = endpoint.origin(format!("https://{HOST}").parse()?);
    Ok(tonic::client::Grpc::new(endpoint.connect().await?))
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(name)
}

async fn call(site: &Site, to: SocketAddr) -> Result<()> {
    let mut grpc = connect(site, to).await?;
    for message in ["hello".to_owned(), "x".repeat(LARGE)] {
        grpc.ready().await?;
        let request = Request::new(message.clone());
        let answer = grpc
            .unary(request, method("/test.Echo/Once"), Codec::default())
            .await?;
        ensure!(
            answer.metadata().get("grpc-status").is_some(),
            "{:?}",
            answer.metadata()
        );
        ensure!(answer.into_inner() == message, "another message");
    }
    grpc.ready().await?;
    let request = Request::new(String::new());
    let unknown = grpc.unary::<_, String, _>(request, method("/test.Echo/No"), Codec::default());
    ensure!(
        unknown
            .await
            .is_err_and(|status| status.code() == Code::Unimplemented)
    );

    grpc.ready().await?;
    let request = Request::new("number".to_owned());
    let counted = grpc.server_streaming(request, method("/test.Echo/Count"), Codec::default());
    let mut messages = counted.await?.into_inner();
    for index in 0..MESSAGES {
        let message = messages.message().await?;
        ensure!(message == Some(format!("number {index}")), "{message:?}");
    }
    let end = messages.message().await.unwrap_err();
    ensure!(
        (end.code(), end.message()) == (Code::OutOfRange, "no more"),
        "{end}"
    );
    ensure!(
        end.metadata()
            .get("x-count")
            .is_some_and(|count| count == "200")
    );

    // One after the other: each answer comes before the next question is asked.
    grpc.ready().await?;
    let (ask, questions) = mpsc::channel(1);
    let request = Request::new(ReceiverStream::new(questions));
    let talk = grpc.streaming(request, method("/test.Echo/Talk"), Codec::default());
    ask.send("first".to_owned()).await?;
    let mut answers = talk.await?.into_inner();
    ensure!(answers.message().await? == Some("first".to_owned()));
    for index in 0..MESSAGES {
        ask.send(format!("question {index}")).await?;
        let answer = answers.next().await.transpose()?;
        ensure!(answer == Some(format!("question {index}")), "{answer:?}");
    }
    drop(ask);
    ensure!(answers.message().await?.is_none());
    let trailers = answers.trailers().await?;
    ensure!(trailers.is_some(), "the call ended without trailers");
    Ok(())
}

#[test]
fn grpc_calls_and_streams_work_with_trailers() {
    require_root!();
    let site = Site::start_with_guest().unwrap();
    let _server = Resident::start(&site.guest().ns, "grpc", listen).unwrap();
    site.publish_guest("calls", SERVER_PORT).unwrap();
    let policy = json!({ "policy": { "terminated": [{ "port": 443, "upstream": "h2c" }] } });
    let path = "/v1/x/service-groups/calls/policy";
    site.gateway.agent.call("PUT", path, Some(&policy)).unwrap();
    for vip in VIPS {
        let to = SocketAddr::new(vip, 443);
        let client = &site.gateway.topology.client;
        // The terminator hears of the policy a moment later.
        retry("all calls", SOON, || block_on(client, || call(&site, to))).unwrap();
    }
}
