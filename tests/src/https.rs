//! HTTPS clients in this process, for what curl cannot show: one connection's life, and many at once.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A version of HTTP, agreed on by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Clients that trust one authority, and resume sessions with its servers.
#[derive(Clone, Debug)]
pub struct Trust {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Nothing by ALPN, for what is no HTTP.
    plain: Arc<ClientConfig>,
}

impl Trust {
    /// The authority in PEM.
    pub fn new(authority: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let offering = |protocols: &[&str]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
            Arc::new(config)
        };
        Ok(Self {
            http1: offering(&["http/1.1"]),
            http2: offering(&["h2"]),
            plain: offering(&[]),
        })
    }

    /// A connection of the running thread's namespace, after the handshake, without ALPN.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>> {
        connect(&self.plain, to, name).await
    }

    /// As [`Trust::connect`], for HTTP/1.1 by ALPN.
    pub async fn connect_http1(&self, to: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>> {
        connect(&self.http1, to, name).await
    }

    /// As [`Trust::connect`], for HTTP/2 by ALPN.
    pub async fn connect_http2(&self, to: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>> {
        connect(&self.http2, to, name).await
    }

    /// A connection that requests can be sent on.
    pub async fn open(&self, version: Version, to: SocketAddr, name: &str) -> Result<Sender> {
        let requests = match version {
            Version::Http1 => {
                let stream = TokioIo::new(self.connect_http1(to, name).await?);
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Requests::Http1(sender)
            }
            Version::Http2 => {
                let stream = TokioIo::new(self.connect_http2(to, name).await?);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Requests::Http2(sender)
            }
        };
        Ok(Sender {
            requests,
            name: name.to_owned(),
        })
    }
}

async fn connect(
    config: &Arc<ClientConfig>,
    to: SocketAddr,
    name: &str,
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let server_name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(server_name, stream).await;
    let stream = stream.context("TLS handshake")?;
    ensure!(
        config.alpn_protocols.is_empty() || stream.get_ref().1.alpn_protocol().is_some(),
        "nothing was agreed on by ALPN"
    );
    Ok(stream)
}

/// An open connection of HTTP.
pub struct Sender {
    requests: Requests,
    name: String,
}

enum Requests {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    /// The head of the answer to a GET.
    pub async fn ask(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder();
        let invalid = "a path of a test is valid";
        match &mut self.requests {
            Requests::Http1(sender) => {
                let request = request.uri(path).header("host", &self.name);
                let request = request.body(Empty::new()).expect(invalid);
                sender.send_request(request).await
            }
            Requests::Http2(sender) => {
                let request = request.uri(format!("https://{}{path}", self.name));
                let request = request.body(Empty::new()).expect(invalid);
                sender.send_request(request).await
            }
        }
    }

    /// The whole answer to a GET, which must be 200, and whether the connection goes on after it.
    pub async fn get(&mut self, path: &str) -> Result<(String, bool)> {
        let answer = self.ask(path).await.context("no answer")?;
        read(answer).await
    }

    /// Whether another request can be sent; not after the server has told the client to go.
    pub async fn is_ready(&mut self) -> bool {
        match &mut self.requests {
            Requests::Http1(sender) => sender.ready().await.is_ok(),
            Requests::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// The text of an answer, which must be 200, and whether the connection goes on after it.
pub async fn read(answer: Response<Incoming>) -> Result<(String, bool)> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.context("half an answer")?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(head.status == 200, "{}: {text}", head.status);
    let closes = head.headers.get("connection");
    let closes = closes.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    Ok((text, !closes))
}
