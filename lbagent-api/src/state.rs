//! The desired state as one document: what `lbctl state export` writes, `lbctl state import` and
//! `lbagent replay` read.
//!
//! `GET /v1/x/state` answers [`StateData`]; `PUT /v1/x/state` takes a bare [`StateDocument`] and
//! answers [`ImportData`]. An import replaces service groups, instances and certificates, all or
//! nothing; it adds accounts and changes their quotas, and takes tokens where there are none. What
//! comes from the agent's configuration (VIPs, policy) is exported for `lbagent replay` and not
//! changed by an import.

mod access;
mod certificate;
mod query;
mod secrets;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::policy::{GroupPolicy, InstancePolicy};
use crate::request::SelectorSpec;
use crate::service_group::{Autokill, Service};

pub use access::{StateAccount, StateToken};
pub use certificate::StateCertificate;
pub use query::ExportQuery;
pub use secrets::{StateAuthority, StateTerminator, StateTicketKey};

/// Version of the document's format.
pub const FORMAT: u32 = 1;

/// `data` of `GET /v1/x/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateData {
    /// The document.
    pub state: StateDocument,
}

/// `data` of `PUT /v1/x/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImportData {
    /// What was done.
    pub imported: Imported,
}

/// Outcome of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Imported {
    /// Generation that the import made.
    pub generation: u64,
    /// Service groups there are now.
    pub service_groups: usize,
    /// Instances there are now.
    pub instances: usize,
    /// Certificates there are now.
    #[serde(default)]
    pub certificates: usize,
}

/// The desired state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateDocument {
    /// [`FORMAT`].
    pub format: u32,
    /// Generation that was exported; an import makes a new one.
    #[serde(default)]
    pub generation: u64,
    /// VIP addresses.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub vips: Vec<IpAddr>,
    /// Key of the flow hash: with it a replay, or a gateway that begins with this document, chooses
    /// as the exporting one did.
    #[serde(default)]
    pub hash_seed: u64,
    /// What happens to packets for a port of a VIP that nobody published.
    #[serde(default)]
    pub unpublished_ports: UnpublishedPorts,
    /// A UDP flow is new after so many seconds of silence.
    #[serde(default = "default_udp_idle_s")]
    pub udp_idle_s: u32,
    /// Accounts, but for the default one unless it was given quotas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<StateAccount>,
    /// Tokens, by their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<StateToken>,
    /// Certificates; where absent, an import leaves those that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<StateCertificate>>,
    /// Secrets of terminators, if private keys were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminator: Option<StateTerminator>,
    /// Service groups.
    #[serde(default)]
    pub service_groups: Vec<StateServiceGroup>,
    /// Instances.
    #[serde(default)]
    pub instances: Vec<StateInstance>,
    /// How the exporting host reaches the instances' addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, StatePath>>))]
    pub paths: Option<BTreeMap<IpAddr, StatePath>>,
}

const fn default_udp_idle_s() -> u32 {
    60
}

/// What happens to packets for a port of a VIP that nobody published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum UnpublishedPorts {
    /// The kernel gets them.
    #[default]
    Pass,
    /// They are dropped and counted.
    Drop,
}

/// A service group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateServiceGroup {
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
    /// Whether it stays when its last instance leaves.
    #[serde(default = "yes")]
    pub persistent: bool,
    /// Concurrency of an instance at which another is wanted.
    #[serde(default = "one")]
    pub soft_limit: u16,
    /// Concurrency of an instance that is not exceeded.
    #[serde(default = "most")]
    pub hard_limit: u16,
    /// Published ports.
    pub services: Vec<Service>,
    /// Domain names.
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// When an empty group is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autokill: Option<Autokill>,
    /// Since when it has had no instance.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub empty_since: Option<OffsetDateTime>,
    /// How packets reach the instances, and which do.
    #[serde(default, skip_serializing_if = "GroupPolicy::is_default")]
    pub policy: GroupPolicy,
}

/// A domain name: text alone, or with its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenDomain", into = "WrittenDomain")]
pub struct Domain {
    /// Fully qualified, without the trailing dot.
    pub fqdn: String,
    /// The certificate that was asked for.
    pub certificate: Option<SelectorSpec>,
}

/// A domain name: fully qualified text, or with the certificate that was asked for.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub(crate) enum WrittenDomain {
    Name(String),
    Whole {
        fqdn: String,
        certificate: Option<SelectorSpec>,
    },
}

impl From<&str> for Domain {
    /// A name without a certificate of its own.
    fn from(fqdn: &str) -> Self {
        Self {
            fqdn: fqdn.to_owned(),
            certificate: None,
        }
    }
}

impl From<WrittenDomain> for Domain {
    fn from(written: WrittenDomain) -> Self {
        let (fqdn, certificate) = match written {
            WrittenDomain::Name(fqdn) => (fqdn, None),
            WrittenDomain::Whole { fqdn, certificate } => (fqdn, certificate),
        };
        Self { fqdn, certificate }
    }
}

impl From<Domain> for WrittenDomain {
    fn from(Domain { fqdn, certificate }: Domain) -> Self {
        match certificate {
            None => Self::Name(fqdn),
            certificate => Self::Whole { fqdn, certificate },
        }
    }
}

const fn yes() -> bool {
    true
}

const fn one() -> u16 {
    1
}

const fn most() -> u16 {
    u16::MAX
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StateInstance {
    /// Identity; orders the Maglev tables.
    pub uuid: Uuid,
    /// Whose it is, that of its group; the default account's when absent.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// Unique name within the account.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it gets traffic.
    pub state: StateInstanceState,
    /// The group that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_group: Option<Uuid>,
    /// Addresses with prefix length, as `10.0.0.7/32`.
    pub addresses: Vec<String>,
    /// Recorded, not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Free text for the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Free text for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its share of the group's flows.
    #[serde(default, skip_serializing_if = "InstancePolicy::is_default")]
    pub policy: InstancePolicy,
}

/// Whether an instance gets traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum StateInstanceState {
    /// New and established connections.
    Running,
    /// Established connections only, until the deadline.
    Draining {
        /// When draining began.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// When the rest is cut off.
        #[serde(with = "time::serde::rfc3339")]
        deadline: OffsetDateTime,
        /// What the instance is then.
        #[serde(default, skip_serializing_if = "AfterDrain::is_stopped")]
        then: AfterDrain,
    },
    /// Nothing, until it is started.
    Stopped,
    /// Nothing: stopped by a client that suspends machines.
    Standby,
}

/// What an instance is once it has drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum AfterDrain {
    /// Stopped, in its group.
    #[default]
    Stopped,
    /// Running, and no longer in its group.
    Leaves {
        /// The group that it serves instead, if any.
        to: Option<Uuid>,
    },
}

impl AfterDrain {
    /// Whether it is stopped then.
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

/// How a host reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StatePath {
    /// Interface out.
    pub ifindex: u32,
    /// The host's own address on that way.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: IpAddr,
    /// Prefix length of the link that both share; the full length when they share none.
    pub onlink_prefix: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;

    /// A document of format 1 as it was first written: it has to stay readable.
    const FORMAT_1: &str = r#"{
      "format": 1, "generation": 7, "vips": ["192.0.2.1", "2001:db8::1"], "hash_seed": 42,
      "unpublished_ports": "drop", "udp_idle_s": 30,
      "service_groups": [{"uuid": "00000000-0000-4000-8000-000000000001", "name": "web",
        "created_at": "2026-01-02T03:04:05Z", "persistent": true, "soft_limit": 1,
        "hard_limit": 65535, "domains": ["web.lb.internal"],
        "services": [{"port": 53, "destination_port": 5353, "protocol": "udp", "handlers": []}]}],
      "instances": [
        {"uuid": "00000000-0000-4000-8000-000000000002", "name": "a",
         "created_at": "2026-01-02T03:04:05Z", "state": "running",
         "service_group": "00000000-0000-4000-8000-000000000001", "addresses": ["10.0.0.7/32"]},
        {"uuid": "00000000-0000-4000-8000-000000000003", "name": "b",
         "created_at": "2026-01-02T03:04:05Z", "addresses": ["10.0.0.8/32"],
         "state": {"draining": {"since": "2026-01-02T03:04:05Z",
                                "deadline": "2026-01-02T03:05:05Z"}}}],
      "paths": {"10.0.0.7": {"ifindex": 3, "source": "10.0.0.1", "onlink_prefix": 24}}
    }"#;

    #[test]
    fn a_saved_document_reads_back() {
        let document: StateDocument = parse_body(FORMAT_1.as_bytes()).unwrap();
        assert_eq!(document.format, FORMAT);
        assert_eq!(document.instances[0].state, StateInstanceState::Running);
        assert!(matches!(
            document.instances[1].state,
            StateInstanceState::Draining { .. }
        ));
        let written = serde_json::to_value(&document).unwrap();
        assert_eq!(
            written,
            serde_json::from_str::<serde_json::Value>(FORMAT_1).unwrap()
        );
    }

    #[test]
    fn a_misspelt_member_is_refused() {
        let error = parse_body::<StateDocument>(br#"{"format":1,"vip":[]}"#).unwrap_err();
        assert_eq!(error.message, "Unknown member 'vip'");
    }
}
