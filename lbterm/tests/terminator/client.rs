//! TLS clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, aws_lc_rs,
};
use rustls::pki_types::ServerName;
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::agent::SOON;
use crate::pki::Authority;

/// How to connect.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// Trusts the authority and nobody else, offers no ALPN.
    pub fn new(authority: &Authority) -> Self {
        Self::with(
            authority,
            aws_lc_rs::default_provider(),
            rustls::ALL_VERSIONS,
        )
    }

    /// Speaks one version of TLS only.
    pub fn version(authority: &Authority, version: &'static SupportedProtocolVersion) -> Self {
        Self::with(authority, aws_lc_rs::default_provider(), &[version])
    }

    /// Offers to verify RSA signatures only.
    pub fn rsa_only(authority: &Authority) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        let rsa = |scheme: &SignatureScheme| format!("{scheme:?}").starts_with("RSA");
        let mapping = provider.signature_verification_algorithms.mapping;
        let mapping: Vec<_> = mapping
            .iter()
            .copied()
            .filter(|(scheme, _)| rsa(scheme))
            .collect();
        provider.signature_verification_algorithms.mapping = mapping.leak();
        // Those of TLS 1.3 do not name a kind of key.
        provider
            .cipher_suites
            .retain(|suite| !format!("{suite:?}").contains("ECDSA"));
        Self::with(authority, provider, rustls::ALL_VERSIONS)
    }

    /// Speaks TLS 1.3, and begins with a key exchange that no server knows.
    pub fn hesitant(authority: &Authority) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![&Strange, aws_lc_rs::kx_group::X25519];
        Self::with(authority, provider, &[&rustls::version::TLS13])
    }

    /// Wants the cipher suites in the opposite order.
    pub fn backwards(authority: &Authority) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.reverse();
        Self::with(authority, provider, rustls::ALL_VERSIONS)
    }

    fn with(
        authority: &Authority,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        Self { config }
    }

    /// Offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Names no server.
    pub fn without_sni(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    /// Connects.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        timeout(SOON, connector.connect(name, stream))
            .await
            .expect("a handshake in time")
    }

    /// Connects, says something to an echo, and returns how the handshake was.
    pub async fn exchange(&self, address: SocketAddr, name: &str) -> io::Result<Handshake> {
        let mut stream = self.connect(address, name).await?;
        echo(&mut stream, b"hello").await?;
        let handshake = Handshake::of(&stream);
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(handshake)
    }
}

/// A group for key exchange, of a number that nobody has.
#[derive(Debug)]
struct Strange;

impl SupportedKxGroup for Strange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::Unknown(0xfe00)
    }
}

impl ActiveKeyExchange for Strange {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, rustls::Error> {
        panic!("somebody knows the group");
    }

    fn pub_key(&self) -> &[u8] {
        &[1]
    }

    fn group(&self) -> NamedGroup {
        self.name()
    }
}

/// Sends something and reads it back.
pub async fn echo(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut answer = vec![0; bytes.len()];
    timeout(SOON, stream.read_exact(&mut answer))
        .await
        .expect("an echo in time")?;
    assert_eq!(answer, bytes);
    Ok(())
}

/// How a handshake was.
#[derive(Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The server's certificate.
    pub certificate: Vec<u8>,
    /// The protocol agreed on.
    pub alpn: Option<String>,
    /// The version of TLS.
    pub version: Option<ProtocolVersion>,
    /// The cipher suite, which differs by version.
    pub cipher: Option<CipherSuite>,
    /// Whether an earlier session went on.
    pub is_resumed: bool,
    /// The server asked for another key exchange.
    pub is_asked_again: bool,
}

impl Handshake {
    /// Reads it off a stream.
    pub fn of(stream: &TlsStream<TcpStream>) -> Self {
        let (_, connection) = stream.get_ref();
        let certificates = connection.peer_certificates().unwrap();
        Self {
            certificate: certificates[0].to_vec(),
            alpn: connection
                .alpn_protocol()
                .map(|it| String::from_utf8(it.to_vec()).unwrap()),
            version: connection.protocol_version(),
            cipher: connection.negotiated_cipher_suite().map(|it| it.suite()),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            is_asked_again: connection.handshake_kind()
                == Some(HandshakeKind::FullWithHelloRetryRequest),
        }
    }
}
