//! The data plane in the kernel: maps, attached programs, and the host around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aya::programs::{SchedClassifier, Xdp};
use lbagent_common::redirect::Passed;
use lbagent_common::{BackendEntry, BackendId, Outcome, SourceEntry, Steered, VipEntry, VipKey};
use tokio::sync::watch;

use super::attach::{InterfaceStatus, XdpMode};
use super::host::VipMode;
use super::load::{self, Loaded};
use super::object::Object;
use super::read::{self, known_paths, read_maps, read_tables, tick};
use super::running::Running;
use super::staging::Staged;
use super::surroundings::Host;
use super::typed_maps::Maps;
use super::watch::Changes;
use super::{
    ActualState, Capacity, CounterSnapshot, Dataplane, DataplaneError, EventReader, FlowMaps,
    Glimpse, HostState, LoadError, Path, Region, RuleKey, Sampling, Step, StoredFlows, Walk,
    cookies, walk,
};

/// What [`KernelDataplane::open`] needs to know, from the agent's configuration.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Interfaces that get `lb_ingress`.
    pub client_interfaces: Vec<String>,
    /// Interfaces that get `lb_return`.
    pub backend_interfaces: Vec<String>,
    /// How `lb_ingress` is attached.
    pub xdp_mode: XdpMode,
    /// How the host comes to answer for VIPs.
    pub vip_mode: VipMode,
    /// Holds the record of changed host settings.
    pub state_dir: PathBuf,
    /// Holds the pins.
    pub bpffs_dir: PathBuf,
    /// Map capacities.
    pub capacity: Capacity,
    /// BPF object to use instead of the embedded one.
    pub object: Option<PathBuf>,
}

/// The data plane in the kernel.
pub struct KernelDataplane {
    pub(super) loaded: Loaded,
    pub(super) capacity: Capacity,
    /// Members of the settings entry that no plan asks for.
    pub(super) running: Running,
    pub(super) surroundings: Surroundings,
    /// Until it is attached.
    pub(super) staged: Option<Staged>,
}

/// What lies outside of the maps.
#[derive(Debug)]
pub(super) enum Surroundings {
    /// The host's network.
    Host(Box<Host>),
    /// Nothing real: programs are run by hand.
    Memory {
        addresses: BTreeSet<IpAddr>,
        paths: BTreeMap<IpAddr, Path>,
    },
}

impl KernelDataplane {
    /// Loads the programs into maps of their own: nothing is pinned, attached or changed on the
    /// host. For `lbagent replay` and tests, which run the programs by hand. `object` is a file to
    /// use instead of the embedded object.
    pub fn open_unattached(
        object: Option<&std::path::Path>,
        capacity: Capacity,
    ) -> Result<Self, LoadError> {
        Self::open_unattached_as(object, capacity, cookies::are_supported())
    }

    /// The same as on a kernel that has, or has not, the helpers for SYN cookies: for tests.
    pub fn open_unattached_as(
        object: Option<&std::path::Path>,
        capacity: Capacity,
        has_cookies: bool,
    ) -> Result<Self, LoadError> {
        let mut ebpf = load::load_maps(&Object::read(object)?, &capacity, has_cookies, |_| None)?;
        load::load_programs(&mut ebpf)?;
        let loaded = Loaded::new(ebpf, &capacity)?;
        let surroundings = Surroundings::Memory {
            addresses: BTreeSet::new(),
            paths: BTreeMap::new(),
        };
        Ok(Self {
            loaded,
            capacity,
            running: Running::unattended(),
            surroundings,
            staged: None,
        })
    }

    /// Says how addresses are reached, for a data plane that is not attached.
    pub fn set_paths(&mut self, given: BTreeMap<IpAddr, Path>) {
        if let Surroundings::Memory { paths, .. } = &mut self.surroundings {
            *paths = given;
        }
    }

    /// Whether the kernel can answer SYNs with cookies, or what it lacks.
    pub fn check_cookies(&self) -> Result<(), DataplaneError> {
        cookies::require()
    }

    /// Why what the programs send back to clients may not arrive; nothing of a network card's.
    pub fn doubts(&self) -> Option<String> {
        let Surroundings::Host(host) = &self.surroundings else {
            return None;
        };
        let interface = host.pairs.first()?;
        Some(format!(
            "{interface} is a veth, whose far end gets what XDP sends back only while it has an XDP program \
             itself; where it has one, set redirect.at_nic and syn_shield.mode to \"on\""
        ))
    }

    /// The interfaces and how the programs are attached to them, at the last pass.
    pub fn interfaces(&self) -> watch::Receiver<Vec<InterfaceStatus>> {
        match &self.surroundings {
            Surroundings::Host(host) => host.status.subscribe(),
            Surroundings::Memory { .. } => watch::Sender::new(Vec::new()).subscribe(),
        }
    }

    /// Counts what the kernel tells of the host's network; `None` where there is no host.
    pub fn network_changes(&self) -> Option<watch::Receiver<Changes>> {
        match &self.surroundings {
            Surroundings::Host(host) => Some(host.changes.clone()),
            Surroundings::Memory { .. } => None,
        }
    }

    /// The reader of sampled packets. There is one, so only the first call yields it.
    pub fn events(&mut self) -> Option<EventReader> {
        self.loaded.maps.events.take()
    }

    /// The maps, for tools that look at single entries.
    pub fn maps(&self) -> &Maps {
        &self.loaded.maps
    }

    /// The maps, for tools that write single entries.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.loaded.maps
    }

    /// The program on client-facing interfaces, for runs by hand.
    pub fn ingress_program(&mut self) -> Result<&mut Xdp, LoadError> {
        self.loaded.ingress()
    }

    /// The program on backend-facing interfaces, for runs by hand.
    pub fn return_program(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.loaded.reply()
    }

    fn delete_vip(&mut self, key: &VipKey, entry: &VipEntry) -> Result<(), DataplaneError> {
        self.loaded.maps.vips.delete(key)?;
        if key.is_address() {
            Ok(())
        } else {
            self.loaded.maps.vip_counters.clear(entry.vip_id)
        }
    }

    fn delete_backend(&mut self, id: BackendId) -> Result<(), DataplaneError> {
        self.loaded
            .maps
            .backends
            .put(id, &BackendEntry::default())?;
        self.loaded.maps.backend_counters.clear(id)
    }

    fn add_host_address(&mut self, ip: IpAddr) -> Result<(), DataplaneError> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.add_address(ip),
            Surroundings::Memory { addresses, .. } => {
                addresses.insert(ip);
                Ok(())
            }
        }
    }

    fn delete_host_address(&mut self, ip: IpAddr) -> Result<(), DataplaneError> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.remove_address(ip),
            Surroundings::Memory { addresses, .. } => {
                addresses.remove(&ip);
                Ok(())
            }
        }
    }

    fn probe(&mut self, ip: IpAddr, path: &Path) -> Result<(), DataplaneError> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.resolve(ip, path),
            Surroundings::Memory { .. } => Ok(()),
        }
    }
}

impl Dataplane for KernelDataplane {
    fn read(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<ActualState, DataplaneError> {
        let host = match &mut self.surroundings {
            Surroundings::Host(host) => host.whole_pass(&mut self.loaded, addresses)?,
            Surroundings::Memory { .. } => self.surroundings(addresses)?,
        };
        Ok(ActualState {
            capacity: self.capacity,
            host_addresses: host.addresses,
            paths: host.paths,
            tick: tick(),
            ..read_maps(&self.loaded.maps)?
        })
    }

    fn surroundings(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<HostState, DataplaneError> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.pass(&mut self.loaded, addresses),
            Surroundings::Memory {
                addresses: present,
                paths,
            } => Ok(HostState {
                addresses: present.clone(),
                paths: known_paths(paths, addresses),
            }),
        }
    }

    fn begin_round(&mut self) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.begin_round(&mut self.loaded),
            Surroundings::Memory { addresses, .. } => Ok(addresses.clone()),
        }
    }

    fn end_round(&mut self) -> Vec<IpAddr> {
        match &mut self.surroundings {
            Surroundings::Host(host) => host.end_round(),
            Surroundings::Memory { .. } => Vec::new(),
        }
    }

    fn walk(&mut self, from: Walk) -> Result<(ActualState, Option<Walk>), DataplaneError> {
        walk::portion(&self.loaded.maps, from)
    }

    fn holds(&mut self, entries: &ActualState) -> Result<bool, DataplaneError> {
        walk::holds(&self.loaded.maps, entries)
    }

    fn is_current(&self) -> bool {
        match &self.surroundings {
            Surroundings::Host(host) => host.is_current(),
            Surroundings::Memory { .. } => true,
        }
    }

    fn glimpse(
        &mut self,
        regions: &BTreeSet<Region>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<Glimpse, DataplaneError> {
        Ok(Glimpse {
            tables: read_tables(&self.loaded.maps, regions.iter().copied())?,
            paths: match &mut self.surroundings {
                Surroundings::Host(host) => host.glimpse(&mut self.loaded, addresses)?,
                Surroundings::Memory { paths, .. } => known_paths(paths, addresses),
            },
            tick: tick(),
        })
    }

    fn stored_flows(
        &mut self,
        vips: &[u32],
        idle_ticks: u32,
    ) -> Result<StoredFlows, DataplaneError> {
        read::stored_flows(&self.loaded.maps, vips, idle_ticks)
    }

    fn apply(&mut self, step: &Step) -> Result<(), DataplaneError> {
        let maps = &mut self.loaded.maps;
        match step {
            Step::PutSettings(settings) => maps.settings.put(0, &self.running.within(settings)),
            Step::PutBackend(id, entry) => maps.backends.put(*id, entry),
            Step::DeleteBackend(id) => self.delete_backend(*id),
            Step::PutTable(region, slots) => maps.slots.write(*region, slots),
            Step::PutVip(key, entry) => maps.vips.put(key, entry),
            Step::DeleteVip(key, entry) => self.delete_vip(key, entry),
            Step::PutReturn(key, entry) => maps.returns.put(key, entry),
            Step::DeleteReturn(key) => maps.returns.delete(key),
            Step::PutRule(RuleKey::Source(key), verdict) => {
                maps.sources.put(key, &SourceEntry { verdict: *verdict })
            }
            Step::PutRule(RuleKey::QuicServer(key), id) => maps.quic_servers.put(key, id),
            Step::DeleteRule(RuleKey::Source(key)) => maps.sources.delete(key),
            Step::DeleteRule(RuleKey::QuicServer(key)) => maps.quic_servers.delete(key),
            Step::PutHost(key, entry) => maps.hosts.put(key, entry),
            Step::DeleteHost(key) => maps.hosts.delete(key),
            Step::AddHostAddress(ip) => self.add_host_address(*ip),
            Step::DeleteHostAddress(ip) => self.delete_host_address(*ip),
            Step::Probe(ip, path) => self.probe(*ip, path),
        }
    }

    fn set_terminator(
        &mut self,
        index: u32,
        socket: Option<&OwnedFd>,
    ) -> Result<(), DataplaneError> {
        self.loaded.maps.terminators.put(index, socket)
    }

    fn renew(&mut self) -> Result<(), DataplaneError> {
        self.renew_next_hops()
    }

    fn offer_cookies(&mut self, wanted: bool) -> Result<(), DataplaneError> {
        self.renew_cookies(wanted)
    }

    fn set_sampling(&mut self, sampling: Sampling) -> Result<(), DataplaneError> {
        self.renew_sampling(sampling)
    }

    fn look_up(&self, look_up: &mut dyn FnMut(&dyn FlowMaps)) {
        look_up(self);
    }

    fn counters(
        &mut self,
        vips: &[u32],
        backends: &[BackendId],
    ) -> Result<CounterSnapshot, DataplaneError> {
        let maps = &self.loaded.maps;
        let of = |counters: &super::typed_maps::Counters<_>, ids: &[u32]| {
            ids.iter()
                .map(|id| Ok((*id, counters.get(*id)?)))
                .collect::<Result<_, DataplaneError>>()
        };
        Ok(CounterSnapshot {
            outcomes: maps.outcomes.first(Outcome::COUNT)?,
            vips: of(&maps.vip_counters, vips)?,
            backends: of(&maps.backend_counters, backends)?,
            steered: maps.steered.first(Steered::COUNT)?,
            passed: maps.passed.first(Passed::COUNT)?,
            flooded: super::read::flooded(maps)?,
        })
    }
}
