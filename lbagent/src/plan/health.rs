//! What health checks say about instances, as the plan takes it, and what is to be checked.
//!
//! The plan trusts the verdicts that it is given. Where there is none yet, for an instance or a
//! check that is new, or before the first one after a start, the maps tell what the instance counted
//! as last ([`BackendEntry::FLAG_UNHEALTHY`]), and for one that they don't know the group's policy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbagent_api::health::{InitialHealth, OnFailure, WhenAllUnhealthy};
use lbagent_common::BackendEntry;
use uuid::Uuid;

use super::backends::serving_address;
use super::publish::vips_of;
use super::{Family, GatewaySettings};
use crate::desired::{
    Check, HealthPolicy, Instance, InstanceState, Service, ServiceGroup, SharedMap,
};

/// Verdicts on everything that is checked.
pub type Health = SharedMap<CheckedAddress, Fitness>;

/// What a verdict is about: an address of an instance, as long as it serves the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckedAddress {
    /// The instance.
    pub instance: Uuid,
    /// Its group.
    pub group: Uuid,
    /// The address.
    pub address: IpAddr,
}

/// A verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fitness {
    /// Takes new flows by its weight.
    #[default]
    Healthy,
    /// Recovered: takes new flows by a part of its weight.
    Warming {
        /// 1 to 99.
        percent: u8,
    },
    /// Takes no new flows while another one is healthy.
    Unhealthy,
}

impl Fitness {
    /// What a backend's entry says that its instance counted as.
    pub fn of_entry(entry: &BackendEntry, weight: u16) -> Self {
        let share = u32::from(entry.weight) * 100 / u32::from(weight.max(1));
        match u8::try_from(share) {
            _ if entry.is_unhealthy() => Self::Unhealthy,
            Ok(percent @ 1..=99) => Self::Warming { percent },
            _ => Self::Healthy,
        }
    }

    /// The part of a weight that this leaves: at least 1 of a weight above 0.
    pub fn share_of(self, weight: u16) -> u16 {
        match self {
            Self::Warming { percent } => {
                let share = u32::from(weight) * u32::from(percent) / 100;
                u16::try_from(share).unwrap_or(weight).max(weight.min(1))
            }
            Self::Healthy | Self::Unhealthy => weight,
        }
    }
}

/// One check of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The instance's address.
    pub address: IpAddr,
    /// The instance's port.
    pub port: u16,
    /// How.
    pub check: &'a Check,
}

/// What is to be checked of an instance that runs for a group: every address that its packets go to,
/// on each checked port. Different services that lead to the same check are checked once.
pub fn targets<'a>(
    group: &'a ServiceGroup,
    instance: &Instance,
    gateway: &GatewaySettings,
) -> Vec<Target<'a>> {
    let mut targets: Vec<Target<'a>> = Vec::new();
    let health = &group.policy.health;
    if !health.has_checks() || instance.state != InstanceState::Running {
        return targets;
    }
    for service in group.placed().iter() {
        let Some(check) = check_of(health, service) else {
            continue;
        };
        let vips = vips_of(service, gateway);
        let families: BTreeSet<Family> = vips.iter().map(Family::of).collect();
        let mode = group.policy.forwarding_mode;
        let addresses = families
            .into_iter()
            .filter_map(|family| serving_address(instance, family, mode));
        for address in addresses {
            let target = Target {
                address,
                port: check.port.unwrap_or(service.destination_port),
                check,
            };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }
    targets
}

/// The check of a service: its own, or the group's, where that can be made of it.
pub fn check_of<'a>(health: &'a HealthPolicy, service: &Service) -> Option<&'a Check> {
    let protocol = service.protocol.into();
    match health.of_service(service.port, protocol) {
        Some(own) => own.check.as_ref(),
        None => health
            .check
            .as_ref()
            .filter(|check| check.port.is_some() || check.protocol() == protocol),
    }
}

/// What an address of a group's instance counts as.
pub(super) fn fitness(
    group: &ServiceGroup,
    instance: &Instance,
    address: IpAddr,
    known: Option<&BackendEntry>,
    (health, gateway): (&Health, &GatewaySettings),
) -> Fitness {
    let policy = &group.policy.health;
    if !policy.has_checks() {
        return Fitness::Healthy;
    }
    let key = CheckedAddress {
        instance: instance.uuid,
        group: group.uuid,
        address,
    };
    if let Some(verdict) = health.get(&key) {
        return *verdict;
    }
    let carried = known.is_some_and(BackendEntry::is_unhealthy);
    // A draining instance is no longer checked, and keeps its last verdict.
    let is_checked = match instance.state {
        InstanceState::Running => targets(group, instance, gateway)
            .iter()
            .any(|target| target.address == address),
        InstanceState::Draining { .. } => carried,
        InstanceState::Stopped | InstanceState::Standby => false,
    };
    let is_unhealthy = match known {
        Some(_) => carried,
        None => policy.initial == InitialHealth::Unhealthy,
    };
    match is_checked && is_unhealthy {
        true => Fitness::Unhealthy,
        false => Fitness::Healthy,
    }
}

/// What fitness means for the instances of one group and family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    on_failure: OnFailure,
    /// Nobody is healthy, and so everybody serves.
    pub(super) is_open: bool,
}

impl Judgement {
    /// Judges those that would take new flows if nothing was checked.
    pub(super) fn of(policy: &HealthPolicy, mut eligible: impl Iterator<Item = Fitness>) -> Self {
        Self {
            on_failure: policy.on_failure,
            is_open: policy.when_all_unhealthy == WhenAllUnhealthy::FailOpen
                && eligible.all(|fitness| fitness == Fitness::Unhealthy),
        }
    }

    /// Whether an eligible instance takes new flows.
    pub(super) fn takes_flows(&self, fitness: Fitness) -> bool {
        self.is_open || fitness != Fitness::Unhealthy
    }

    /// Whether packets of established flows may be sent to an instance.
    pub(super) fn is_alive(&self, fitness: Fitness, is_eligible: bool) -> bool {
        let is_cut = fitness == Fitness::Unhealthy && self.on_failure == OnFailure::Cut;
        !is_cut || (self.is_open && is_eligible)
    }
}
