//! Service groups: published ports, domains and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

pub use crate::domain::{Domain, DomainCertificate};
use crate::envelope::Reference;
use crate::error_code::ErrorCode;
use crate::request::{ContractError, SelectorSpec};

/// `POST /v1/services`: one of these, or an array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "web", "services": [{"port": 5432, "protocol": "tcp"}]})))]
#[serde(deny_unknown_fields)]
pub struct ServiceGroupSpec {
    /// Unique name; made up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Name>))]
    pub name: Option<String>,
    /// Published ports, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub services: Option<Vec<ServiceSpec>>,
    /// Domain names; derived from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub domains: Option<Vec<DomainSpec>>,
    /// Concurrency of an instance at which another is wanted; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub soft_limit: Option<i64>,
    /// Concurrency of an instance that is not exceeded; 65535 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub hard_limit: Option<i64>,
    /// When an empty group is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autokill: Option<Autokill>,
    /// Form of 2024 for a single domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
}

/// A published port as received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"port": 5432, "destination_port": 15432, "protocol": "tcp"})))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Port on the VIP.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub port: i64,
    /// Port that the instances listen on; the same when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub destination_port: Option<i64>,
    /// What terminates the connection; none for raw ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handlers: Option<Vec<Handler>>,
    /// Given explicitly and without handlers, the port is raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The one VIP to publish on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// A domain name as received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "web.example.com."})))]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// With a trailing dot fully qualified, else below the metro domain.
    pub name: String,
    /// The certificate to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SelectorSpec>,
}

/// When an empty group is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Autokill {
    /// So many milliseconds after it became empty; 0 for never.
    #[serde(default)]
    pub time_ms: u64,
}

/// A service group in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceGroup {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it stays when its last instance leaves.
    pub persistent: bool,
    /// Whether it starts instances by itself.
    #[serde(default)]
    pub autoscale: bool,
    /// Concurrency of an instance at which another is wanted.
    pub soft_limit: u16,
    /// Concurrency of an instance that is not exceeded.
    pub hard_limit: u16,
    /// Published ports.
    pub services: Vec<Service>,
    /// Domain names.
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// Instances that serve it.
    #[serde(default)]
    pub instances: Vec<Reference>,
    /// When an empty group is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autokill: Option<Autokill>,
    /// The first domain, as in the contract of 2024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Port on the VIP.
    pub port: u16,
    /// Port that the instances listen on.
    pub destination_port: u16,
    /// Transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The one VIP that it is published on; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ip: Option<IpAddr>,
    /// What terminates the connection, in this order and without repeats; empty for raw ports.
    #[serde(default)]
    pub handlers: Vec<Handler>,
}

/// A connection handler. Official clients know no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Handler {
    /// Ends TLS.
    Tls,
    /// Balances requests rather than connections.
    Http,
    /// Answers with a redirect to HTTPS.
    Redirect,
}

impl Handler {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Redirect => "redirect",
        }
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Service {
    /// Whether packets go to the instances as they are, without the terminator.
    pub fn is_raw(&self) -> bool {
        self.handlers.is_empty()
    }
}

impl ServiceSpec {
    /// The one VIP to publish on.
    pub(crate) fn address(&self) -> Result<Option<IpAddr>, ContractError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                ContractError::invalid(format!(
                    "Invalid value '{text}' of 'ip' in service port description: not an IP address"
                ))
            })
        };
        self.ip.as_ref().map(parse).transpose()
    }
}

impl From<&Service> for ServiceSpec {
    /// The request that asks for exactly this service.
    fn from(service: &Service) -> Self {
        Self {
            port: service.port.into(),
            destination_port: Some(service.destination_port.into()),
            handlers: Some(service.handlers.clone()),
            protocol: service.is_raw().then_some(service.protocol),
            ip: service.ip.map(|ip| ip.to_string()),
        }
    }
}

impl TryFrom<&ServiceSpec> for Service {
    type Error = ContractError;

    fn try_from(spec: &ServiceSpec) -> Result<Self, ContractError> {
        let port = port_in_range("port", spec.port)?;
        let destination_port = port_in_range(
            "destination_port",
            spec.destination_port.unwrap_or(spec.port),
        )?;
        let handlers: BTreeSet<Handler> = spec.handlers.iter().flatten().copied().collect();
        check_port_rules(port, destination_port, &handlers, spec.protocol)?;
        Ok(Self {
            port,
            destination_port,
            protocol: spec.protocol.unwrap_or_default(),
            ip: spec.address()?,
            handlers: handlers.into_iter().collect(),
        })
    }
}

pub(crate) fn port_in_range(member: &str, value: i64) -> Result<u16, ContractError> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ContractError::invalid(format!(
            "Value of '{member}' in service port description must be in the range 1 to 65535"
        ))),
    }
}

/// The contract's rules for ports and handlers. A port without handlers whose protocol is given
/// explicitly is raw, and any number will do.
pub fn check_port_rules(
    port: u16,
    destination_port: u16,
    handlers: &BTreeSet<Handler>,
    protocol: Option<Protocol>,
) -> Result<(), ContractError> {
    let has = |handler| handlers.contains(&handler);
    let refuse = |text: String| {
        Err(ContractError::invalid(format!(
            "Service port {port} {text}"
        )))
    };
    match protocol {
        Some(_) if handlers.is_empty() => return Ok(()),
        Some(Protocol::Udp) => return refuse("is UDP and so takes no handlers".into()),
        Some(Protocol::Tcp) | None => {}
    }
    if has(Handler::Redirect) {
        if port != 80 {
            return refuse("cannot have the handler 'redirect': only port 80 can".into());
        }
        if destination_port != 443 {
            return refuse("with the handler 'redirect' must have destination port 443".into());
        }
    }
    let raw = "; for a raw port give \"protocol\" (\"tcp\" or \"udp\") and no handlers";
    match port {
        80 if has(Handler::Tls) => refuse("must not have the handler 'tls'".into()),
        80 if !has(Handler::Http) => refuse(format!("must have the handler 'http'{raw}")),
        443 if !(has(Handler::Http) && has(Handler::Tls)) => {
            refuse(format!("must have the handlers 'tls' and 'http'{raw}"))
        }
        80 | 443 => Ok(()),
        _ if has(Handler::Http) => {
            refuse("must not have the handler 'http': only ports 80 and 443 can".into())
        }
        _ if !has(Handler::Tls) => refuse(format!("must have the handler 'tls'{raw}")),
        _ => Ok(()),
    }
}

/// Most services, and most domains, of one group.
pub const MAX_MEMBERS: usize = 1000;

/// Checks how many services or domains a group has.
pub fn check_number(of: &str, number: usize) -> Result<(), ContractError> {
    if number <= MAX_MEMBERS {
        return Ok(());
    }
    Err(ContractError::new(
        ErrorCode::TooMany,
        format!("{number} {of} given; a service group has {MAX_MEMBERS} at most"),
    ))
}

/// Checks the services of one group, each and together.
pub fn validate_services(specs: &[ServiceSpec]) -> Result<Vec<Service>, ContractError> {
    let services: Vec<Service> = specs
        .iter()
        .map(Service::try_from)
        .collect::<Result<_, _>>()?;
    check_together(&services)?;
    Ok(services)
}

/// Whether services of one group go together: there is one, and none publishes another's port.
pub fn check_together(services: &[Service]) -> Result<(), ContractError> {
    if services.is_empty() {
        return Err(ContractError::invalid("At least one service is required"));
    }
    check_number("services", services.len())?;
    for (place, service) in services.iter().enumerate() {
        if services[..place]
            .iter()
            .any(|other| collide(other, service))
        {
            return Err(ContractError::new(
                ErrorCode::AlreadyExists,
                format!(
                    "Service port {}/{} is published twice in this service group",
                    service.port, service.protocol
                ),
            ));
        }
    }
    Ok(())
}

/// Whether two services want the same port: same number and protocol, on a VIP that both use.
/// A service without `ip` uses all of them.
pub fn collide(a: &Service, b: &Service) -> bool {
    let same_ip = match (a.ip, b.ip) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    a.port == b.port && a.protocol == b.protocol && same_ip
}

/// The limits of a group, with their defaults: (soft, hard).
pub fn validate_limits(soft: Option<i64>, hard: Option<i64>) -> Result<(u16, u16), ContractError> {
    let limit = |member: &str, value: Option<i64>, default: u16| match value.map(u16::try_from) {
        None => Ok(default),
        Some(Ok(value)) if value > 0 => Ok(value),
        Some(_) => Err(ContractError::invalid(format!(
            "Value of '{member}' must be in the range 1 to 65535"
        ))),
    };
    let (soft, hard) = (
        limit("soft_limit", soft, 1)?,
        limit("hard_limit", hard, u16::MAX)?,
    );
    if soft > hard {
        return Err(ContractError::invalid(format!(
            "Value of 'soft_limit' ({soft}) must not exceed 'hard_limit' ({hard})"
        )));
    }
    Ok((soft, hard))
}

#[cfg(test)]
#[path = "service_group_tests.rs"]
mod tests;
