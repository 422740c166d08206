//! Objects as people keep them in files: what is asked for, and nothing that the agent makes up.
//!
//! A document names its object by `kind` and `name`. Members that are left away have their
//! defaults, with two exceptions, which stay as they are: a group's `domains` and an instance's
//! `state`.

mod duration_text;
mod port;
pub mod read;
mod text;

use std::fmt;
use std::net::IpAddr;

use lbagent_api::instance::{Instance, InstanceState};
use lbagent_api::policy::{GroupPolicy, InstancePolicy, PolicyData};
use lbagent_api::request::{qualify_domain, validate_name};
use lbagent_api::service_group::ServiceGroup;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::port::Port;
use self::text::from_text;
use crate::client::Client;
use crate::cmd::{Kind, policy};
use crate::error::CtlError;

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a file has few of them, and they live as long as a command"
)]
pub enum Manifest {
    /// `kind: ServiceGroup`.
    ServiceGroup(GroupManifest),
    /// `kind: Instance`.
    Instance(InstanceManifest),
}

/// `kind: ServiceGroup`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupManifest {
    #[serde(default, rename = "kind", skip_serializing)]
    _kind: AnyKind,
    /// Unique name.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Published ports.
    #[serde(deserialize_with = "port::ports")]
    pub services: Vec<Port>,
    /// Whole domain names.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "domains"
    )]
    pub domains: Option<Vec<String>>,
    /// Concurrency of an instance at which another is wanted.
    #[serde(default = "soft_limit", skip_serializing_if = "is_soft_limit")]
    pub soft_limit: u16,
    /// Concurrency of an instance that is not exceeded.
    #[serde(default = "hard_limit", skip_serializing_if = "is_hard_limit")]
    pub hard_limit: u16,
    /// Milliseconds after which the group is deleted when it is empty.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "duration_text"
    )]
    pub autokill: Option<u64>,
    /// What the group has beyond the contract.
    #[serde(default, skip_serializing_if = "GroupPolicy::is_default")]
    pub policy: GroupPolicy,
}

/// `kind: Instance`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceManifest {
    #[serde(default, rename = "kind", skip_serializing)]
    _kind: AnyKind,
    /// Unique name.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The group that it serves, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_group: Option<String>,
    /// At most one of each family.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<IpAddr>,
    /// Recorded for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether it gets traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// What the instance has beyond the contract.
    #[serde(default, skip_serializing_if = "InstancePolicy::is_default")]
    pub policy: InstancePolicy,
}

/// Whether an instance gets traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It does.
    Running,
    /// It does not, or not any more than it has.
    Stopped,
}

/// The member `kind`, which is read before the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct AnyKind;

impl<'de> Deserialize<'de> for AnyKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

const fn soft_limit() -> u16 {
    1
}

const fn hard_limit() -> u16 {
    u16::MAX
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_soft_limit(limit: &u16) -> bool {
    *limit == soft_limit()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_hard_limit(limit: &u16) -> bool {
    *limit == hard_limit()
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    from_text(deserializer, |text| {
        validate_name(text).map(|()| text.to_owned())
    })
}

/// A domain name that is whole.
struct Fqdn(String);

impl<'de> Deserialize<'de> for Fqdn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, fqdn).map(Self)
    }
}

fn fqdn(text: &str) -> Result<String, String> {
    if !text.contains('.') {
        return Err(format!(
            "domain '{text}' is not whole; files have whole names, such as {text}.example.com"
        ));
    }
    let whole = format!("{}.", text.trim_end_matches('.'));
    qualify_domain(&whole, "").map_err(|error| error.message)
}

fn domains<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let domains = Option::<Vec<Fqdn>>::deserialize(deserializer)?;
    Ok(domains.map(|domains| domains.into_iter().map(|Fqdn(name)| name).collect()))
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let mut addresses = Vec::<IpAddr>::deserialize(deserializer)?;
    addresses.sort_unstable();
    let twins = addresses
        .windows(2)
        .find(|pair| pair[0].is_ipv4() == pair[1].is_ipv4());
    match twins {
        _ if addresses.is_empty() => Err(serde::de::Error::custom("an instance needs an address")),
        Some(pair) => Err(serde::de::Error::custom(format!(
            "{} and {} are of one family; an instance has one address of each",
            pair[0], pair[1]
        ))),
        None => Ok(addresses),
    }
}

impl Manifest {
    /// What the object is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ServiceGroup(_) => Kind::ServiceGroup,
            Self::Instance(_) => Kind::Instance,
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Self::ServiceGroup(group) => &group.name,
            Self::Instance(instance) => &instance.name,
        }
    }

    /// The document, in YAML that [`read`] reads back.
    pub fn to_yaml(&self) -> Result<String, CtlError> {
        let members = match self {
            Self::ServiceGroup(group) => serde_yaml_ng::to_string(group),
            Self::Instance(instance) => serde_yaml_ng::to_string(instance),
        };
        let members = members
            .map_err(|error| CtlError::Local(format!("cannot write {self} as YAML: {error}")))?;
        Ok(format!("kind: {}\n{members}", kind_word(self.kind())))
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind().command(), self.name())
    }
}

/// The word after `kind:`.
pub const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::ServiceGroup => "ServiceGroup",
        Kind::Instance => "Instance",
    }
}

impl GroupManifest {
    /// What asks for this group as it is.
    pub fn of(group: &ServiceGroup, policy: GroupPolicy) -> Self {
        let mut services: Vec<Port> = group.services.iter().cloned().map(Port).collect();
        services.sort_unstable();
        Self {
            _kind: AnyKind,
            name: group.name.clone(),
            services,
            domains: Some(
                group
                    .domains
                    .iter()
                    .map(|domain| domain.fqdn.clone())
                    .collect(),
            ),
            soft_limit: group.soft_limit,
            hard_limit: group.hard_limit,
            autokill: group
                .autokill
                .map(|kill| kill.time_ms)
                .filter(|time| *time > 0),
            policy,
        }
    }
}

impl InstanceManifest {
    /// What asks for this instance as it is. One that drains counts as stopped.
    pub fn of(instance: &Instance, policy: InstancePolicy) -> Self {
        let ips = instance
            .network_interfaces
            .iter()
            .map(|interface| &interface.private_ip);
        let mut addresses: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort_unstable();
        Self {
            _kind: AnyKind,
            name: instance.name.clone(),
            service_group: instance
                .service_group
                .as_ref()
                .map(|group| group.name.clone()),
            addresses,
            image: instance.image.clone(),
            state: Some(match instance.state {
                InstanceState::Running => RunState::Running,
                _ => RunState::Stopped,
            }),
            policy,
        }
    }
}

/// The group with its policy.
pub fn of_group(group: &ServiceGroup, client: &Client) -> Result<Manifest, CtlError> {
    let policy = fetch_policy(client, Kind::ServiceGroup, &group.uuid.to_string())?;
    Ok(Manifest::ServiceGroup(GroupManifest::of(group, policy)))
}

/// The instance with its policy.
pub fn of_instance(instance: &Instance, client: &Client) -> Result<Manifest, CtlError> {
    let policy = fetch_policy(client, Kind::Instance, &instance.uuid.to_string())?;
    Ok(Manifest::Instance(InstanceManifest::of(instance, policy)))
}

fn fetch_policy<P: DeserializeOwned>(
    client: &Client,
    kind: Kind,
    uuid: &str,
) -> Result<P, CtlError> {
    let answer: PolicyData<P> = client.get(&policy::path(kind, uuid))?;
    Ok(answer.policy)
}

/// Prints documents, one after the other.
pub fn print(manifests: &[Manifest]) -> Result<(), CtlError> {
    let documents: Vec<String> = manifests
        .iter()
        .map(Manifest::to_yaml)
        .collect::<Result<_, _>>()?;
    crate::output::write_stdout(documents.join("---\n").trim_end())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
