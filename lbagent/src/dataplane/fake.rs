//! The data plane's twin in memory, for tests: it keeps the promises of the kernel's maps and
//! checks those of the planner.

mod flows;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use lbagent_common::redirect::Passed;
use lbagent_common::{
    BackendEntry, BackendId, ConnBucket, HostEntry, HostKey, Outcome, PacketCounter, ReturnEntry,
    ReturnKey, Settings, Slot, Steered, TrafficCounter, VipEntry, VipKey, limits,
};

use super::{
    ActualState, Capacity, CounterSnapshot, Dataplane, DataplaneError, FlowMaps, Glimpse,
    HostState, Path, Region, RuleKey, Sampling, Step, StoredFlows, Walk, includes,
};
use crate::plan::{named_regions, previous_region, table_region};

pub use flows::ClientPacket;
use writes::{has_room, refused};

/// Maps and host in memory.
#[derive(Clone, Debug)]
pub struct FakeDataplane {
    /// Capacities of the maps.
    pub capacity: Capacity,
    /// Settings entry.
    pub settings: Settings,
    /// `VIPS`.
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// `SLOTS`.
    pub slots: Vec<Slot>,
    /// `BACKENDS` in use.
    pub backends: BTreeMap<BackendId, BackendEntry>,
    /// `RETURNS`.
    pub returns: BTreeMap<ReturnKey, ReturnEntry>,
    /// `SOURCES` and `QUIC_SERVERS`.
    pub rules: BTreeMap<RuleKey, u32>,
    /// `HOSTS`.
    pub hosts: BTreeMap<HostKey, HostEntry>,
    /// The buckets of `CONNS` that hold something.
    pub conns: BTreeMap<u32, ConnBucket>,
    /// `REFUSALS`.
    pub refusals: BTreeMap<u32, u32>,
    /// The entries of `UDP_SEEN` that were written.
    pub udp_seen: BTreeMap<u32, u32>,
    /// The programs' clock.
    pub tick: u32,
    /// Addresses that the host answers for.
    pub host_addresses: BTreeSet<IpAddr>,
    /// How the host reaches backends.
    pub paths: BTreeMap<IpAddr, Path>,
    /// `OUTCOMES`.
    pub outcomes: Vec<PacketCounter>,
    /// `VIP_COUNTERS`.
    pub vip_counters: BTreeMap<u32, TrafficCounter>,
    /// `BACKEND_COUNTERS`.
    pub backend_counters: BTreeMap<BackendId, TrafficCounter>,
    /// Which places of `TERMINATORS` hold a socket.
    pub terminators: [bool; 2],
    /// Addresses that were probed, in order.
    pub probed: Vec<IpAddr>,
    /// Which packets are told to whoever watches.
    pub sampling: Sampling,
    /// Whether SYNs are answered with cookies.
    pub cookies: bool,
    /// Whether the host refuses to have them.
    pub refuses_cookies: bool,
    /// Steps that were applied.
    pub steps: usize,
    /// Reads that fail before one succeeds again.
    pub failing_reads: usize,
    failing: Option<fn(&Step) -> bool>,
}

impl FakeDataplane {
    /// Empty maps of these capacities.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            settings: Settings::default(),
            vips: BTreeMap::new(),
            slots: vec![Slot::default(); capacity.slots as usize],
            backends: BTreeMap::new(),
            returns: BTreeMap::new(),
            rules: BTreeMap::new(),
            hosts: BTreeMap::new(),
            conns: BTreeMap::new(),
            refusals: BTreeMap::new(),
            udp_seen: BTreeMap::new(),
            tick: 1,
            host_addresses: BTreeSet::new(),
            paths: BTreeMap::new(),
            outcomes: vec![PacketCounter::default(); Outcome::COUNT as usize],
            vip_counters: BTreeMap::new(),
            backend_counters: BTreeMap::new(),
            terminators: [false; 2],
            probed: Vec::new(),
            sampling: Sampling::OFF,
            cookies: false,
            refuses_cookies: false,
            steps: 0,
            failing_reads: 0,
            failing: None,
        }
    }

    /// Makes the steps fail for which `failing` holds; `None` ends it.
    pub fn fail(&mut self, failing: Option<fn(&Step) -> bool>) {
        self.failing = failing;
    }

    /// The slots of a region; `None` beyond the end of the map.
    pub fn region(&self, region: Region) -> Option<&[Slot]> {
        let end = region.offset.checked_add(region.len)?;
        self.slots.get(region.offset as usize..end as usize)
    }

    fn actual(&self) -> ActualState {
        let mut actual = ActualState {
            settings: self.settings,
            capacity: self.capacity,
            vips: self.vips.clone(),
            backends: self.backends.clone(),
            returns: self.returns.clone(),
            rules: self.rules.clone(),
            hosts: self.hosts.clone(),
            host_addresses: self.host_addresses.clone(),
            tick: self.tick,
            ..ActualState::default()
        };
        actual.tables = named_regions(&actual)
            .into_iter()
            .filter_map(|region| Some((region, self.region(region)?.to_vec())))
            .collect();
        actual
    }
}

impl Default for FakeDataplane {
    fn default() -> Self {
        Self::new(Capacity::default())
    }
}

impl Dataplane for FakeDataplane {
    fn read(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<ActualState, DataplaneError> {
        if self.failing_reads > 0 {
            self.failing_reads -= 1;
            return Err(refused(limits::VIPS, "read", "asked to fail"));
        }
        Ok(ActualState {
            paths: self.surroundings(addresses)?.paths,
            ..self.actual()
        })
    }

    fn surroundings(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<HostState, DataplaneError> {
        let path = |address: &IpAddr| Some((*address, *self.paths.get(address)?));
        Ok(HostState {
            addresses: self.host_addresses.clone(),
            paths: addresses.iter().filter_map(path).collect(),
        })
    }

    fn glimpse(
        &mut self,
        regions: &BTreeSet<Region>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<Glimpse, DataplaneError> {
        let paths = self.surroundings(addresses)?.paths;
        let table = |region: &Region| Some((*region, self.region(*region)?.to_vec()));
        Ok(Glimpse {
            tables: regions.iter().filter_map(table).collect(),
            paths,
            tick: self.tick,
        })
    }

    fn begin_round(&mut self) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        Ok(self.host_addresses.clone())
    }

    fn end_round(&mut self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn walk(&mut self, from: Walk) -> Result<(ActualState, Option<Walk>), DataplaneError> {
        let mut found = ActualState::default();
        let next = match from {
            Walk::Vips(_) => {
                found.vips.clone_from(&self.vips);
                Some(Walk::Backends(1))
            }
            Walk::Backends(_) => {
                found.backends.clone_from(&self.backends);
                Some(Walk::Returns(None))
            }
            Walk::Returns(_) => {
                found.returns.clone_from(&self.returns);
                Some(Walk::Hosts(None))
            }
            Walk::Hosts(_) => {
                found.hosts.clone_from(&self.hosts);
                Some(Walk::Rules)
            }
            Walk::Rules => {
                found.rules.clone_from(&self.rules);
                None
            }
        };
        Ok((found, next))
    }

    fn holds(&mut self, entries: &ActualState) -> Result<bool, DataplaneError> {
        Ok(self.settings == entries.settings
            && includes(&self.vips, &entries.vips)
            && includes(&self.backends, &entries.backends)
            && includes(&self.returns, &entries.returns)
            && includes(&self.hosts, &entries.hosts))
    }

    fn stored_flows(
        &mut self,
        vips: &[u32],
        idle_ticks: u32,
    ) -> Result<StoredFlows, DataplaneError> {
        Ok(self.recent_flows(vips, idle_ticks))
    }

    fn apply(&mut self, step: &Step) -> Result<(), DataplaneError> {
        if self.failing.is_some_and(|failing| failing(step)) {
            return Err(refused("any", "write", "asked to fail"));
        }
        match step {
            Step::PutSettings(settings) => self.settings = *settings,
            Step::PutBackend(id, entry) => self.put_backend(*id, *entry)?,
            Step::DeleteBackend(id) => self.delete_backend(*id)?,
            Step::PutTable(region, slots) => self.put_table(*region, slots)?,
            Step::PutVip(key, entry) => self.put_vip(*key, *entry)?,
            Step::DeleteVip(key, entry) => {
                self.vips.remove(key);
                self.vip_counters.remove(&entry.vip_id);
            }
            Step::PutReturn(key, entry) => {
                has_room(limits::RETURNS, &self.returns, key, self.capacity.returns)?;
                self.returns.insert(*key, *entry);
            }
            Step::DeleteReturn(key) => {
                self.returns.remove(key);
            }
            Step::PutRule(key, value) => {
                if let RuleKey::QuicServer(_) = key
                    && !self.backends.contains_key(value)
                {
                    return Err(refused(limits::QUIC_SERVERS, "write", "no such backend"));
                }
                self.rules.insert(*key, *value);
            }
            Step::PutHost(key, entry) => {
                has_room(limits::HOSTS, &self.hosts, key, self.capacity.hosts)?;
                self.hosts.insert(*key, *entry);
            }
            Step::DeleteHost(key) => drop(self.hosts.remove(key)),
            Step::DeleteRule(key) => {
                let named = |entry: &VipEntry| entry.policy_id == key.policy_id();
                if matches!(key, RuleKey::Source(_)) && self.vips.values().any(named) {
                    return Err(refused(limits::SOURCES, "delete", "a VIP names the policy"));
                }
                self.rules.remove(key);
            }
            Step::AddHostAddress(address) => {
                self.host_addresses.insert(*address);
            }
            Step::DeleteHostAddress(address) => {
                self.host_addresses.remove(address);
            }
            Step::Probe(address, _) => self.probed.push(*address),
        }
        self.steps += 1;
        Ok(())
    }

    fn set_terminator(
        &mut self,
        index: u32,
        socket: Option<&OwnedFd>,
    ) -> Result<(), DataplaneError> {
        self.terminators[index as usize] = socket.is_some();
        Ok(())
    }

    fn offer_cookies(&mut self, wanted: bool) -> Result<(), DataplaneError> {
        self.cookies = wanted && !self.refuses_cookies;
        if wanted && self.refuses_cookies {
            return Err(refused("any", "write", "asked to fail"));
        }
        Ok(())
    }

    fn look_up(&self, look_up: &mut dyn FnMut(&dyn FlowMaps)) {
        look_up(self);
    }

    fn set_sampling(&mut self, sampling: Sampling) -> Result<(), DataplaneError> {
        self.sampling = sampling;
        Ok(())
    }

    fn counters(
        &mut self,
        vips: &[u32],
        backends: &[BackendId],
    ) -> Result<CounterSnapshot, DataplaneError> {
        let read = |ids: &[u32], counters: &BTreeMap<u32, TrafficCounter>| {
            ids.iter()
                .map(|id| (*id, counters.get(id).copied().unwrap_or_default()))
                .collect()
        };
        Ok(CounterSnapshot {
            outcomes: self.outcomes.clone(),
            vips: read(vips, &self.vip_counters),
            backends: read(backends, &self.backend_counters),
            steered: vec![0; Steered::COUNT as usize],
            passed: vec![0; Passed::COUNT as usize],
            flooded: Vec::new(),
        })
    }
}
