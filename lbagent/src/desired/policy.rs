//! Setting the policies of service groups and instances, and the rules between the two. What one
//! policy may hold by itself is checked where it is read, [`lbagent_api::policy`].

mod checks;
mod terminated;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbagent_api::Selector;

use super::draft::Draft;
use super::{
    Caller, Clash, Desired, DesiredError, DesiredState, ForwardingMode, GroupPolicy, Instance,
    InstancePolicy, QuicServerId, ServiceGroup, Transport, Written, ports, service_group,
};

pub use terminated::HandlerConflict;

/// Why a policy was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetPolicyError {
    /// There is no such service group.
    #[error("No service group with {0}")]
    NoServiceGroup(Selector),
    /// There is no such instance.
    #[error("No instance with {0}")]
    NoInstance(Selector),
    /// The policy does not go with what else there is.
    #[error(transparent)]
    Conflict(#[from] PolicyConflict),
    /// Another group has a port on a VIP that the policy chooses.
    #[error(transparent)]
    Clash(#[from] Clash),
}

/// What a group publishes, its policy and those of its instances exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyConflict {
    /// A service has an `ip` that is none of the group's VIPs.
    #[error(
        "Service group '{group}' publishes port {port} on {vip}, which is none of its policy's \
         'vips': add it to them, or publish the port elsewhere"
    )]
    OtherVip {
        /// Name of the group.
        group: String,
        /// Published port.
        port: u16,
        /// The service's VIP.
        vip: IpAddr,
    },
    /// The gateway has no such VIP.
    #[error("Value '{vip}' of 'vips' for service group '{group}' is no VIP of this gateway")]
    UnknownVip {
        /// Name of the group.
        group: String,
        /// The address.
        vip: IpAddr,
    },
    /// Only `nat` rewrites ports.
    #[error(
        "Service group '{group}' publishes port {port}/{} as port {destination_port} of its instances, which the forwarding mode {mode} cannot do: publish it with destination port {port}, or use the forwarding mode nat",
        protocol.name()
    )]
    PortRewrite {
        /// Name of the group.
        group: String,
        /// Published port.
        port: u16,
        /// Its protocol.
        protocol: Transport,
        /// Port of the instances.
        destination_port: u16,
        /// The group's mode.
        mode: ForwardingMode,
    },
    /// A setting of a port is for other handlers.
    #[error(transparent)]
    Handlers(#[from] HandlerConflict),
    /// All server ids of a group have the length of its layout.
    #[error(
        "Instance '{instance}' has the QUIC server id {id} of length {}, but service group '{group}' has a server id length of {length}: give it an id of that length, or remove its id first",
        id.as_bytes().len()
    )]
    ServerIdLength {
        /// Name of the instance.
        instance: String,
        /// Its server id.
        id: QuicServerId,
        /// Name of the group.
        group: String,
        /// Bytes of the group's server ids.
        length: u8,
    },
    /// A server id names one instance of a group.
    #[error(
        "QUIC server id {id} belongs to instance '{by}' of service group '{group}' already; choose another one"
    )]
    ServerIdTaken {
        /// The server id.
        id: QuicServerId,
        /// Name of the instance that has it.
        by: String,
        /// Name of the group.
        group: String,
    },
}

impl Desired {
    /// Replaces a group's policy. `vips` are the gateway's.
    pub fn set_group_policy(
        &self,
        caller: Caller,
        selector: &Selector,
        policy: &GroupPolicy,
        vips: &BTreeSet<IpAddr>,
    ) -> Result<Written<Result<ServiceGroup, SetPolicyError>>, DesiredError> {
        self.transact(|draft| set_group(draft, caller, selector, policy, vips))
    }

    /// Replaces an instance's policy.
    pub fn set_instance_policy(
        &self,
        caller: Caller,
        selector: &Selector,
        policy: &InstancePolicy,
    ) -> Result<Written<Result<Instance, SetPolicyError>>, DesiredError> {
        self.transact(|draft| set_instance(draft, caller, selector, policy))
    }
}

fn set_group(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
    policy: &GroupPolicy,
    vips: &BTreeSet<IpAddr>,
) -> Result<ServiceGroup, SetPolicyError> {
    let not_found = || SetPolicyError::NoServiceGroup(selector.clone());
    let former = draft.find_group(caller, selector).ok_or_else(not_found)?;
    let group = ServiceGroup {
        policy: policy.clone(),
        ..former.clone()
    };
    check_group(&group)?;
    for member in draft.state().members(group.uuid) {
        check_server_id_length(&group, member)?;
    }
    if group.policy.vips != former.policy.vips {
        check_vips(&group, vips)?;
        let domains = std::iter::empty();
        ports::check(draft, caller, domains, &group.placed(), vips, Some(&former))?;
    }
    if group != former {
        service_group::replace(draft, &former, group.clone());
    }
    Ok(group)
}

fn set_instance(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
    policy: &InstancePolicy,
) -> Result<Instance, SetPolicyError> {
    let not_found = || SetPolicyError::NoInstance(selector.clone());
    let former = draft
        .find_instance(caller, selector)
        .ok_or_else(not_found)?;
    let instance = Instance {
        policy: policy.clone(),
        ..former.clone()
    };
    if instance == former {
        return Ok(instance);
    }
    if policy.quic_server_id.is_some()
        && let Some(uuid) = instance.service_group
        && let Some(group) = draft.find_group(caller, &Selector::Uuid(uuid))
    {
        check_instance(draft.state(), &group, &instance)?;
        // Written though it does not change, so that another gateway cannot give the same id to
        // another instance, or change the layout, at the same time.
        draft.put_group(group);
    }
    draft.put_instance(instance.clone());
    Ok(instance)
}

/// Whether a group's policy goes with what it publishes. Whatever changes either has to ask.
pub(super) fn check_group(group: &ServiceGroup) -> Result<(), PolicyConflict> {
    terminated::check(group)?;
    let chosen = &group.policy.vips;
    for service in &group.services {
        if let Some(vip) = service
            .ip
            .filter(|vip| !chosen.is_empty() && !chosen.contains(vip))
        {
            let (group, port) = (group.name.clone(), service.port);
            return Err(PolicyConflict::OtherVip { group, port, vip });
        }
    }
    let mode = group.policy.forwarding_mode;
    let rewritten = group
        .services
        .iter()
        .find(|service| service.port != service.destination_port)
        .filter(|_| !mode.rewrites_ports());
    match rewritten {
        None => Ok(()),
        Some(service) => Err(PolicyConflict::PortRewrite {
            group: group.name.clone(),
            port: service.port,
            protocol: service.protocol,
            destination_port: service.destination_port,
            mode,
        }),
    }
}

/// Whether the gateway has the VIPs that a group chose.
pub(super) fn check_vips(
    group: &ServiceGroup,
    vips: &BTreeSet<IpAddr>,
) -> Result<(), PolicyConflict> {
    match group.policy.vips.difference(vips).next() {
        None => Ok(()),
        Some(vip) => Err(PolicyConflict::UnknownVip {
            group: group.name.clone(),
            vip: *vip,
        }),
    }
}

/// Whether an instance's policy goes with its group and the group's other instances in `state`.
pub(super) fn check_instance(
    state: &DesiredState,
    group: &ServiceGroup,
    instance: &Instance,
) -> Result<(), PolicyConflict> {
    check_server_id_length(group, instance)?;
    let Some(id) = &instance.policy.quic_server_id else {
        return Ok(());
    };
    let twin = state.members(group.uuid).find(|other| {
        other.uuid != instance.uuid && other.policy.quic_server_id.as_ref() == Some(id)
    });
    match twin {
        None => Ok(()),
        Some(twin) => Err(PolicyConflict::ServerIdTaken {
            id: id.clone(),
            by: twin.name.clone(),
            group: group.name.clone(),
        }),
    }
}

fn check_server_id_length(group: &ServiceGroup, instance: &Instance) -> Result<(), PolicyConflict> {
    let (Some(layout), Some(id)) = (&group.policy.quic, &instance.policy.quic_server_id) else {
        return Ok(());
    };
    if id.as_bytes().len() == usize::from(layout.server_id_length) {
        return Ok(());
    }
    Err(PolicyConflict::ServerIdLength {
        instance: instance.name.clone(),
        id: id.clone(),
        group: group.name.clone(),
        length: layout.server_id_length,
    })
}

/// What of a group's policy has no effect yet.
pub fn group_remarks(state: &DesiredState, group: &ServiceGroup) -> Vec<String> {
    let name = &group.name;
    let (with_id, without_id): (Vec<&Instance>, Vec<&Instance>) = state
        .members(group.uuid)
        .partition(|member| member.policy.quic_server_id.is_some());
    let mut remarks: Vec<String> = terminated::remarks(group)
        .chain(checks::remarks(group))
        .collect();
    if group.policy.quic.is_none() {
        if let Some(member) = with_id.first() {
            remarks.push(format!(
                "Instance '{}' has a QUIC server id, which has no effect: service group '{name}' \
                 has no QUIC layout",
                member.name
            ));
        }
        return remarks;
    }
    if !publishes_udp(group) {
        remarks.push(format!(
            "The QUIC layout has no effect: service group '{name}' publishes no UDP port"
        ));
    }
    if let Some(member) = without_id.first() {
        remarks.push(format!(
            "{} of {} instances of service group '{name}' have no QUIC server id ('{}'): give each \
             one, or packets of a client that moved may go elsewhere",
            without_id.len(),
            without_id.len() + with_id.len(),
            member.name
        ));
    }
    remarks
}

fn publishes_udp(group: &ServiceGroup) -> bool {
    let mut services = group.services.iter();
    services.any(|service| service.protocol == Transport::Udp)
}

/// What of an instance's policy has no effect yet.
pub fn instance_remarks(state: &DesiredState, instance: &Instance) -> Vec<String> {
    if instance.policy.quic_server_id.is_none() {
        return Vec::new();
    }
    let group = instance
        .service_group
        .and_then(|group| state.service_groups.get(&group));
    let why = match group {
        None => "the instance serves no service group".to_owned(),
        Some(group) if group.policy.quic.is_none() => {
            format!("service group '{}' has no QUIC layout", group.name)
        }
        Some(_) => return Vec::new(),
    };
    vec![format!("The QUIC server id has no effect: {why}")]
}

#[cfg(test)]
mod tests;
