//! Certificates of the benchmark's own authority.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::RootCertStore;

/// The name with a certificate for P-256. Every host resolves it.
pub(super) const ECDSA_NAME: &str = "localhost";
/// The name with a certificate for RSA.
pub(super) const RSA_NAME: &str = "rsa.localhost";

/// A chain and its key, in PEM.
pub(super) struct Identity {
    pub(super) name: &'static str,
    pub(super) chain: String,
    pub(super) key: String,
}

/// The authority and what it issued.
pub(super) struct Pki {
    authority: Certificate,
    pub(super) ecdsa: Identity,
    pub(super) rsa: Identity,
}

impl Pki {
    /// Makes all keys.
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let issue = |name: &'static str, key: KeyPair| -> Result<Identity> {
            let params = CertificateParams::new(vec![name.to_owned()])?;
            Ok(Identity {
                name,
                chain: params.signed_by(&key, &issuer)?.pem(),
                key: key.serialize_pem(),
            })
        };
        let ecdsa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        Ok(Self {
            ecdsa: issue(ECDSA_NAME, ecdsa)?,
            rsa: issue(RSA_NAME, rsa)?,
            authority,
        })
    }

    /// What trusts the authority.
    pub(super) fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        Ok(roots)
    }

    /// Writes `ecdsa.pem` and `rsa.pem`, chain and key in one file, as HAProxy wants them.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        for (file, identity) in [("ecdsa.pem", &self.ecdsa), ("rsa.pem", &self.rsa)] {
            let file = directory.join(file);
            fs::write(&file, format!("{}{}", identity.chain, identity.key))
                .with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}
