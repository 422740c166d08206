//! Accounts and tokens in a state document.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::{Quotas, Role};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateAccount {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What it may have.
    pub quotas: Quotas,
}

/// A token, without what its holder shows: nobody gets in with what is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateToken {
    /// Identity.
    pub uuid: Uuid,
    /// The account that it acts for; the default account when absent.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// What its holder may do.
    pub role: Role,
    /// What it is for.
    #[serde(default)]
    pub label: String,
    /// SHA-256 of what its holder shows, in hexadecimal.
    pub digest: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it stops being good; when it is revoked, if absent.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
}
