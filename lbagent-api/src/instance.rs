//! Instances: what the data plane calls backends.

mod state;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use state::InstanceState;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::request::{ContractError, Selector, SelectorSpec};
use crate::service_group::{Domain, DomainSpec, ServiceSpec};

/// Most network interfaces of one instance.
pub const MAX_NETWORK_INTERFACES: usize = 4;

/// `POST /v1/instances`: one of these, or an array. lbagent starts no machines: members that only
/// matter to a machine are accepted, so that official clients work, and told back by
/// [`InstanceSpec::members_without_effect`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({
    "name": "web-1", "service_group": {"name": "web"}, "autostart": true,
    "network_interfaces": [{"ip": "10.66.0.11"}]
})))]
#[serde(deny_unknown_fields, default)]
pub struct InstanceSpec {
    /// Unique name; made up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Recorded, not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Value>,
    /// Recorded, not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Value>,
    /// The service group to join or to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_group: Option<InstanceServiceGroupSpec>,
    /// Addresses; the first of each family gets traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 4))]
    pub network_interfaces: Option<Vec<NetworkInterfaceSpec>>,
    /// Whether it gets traffic at once; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// More instances like this one; lbagent makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Free text for the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Free text for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autokill: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_from: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameserver: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roms: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sched_priority: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Value>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout_ms: Option<Value>,
}

impl InstanceSpec {
    /// Names of the members given that have no effect, because lbagent runs no machines: the text
    /// of a warning.
    pub fn members_without_effect(&self) -> Vec<&'static str> {
        let members = [
            ("args", &self.args),
            ("autokill", &self.autokill),
            ("branch_from", &self.branch_from),
            ("checkpoint", &self.checkpoint),
            ("dependencies", &self.dependencies),
            ("env", &self.env),
            ("features", &self.features),
            ("gateway", &self.gateway),
            ("gpus", &self.gpus),
            ("hostname", &self.hostname),
            ("memory_mb", &self.memory_mb),
            ("nameserver", &self.nameserver),
            ("plugins", &self.plugins),
            ("restart_policy", &self.restart_policy),
            ("roms", &self.roms),
            ("scale_to_zero", &self.scale_to_zero),
            ("sched_priority", &self.sched_priority),
            ("schedules", &self.schedules),
            ("timeout_s", &self.timeout_s),
            ("type", &self.r#type),
            ("vcpus", &self.vcpus),
            ("template", &self.template),
            ("volumes", &self.volumes),
            ("wait_timeout_ms", &self.wait_timeout_ms),
        ];
        members
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name)
            .collect()
    }

    /// The image's name, if one was given as text or as an object with a `url`, `name` or `image`.
    pub fn image_name(&self) -> Option<String> {
        let image = self.image.as_ref()?;
        let text = |key: &str| image.get(key).and_then(Value::as_str);
        image
            .as_str()
            .or_else(|| ["url", "name", "image"].into_iter().find_map(text))
            .map(str::to_owned)
    }

    /// The addresses as given, in the order of the interfaces: (address, prefix length).
    pub fn addresses(&self) -> Result<Vec<(IpAddr, u8)>, ContractError> {
        let interfaces = self.network_interfaces.as_deref().unwrap_or_default();
        if interfaces.len() > MAX_NETWORK_INTERFACES {
            return Err(ContractError::new(
                ErrorCode::TooMany,
                format!(
                    "{} network interfaces given; at most {MAX_NETWORK_INTERFACES} are allowed",
                    interfaces.len()
                ),
            ));
        }
        interfaces
            .iter()
            .filter_map(|interface| interface.ip.as_deref())
            .map(parse_cidr)
            .collect()
    }
}

/// Reads an address with or without a prefix length.
pub fn parse_cidr(text: &str) -> Result<(IpAddr, u8), ContractError> {
    let invalid = || {
        ContractError::invalid(format!(
            "Invalid value '{text}' of 'ip' in network interface: expected an address such as \
             10.0.0.7 or 10.0.0.7/24"
        ))
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().map_err(|_| invalid())?,
        None => full,
    };
    if prefix > full {
        Err(invalid())
    } else {
        Ok((address, prefix))
    }
}

/// The service group of a new instance: named (`uuid` or `name`), or described and made with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct InstanceServiceGroupSpec {
    /// Join this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// Join this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Published ports of a new group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceSpec>>,
    /// Domain names of a new group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<DomainSpec>>,
    /// Limit of a new group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub soft_limit: Option<i64>,
    /// Limit of a new group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub hard_limit: Option<i64>,
}

impl InstanceServiceGroupSpec {
    /// The group to join; none when it describes a new one; an error when it does both.
    pub fn joined(&self) -> Result<Option<Selector>, ContractError> {
        let describes = self.services.is_some()
            || self.domains.is_some()
            || self.soft_limit.is_some()
            || self.hard_limit.is_some();
        let selector = SelectorSpec {
            uuid: self.uuid.clone(),
            name: self.name.clone(),
        }
        .selector()?;
        match selector {
            Some(_) if describes => Err(ContractError::new(
                ErrorCode::NotBoth,
                "Member 'service_group' cannot both name a service group and describe a new one",
            )),
            selector => Ok(selector),
        }
    }
}

/// A network interface as received.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NetworkInterfaceSpec {
    /// Name of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address, with or without a prefix length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Link address; the kernel's neighbour table decides, not this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Recorded by hypervisors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap_name: Option<String>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoconfig: Option<bool>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<Value>,
}

/// An instance in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Instance {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it gets traffic.
    pub state: InstanceState,
    /// As given, not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The group that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_group: Option<InstanceServiceGroup>,
    /// Its addresses.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// The first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// Its name below the domain that the operator keeps for instances, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_fqdn: Option<String>,
    /// Free text for the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Free text for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The service group of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceServiceGroup {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// Its domain names.
    #[serde(default)]
    pub domains: Vec<Domain>,
}

/// A network interface in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkInterface {
    /// Identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Address without prefix length.
    pub private_ip: String,
    /// Link address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
