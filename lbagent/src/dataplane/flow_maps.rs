//! Single entries of the maps: what the programs look up for one flow.

use lbagent_common::{
    Addr, BackendEntry, BackendId, ConnBucket, HostEntry, HostKey, NatFlowEntry, NatFlowKey,
    ReturnEntry, ReturnKey, Settings, Slot, SourceKey, VipEntry, VipKey,
};

use super::fake::FakeDataplane;
use super::kernel::KernelDataplane;
use super::read::tick;
use super::{DataplaneError, Region, RuleKey};

type Found<T> = Result<Option<T>, DataplaneError>;

/// Looks single entries up, as the programs do.
pub trait FlowMaps {
    /// The programs' clock, in ticks of 2^30 ns.
    fn tick(&self) -> u32;
    /// The settings entry as it is, leases included.
    fn settings(&self) -> Result<Settings, DataplaneError>;
    /// A published port or a VIP address.
    fn vip(&self, key: &VipKey) -> Found<VipEntry>;
    /// Where a host name is served.
    fn host(&self, key: &HostKey) -> Found<HostEntry>;
    /// Every published port and VIP address.
    fn vips(&self) -> Result<Vec<(VipKey, VipEntry)>, DataplaneError>;
    /// The longest prefix of a policy that holds an address, and its verdict.
    fn source_rule(&self, policy_id: u32, source: &Addr) -> Found<(SourceKey, u32)>;
    /// A slot; `None` beyond the end of the map.
    fn slot(&self, index: u32) -> Found<Slot>;
    /// A backend in use.
    fn backend(&self, id: BackendId) -> Found<BackendEntry>;
    /// Every backend in use.
    fn backends(&self) -> Result<Vec<(BackendId, BackendEntry)>, DataplaneError>;
    /// Every reply source.
    fn returns(&self) -> Result<Vec<(ReturnKey, ReturnEntry)>, DataplaneError>;
    /// The bucket that a flow with this tag may be stored in.
    fn conn_bucket(&self, tag: u64) -> Option<ConnBucket>;
    /// The entry of a flow's way back.
    fn nat_flow(&self, key: &NatFlowKey) -> Found<NatFlowEntry>;
    /// When flows with a hash last sent a UDP packet, in ticks; 0 for never.
    fn udp_seen(&self, hash: u64) -> Result<u32, DataplaneError>;
}

impl FlowMaps for KernelDataplane {
    fn tick(&self) -> u32 {
        tick()
    }

    fn settings(&self) -> Result<Settings, DataplaneError> {
        self.loaded.maps.settings.get(0)
    }

    fn vip(&self, key: &VipKey) -> Found<VipEntry> {
        self.loaded.maps.vips.get(key)
    }

    fn host(&self, key: &HostKey) -> Found<HostEntry> {
        self.loaded.maps.hosts.get(key)
    }

    fn vips(&self) -> Result<Vec<(VipKey, VipEntry)>, DataplaneError> {
        self.loaded.maps.vips.entries()
    }

    fn source_rule(&self, policy_id: u32, source: &Addr) -> Found<(SourceKey, u32)> {
        // A lookup in the trie tells the verdict alone.
        let rules = self.loaded.maps.sources.entries()?.into_iter();
        Ok(longest(
            rules.map(|(key, entry)| (key, entry.verdict)),
            policy_id,
            source,
        ))
    }

    fn slot(&self, index: u32) -> Found<Slot> {
        let region = Region {
            offset: index,
            len: 1,
        };
        if !self.loaded.maps.slots.holds(region) {
            return Ok(None);
        }
        Ok(self.loaded.maps.slots.read(region)?.first().copied())
    }

    fn backend(&self, id: BackendId) -> Found<BackendEntry> {
        let entry = self.loaded.maps.backends.get(id);
        Ok(entry.filter(|entry| id != 0 && entry.flags != 0))
    }

    fn backends(&self) -> Result<Vec<(BackendId, BackendEntry)>, DataplaneError> {
        Ok(self.loaded.maps.backends.used().collect())
    }

    fn returns(&self) -> Result<Vec<(ReturnKey, ReturnEntry)>, DataplaneError> {
        self.loaded.maps.returns.entries()
    }

    fn conn_bucket(&self, tag: u64) -> Option<ConnBucket> {
        self.loaded.maps.conns.bucket_of(tag)
    }

    fn nat_flow(&self, key: &NatFlowKey) -> Found<NatFlowEntry> {
        self.loaded.maps.nat_flows.get(key)
    }

    fn udp_seen(&self, hash: u64) -> Result<u32, DataplaneError> {
        self.loaded
            .maps
            .udp_seen
            .get(hash as u32 & (lbagent_common::limits::UDP_SEEN_LEN - 1))
    }
}

/// The twin has no clock and stores no flows: it has no packets.
impl FlowMaps for FakeDataplane {
    fn tick(&self) -> u32 {
        0
    }

    fn settings(&self) -> Result<Settings, DataplaneError> {
        Ok(self.settings)
    }

    fn vip(&self, key: &VipKey) -> Found<VipEntry> {
        Ok(self.vips.get(key).copied())
    }

    fn host(&self, key: &HostKey) -> Found<HostEntry> {
        Ok(self.hosts.get(key).copied())
    }

    fn vips(&self) -> Result<Vec<(VipKey, VipEntry)>, DataplaneError> {
        Ok(self
            .vips
            .iter()
            .map(|(key, entry)| (*key, *entry))
            .collect())
    }

    fn source_rule(&self, policy_id: u32, source: &Addr) -> Found<(SourceKey, u32)> {
        let rules = self.rules.iter().filter_map(|(key, verdict)| match key {
            RuleKey::Source(key) => Some((*key, *verdict)),
            RuleKey::QuicServer(_) => None,
        });
        Ok(longest(rules, policy_id, source))
    }

    fn slot(&self, index: u32) -> Found<Slot> {
        Ok(self.slots.get(index as usize).copied())
    }

    fn backend(&self, id: BackendId) -> Found<BackendEntry> {
        Ok(self.backends.get(&id).copied())
    }

    fn backends(&self) -> Result<Vec<(BackendId, BackendEntry)>, DataplaneError> {
        Ok(self
            .backends
            .iter()
            .map(|(id, entry)| (*id, *entry))
            .collect())
    }

    fn returns(&self) -> Result<Vec<(ReturnKey, ReturnEntry)>, DataplaneError> {
        Ok(self
            .returns
            .iter()
            .map(|(key, entry)| (*key, *entry))
            .collect())
    }

    fn conn_bucket(&self, _tag: u64) -> Option<ConnBucket> {
        Some(ConnBucket::default())
    }

    fn nat_flow(&self, _key: &NatFlowKey) -> Found<NatFlowEntry> {
        Ok(None)
    }

    fn udp_seen(&self, _hash: u64) -> Result<u32, DataplaneError> {
        Ok(0)
    }
}

/// What a trie would find.
fn longest(
    rules: impl Iterator<Item = (SourceKey, u32)>,
    policy_id: u32,
    source: &Addr,
) -> Option<(SourceKey, u32)> {
    let holds = |key: &SourceKey| {
        let len = key.prefix_len.saturating_sub(SourceKey::POLICY_BITS);
        let mask = Addr::mask(u8::try_from(len).unwrap_or(128));
        key.policy_id() == policy_id && key.addr.agrees(source, &mask)
    };
    rules
        .filter(|(key, _)| holds(key))
        .max_by_key(|(key, _)| key.prefix_len)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn the_longest_prefix_of_the_policy_is_found() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let rules = [
            (SourceKey::new(1, addr("0.0.0.0"), 96), 1),
            (SourceKey::new(1, addr("10.0.0.0"), 96 + 8), 0),
            (SourceKey::new(1, addr("10.1.0.0"), 96 + 16), 1),
            (SourceKey::new(2, addr("10.1.2.0"), 96 + 24), 0),
        ];
        for (source, policy, expected) in [
            ("10.1.2.3", 1, Some(2)),
            ("10.2.2.3", 1, Some(1)),
            ("192.0.2.1", 1, Some(0)),
            ("10.1.2.3", 2, Some(3)),
            ("10.1.3.3", 2, None),
            ("2001:db8::1", 1, None),
        ] {
            let found = longest(rules.into_iter(), policy, &addr(source));
            assert_eq!(found, expected.map(|index: usize| rules[index]), "{source}");
        }
    }
}
