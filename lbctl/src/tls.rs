//! Whom lbctl believes to be the agent, over `https://`.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::error::CtlError;

/// Trusts the roots in a file; those of the system without one.
pub fn config(ca_file: Option<&Path>) -> Result<TlsConfig, CtlError> {
    let roots = match ca_file {
        Some(path) => roots_of(path)?,
        None => roots_of_system()?,
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::from(roots))
        .build())
}

/// What went wrong between two ends that were to speak TLS, and what to do; `None` for anything else.
pub fn refusal(error: &ureq::Error) -> Option<String> {
    let error = match error {
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        ureq::Error::Rustls(error) => error,
        _ => return None,
    };
    Some(match error {
        rustls::Error::InvalidMessage(_) => {
            "it speaks no TLS there; say http:// instead".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => format!(
            "its certificate is not to be trusted ({why}); name the authority that issued it with --ca-file FILE"
        ),
        other => other.to_string(),
    })
}

fn roots_of(path: &Path) -> Result<Vec<Certificate<'static>>, CtlError> {
    let name = path.display();
    let failed = |why: String| CtlError::Usage(format!("--ca-file '{name}' {why}"));
    let text = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(root)) => roots.push(root),
            Ok(_) => {}
            Err(error) => return Err(failed(format!("is no PEM file: {error}"))),
        }
    }
    if roots.is_empty() {
        return Err(failed("holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<Vec<Certificate<'static>>, CtlError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(CtlError::Usage(
            "this system has no root certificates; name the agent's with --ca-file FILE".into(),
        ));
    }
    let own = |root: &rustls::pki_types::CertificateDer<'_>| Certificate::from_der(root).to_owned();
    Ok(found.certs.iter().map(own).collect())
}
