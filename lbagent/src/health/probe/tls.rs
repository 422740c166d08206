//! TLS towards instances.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use lbagent_api::health::TlsProbe;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Failure, FailureKind};

/// The two ways of TLS, each made when it is first needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Connectors {
    trusting: Arc<OnceLock<Arc<ClientConfig>>>,
    verifying: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Connectors {
    /// Shakes hands. Without a server name the host's is taken, and the address failing that.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        to: SocketAddr,
        wanted: &TlsProbe,
        host: Option<&str>,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
        let name = wanted.server_name.as_deref().or(host);
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = name.unwrap_or_else(|| ServerName::from(to.ip()));
        let config = match wanted.verify {
            true => self.verifying.get_or_init(verifying),
            false => self.trusting.get_or_init(trusting),
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| {
            let is_tls = error.get_ref().is_some_and(|inner| inner.is::<Error>());
            match is_tls {
                true => Failure::new(FailureKind::Tls, format!("TLS: {error}")),
                false => Failure::of("TLS handshake", &error),
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// By the host's root certificates.
fn verifying() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a root certificate of this host cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    let config = builder().with_root_certificates(roots);
    finish(config.with_no_client_auth())
}

/// Whoever answers is right.
fn trusting() -> Arc<ClientConfig> {
    let verifier = Arc::new(Trusting(provider()));
    let config = builder()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    finish(config.with_no_client_auth())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions' cipher suites")
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A check is about the whole handshake; and sessions are remembered by name, which many
    // instances may share.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Accepts every certificate; its key must be the one that the handshake is signed with.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
