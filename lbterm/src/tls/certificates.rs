//! Which certificate a client gets. For a group's host name: its own, else the default. For any other
//! name: one with exactly this name, else one with the wildcard above it, so that a client of HTTP can
//! be told that nobody is there. Without a name: the default. Where there are several, ECDSA comes
//! before RSA if the client takes it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{
    Fault, FaultyObject, Group, ServiceKind, Snapshot, TerminatorCertificate,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use uuid::Uuid;

use crate::route::{HostTable, canonical_host};

/// The certificates of a snapshot.
#[derive(Default)]
pub struct Certificates {
    read: HashMap<Uuid, Arc<Read>>,
    /// By the certificates' own names.
    by_name: HostTable<Vec<Arc<Read>>>,
    /// By host name of groups that use TLS: what they have, maybe nothing.
    domains: HostTable<Vec<Arc<Read>>>,
    default: Option<Arc<Read>>,
}

/// A certificate whose PEM was read.
struct Read {
    chain: String,
    secret: Secret,
    key: Arc<CertifiedKey>,
}

/// How a server name fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// There is a certificate for it, or at least the default one for a name that a group has.
    Found,
    /// Nobody has this name.
    UnknownName,
    /// The client named no server, and there is no default certificate.
    NoName,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.read.len())
    }
}

impl Certificates {
    /// Reads the certificates of a snapshot; those that `former` has too are taken from there.
    pub(super) fn compile(
        snapshot: &Snapshot,
        former: &Self,
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<Fault>> {
        let mut all = Self::default();
        let mut faults = Vec::new();
        for wanted in &snapshot.certificates {
            match read(wanted, former, provider) {
                Ok(certificate) => all.insert(wanted, certificate),
                Err(reason) => faults.push(Fault {
                    object: FaultyObject::Certificate(wanted.uuid),
                    reason,
                }),
            }
        }
        for group in &snapshot.groups {
            all.bind(group);
        }
        if let Some(uuid) = snapshot.default_certificate {
            all.default = all.read.get(&uuid).map(Arc::clone);
            if all.default.is_none() && faults.is_empty() {
                faults.push(Fault {
                    object: FaultyObject::Gateway,
                    reason: format!("the default certificate {uuid} is not in the snapshot"),
                });
            }
        }
        if faults.is_empty() {
            Ok(all)
        } else {
            Err(faults)
        }
    }

    fn insert(&mut self, wanted: &TerminatorCertificate, certificate: Arc<Read>) {
        for name in &wanted.names {
            let same_name = self.by_name.entry(&canonical_host(name)).or_default();
            same_name.push(Arc::clone(&certificate));
            sort(same_name);
        }
        self.read.insert(wanted.uuid, certificate);
    }

    /// Notes a group's domains. A certificate that the snapshot lacks is still being issued.
    fn bind(&mut self, group: &Group) {
        let is_tls = |kind| matches!(kind, ServiceKind::Tls | ServiceKind::Https);
        if !group.services.iter().any(|service| is_tls(service.kind)) {
            return;
        }
        for domain in &group.domains {
            let wanted = domain.certificate.iter().chain(&domain.alternatives);
            let mut own: Vec<_> = wanted
                .filter_map(|uuid| self.read.get(uuid).map(Arc::clone))
                .collect();
            sort(&mut own);
            self.domains
                .entry(&canonical_host(&domain.name))
                .or_insert(own);
        }
    }

    /// Whether a handshake with this server name can go on.
    pub fn fit(&self, server_name: Option<&str>) -> Fit {
        if self.candidates(server_name).next().is_some() {
            Fit::Found
        } else if server_name.is_some() {
            Fit::UnknownName
        } else {
            Fit::NoName
        }
    }

    /// The certificate for a server name that a client which verifies these kinds of signatures can
    /// use.
    pub fn select(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        self.candidates(server_name).find(usable)
    }

    /// All that could be shown, the best first.
    fn candidates(&self, server_name: Option<&str>) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let name = server_name.map(canonical_host);
        let own = name.as_ref().and_then(|name| self.domains.lookup(name));
        // For a name that nobody has, an alert says more than a certificate of another one.
        let takes_default = name.is_none() || own.is_some();
        let named = own.or_else(|| self.by_name.lookup_one_label(name.as_ref()?));
        let default = self.default.iter().filter(move |_| takes_default);
        let all = named.into_iter().flatten().chain(default);
        all.map(|certificate| &certificate.key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.select(hello.server_name(), hello.signature_schemes())
            .map(Arc::clone)
    }
}

/// Puts the preferred first; among those of a kind, the order stays.
fn sort(certificates: &mut [Arc<Read>]) {
    certificates.sort_by_key(|certificate| preference(&certificate.key));
}

/// Kinds of keys in the order in which they are preferred: the less work first.
fn preference(key: &CertifiedKey) -> u8 {
    match key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}

fn read(
    wanted: &TerminatorCertificate,
    former: &Certificates,
    provider: &CryptoProvider,
) -> Result<Arc<Read>, String> {
    let known = former.read.get(&wanted.uuid);
    if let Some(known) = known.filter(|it| it.chain == wanted.chain && it.secret == wanted.key) {
        return Ok(Arc::clone(known));
    }
    let chain = CertificateDer::pem_slice_iter(wanted.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("its chain is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("its chain holds no certificate in PEM".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(wanted.key.reveal().as_bytes())
        // The error could quote the text.
        .map_err(|_| "its key is no private key in PEM".to_owned())?;
    let key = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("chain and key cannot be used: {error}"))?;
    Ok(Arc::new(Read {
        chain: wanted.chain.clone(),
        secret: wanted.key.clone(),
        key: Arc::new(key),
    }))
}
