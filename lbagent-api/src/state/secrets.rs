//! What terminators of one store share and nobody else may have, in a state document.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::certificate::Secret;

/// Secrets of terminators, if private keys were asked for. An agent takes those of which it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StateTerminator {
    /// Secrets of TLS session tickets, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ticket_keys: Vec<StateTicketKey>,
    /// The certificate authority of a development gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub development_ca: Option<StateAuthority>,
}

/// A secret of session tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateTicketKey {
    /// 32 bytes in lower-case hexadecimal.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub secret: Secret,
    /// Since when it has been in use.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateAuthority {
    /// Its certificate in PEM.
    pub certificate: String,
    /// Its private key in PEM.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub key: Secret,
}
