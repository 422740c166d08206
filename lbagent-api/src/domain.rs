//! Domain names of service groups in answers, with the certificates that they are served with.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::certificate::CertificateState;

/// A domain name in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Domain {
    /// Fully qualified, without the trailing dot.
    pub fqdn: String,
    /// The certificate that it is served with: the one that was asked for, or the best one of the
    /// account that is for this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DomainCertificate>,
}

/// The certificate of a domain in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DomainCertificate {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// Whether it can be used.
    pub state: CertificateState,
}
