//! Certificates in a state document.

use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::certificate::Secret;

/// A certificate. What its chain says is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateCertificate {
    /// Identity.
    pub uuid: Uuid,
    /// Whose it is; the default account's when absent.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// Unique name within the account.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The domain that it was stored for.
    pub common_name: String,
    /// Certificates in PEM, the server's first.
    pub chain: String,
    /// Private key in PEM, if it was asked for. Without it an import keeps the key that the agent
    /// has, if that belongs to the chain.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "revealed"
    )]
    pub private_key: Option<Secret>,
}

fn revealed<S: Serializer>(key: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => key.serialize_revealed(serializer),
        None => serializer.serialize_none(),
    }
}
