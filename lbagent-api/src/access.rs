//! Accounts and tokens, for operators, and the quotas that every account may look at.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Item;

/// Names the account that an operator's request is about, by name or UUID; without it, the default
/// account.
pub const ACCOUNT_HEADER: &str = "X-Lbagent-Account";

/// Name of the account that exists without being created; its UUID is the nil UUID.
pub const DEFAULT_ACCOUNT_NAME: &str = "default";

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads within its account.
    Reader,
    /// Reads and writes within its account.
    Member,
    /// Everything, for every account, and the gateway itself.
    Operator,
}

impl Role {
    /// The word that operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Operator => "operator",
        }
    }
}

/// How many objects an account may have; no limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Service groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_groups: Option<u32>,
    /// Published ports, over all service groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Published ports without handlers, which no other group of the gateway can have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_ports: Option<u32>,
}

impl Quotas {
    /// No limit. The default account's, unless it is given others.
    pub const UNLIMITED: Self = Self {
        service_groups: None,
        services: None,
        instances: None,
        raw_ports: None,
    };

    /// Those of an account that is created without any.
    pub const CREATED: Self = Self {
        service_groups: Some(253),
        services: Some(253),
        instances: Some(4_096),
        raw_ports: Some(4),
    };
}

/// How many objects an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Service groups.
    pub service_groups: u32,
    /// Published ports, over all service groups.
    pub services: u32,
    /// Instances.
    pub instances: u32,
    /// Instances that are not stopped.
    pub live_instances: u32,
    /// Published ports without handlers.
    pub raw_ports: u32,
}

/// Body of `POST /v1/x/accounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "example", "quotas": {"service_groups": 10}})))]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    /// Its name.
    pub name: String,
    /// [`Quotas::CREATED`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created; the default account was not.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<OffsetDateTime>,
    /// What it may have.
    pub quotas: Quotas,
    /// What it has.
    pub used: Usage,
}

/// `data` of answers about accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountsData {
    /// The accounts.
    pub accounts: Vec<Account>,
}

/// Body of `PUT /v1/x/accounts/{uuid|name}/quotas`. What is absent has no limit afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"quotas": {"service_groups": 10, "instances": 100}})))]
#[serde(deny_unknown_fields)]
pub struct QuotasSpec {
    /// What the account may have.
    pub quotas: Quotas,
}

/// Body of `POST /v1/x/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"role": "member", "account": "default", "label": "ci"})))]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// What its holder may do.
    pub role: Role,
    /// The account that it acts for, by name or UUID; the default account when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Tells people what it is for.
    #[serde(default)]
    pub label: String,
    /// So many seconds it is good for; until it is revoked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A token, without what its holder shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Identity; revokes it.
    pub uuid: Uuid,
    /// What it is for.
    pub label: String,
    /// UUID of the account that it acts for.
    pub account: Uuid,
    /// Name of that account.
    pub account_name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it stops being good.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
}

/// `data` of answers about tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokensData {
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// `data` of the answer to a new token, the only one that holds the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewTokenData {
    /// The token.
    pub token: Token,
    /// What its holder shows; kept nowhere.
    pub secret: String,
}

/// `data` of `GET /v1/users/quotas`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotasData {
    /// One item: the caller's account.
    pub quotas: Vec<Item<UserQuotas>>,
}

/// An account's quotas in the contract's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserQuotas {
    /// UUID of the account.
    pub uuid: Uuid,
    /// What it has.
    pub used: QuotasStats,
    /// What it may have; no limit where absent.
    pub hard: QuotasStats,
    /// Limits of single objects; there are none.
    pub limits: NoLimits,
}

/// Counts in the contract's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotasStats {
    /// Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Instances that are not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_instances: Option<u32>,
    /// Service groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_groups: Option<u32>,
    /// Published ports, over all service groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
}

/// An empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NoLimits {}
