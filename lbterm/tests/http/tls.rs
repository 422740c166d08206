//! Certificates of the test, and clients over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{Group, ServiceKind, Snapshot, TerminatorCertificate};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

/// What a client trusts.
pub struct Trust(RootCertStore);

/// Makes the services of all groups HTTPS, with one certificate for all their domains.
pub fn encrypt(snapshot: &mut Snapshot) -> Trust {
    let domains = |group: &Group| group.domains.clone();
    let names: Vec<_> = snapshot.groups.iter().flat_map(domains).collect();
    let names: Vec<String> = names.into_iter().map(|domain| domain.name).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names.clone()).unwrap();
    for service in snapshot.groups.iter_mut().flat_map(|g| &mut g.services) {
        service.kind = ServiceKind::Https;
    }
    let uuid = Uuid::new_v4();
    snapshot.default_certificate = Some(uuid);
    snapshot.certificates = vec![TerminatorCertificate {
        uuid,
        name: "test".to_owned(),
        names,
        chain: cert.pem(),
        key: Secret::new(signing_key.serialize_pem()),
    }];
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    Trust(roots)
}

impl Trust {
    /// A client's stream after the handshake.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        alpn: &str,
    ) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config
            .with_root_certificates(self.0.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.into()];
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        stream
    }
}
