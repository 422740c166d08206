//! `PATCH /v1/services`: operations on properties of service groups.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::request::{ContractError, Selector, SelectorSpec, parse_value};
use crate::service_group::{Autokill, DomainSpec, Protocol, Service, ServiceSpec, port_in_range};

/// One operation as received: `PATCH /v1/services` takes one or an array, each naming its group;
/// `PATCH /v1/services/{uuid}` takes them without a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({
    "name": "web", "id": "1", "prop": "services", "op": "add",
    "value": [{"port": 53, "protocol": "udp"}]
})))]
#[serde(deny_unknown_fields)]
pub struct PatchSpec {
    /// The group, by identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// The group, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Comes back with the operation's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What to change.
    pub prop: Property,
    /// How.
    pub op: Operation,
    /// To what; its form follows from the property. A `set` without a value clears the property.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// A property that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Property {
    /// Published ports: a list of [`ServiceSpec`].
    Services,
    /// Domain names: a list of [`DomainSpec`].
    Domains,
    /// A number.
    SoftLimit,
    /// A number.
    HardLimit,
    /// An [`Autokill`].
    Autokill,
}

impl Property {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Domains => "domains",
            Self::SoftLimit => "soft_limit",
            Self::HardLimit => "hard_limit",
            Self::Autokill => "autokill",
        }
    }
}

/// What to do with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Replaces the property.
    Set,
    /// Adds members to a list.
    Add,
    /// Takes members out of a list.
    Del,
}

impl Operation {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Add => "add",
            Self::Del => "del",
        }
    }
}

/// An operation whose value has the form that its property needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Publish these ports and no others.
    SetServices(Vec<Service>),
    /// Publish these ports too.
    AddServices(Vec<Service>),
    /// Publish these ports no more.
    DelServices(Vec<PortMatch>),
    /// Have these domains and no others.
    SetDomains(Vec<DomainSpec>),
    /// Have these domains too.
    AddDomains(Vec<DomainSpec>),
    /// Give these domains up.
    DelDomains(Vec<DomainSpec>),
    /// The soft limit, the default when absent.
    SetSoftLimit(Option<i64>),
    /// The hard limit, the default when absent.
    SetHardLimit(Option<i64>),
    /// So many milliseconds after it became empty the group is deleted; 0 for never.
    SetAutokill(u64),
}

/// A published port to take out: clients name it by its number alone. With `protocol` or `ip` only
/// the service that has them is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// Port on the VIP.
    pub port: u16,
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// The one VIP that it is published on.
    pub ip: Option<std::net::IpAddr>,
}

impl PortMatch {
    /// Whether a service is meant.
    pub fn matches(&self, service: &Service) -> bool {
        self.port == service.port
            && self
                .protocol
                .is_none_or(|protocol| protocol == service.protocol)
            && self.ip.is_none_or(|ip| service.ip == Some(ip))
    }
}

impl TryFrom<&ServiceSpec> for PortMatch {
    type Error = ContractError;

    fn try_from(spec: &ServiceSpec) -> Result<Self, ContractError> {
        Ok(Self {
            port: port_in_range("port", spec.port)?,
            protocol: spec.protocol,
            ip: spec.address()?,
        })
    }
}

impl PatchSpec {
    /// The group named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        let (uuid, name) = (self.uuid.clone(), self.name.clone());
        SelectorSpec { uuid, name }.selector()
    }

    /// The operation, if its value has the form that its property needs.
    pub fn change(&self) -> Result<Change, ContractError> {
        match (self.prop, self.op) {
            (Property::Services, op) => self.services(op),
            (Property::Domains, op) => {
                let domains = self.list::<DomainSpec>()?;
                Ok(match op {
                    Operation::Set => Change::SetDomains(domains),
                    Operation::Add => Change::AddDomains(domains),
                    Operation::Del => Change::DelDomains(domains),
                })
            }
            (prop, op @ (Operation::Add | Operation::Del)) => Err(ContractError::invalid(format!(
                "Operation '{}' works on lists only: use 'set' for '{}'",
                op.as_str(),
                prop.as_str()
            ))),
            (Property::SoftLimit, Operation::Set) => Ok(Change::SetSoftLimit(self.one()?)),
            (Property::HardLimit, Operation::Set) => Ok(Change::SetHardLimit(self.one()?)),
            (Property::Autokill, Operation::Set) => {
                let autokill: Option<Autokill> = self.one()?;
                Ok(Change::SetAutokill(autokill.map_or(0, |kill| kill.time_ms)))
            }
        }
    }

    fn services(&self, op: Operation) -> Result<Change, ContractError> {
        let specs = self.list::<ServiceSpec>()?;
        let services = || {
            specs
                .iter()
                .map(Service::try_from)
                .collect::<Result<_, _>>()
        };
        Ok(match op {
            Operation::Set => Change::SetServices(services()?),
            Operation::Add => Change::AddServices(services()?),
            Operation::Del => {
                let ports = specs.iter().map(PortMatch::try_from);
                Change::DelServices(ports.collect::<Result<_, _>>()?)
            }
        })
    }

    /// A list, or a single member of one. Only `set` may do without: it clears the list.
    fn list<T: DeserializeOwned>(&self) -> Result<Vec<T>, ContractError> {
        match &self.value {
            None if self.op == Operation::Set => Ok(Vec::new()),
            None => Err(ContractError::invalid(format!(
                "Missing member 'value': operation '{}' on '{}' needs a list",
                self.op.as_str(),
                self.prop.as_str()
            ))),
            Some(Value::Array(values)) => values.iter().cloned().map(parse_value).collect(),
            Some(value) => parse_value(value.clone()).map(|one| vec![one]),
        }
    }

    fn one<T: DeserializeOwned>(&self) -> Result<Option<T>, ContractError> {
        self.value.clone().map(parse_value).transpose()
    }
}

/// Result of an operation that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Patched {
    /// The group.
    pub uuid: Uuid,
    /// The group.
    pub name: String,
    /// As the request gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
