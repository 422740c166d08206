//! One handshake.

use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor, ServerConnection};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::conn::{Alpn, TlsMeta};
use crate::route::{Port, Target, canonical_host};

use super::gather::{Gather, Stream};
use super::{Fit, Tls};

/// A handshake that succeeded.
pub struct Accepted {
    /// The decrypted stream.
    pub stream: Stream,
    /// What the two sides agreed on.
    pub meta: TlsMeta,
    /// Who has the name that the client wants; none for a name with a certificate that no group has
    /// here, or for a client that named none, which a request's authority tells for HTTP.
    pub target: Option<Arc<Target>>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Nobody has the name, or no group has it here.
    #[error("nobody has the server name that the client wants")]
    UnknownName,
    /// The client named no server, and there is nothing to serve without a name.
    #[error("the client named no server")]
    NoName,
    /// The two sides did not agree, or the client went away.
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

/// Answers a client's handshake by what it asks for. The caller bounds the time.
pub async fn accept(stream: TcpStream, tls: &Tls, port: &Port) -> Result<Accepted, HandshakeError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), Gather::new(stream))
        .await
        .map_err(HandshakeError::Failed)?;
    let server_name = start
        .client_hello()
        .server_name()
        .map(|name| Box::<str>::from(canonical_host(name)));
    let (target, config) = match choose(tls, port, server_name.as_deref()) {
        Ok(chosen) => chosen,
        Err(error) => {
            refuse(start, &error).await;
            return Err(error);
        }
    };
    let mut flights = None;
    let mut accepting = start.into_stream_with(config, |connection| {
        flights = flights_before_tickets(connection);
    });
    if let (Some(flights), Some(stream)) = (flights, accepting.get_mut()) {
        stream.hold_after(flights);
    }
    let stream = match accepting.into_fallible().await {
        Ok(stream) => stream,
        Err((error, mut stream)) => {
            // An alert may be among what waits, and the client may be gone.
            stream.pass();
            let _ = stream.flush().await;
            return Err(HandshakeError::Failed(error));
        }
    };
    let meta = describe(stream.get_ref().1, server_name);
    Ok(Accepted {
        stream: Stream::new(stream),
        meta,
        target,
    })
}

type Chosen = (Option<Arc<Target>>, Arc<rustls::ServerConfig>);

fn choose(tls: &Tls, port: &Port, server_name: Option<&str>) -> Result<Chosen, HandshakeError> {
    let unknown = || match server_name {
        Some(_) => HandshakeError::UnknownName,
        None => HandshakeError::NoName,
    };
    let target = match server_name {
        Some(name) => port.lookup(name),
        None => port.only(),
    };
    if tls.certificates().fit(server_name) != Fit::Found {
        return Err(unknown());
    }
    // Where the port serves bytes alone, nothing later could tell whose they are.
    let kind = target.map_or(port.kind_without_name(), |target| Some(target.kind));
    let config = kind.and_then(|kind| tls.config(kind)).ok_or_else(unknown)?;
    Ok((target.map(Arc::clone), Arc::clone(config)))
}

/// How many flights of a handshake that has begun go before its tickets, if these are what it ends
/// with: in TLS 1.2, the client waits for what comes with them.
fn flights_before_tickets(connection: &ServerConnection) -> Option<u8> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    Some(match connection.handshake_kind() {
        Some(HandshakeKind::FullWithHelloRetryRequest) => 2,
        _ => 1,
    })
}

/// Tells the client why, which rustls has no way to say once it has a configuration.
async fn refuse(start: StartHandshake<Gather>, why: &HandshakeError) {
    let alert = match why {
        HandshakeError::UnknownName => AlertDescription::UnrecognisedName,
        // RFC 8446, section 9.2.
        HandshakeError::NoName => AlertDescription::MissingExtension,
        HandshakeError::Failed(_) => AlertDescription::HandshakeFailure,
    };
    // A record of type alert, version 1.2, two bytes: fatal, and which.
    let record = [21, 3, 3, 0, 2, 2, u8::from(alert)];
    let mut stream = start.io;
    // The client is refused either way.
    if stream.write_all(&record).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

fn describe(connection: &ServerConnection, server_name: Option<Box<str>>) -> TlsMeta {
    TlsMeta {
        server_name,
        alpn: match connection.alpn_protocol() {
            Some(b"h2") => Alpn::H2,
            Some(b"http/1.1") => Alpn::Http1,
            _ => Alpn::None,
        },
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}
