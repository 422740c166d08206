//! The end of TLS: certificate by server name, alerts, session tickets. All configurations share one
//! source of tickets, so a new snapshot ends no resumption.

mod accept;
mod certificates;
mod gather;
pub(crate) mod tickets;

use std::fmt;
use std::sync::Arc;

use lbagent_api::terminator::{Fault, FaultyObject, ServiceKind, Snapshot};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig};

pub use accept::{Accepted, HandshakeError, accept};
pub use certificates::{Certificates, Fit};
pub use tickets::{SealingKey, Tickets};

/// What is offered to clients of HTTP, the best first.
const ALPN_HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How handshakes are answered at one generation.
#[derive(Default)]
pub struct Tls {
    certificates: Arc<Certificates>,
    /// For [`ServiceKind::Https`]; none before the first snapshot.
    http: Option<Arc<ServerConfig>>,
    /// For [`ServiceKind::Tls`], where the protocol inside is the instances' own.
    bytes: Option<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Compiles what a snapshot says about TLS; certificates that `former` has are not read again.
    /// The tickets' keys are left alone until [`Tickets::replace`].
    pub fn compile(
        snapshot: &Snapshot,
        former: &Self,
        tickets: &Arc<Tickets>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Vec<Fault>> {
        let certificates =
            Certificates::compile(snapshot, &former.certificates, provider).map(Arc::new)?;
        let config = |alpn: &[&[u8]]| {
            configure(&certificates, alpn, tickets, provider).map_err(|error| {
                vec![Fault {
                    object: FaultyObject::Gateway,
                    reason: format!("TLS cannot be configured: {error}"),
                }]
            })
        };
        Ok(Self {
            http: Some(config(&ALPN_HTTP)?),
            bytes: Some(config(&[])?),
            certificates,
        })
    }

    /// Certificates by name.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// How a handshake for such a service is answered.
    fn config(&self, kind: ServiceKind) -> Option<&Arc<ServerConfig>> {
        match kind {
            ServiceKind::Tls => self.bytes.as_ref(),
            ServiceKind::Https | ServiceKind::Http | ServiceKind::Redirect => self.http.as_ref(),
        }
    }
}

/// aws-lc-rs with AES-128 before the other suites, as browsers have them: these come with SHA-384, for
/// which processors have no instructions, and which takes an eighth of a handshake.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let is_preferred = |suite: CipherSuite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider
        .cipher_suites
        .sort_by_key(|suite| !is_preferred(suite.suite()));
    provider
}

fn configure(
    certificates: &Arc<Certificates>,
    alpn: &[&[u8]],
    tickets: &Arc<Tickets>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Tickets survive a restart and are understood by other gateways; stored sessions do neither.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets) as _;
    // All suites are strong, so it is a matter of cost, which the server knows as well.
    config.ignore_client_order = true;
    // A client that goes on from one connection needs one; each costs a write.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
