//! What an operator should know about a group and its instances.

use uuid::Uuid;

use super::super::backends::{Member, serving_address};
use super::super::{Condition, Family, Object, Reason};
use super::prepare::Prepared;
use super::{Builder, count};
use crate::desired::ForwardingMode;

impl Builder<'_> {
    /// What an operator should know about a group and its instances.
    pub(super) fn add_conditions(&mut self, group: Uuid, prepared: &Prepared) {
        let conditions = &mut self.target.conditions;
        let mode = self.members.mode(group);
        for (&family, (members, _)) in prepared {
            let eligible = self.members.eligible(group, family);
            conditions.extend(
                health_reason(family, members, eligible)
                    .map(|reason| Condition::new(Object::ServiceGroup(group), reason)),
            );
            for member in members.iter().filter(|member| !member.has_path) {
                let reason = Reason::NoRoute {
                    address: member.address,
                };
                conditions.push(Condition::new(Object::Instance(member.instance), reason));
            }
            if mode == ForwardingMode::DsrL2 {
                let apart = members
                    .iter()
                    .filter(|member| member.has_path && !member.entry.shares_link());
                conditions.extend(apart.map(|member| {
                    let reason = Reason::NotOnLink {
                        address: member.address,
                    };
                    Condition::new(Object::Instance(member.instance), reason)
                }));
            }
            for (instance, _) in self.members.instances(group) {
                if serving_address(instance, family, mode).is_none() {
                    let reason = Reason::NoAddress { family };
                    conditions.push(Condition::new(Object::Instance(instance.uuid), reason));
                }
            }
        }
    }
}

/// What keeps instances of one family from taking new connections.
fn health_reason(family: Family, members: &[Member], eligible: usize) -> Option<Reason> {
    if eligible == 0 {
        return Some(Reason::NoActiveBackend { family });
    }
    let (of, unhealthy) = (
        count(members.iter()),
        count(members.iter().filter(|member| member.is_unhealthy)),
    );
    let mut active = members.iter().filter(|member| member.is_active).peekable();
    let is_closed = active.peek().is_none();
    if unhealthy == 0 {
        None
    } else if is_closed || active.all(|member| member.is_unhealthy) {
        Some(Reason::AllUnhealthy { family, is_closed })
    } else {
        Some(Reason::SomeUnhealthy {
            family,
            unhealthy,
            of,
        })
    }
}
