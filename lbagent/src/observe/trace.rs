//! Why a flow goes where it goes: every stage of the data plane once more, over the same entries,
//! with names. It must say what `lb_ingress` does.

mod choice;
mod forwarding;
mod source;
mod terminated;

use std::net::IpAddr;

use lbagent_api::instance::InstanceState;
use lbagent_api::service_group::Protocol as ApiProtocol;
use lbagent_api::trace::{
    Published, Trace, TraceChoice, TraceInstance, TraceName, TraceQuery, TraceSourceRule,
};
use lbagent_common::hash::flow_hash;
use lbagent_common::{
    Addr, BackendId, Outcome, Port, Protocol, Settings, SourceEntry, SourceKey, VipEntry, VipKey,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::report::verdict;
use crate::dataplane::{DataplaneError, FlowMaps};
use crate::desired::{self, DesiredState};

/// An interface that a packet arrives by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Name.
    pub interface: String,
    /// Index.
    pub ifindex: u32,
}

/// Explains what becomes of a packet of ordinary size and TTL that arrives from a client.
pub fn explain(
    maps: &dyn FlowMaps,
    desired: &DesiredState,
    query: &TraceQuery,
    arrival: Option<&Arrival>,
    now: OffsetDateTime,
) -> Result<Trace, DataplaneError> {
    let mut tracer = Tracer {
        maps,
        desired,
        arrival,
        settings: maps.settings()?,
        flow: Flow::new(query),
        host: query.host.as_deref(),
        redirects: false,
        trace: Trace {
            taken_at: now,
            protocol: query.protocol,
            source: query.source,
            destination: query.destination,
            is_new: query.is_new,
            interface: arrival.map(|arrival| arrival.interface.clone()),
            published: Published::Foreign,
            service_group: None,
            source_rule: None,
            quic_server_id_len: None,
            flow_hash: None,
            slot: None,
            former_slot: None,
            changed_s_ago: None,
            stored: None,
            choice: None,
            forwarding: None,
            outcome: String::new(),
            verdict: lbagent_api::status::Verdict::Passed,
            reason: String::new(),
        },
    };
    let (outcome, reason) = match tracer.packet()? {
        Ok(ended) | Err(ended) => ended,
    };
    let is_host_idle = query.host.is_some() && !tracer.redirects;
    let mut trace = tracer.trace;
    outcome.label().clone_into(&mut trace.outcome);
    trace.verdict = verdict(outcome);
    trace.reason = reason;
    if is_host_idle {
        trace.reason.push_str(HOST_IDLE);
    }
    Ok(trace)
}

/// Said where a host name was given in vain.
const HOST_IDLE: &str = "; the host name changes nothing: the programs read it only where they redirect themselves, and \
     `lbctl status` tells why where they leave a port with `redirect` to the terminator";

/// How a packet ends, and why.
type Ended = (Outcome, String);
/// A stage's value, or the end of the packet; outside of it, a map that cannot be read.
type Stage<T> = Result<Result<T, Ended>, DataplaneError>;

fn end<T>(outcome: Outcome, reason: impl Into<String>) -> Stage<T> {
    Ok(Err((outcome, reason.into())))
}

/// Leaves the function with the packet's end, as the programs do.
macro_rules! stage {
    ($stage:expr) => {
        match $stage? {
            Ok(value) => value,
            Err(ended) => return Ok(Err(ended)),
        }
    };
}

/// The packet, as the programs see it.
#[derive(Clone, Copy, Debug)]
struct Flow {
    protocol: Protocol,
    client: Addr,
    client_port: Port,
    vip: Addr,
    vip_port: Port,
}

impl Flow {
    fn new(query: &TraceQuery) -> Self {
        Self {
            protocol: match query.protocol {
                ApiProtocol::Tcp => Protocol::TCP,
                ApiProtocol::Udp => Protocol::UDP,
            },
            // What a v4-mapped IPv6 address is to the programs as well.
            client: query.source.ip().into(),
            client_port: Port::new(query.source.port()),
            vip: query.destination.ip().into(),
            vip_port: Port::new(query.destination.port()),
        }
    }
}

struct Tracer<'a> {
    maps: &'a dyn FlowMaps,
    desired: &'a DesiredState,
    arrival: Option<&'a Arrival>,
    settings: Settings,
    flow: Flow,
    host: Option<&'a str>,
    /// Whether the port is one that redirects.
    redirects: bool,
    trace: Trace,
}

impl Tracer<'_> {
    fn packet(&mut self) -> Stage<Ended> {
        let vip = stage!(self.vip());
        stage!(self.admit(&vip));
        if vip.quic_server_id_len != 0 && self.flow.protocol == Protocol::UDP {
            self.trace.quic_server_id_len = Some(vip.quic_server_id_len);
        }
        let hash = flow_hash(
            self.settings.hash_seed,
            &self.flow.client,
            self.flow.client_port,
            self.flow.vip_port,
            self.flow.protocol,
        );
        self.trace.flow_hash = Some(format!("{hash:016x}"));
        self.trace.is_new = self.trace.is_new || self.is_new_udp(hash)?;
        let backend = stage!(self.choose(&vip, hash));
        self.forward(&vip, &backend)
    }

    /// Stage 1: which VIP, and what it does with its packets.
    fn vip(&mut self) -> Stage<VipEntry> {
        let key = VipKey::new(self.flow.vip, self.flow.vip_port, self.flow.protocol);
        if let Some(vip) = self.maps.vip(&key)? {
            if !vip.is_terminated() {
                self.trace.service_group = Some(self.group(&vip));
                self.trace.published = Published::Forward;
                return Ok(Ok(vip));
            }
            self.trace.published = Published::Terminate;
            return self.terminated(&vip);
        }
        if self.maps.vip(&VipKey::address(self.flow.vip))?.is_none() {
            return end(
                Outcome::PassNotVip,
                "the destination is no VIP address: the kernel gets the packet unchanged",
            );
        }
        self.trace.published = Published::UnpublishedPort;
        if self.settings.unpublished == Settings::UNPUBLISHED_PASS {
            end(
                Outcome::PassNotVip,
                "nobody published this port, and unpublished_ports is \"pass\": the kernel gets \
                 the packet unchanged",
            )
        } else {
            end(
                Outcome::DropUnpublished,
                "nobody published this port, and unpublished_ports is \"drop\"",
            )
        }
    }

    /// Stage 1, second half: source rules.
    fn admit(&mut self, vip: &VipEntry) -> Stage<()> {
        if vip.flags & VipEntry::FLAG_SOURCES == 0 {
            return Ok(Ok(()));
        }
        let rule = self.maps.source_rule(vip.policy_id, &self.flow.client)?;
        let is_admitted = rule.is_none_or(|(_, verdict)| verdict != SourceEntry::DENY);
        let prefix = rule.map(|(key, _)| prefix_text(&key));
        self.trace.source_rule = Some(TraceSourceRule {
            is_admitted,
            prefix,
        });
        if is_admitted {
            Ok(Ok(()))
        } else {
            end(
                Outcome::DropSource,
                "the service group's policy refuses the source",
            )
        }
    }

    fn group(&self, vip: &VipEntry) -> TraceName {
        let uuid = Uuid::from_bytes(vip.service_group);
        let known = self.desired.service_groups.get(&uuid);
        TraceName {
            uuid,
            name: known.map_or_else(|| uuid.to_string(), |group| group.name.clone()),
        }
    }

    fn instance(&self, id: BackendId) -> Result<Option<TraceInstance>, DataplaneError> {
        let Some(entry) = self.maps.backend(id)? else {
            return Ok(None);
        };
        let uuid = Uuid::from_bytes(entry.instance);
        let known = self.desired.instances.get(&uuid);
        Ok(Some(TraceInstance {
            uuid,
            name: known.map_or_else(|| uuid.to_string(), |instance| instance.name.clone()),
            ip: entry.addr.into(),
            state: match known.map(|instance| &instance.state) {
                None => InstanceState::Deleted,
                Some(desired::InstanceState::Running) => InstanceState::Running,
                Some(desired::InstanceState::Draining { .. }) => InstanceState::Draining,
                Some(desired::InstanceState::Stopped) => InstanceState::Stopped,
                Some(desired::InstanceState::Standby) => InstanceState::Standby,
            },
            is_alive: entry.is_alive(),
            backend_id: id,
        }))
    }

    fn choice(&self, choice: choice::Choice) -> Result<TraceChoice, DataplaneError> {
        Ok(TraceChoice {
            instance: self.instance(choice.backend)?,
            why: choice.why,
            is_stored_now: choice.is_stored_now,
        })
    }
}

/// The interface's name in the agent's network namespace; its index where it has none.
pub fn interface_name(ifindex: u32) -> String {
    nix::net::if_::if_indextoname(ifindex)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("interface {ifindex}"))
}

fn prefix_text(key: &SourceKey) -> String {
    let address = IpAddr::from(key.addr);
    let len = key.prefix_len.saturating_sub(SourceKey::POLICY_BITS);
    // All of IPv6 holds the mapped IPv4 addresses too, and then is no IPv4 prefix.
    match address {
        IpAddr::V4(v4) if len >= 96 => format!("{v4}/{}", len - 96),
        IpAddr::V4(v4) => format!("{}/{len}", v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => format!("{v6}/{len}"),
    }
}
