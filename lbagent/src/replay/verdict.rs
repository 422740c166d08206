//! What became of one packet, with the names that operators gave.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail};
use lbagent_common::{BackendId, Outcome, VipKey};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::dataplane::{Action, ActualState, CounterSnapshot};
use crate::desired::DesiredState;

use super::destination;

/// One line of the verdicts file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Of the packet in the input, from 0.
    pub(super) index: u64,
    /// What the program returned.
    #[serde(serialize_with = "action_label")]
    pub(super) action: Action,
    /// Label of the outcome.
    pub(super) reason: &'static str,
    /// The service group that the packet asked for, or that its backend belongs to.
    pub(super) service_group: Option<String>,
    /// The backend that the packet went to or came from.
    pub(super) backend: Option<Backend>,
    /// Of the packet in the output, from 0; absent when it was dropped.
    pub(super) out_index: Option<u64>,
}

/// A backend by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Backend {
    /// The instance.
    pub(super) instance: String,
    /// Its address.
    pub(super) address: IpAddr,
}

fn action_label<S: Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match action {
        Action::Tx => "tx",
        Action::Redirect => "redirect",
        Action::Pass => "pass",
        Action::Drop => "drop",
    })
}

/// Finds names for what the maps hold.
pub(super) struct Namer {
    groups_by_vip: BTreeMap<VipKey, String>,
    backends: BTreeMap<BackendId, (Backend, Option<String>)>,
}

impl Namer {
    pub(super) fn new(desired: &DesiredState, actual: &ActualState) -> Self {
        let group = |uuid: Uuid| {
            desired
                .service_groups
                .get(&uuid)
                .map(|group| group.name.clone())
        };
        let groups_by_vip = actual
            .vips
            .iter()
            .filter(|(key, _)| !key.is_address())
            .filter_map(|(key, entry)| Some((*key, group(Uuid::from_bytes(entry.service_group))?)))
            .collect();
        let backends = actual
            .backends
            .iter()
            .map(|(id, entry)| {
                let uuid = Uuid::from_bytes(entry.instance);
                let instance = desired.instances.get(&uuid);
                let backend = Backend {
                    instance: instance
                        .map_or_else(|| uuid.to_string(), |instance| instance.name.clone()),
                    address: entry.addr.into(),
                };
                let group = instance
                    .and_then(|instance| instance.service_group)
                    .and_then(group);
                (*id, (backend, group))
            })
            .collect();
        Self {
            groups_by_vip,
            backends,
        }
    }

    /// The verdict of a packet, from what the counters say of it.
    pub(super) fn verdict(
        &self,
        packet: &[u8],
        action: Action,
        before: &CounterSnapshot,
        after: &CounterSnapshot,
    ) -> Result<Verdict> {
        let outcome = counted_outcome(before, after)?;
        let counted = after.backends.iter().find(|(id, counter)| {
            before
                .backends
                .get(id)
                .is_none_or(|before| before != *counter)
        });
        let (backend, group_of_backend) = match counted.and_then(|(id, _)| self.backends.get(id)) {
            Some((backend, group)) => (Some(backend.clone()), group.clone()),
            None => (None, None),
        };
        let group_of_vip =
            destination::parse(packet).and_then(|key| self.groups_by_vip.get(&key).cloned());
        Ok(Verdict {
            index: 0,
            action,
            reason: outcome.label(),
            service_group: group_of_vip.or(group_of_backend),
            backend,
            out_index: None,
        })
    }
}

/// The one outcome whose counter rose by one.
fn counted_outcome(before: &CounterSnapshot, after: &CounterSnapshot) -> Result<Outcome> {
    let risen: Vec<_> = Outcome::ALL
        .iter()
        .zip(before.outcomes.iter().zip(&after.outcomes))
        .filter(|(_, (before, after))| after.packets != before.packets)
        .map(|(outcome, (before, after))| (*outcome, after.packets.wrapping_sub(before.packets)))
        .collect();
    match risen[..] {
        [(outcome, 1)] => Ok(outcome),
        _ => bail!(
            "the packet was counted as {risen:?} instead of once; this is a mistake in the BPF object"
        ),
    }
}

#[cfg(test)]
mod tests {
    use lbagent_common::PacketCounter;

    use super::*;

    #[test]
    fn exactly_one_outcome_is_counted() {
        #[track_caller]
        fn check(risen: &[(Outcome, u64)], expected: Option<Outcome>) {
            let before = CounterSnapshot {
                outcomes: vec![
                    PacketCounter {
                        packets: 7,
                        bytes: 7
                    };
                    Outcome::ALL.len()
                ],
                ..CounterSnapshot::default()
            };
            let mut after = before.clone();
            for (outcome, by) in risen {
                after.outcomes[*outcome as usize].packets += by;
            }
            assert_eq!(counted_outcome(&before, &after).ok(), expected);
        }
        check(&[(Outcome::ForwardTx, 1)], Some(Outcome::ForwardTx));
        check(
            &[(Outcome::DropNotConfigured, 1)],
            Some(Outcome::DropNotConfigured),
        );
        check(&[], None);
        check(&[(Outcome::ForwardTx, 2)], None);
        check(&[(Outcome::ForwardTx, 1), (Outcome::PassNotIp, 1)], None);
    }
}
