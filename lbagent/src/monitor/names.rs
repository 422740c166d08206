//! The operators' names for what events number.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lbagent_api::monitor;
use lbagent_common::{
    Addr, BackendId, FlowEvent, Outcome, Protocol, ReturnEntry, ReturnKey, VipKey,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::dataplane::{DataplaneError, FlowMaps};
use crate::desired::DesiredState;
use crate::observe;

/// Whose the ids of the data plane are.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the reconciler, when this was read.
    pub(super) pass: Option<u64>,
    groups: BTreeMap<u32, Uuid>,
    published: BTreeMap<VipKey, Uuid>,
    replies: BTreeMap<ReturnKey, ReturnEntry>,
    instances: BTreeMap<BackendId, Uuid>,
}

impl Names {
    /// From the maps.
    pub(super) fn read(maps: &dyn FlowMaps) -> Result<Self, DataplaneError> {
        let mut names = Self::default();
        for (key, entry) in maps.vips()? {
            if !key.is_address() && !entry.is_terminated() {
                let group = Uuid::from_bytes(entry.service_group);
                names.groups.insert(entry.vip_id, group);
                names.published.insert(key, group);
            }
        }
        for (id, entry) in maps.backends()? {
            names.instances.insert(id, Uuid::from_bytes(entry.instance));
        }
        names.replies = maps.returns()?.into_iter().collect();
        Ok(names)
    }

    /// The VIP and the backend of a packet: those that it was counted for, or whose reply it is.
    fn ids(&self, event: &FlowEvent) -> (u32, BackendId) {
        if event.backend_id != 0 {
            return (event.vip_id, event.backend_id);
        }
        let key = ReturnKey::new(event.source, event.source_port, event.protocol);
        let reply = self.replies.get(&key);
        reply.map_or((0, 0), |entry| (entry.vip_id, entry.backend_id))
    }

    /// The service group of a packet: the one that it was counted for, else the one that publishes
    /// its destination.
    pub(super) fn group(&self, event: &FlowEvent) -> Option<Uuid> {
        let key = VipKey::new(event.destination, event.destination_port, event.protocol);
        let counted = self.groups.get(&self.ids(event).0);
        counted.or_else(|| self.published.get(&key)).copied()
    }

    /// An event for people; `None` for one that this agent does not understand.
    pub(super) fn event(
        &self,
        event: &FlowEvent,
        desired: &DesiredState,
    ) -> Option<monitor::FlowEvent> {
        let outcome = Outcome::from_index(event.outcome)?;
        let group = self.group(event).map(|uuid| {
            let known = desired.service_groups.get(&uuid);
            known.map_or_else(|| uuid.to_string(), |group| group.name.clone())
        });
        let instance = self.instances.get(&self.ids(event).1).map(|uuid| {
            let known = desired.instances.get(uuid);
            known.map_or_else(|| uuid.to_string(), |instance| instance.name.clone())
        });
        let is_read = event.source != Addr::UNSPECIFIED || event.destination != Addr::UNSPECIFIED;
        let has_ports = is_read && matches!(event.protocol, Protocol::TCP | Protocol::UDP);
        Some(monitor::FlowEvent {
            time: wall_clock(event.time_ns),
            outcome: outcome.label().to_owned(),
            verdict: observe::verdict(outcome),
            protocol: is_read.then(|| match event.protocol {
                Protocol::TCP => "tcp".to_owned(),
                Protocol::UDP => "udp".to_owned(),
                other => other.0.to_string(),
            }),
            source: is_read.then(|| IpAddr::from(event.source)),
            source_port: has_ports.then(|| event.source_port.get()),
            destination: is_read.then(|| IpAddr::from(event.destination)),
            destination_port: has_ports.then(|| event.destination_port.get()),
            bytes: event.bytes,
            interface: observe::interface_name(event.ifindex),
            service_group: group,
            instance,
        })
    }
}

/// A time of the monotonic clock, which the programs read.
fn wall_clock(time_ns: u64) -> OffsetDateTime {
    let now = nix::time::ClockId::CLOCK_MONOTONIC
        .now()
        .map(Duration::from)
        .unwrap_or_default();
    OffsetDateTime::now_utc() - now.saturating_sub(Duration::from_nanos(time_ns))
}
