//! What a chain and a key in PEM are: read, and checked against each other.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use lbagent_api::certificate::Secret;

/// Most certificates of a chain.
const MAX_CHAIN: usize = 10;

/// Why a chain or a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The text is not PEM, or holds no certificate.
    #[error("Value of 'chain' holds no certificate in PEM")]
    NoCertificate,
    /// The chain holds something else too.
    #[error("Value of 'chain' holds more than certificates: private keys belong into 'pkey'")]
    Foreign,
    /// The chain is too long.
    #[error("Value of 'chain' has more than {MAX_CHAIN} certificates")]
    TooMany,
    /// A certificate cannot be read.
    #[error("Certificate {position} of 'chain' is damaged")]
    Damaged {
        /// Its place, from 1.
        position: usize,
    },
    /// A certificate is not signed by the next one.
    #[error(
        "Certificate {position} of 'chain' is not issued by the one after it: the server's \
         certificate comes first, then each one's issuer"
    )]
    Order {
        /// Its place, from 1.
        position: usize,
    },
    /// The text is not PEM, or holds no private key.
    #[error("Value of 'pkey' holds no private key in PEM that is not encrypted")]
    NoKey,
    /// Nobody could use the key.
    #[error(
        "Value of 'pkey' is no RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519 key"
    )]
    Unsupported,
    /// The key is another certificate's.
    #[error("Value of 'pkey' is not the key of the first certificate of 'chain'")]
    OtherKey,
}

/// What the first certificate of a chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Examined {
    /// The chain's certificates in PEM, and nothing else that the text held.
    pub(super) chain: String,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) serial_number: String,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    /// Domain names in lower case: the subject's alternative names, its common name if there are
    /// none.
    pub(super) names: Vec<String>,
}

/// Reads a chain and checks that the key, if there is one, is its own. Nothing is said here about
/// time or names.
pub(super) fn examine(chain: &str, key: Option<&Secret>) -> Result<Examined, BadCertificate> {
    let certificates = certificates(chain)?;
    let read: Vec<X509Certificate<'_>> = certificates
        .iter()
        .enumerate()
        .map(|(index, der)| match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(certificate),
            _ => Err(BadCertificate::Damaged {
                position: index + 1,
            }),
        })
        .collect::<Result<_, _>>()?;
    for (index, pair) in read.windows(2).enumerate() {
        if !is_issued_by(&pair[0], &pair[1]) {
            let position = index + 1;
            return Err(BadCertificate::Order { position });
        }
    }
    let leaf = &read[0];
    if let Some(key) = key {
        check_key(&certificates, key)?;
    }
    let time = |time: x509_parser::time::ASN1Time| time.to_datetime();
    Ok(Examined {
        chain: sections(chain),
        subject: leaf.subject().to_string(),
        issuer: leaf.issuer().to_string(),
        serial_number: leaf.raw_serial_as_string(),
        not_before: time(leaf.validity().not_before),
        not_after: time(leaf.validity().not_after),
        names: names(leaf),
    })
}

/// The public key of a chain's first certificate.
pub(super) fn public_key(chain: &str) -> Option<Vec<u8>> {
    let der = certificates(chain).ok()?.into_iter().next()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn certificates(chain: &str) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(chain.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => certificates.push(CertificateDer::from(der)),
            Ok(_) => return Err(BadCertificate::Foreign),
            Err(_) => {
                return Err(BadCertificate::Damaged {
                    position: certificates.len() + 1,
                });
            }
        }
    }
    match certificates.len() {
        0 => Err(BadCertificate::NoCertificate),
        1..=MAX_CHAIN => Ok(certificates),
        _ => Err(BadCertificate::TooMany),
    }
}

/// The PEM sections of a text, without what is written around them.
fn sections(chain: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in chain.lines().map(str::trim) {
        inside |= line.starts_with("-----BEGIN ");
        if inside {
            text.push_str(line);
            text.push('\n');
        }
        inside &= !line.starts_with("-----END ");
    }
    text
}

fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let is_named = certificate.issuer().as_raw() == issuer.subject().as_raw();
    // Clients judge what this build cannot.
    is_named
        && matches!(
            certificate.verify_signature(Some(issuer.public_key())),
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm)
        )
}

fn check_key(chain: &[CertificateDer<'static>], key: &Secret) -> Result<(), BadCertificate> {
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
        .map_err(|_| BadCertificate::NoKey)?;
    let key = any_supported_type(&key).map_err(|_| BadCertificate::Unsupported)?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(BadCertificate::OtherKey),
        Err(_) => Err(BadCertificate::Damaged { position: 1 }),
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = match alternative {
        Some(extension) => {
            let names = extension.value.general_names.iter();
            let domain = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            };
            names.filter_map(domain).collect()
        }
        None => {
            let names = leaf.subject().iter_common_name();
            let text = names.filter_map(|name| name.as_str().ok());
            text.map(str::to_ascii_lowercase).collect()
        }
    };
    names.sort();
    names.dedup();
    names
}
