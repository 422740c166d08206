//! What an operator should know about a group and its instances.

use std::collections::BTreeMap;

use lbagent_common::VipKey;
use uuid::Uuid;

use super::super::backends::serving_address;
use super::super::{Condition, Object, Reason};
use super::{Builder, families};
use crate::desired::ForwardingMode;

impl Builder<'_> {
    /// What an operator should know about a group and its instances.
    pub(super) fn add_conditions(&mut self, group: Uuid, ports: &BTreeMap<VipKey, u16>) {
        let conditions = &mut self.target.conditions;
        let mode = self.members.mode(group);
        for family in families(ports) {
            let members = self.members.of(group, family);
            if !members.iter().any(|member| member.is_active) {
                let reason = Reason::NoActiveBackend { family };
                conditions.push(Condition::new(Object::ServiceGroup(group), reason));
            }
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
