//! Service groups as the documentation of 2024 has them: one domain as text, instances by UUID.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::service_group::{Handler, ServiceGroup};

/// Answer to `POST /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = CreatedGroup2024))]
pub struct Created {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// Domain name without the trailing dot, empty where the group has none.
    pub fqdn: String,
}

/// Answer to `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Group2024))]
pub struct Group {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created, to the second.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Domain name without the trailing dot, empty where the group has none.
    pub fqdn: String,
    /// Instances that serve it.
    pub instances: Vec<Uuid>,
    /// Published ports.
    pub services: Vec<Service>,
    /// Whether it stays when its last instance leaves.
    pub persistent: bool,
    /// Whether it starts instances by itself.
    pub autoscale: bool,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Service2024))]
pub struct Service {
    /// Public-facing port.
    pub port: u16,
    /// Port that the application listens on.
    pub destination_port: u16,
    /// What terminates the connection.
    pub handlers: Vec<Handler>,
}

impl From<&ServiceGroup> for Created {
    fn from(group: &ServiceGroup) -> Self {
        Self {
            uuid: group.uuid,
            name: group.name.clone(),
            fqdn: group.fqdn.clone().unwrap_or_default(),
        }
    }
}

impl From<&ServiceGroup> for Group {
    fn from(group: &ServiceGroup) -> Self {
        let created_at = group.created_at;
        let service = |service: &crate::service_group::Service| Service {
            port: service.port,
            destination_port: service.destination_port,
            handlers: service.handlers.clone(),
        };
        Self {
            uuid: group.uuid,
            name: group.name.clone(),
            created_at: created_at.replace_nanosecond(0).unwrap_or(created_at),
            fqdn: group.fqdn.clone().unwrap_or_default(),
            instances: group.instances.iter().map(|one| one.uuid).collect(),
            services: group.services.iter().map(service).collect(),
            persistent: group.persistent,
            autoscale: group.autoscale,
        }
    }
}
