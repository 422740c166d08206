//! Applies a plan step by step. A step that fails takes with it the steps that rely on it, no
//! others: one group's trouble does not hold up the rest.

use std::collections::BTreeSet;

use lbagent_common::{BackendId, VipEntry};
use uuid::Uuid;

use super::chain;
use crate::dataplane::{Dataplane, DataplaneError, Region, RuleKey, Step};
use crate::plan::{Condition, Object, Plan, Reason, previous_region, table_region};

/// What became of a plan.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Steps that succeeded.
    pub(super) applied: usize,
    /// Steps that failed, or were left out because of one that failed.
    pub(super) failures: Vec<Failure>,
}

/// A step that was not done.
#[derive(Debug)]
pub(super) struct Failure {
    object: Object,
    step: String,
    /// `None`: left out.
    error: Option<DataplaneError>,
}

impl Report {
    /// A condition for each object that a failed step was about.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.failures.iter().filter_map(|failure| {
            let reason = match failure.error.as_ref()? {
                DataplaneError::MapFull { map, capacity } => Reason::MapFull {
                    map,
                    needed: 1,
                    free: 0,
                    capacity: *capacity,
                },
                error => Reason::StepFailed {
                    step: failure.step.clone(),
                    error: chain(error),
                },
            };
            Some(Condition::new(failure.object, reason))
        })
    }

    /// The first step that failed on a map, and why.
    pub(super) fn map_error(&self) -> Option<(&str, &DataplaneError)> {
        self.failures.iter().find_map(|failure| {
            let error = failure.error.as_ref()?;
            let of_host = matches!(
                error,
                DataplaneError::Host { .. } | DataplaneError::NeighboursFull
            );
            (!of_host).then_some((failure.step.as_str(), error))
        })
    }

    /// The pass's error: the first failure, and how many there are.
    pub(super) fn error(&self) -> Option<String> {
        let first = self.failures.iter().find_map(|failure| {
            Some(format!(
                "{}: {}",
                failure.step,
                chain(failure.error.as_ref()?)
            ))
        })?;
        Some(match self.failures.len() {
            1 => first,
            more => format!("{first} (and {} more steps not done)", more - 1),
        })
    }
}

/// Writes every step whose ground is laid.
pub(super) fn apply(dataplane: &mut dyn Dataplane, plan: &Plan) -> Report {
    let mut report = Report::default();
    let mut missing = Missing::default();
    for step in &plan.steps {
        let result = if missing.is_ground_of(step) {
            Err(None)
        } else {
            dataplane.apply(step).map_err(Some)
        };
        match result {
            Ok(()) => report.applied += 1,
            Err(error) => {
                tracing::debug!(?error, "not done: {}", describe(step));
                missing.add(step);
                missing.neighbours |= matches!(error, Some(DataplaneError::NeighboursFull));
                let (object, step) = (object_of(step, &plan.steps), describe(step));
                report.failures.push(Failure {
                    object,
                    step,
                    error,
                });
            }
        }
    }
    report
}

/// What failed steps should have written.
#[derive(Default)]
struct Missing {
    settings: bool,
    backends: BTreeSet<BackendId>,
    regions: BTreeSet<Region>,
    vip_ids: BTreeSet<u32>,
    policies: BTreeSet<u32>,
    /// Some host name.
    hosts: bool,
    /// The kernel takes no more neighbours: it need not be asked for each of the rest.
    neighbours: bool,
    /// A VIP was not switched, so its old table is still in use, with the backends in it.
    switch: bool,
}

impl Missing {
    fn add(&mut self, step: &Step) {
        match step {
            Step::PutSettings(_) => self.settings = true,
            Step::PutBackend(id, _) => drop(self.backends.insert(*id)),
            Step::PutTable(region, _) => drop(self.regions.insert(*region)),
            Step::PutReturn(_, entry) => drop(self.vip_ids.insert(entry.vip_id)),
            Step::PutVip(..) | Step::DeleteVip(..) => self.switch = true,
            Step::PutRule(key, _) => drop(self.policies.insert(key.policy_id())),
            Step::PutHost(..) | Step::DeleteHost(_) => self.hosts = true,
            Step::DeleteBackend(_)
            | Step::DeleteReturn(_)
            | Step::DeleteRule(_)
            | Step::AddHostAddress(_)
            | Step::DeleteHostAddress(_)
            | Step::Probe(..) => {}
        }
    }

    /// Whether a step relies on one that failed.
    fn is_ground_of(&self, step: &Step) -> bool {
        match step {
            // Without settings no packet is balanced as planned: nothing is switched.
            Step::PutTable(_, slots) => {
                self.settings
                    || slots.iter().any(|slot| {
                        self.backends.contains(&slot.current)
                            || self.backends.contains(&slot.previous())
                    })
            }
            Step::PutVip(_, entry) => {
                let regions = [table_region(entry), previous_region(entry)];
                self.settings
                    || regions
                        .into_iter()
                        .flatten()
                        .any(|region| self.regions.contains(&region))
                    || self.vip_ids.contains(&entry.vip_id)
                    || self.policies.contains(&entry.policy_id)
                    || self.hosts && entry.flags & VipEntry::FLAG_REDIRECT != 0
            }
            Step::PutRule(RuleKey::QuicServer(_), id) => self.backends.contains(id),
            Step::DeleteBackend(_) | Step::DeleteReturn(_) | Step::DeleteRule(_) => self.switch,
            Step::PutSettings(_)
            | Step::PutBackend(..)
            | Step::PutReturn(..)
            | Step::PutRule(..)
            | Step::PutHost(..)
            | Step::DeleteHost(_)
            | Step::DeleteVip(..)
            | Step::AddHostAddress(_)
            | Step::DeleteHostAddress(_) => false,
            Step::Probe(..) => self.neighbours,
        }
    }
}

/// The object that an operator would look for.
fn object_of(step: &Step, steps: &[Step]) -> Object {
    let group_where = |names: &dyn Fn(&lbagent_common::VipEntry) -> bool| {
        steps.iter().find_map(|step| match step {
            Step::PutVip(_, entry) if names(entry) => Some(group(entry.service_group)),
            _ => None,
        })
    };
    match step {
        Step::PutBackend(_, entry) => Object::Instance(Uuid::from_bytes(entry.instance)),
        Step::PutVip(key, entry) | Step::DeleteVip(key, entry)
            if key.is_address() || entry.is_terminated() =>
        {
            Object::Vip(key.addr.into())
        }
        Step::PutVip(_, entry) | Step::DeleteVip(_, entry) => group(entry.service_group),
        Step::PutTable(region, _) => group_where(&|entry| {
            table_region(entry) == Some(*region) || previous_region(entry) == Some(*region)
        })
        .unwrap_or(Object::Gateway),
        Step::PutReturn(_, returned) => {
            group_where(&|entry| entry.vip_id == returned.vip_id).unwrap_or(Object::Gateway)
        }
        Step::AddHostAddress(address) | Step::DeleteHostAddress(address) => Object::Vip(*address),
        Step::PutRule(key, _) => {
            group_where(&|entry| entry.policy_id == key.policy_id()).unwrap_or(Object::Gateway)
        }
        Step::PutSettings(_)
        | Step::DeleteBackend(_)
        | Step::DeleteReturn(_)
        | Step::DeleteRule(_)
        | Step::PutHost(..)
        | Step::DeleteHost(_)
        | Step::Probe(..) => Object::Gateway,
    }
}

fn group(uuid: [u8; 16]) -> Object {
    Object::ServiceGroup(Uuid::from_bytes(uuid))
}

/// The step in an operator's words.
fn describe(step: &Step) -> String {
    let vip = |key: &lbagent_common::VipKey| {
        let address = std::net::IpAddr::from(key.addr);
        if key.is_address() {
            format!("VIP {address}")
        } else {
            format!(
                "VIP {address} port {} protocol {}",
                key.port.get(),
                key.protocol.0
            )
        }
    };
    let source = |key: &lbagent_common::ReturnKey| {
        format!(
            "{} port {}",
            std::net::IpAddr::from(key.backend),
            key.port.get()
        )
    };
    let rule = |key: &RuleKey| match key {
        RuleKey::Source(key) => format!(
            "the rule for sources {}/{}",
            std::net::IpAddr::from(key.addr),
            key.prefix_len
        ),
        RuleKey::QuicServer(key) => format!("a QUIC server id of policy {}", key.policy_id),
    };
    match step {
        Step::PutSettings(_) => "write the settings".into(),
        Step::PutBackend(id, entry) => {
            format!(
                "write backend {id} ({})",
                std::net::IpAddr::from(entry.addr)
            )
        }
        Step::DeleteBackend(id) => format!("clear backend {id}"),
        Step::PutTable(region, _) => {
            format!(
                "fill slots {} to {}",
                region.offset,
                region.offset + region.len - 1
            )
        }
        Step::PutVip(key, _) => format!("switch {}", vip(key)),
        Step::DeleteVip(key, _) => format!("remove {}", vip(key)),
        Step::PutReturn(key, _) => format!("write the reply source {}", source(key)),
        Step::DeleteReturn(key) => format!("remove the reply source {}", source(key)),
        Step::PutRule(key, _) => format!("write {}", rule(key)),
        Step::DeleteRule(key) => format!("remove {}", rule(key)),
        Step::PutHost(key, _) => format!("write the host name {}", key.text()),
        Step::DeleteHost(key) => format!("remove the host name {}", key.text()),
        Step::AddHostAddress(address) => format!("make the host answer for {address}"),
        Step::DeleteHostAddress(address) => format!("stop the host answering for {address}"),
        Step::Probe(address, _) => format!("resolve the link address of {address}"),
    }
}
