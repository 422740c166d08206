//! Objects as people keep them in files: what is asked for, and nothing that the agent makes up.
//!
//! A document names its object by `kind` and `name`. Members that are left away have their
//! defaults, with two exceptions, which stay as they are: a group's `domains` and an instance's
//! `state`.

pub mod certificate;
mod domain;
mod duration_text;
mod port;
pub mod read;
mod text;

use std::fmt;
use std::net::IpAddr;

use lbagent_api::instance::{Instance, InstanceState};
use lbagent_api::policy::{GroupPolicy, InstancePolicy, PolicyData};
use lbagent_api::request::validate_name;
use lbagent_api::service_group::ServiceGroup;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::certificate::CertificateManifest;
pub use self::domain::Domain;
pub use self::port::Port;
use self::text::from_text;
use crate::client::Client;
use crate::cmd::Kind;
use crate::cmd::policy::Policy;
use crate::error::CtlError;

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// `kind: ServiceGroup`.
    ServiceGroup(GroupManifest),
    /// `kind: Instance`.
    Instance(InstanceManifest),
    /// `kind: Certificate`.
    Certificate(CertificateManifest),
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<Domain>>,
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
            Self::Certificate(_) => Kind::Certificate,
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Self::ServiceGroup(group) => &group.name,
            Self::Instance(instance) => &instance.name,
            Self::Certificate(certificate) => &certificate.name,
        }
    }

    /// The document, in YAML that [`read`] reads back; of a certificate which one it is, without
    /// chain and key.
    pub fn to_yaml(&self) -> Result<String, CtlError> {
        let members = match self {
            Self::ServiceGroup(group) => serde_yaml_ng::to_string(group),
            Self::Instance(instance) => serde_yaml_ng::to_string(instance),
            Self::Certificate(certificate) => serde_yaml_ng::to_string(certificate),
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
        Kind::Certificate => "Certificate",
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
            domains: Some(group.domains.iter().map(Domain::from).collect()),
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
    let (policy, _) = tagged_policy(client, &group.uuid.to_string())?;
    Ok(self::group(group, policy))
}

/// The instance with its policy.
pub fn of_instance(instance: &Instance, client: &Client) -> Result<Manifest, CtlError> {
    let (policy, _) = tagged_policy(client, &instance.uuid.to_string())?;
    Ok(self::instance(instance, policy))
}

/// The group as a document.
pub fn group(group: &ServiceGroup, policy: GroupPolicy) -> Manifest {
    Manifest::ServiceGroup(GroupManifest::of(group, policy))
}

/// The instance as a document.
pub fn instance(instance: &Instance, policy: InstancePolicy) -> Manifest {
    Manifest::Instance(InstanceManifest::of(instance, policy))
}

/// An object's policy, and the entity tag that the object has.
pub fn tagged_policy<P: Policy>(
    client: &Client,
    word: &str,
) -> Result<(P, Option<String>), CtlError> {
    let (answer, tag) = client.get_tagged::<PolicyData<P>>(&P::path(word))?;
    Ok((answer.policy, tag))
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
