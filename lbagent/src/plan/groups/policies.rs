//! Rules of the groups' policies: which sources they admit, which backend has which QUIC server id.
//!
//! A VIP names its rules by a policy id. Source rules are never changed in place: a packet between
//! two writes could meet half of them. Another set gets another id, and the VIPs' entries switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_common::{
    Addr, BackendId, MAX_SERVER_ID, QuicServerKey, SourceEntry, SourceKey, VipEntry, VipKey, limits,
};
use uuid::Uuid;

use super::super::diff::Target;
use super::super::ids::Ids;
use super::super::in_use::InUse;
use super::super::{Condition, Family, Object, PlanInput};
use super::{map_full, room};
use crate::dataplane::RuleKey;
use crate::desired::{ServiceGroup, SourcePolicy};

/// Policy ids are below: room for two of each group while rules are replaced.
const ID_CAPACITY: u32 = 1 << 20;

/// What a prefix says, without the policy that says it.
type Rules = BTreeMap<(u32, Addr), u32>;

/// Backends that serve a group's VIPs of one family.
pub(super) type Servers = BTreeMap<(Uuid, Family), Vec<BackendId>>;

/// Gives the target's VIPs their policies and adds the rules; returns the last id handed out. Each
/// family of a group has an id of its own, because an instance is another backend in each.
pub(super) fn assign(
    input: &PlanInput<'_>,
    in_use: &InUse,
    servers: &Servers,
    target: &mut Target,
) -> u32 {
    let mut assigner = Assigner {
        ids: Ids::new(&in_use.policy_ids, ID_CAPACITY, input.cursor.policy),
        source_room: room(limits::MAX_SOURCES, in_use.sources),
        input,
    };
    let mut vips: BTreeMap<(Uuid, Family), Vec<VipKey>> = BTreeMap::new();
    for (key, entry) in target.vips.iter().filter(|(key, _)| !key.is_address()) {
        let group = Uuid::from_bytes(entry.service_group);
        let family = Family::of_addr(&key.addr);
        vips.entry((group, family)).or_default().push(*key);
    }
    for (owner, keys) in vips {
        let backends = servers.get(&owner).map_or(&[][..], Vec::as_slice);
        if let Some(group) = input.desired.service_groups.get(&owner.0) {
            assigner.group(group, &keys, backends, target);
        }
    }
    assigner.ids.cursor()
}

struct Assigner<'a> {
    input: &'a PlanInput<'a>,
    ids: Ids<'a>,
    source_room: u32,
}

impl Assigner<'_> {
    fn group(
        &mut self,
        group: &ServiceGroup,
        keys: &[VipKey],
        backends: &[BackendId],
        target: &mut Target,
    ) {
        let rules = source_rules(&group.policy.sources);
        let servers = self.servers(group, backends, target);
        if rules.is_empty() && servers.is_empty() {
            return;
        }
        let known = self.known_id(keys, group.uuid, &rules);
        let needed = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let id = match known {
            Some(id) => id,
            None if needed <= self.source_room => {
                let Some(id) = self.ids.allocate() else {
                    return;
                };
                self.source_room -= needed;
                id
            }
            None => {
                let full = map_full(
                    limits::SOURCES,
                    needed,
                    self.source_room,
                    limits::MAX_SOURCES,
                );
                let object = Object::ServiceGroup(group.uuid);
                target.conditions.push(Condition::new(object, full));
                return self.keep(keys, group.uuid, target);
            }
        };
        let flags = if rules.is_empty() {
            0
        } else {
            VipEntry::FLAG_SOURCES
        };
        for ((prefix_len, addr), verdict) in rules {
            let key = SourceKey::new(id, addr, prefix_len as u8);
            target.rules.insert(RuleKey::Source(key), verdict);
        }
        let layout = group.policy.quic.filter(|_| !servers.is_empty());
        for (server, backend) in servers {
            let key = QuicServerKey {
                policy_id: id,
                ..server
            };
            target.rules.insert(RuleKey::QuicServer(key), backend);
        }
        for key in keys {
            if let Some(entry) = target.vips.get_mut(key) {
                entry.policy_id = id;
                entry.flags |= flags;
                entry.quic_server_id_len = layout.map_or(0, |layout| layout.server_id_length);
                entry.quic_config_rotation = layout.map_or(0, |layout| layout.config_rotation);
            }
        }
    }

    /// The id under which the maps hold just these source rules for the group.
    fn known_id(&self, keys: &[VipKey], group: Uuid, wanted: &Rules) -> Option<u32> {
        let actual = self.input.actual;
        let ids: BTreeSet<u32> = keys
            .iter()
            .filter_map(|key| actual.vips.get(key))
            .filter(|entry| entry.service_group == *group.as_bytes() && entry.policy_id != 0)
            .map(|entry| entry.policy_id)
            .collect();
        ids.into_iter().find(|id| {
            let held: Rules = actual
                .rules
                .iter()
                .filter_map(|(key, verdict)| match key {
                    RuleKey::Source(key) if key.policy_id() == *id => Some((
                        (key.prefix_len - SourceKey::POLICY_BITS, key.addr),
                        *verdict,
                    )),
                    _ => None,
                })
                .collect();
            held == *wanted
        })
    }

    /// Backends by QUIC server id.
    fn servers(
        &self,
        group: &ServiceGroup,
        backends: &[BackendId],
        target: &Target,
    ) -> BTreeMap<QuicServerKey, BackendId> {
        let Some(layout) = group.policy.quic else {
            return BTreeMap::new();
        };
        let mut servers = BTreeMap::new();
        for id in backends {
            let entry = target.backends.get(id);
            let instance = entry.map(|entry| Uuid::from_bytes(entry.instance));
            let instance = instance.and_then(|uuid| self.input.desired.instances.get(&uuid));
            let Some(server) = instance.and_then(|i| i.policy.quic_server_id.as_ref()) else {
                continue;
            };
            let bytes = server.as_bytes();
            if bytes.len() != usize::from(layout.server_id_length) || bytes.len() > MAX_SERVER_ID {
                continue;
            }
            let mut key = QuicServerKey {
                policy_id: 0,
                len: layout.server_id_length,
                id: [0; MAX_SERVER_ID],
            };
            key.id[..bytes.len()].copy_from_slice(bytes);
            servers.entry(key).or_insert(*id);
        }
        servers
    }

    /// Leaves a group with the rules that it has: without room for the new ones, its VIPs that
    /// have rules keep them, and VIPs that would have none are not published.
    fn keep(&self, keys: &[VipKey], group: Uuid, target: &mut Target) {
        let actual = self.input.actual;
        for key in keys {
            let former = actual
                .vips
                .get(key)
                .filter(|entry| entry.service_group == *group.as_bytes());
            match (former, target.vips.get_mut(key)) {
                (Some(former), Some(entry)) => {
                    entry.policy_id = former.policy_id;
                    entry.flags |= former.flags & VipEntry::FLAG_SOURCES;
                    entry.quic_server_id_len = former.quic_server_id_len;
                    entry.quic_config_rotation = former.quic_config_rotation;
                    let id = former.policy_id;
                    let rules = actual.rules.iter().filter(|(key, _)| key.policy_id() == id);
                    target
                        .rules
                        .extend(rules.map(|(key, value)| (*key, *value)));
                }
                _ => drop(target.vips.remove(key)),
            }
        }
    }
}

/// A policy as the trie holds it. Where something is allowed explicitly, everything else is not.
fn source_rules(policy: &SourcePolicy) -> Rules {
    let rule = |prefix: &ipnetwork::IpNetwork, verdict| {
        let mapped = match prefix.ip() {
            IpAddr::V4(_) => 96 + u32::from(prefix.prefix()),
            IpAddr::V6(_) => u32::from(prefix.prefix()),
        };
        ((mapped, Addr::from(prefix.ip())), verdict)
    };
    let mut rules: Rules = policy
        .allow
        .iter()
        .map(|prefix| rule(prefix, SourceEntry::ALLOW))
        .chain(
            policy
                .deny
                .iter()
                .map(|prefix| rule(prefix, SourceEntry::DENY)),
        )
        .collect();
    if !policy.allow.is_empty() {
        rules
            .entry((0, Addr::UNSPECIFIED))
            .or_insert(SourceEntry::DENY);
    }
    // "An IPv6 prefix holds no IPv4 address": mapped addresses lie below ::/0 to ::/80.
    if rules
        .iter()
        .any(|((len, addr), _)| *len < 96 && !addr.is_v4() && holds_mapped(*len, addr))
    {
        let default = if policy.allow.is_empty() {
            SourceEntry::ALLOW
        } else {
            SourceEntry::DENY
        };
        let all_v4 = Addr::from(IpAddr::from([0_u8; 4]));
        rules.entry((96, all_v4)).or_insert(default);
    }
    rules
}

/// Whether an IPv6 prefix holds the mapped IPv4 addresses.
fn holds_mapped(prefix_len: u32, addr: &Addr) -> bool {
    let mapped = Addr::from(IpAddr::from([0_u8; 4]));
    addr.agrees(&mapped, &Addr::mask(prefix_len.min(128) as u8))
}
