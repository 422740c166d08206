//! Chains and keys in PEM, as far as they can be checked without an agent.

use std::io::Read;
use std::path::Path;

use lbagent_api::certificate::{Certificate, MAX_PEM, Secret};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A chain and the key of its first certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Certificates in PEM.
    pub chain: String,
    /// Private key in PEM.
    pub pkey: Secret,
}

/// Which certificate it is, by what the API tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// Distinguished name of its owner.
    pub subject: String,
    /// Distinguished name of whoever signed it.
    pub issuer: String,
    /// In hexadecimal, bytes separated by colons.
    pub serial_number: String,
    /// Valid from.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Valid until.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
}

impl From<&Certificate> for Leaf {
    fn from(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            serial_number: certificate.serial_number.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }
    }
}

/// What the first certificate of a chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Which one it is.
    pub leaf: Leaf,
    /// The first domain name that it is for, in lower case.
    pub domain: Option<String>,
}

impl Pair {
    /// Reads two files; `-` is stdin.
    pub fn read(chain: &Path, pkey: &Path) -> Result<Self, String> {
        Ok(Self {
            chain: load(chain)?.reveal().to_owned(),
            pkey: load(pkey)?,
        })
    }

    /// Reads the chain's first certificate, and checks that the key is its own. What else has to be
    /// right is the agent's to say.
    pub fn examine(&self) -> Result<Examined, String> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.chain.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| "the chain is no PEM".to_owned())?;
        let first = chain
            .first()
            .ok_or("the chain holds no certificate in PEM")?;
        let Ok(([], leaf)) = X509Certificate::from_der(first) else {
            return Err("the chain's first certificate is damaged".to_owned());
        };
        let examined = Examined {
            leaf: Leaf {
                subject: leaf.subject().to_string(),
                issuer: leaf.issuer().to_string(),
                serial_number: leaf.raw_serial_as_string(),
                not_before: leaf.validity().not_before.to_datetime(),
                not_after: leaf.validity().not_after.to_datetime(),
            },
            domain: domain(&leaf),
        };
        let key = PrivateKeyDer::from_pem_slice(self.pkey.reveal().as_bytes())
            .map_err(|_| "the key holds no private key in PEM that is not encrypted")?;
        let key = any_supported_type(&key).map_err(|_| {
            "the key is of a kind or a size that is not used: take ECDSA (P-256, P-384, P-521), Ed25519, \
             or RSA with 2048 to 8192 bits"
        })?;
        CertifiedKey::new(chain.clone(), key)
            .keys_match()
            .map_err(|_| "the key is not that of the chain's first certificate")?;
        Ok(examined)
    }
}

/// The text of a file, as a secret: keys and chains are confused easily.
pub fn load(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let limit = MAX_PEM as u64 + 1;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    let text = Secret::new(text);
    match read {
        Err(error) => Err(format!("cannot read '{shown}': {error}")),
        Ok(length) if length > MAX_PEM => Err(format!(
            "'{shown}' is longer than {MAX_PEM} bytes, which is no chain or key"
        )),
        Ok(_) => Ok(text),
    }
}

fn domain(leaf: &X509Certificate<'_>) -> Option<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let name = match &alternative {
        Some(extension) => {
            let mut names = extension.value.general_names.iter();
            names.find_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
        }
        None => {
            let mut names = leaf.subject().iter_common_name();
            names.find_map(|name| name.as_str().ok())
        }
    };
    name.map(str::to_ascii_lowercase)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A certificate for these names, with its key.
    pub fn pair(names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Pair {
            chain: made.cert.pem(),
            pkey: Secret::new(made.signing_key.serialize_pem()),
        }
    }

    #[test]
    fn pairs() {
        let own = pair(&["WWW.example.com", "example.com"]);
        let examined = own.examine().unwrap();
        assert_eq!(examined.domain.as_deref(), Some("www.example.com"));
        assert!(examined.leaf.not_before < examined.leaf.not_after);
        let other = pair(&["www.example.com"]);
        assert_ne!(other.examine().unwrap().leaf, examined.leaf);
        let check = |chain: &str, pkey: &str, text: &str| {
            let pair = Pair {
                chain: chain.to_owned(),
                pkey: Secret::new(pkey.to_owned()),
            };
            let error = pair.examine().unwrap_err();
            assert!(error.contains(text), "{error}");
            assert!(!error.contains("BEGIN"), "{error}");
        };
        let key = other.pkey.reveal();
        check(&own.chain, key, "not that of the chain's first certificate");
        check(&own.chain, &own.chain, "no private key");
        check(key, &own.chain, "no certificate");
        check("", key, "no certificate");
        check(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            key,
            "damaged",
        );
    }
}
