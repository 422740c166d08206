//! Why operations on certificates, and on what names them, fail.

use lbagent_api::Selector;

/// Why a certificate was not stored, rotated or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no such certificate.
    #[error("No certificate with {0}")]
    NotFound(Selector),
    /// Another certificate has the name.
    #[error("A certificate with name '{name}' already exists")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The certificate is for other domains.
    #[error("The certificate is for {}, not for '{common_name}'", listed(names))]
    OtherName {
        /// The domain that was asked for.
        common_name: String,
        /// Domains of the certificate.
        names: Vec<String>,
    },
    /// A domain names a certificate that does not exist.
    #[error(
        "Domain '{fqdn}' names a certificate that does not exist: No certificate with {selector}"
    )]
    NoneForDomain {
        /// The domain.
        fqdn: String,
        /// What it names.
        selector: Selector,
    },
    /// A domain names a certificate that is for others.
    #[error(
        "Certificate '{name}' is for {}, not for the domain '{fqdn}'",
        listed(names)
    )]
    NotForDomain {
        /// Name of the certificate.
        name: String,
        /// The domain.
        fqdn: String,
        /// Domains of the certificate.
        names: Vec<String>,
    },
    /// A new chain leaves out a domain that names the certificate.
    #[error(
        "The certificate is for {}, but service group '{group}' names it for its domain '{fqdn}'; \
         give a certificate for that too, or change the domain first",
        listed(names)
    )]
    StillNamed {
        /// Name of the group.
        group: String,
        /// The domain.
        fqdn: String,
        /// Domains of the new chain.
        names: Vec<String>,
    },
    /// Service groups use it.
    #[error("Certificate '{name}' is used by service group '{group}'{}", others(*count))]
    Attached {
        /// Its name.
        name: String,
        /// One of the groups.
        group: String,
        /// How many there are.
        count: usize,
    },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "no domain".to_owned(),
        [one] => format!("'{one}'"),
        [first, rest @ ..] => format!("'{first}' and {} more", rest.len()),
    }
}

fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        _ => format!(" and {} more", count - 1),
    }
}
