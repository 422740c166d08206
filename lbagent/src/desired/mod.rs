//! The desired state: what operators asked for, validated. Written by the API only.
//!
//! * [`Desired`] keeps it in the store and publishes each generation
//! * [`validate`] turns requests into typed values; [`document`] the exported form
//! * the operations and their errors know nothing of HTTP

mod access;
mod caller;
pub mod certificate;
mod changes;
pub mod document;
mod draft;
mod expected;
mod index;
mod instance;
mod keys;
mod membership;
mod migrate;
mod names;
mod patch;
mod policy;
mod ports;
mod revisions;
mod secret;
mod service_group;
mod shared_map;
mod snapshot;
mod stored;
mod terminator;
#[cfg(test)]
mod tests;
mod usage;
pub mod validate;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lbagent_api::Selector;
use lbagent_api::service_group::Handler;
pub use lbagent_api::state::{AfterDrain, Domain};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

pub use lbagent_api::access::{Quotas, Role, Usage};
/// Policies are the same here as in the contract: what can be read is valid.
pub use lbagent_api::health::{Check, HealthPolicy};
pub use lbagent_api::policy::{
    ForwardingMode, GroupPolicy, InstancePolicy, QuicLayout, QuicServerId, SourcePolicy,
};

pub use access::{Access, Account, AccountError, NewToken, Token, TokenError};
pub use caller::{Caller, DEFAULT_ACCOUNT};
pub use certificate::Certificate;
pub use changes::{ChangeWatch, ObjectChange};
pub use expected::{Expected, Kind};
pub use index::{Index, Place, all_of};
pub use instance::{ChangeInstanceError, CreateInstanceError, StateChange, StopRequest};
pub use membership::{JoinError, MembershipError, Move};
pub use migrate::older_schema;
pub use patch::{Change, PatchError, PatchOperation};
pub use policy::{PolicyConflict, SetPolicyError, group_remarks, instance_remarks};
pub use ports::{Claim, Clash};
pub use revisions::{ByKey, Revisions};
pub use secret::Digest;
pub use service_group::{CreateServiceGroupError, DeleteServiceGroupError};
pub use shared_map::SharedMap;
pub use stored::{Desired, DesiredError, Written};
pub use terminator::StoredAuthority;
pub use usage::QuotaError;

/// Everything that was asked for, at one generation.
#[derive(Clone, Debug, Default, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredState {
    /// Revision of the store that this state was read at; rises with every write.
    pub generation: u64,
    /// By UUID.
    pub service_groups: SharedMap<Uuid, ServiceGroup>,
    /// By UUID.
    pub instances: SharedMap<Uuid, Instance>,
    /// By UUID; without their private keys.
    #[serde(default)]
    pub certificates: SharedMap<Uuid, Certificate>,
    /// Who has names, domains and ports, by the store's key.
    #[serde(skip)]
    pub claims: ByKey<Claim>,
    /// Finds members and pages of listings; kept by `put_…` and `remove_…`.
    #[serde(skip)]
    pub index: Index,
    /// Revision at which each of the store's keys was last written.
    #[serde(skip)]
    pub revisions: Revisions,
    /// What each account has; nothing where absent.
    #[serde(skip)]
    pub usage: SharedMap<Uuid, Usage>,
    /// Accounts and tokens.
    #[serde(skip)]
    pub access: Access,
}

impl PartialEq for DesiredState {
    /// Whether the same is asked for; when each part of it was written makes no difference.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            generation,
            service_groups,
            instances,
            certificates,
            claims,
            index: _,
            revisions: _,
            // Follows from the objects.
            usage: _,
            access,
        } = self;
        (generation, service_groups, instances)
            == (&other.generation, &other.service_groups, &other.instances)
            && (certificates, claims, access) == (&other.certificates, &other.claims, &other.access)
    }
}

/// Published ports and the policy for the instances behind them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceGroup {
    /// Identity.
    pub uuid: Uuid,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// Unique name within the account.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it stays when its last instance leaves.
    pub persistent: bool,
    /// Instance concurrency at which another instance is wanted.
    pub soft_limit: u16,
    /// Instance concurrency that is not exceeded.
    pub hard_limit: u16,
    /// Published ports.
    pub services: Vec<Service>,
    /// Domain names.
    pub domains: Vec<Domain>,
    /// It is deleted so many milliseconds after it became empty; 0 for never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub autokill_ms: u64,
    /// Since when it has had no instance; absent while it has one.
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

const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl ServiceGroup {
    /// Its services as they are published: where the group chose VIPs, one for each of them.
    pub fn placed(&self) -> Cow<'_, [Service]> {
        if self.policy.vips.is_empty() {
            return Cow::Borrowed(&self.services);
        }
        let on_vip = |service: &Service, vip: IpAddr| Service {
            ip: Some(vip),
            ..service.clone()
        };
        let placed = self.services.iter().flat_map(|service| {
            let chosen = self.policy.vips.iter();
            let vips = chosen.filter(|vip| service.ip.is_none_or(|own| own == **vip));
            vips.map(|vip| on_vip(service, *vip))
        });
        Cow::Owned(placed.collect())
    }

    /// When it is deleted unless an instance comes.
    pub fn ends_at(&self) -> Option<OffsetDateTime> {
        let time = std::time::Duration::from_millis(self.autokill_ms);
        self.empty_since
            .filter(|_| self.autokill_ms > 0)
            .map(|since| since.checked_add(time.try_into().ok()?))?
    }
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Port on the VIP.
    pub port: u16,
    /// Port that the instances listen on.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: Transport,
    /// The one VIP to publish on; every VIP of the gateway when absent.
    pub ip: Option<IpAddr>,
    /// What terminates the connections; none for raw ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<Handler>,
}

impl Service {
    /// Whether packets go to the instances as they are.
    pub const fn is_raw(&self) -> bool {
        self.handlers.is_empty()
    }
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The word that operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A backend: an address that runs what the service group publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Identity; orders the Maglev tables.
    pub uuid: Uuid,
    /// Whose it is; that of its group.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// Unique name within the account.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it gets traffic.
    pub state: InstanceState,
    /// The group that it serves.
    pub service_group: Option<Uuid>,
    /// Addresses as given: at most one of each family gets traffic, the first.
    pub addresses: Vec<IpNetwork>,
    /// Recorded, not run: the agent starts no machines.
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

impl Instance {
    /// The address that packets of a family go to.
    pub fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .map(IpNetwork::ip)
            .find(|address| address.is_ipv4() == v4)
    }
}

/// Whether an instance gets traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InstanceState {
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

impl InstanceState {
    /// Drains in order to be stopped.
    pub const fn draining(since: OffsetDateTime, deadline: OffsetDateTime) -> Self {
        Self::Draining {
            since,
            deadline,
            then: AfterDrain::Stopped,
        }
    }

    /// The contract's word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining { .. } => "draining",
            Self::Stopped => "stopped",
            Self::Standby => "standby",
        }
    }
}

impl DesiredState {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.service_groups.is_empty() && self.instances.is_empty() && self.certificates.is_empty()
    }

    /// The caller's service group that a selector names.
    pub fn service_group(&self, caller: Caller, selector: &Selector) -> Option<&ServiceGroup> {
        let uuid = self.named(selector, |name| keys::group_name(caller.account, name))?;
        let group = self.service_groups.get(&uuid);
        group.filter(|group| group.account == caller.account)
    }

    /// The caller's instance that a selector names.
    pub fn instance(&self, caller: Caller, selector: &Selector) -> Option<&Instance> {
        let uuid = self.named(selector, |name| keys::instance_name(caller.account, name))?;
        let instance = self.instances.get(&uuid);
        instance.filter(|instance| instance.account == caller.account)
    }

    /// The caller's service group that has a domain.
    pub fn domain_owner(&self, caller: Caller, fqdn: &str) -> Option<&ServiceGroup> {
        let uuid = self.claims.get(&keys::domain(fqdn))?.owner()?;
        let group = self.service_groups.get(&uuid);
        group.filter(|group| group.account == caller.account)
    }

    fn named(&self, selector: &Selector, key: impl FnOnce(&str) -> String) -> Option<Uuid> {
        match selector {
            Selector::Uuid(uuid) => Some(*uuid),
            Selector::Name(name) => self.claims.get(&key(name))?.owner(),
        }
    }

    /// The caller's certificate that a selector names.
    pub fn certificate(&self, caller: Caller, selector: &Selector) -> Option<&Certificate> {
        let key = |name: &str| keys::certificate_name(caller.account, name);
        let certificate = self.certificates.get(&self.named(selector, key)?);
        certificate.filter(|certificate| certificate.account == caller.account)
    }

    /// The caller's certificates.
    pub fn certificates_of(&self, caller: Caller) -> impl Iterator<Item = &Certificate> {
        let certificates = self.certificates.values();
        certificates.filter(move |certificate| certificate.account == caller.account)
    }

    /// Revision at which a key of the store was last written; 0 when there is none.
    fn revision(&self, key: &str) -> u64 {
        self.revisions.get(key).unwrap_or(0)
    }
}
