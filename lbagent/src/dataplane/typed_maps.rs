//! The maps with the types of their keys and values, and errors that name the map.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, SockMap,
};
use aya::{Ebpf, Pod};
use lbagent_common::{
    AnswerBudget, BackendId, HostEntry, HostKey, NatFlowEntry, NatFlowKey, PacketCounter,
    QuicServerKey, ReturnEntry, ReturnKey, Settings, SourceEntry, SourceKey, TrafficCounter,
    VipEntry, VipKey, limits,
};

use super::events::EventReader;
use super::held::HeldMaps;
pub use super::mapped::{Backends, Conns, Slots};
use super::sum::Sum;
use super::{Capacity, DataplaneError, batch};

/// All maps of the data plane.
pub struct Maps {
    /// One entry.
    pub settings: Records<Settings>,
    /// Published ports and VIP addresses.
    pub vips: Table<VipKey, VipEntry>,
    /// All Maglev tables.
    pub slots: Slots,
    /// Backends by id.
    pub backends: Backends,
    /// Reply sources.
    pub returns: Table<ReturnKey, ReturnEntry>,
    /// Source rules of policies.
    pub sources: Prefixes,
    /// QUIC server ids of policies.
    pub quic_servers: Table<QuicServerKey, BackendId>,
    /// Host names of port 80.
    pub hosts: Table<HostKey, HostEntry>,
    /// Flows of changed slots.
    pub conns: Conns,
    /// When a flow of a VIP last found no room in `conns`, by VIP id.
    pub refusals: Records<u32>,
    /// Flows whose reply needs an entry.
    pub nat_flows: Table<NatFlowKey, NatFlowEntry>,
    /// Packets by outcome.
    pub outcomes: Counters<PacketCounter>,
    /// Traffic by VIP id.
    pub vip_counters: Counters<TrafficCounter>,
    /// Traffic by backend id.
    pub backend_counters: Counters<TrafficCounter>,
    /// When flows with a hash last sent a UDP packet.
    pub udp_seen: Records<u32>,
    /// Sockets that connections to ports with handlers are steered to.
    pub terminators: Sockets,
    /// Such connections, by what became of them.
    pub steered: Counters<u64>,
    /// Packets left to the terminator, by reason.
    pub passed: Counters<u64>,
    /// SYNs to shielded ports by VIP index, each CPU for itself.
    pub shield: Counters<AnswerBudget>,
    /// Sampled packets, until somebody takes the reader.
    pub events: Option<EventReader>,
    /// Fragments that wait, until somebody takes them.
    pub held: Option<HeldMaps>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, capacity: &Capacity) -> Result<Self, DataplaneError> {
        Ok(Self {
            settings: Records::take(ebpf, limits::SETTINGS)?,
            vips: Table::take(ebpf, limits::VIPS, capacity.vips)?,
            slots: Slots::take(ebpf, capacity.slots)?,
            backends: Backends::take(ebpf, capacity.backends)?,
            returns: Table::take(ebpf, limits::RETURNS, capacity.returns)?,
            sources: Prefixes::take(ebpf)?,
            quic_servers: Table::take(ebpf, limits::QUIC_SERVERS, limits::MAX_QUIC_SERVERS)?,
            hosts: Table::take(ebpf, limits::HOSTS, capacity.hosts)?,
            conns: Conns::take(ebpf, capacity.conn_buckets())?,
            refusals: Records::take(ebpf, limits::REFUSALS)?,
            nat_flows: Table::take(ebpf, limits::NAT_FLOWS, capacity.nat_flows)?,
            outcomes: Counters::take(ebpf, limits::OUTCOMES)?,
            vip_counters: Counters::take(ebpf, limits::VIP_COUNTERS)?,
            backend_counters: Counters::take(ebpf, limits::BACKEND_COUNTERS)?,
            udp_seen: Records::take(ebpf, limits::UDP_SEEN)?,
            terminators: Sockets::take(ebpf, limits::TERMINATORS)?,
            steered: Counters::take(ebpf, limits::STEER_COUNTERS)?,
            passed: Counters::take(ebpf, limits::REDIRECT_COUNTERS)?,
            shield: Counters::take(ebpf, limits::SHIELD)?,
            events: Some(EventReader::take(ebpf)?),
            held: Some(HeldMaps::take(ebpf)?),
        })
    }
}

/// A hash map.
pub struct Table<K: Pod, V: Pod> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    pub(super) fn take(
        ebpf: &mut Ebpf,
        name: &'static str,
        capacity: u32,
    ) -> Result<Self, DataplaneError> {
        let map = HashMap::try_from(take_map(ebpf, name)?).map_err(failed(name, "open"))?;
        Ok(Self {
            name,
            capacity,
            map,
        })
    }

    /// Every entry.
    pub fn entries(&self) -> Result<Vec<(K, V)>, DataplaneError> {
        let (mut found, mut next) = self.portion(None, batch::USUAL)?;
        while next.is_some() {
            let (more, from) = self.portion(next, batch::USUAL)?;
            found.extend(more);
            next = from;
        }
        Ok(found)
    }

    /// About so many entries, from a place on that the portion before has named.
    pub(super) fn portion(
        &self,
        from: Option<u32>,
        count: usize,
    ) -> Result<batch::Portion<K, V>, DataplaneError> {
        let map = IterableMap::map(&self.map).fd();
        batch::entries(map.as_fd(), from, count).map_err(|error| DataplaneError::Map {
            map: self.name,
            operation: "read",
            source: error.into(),
        })
    }

    /// One entry.
    pub fn get(&self, key: &K) -> Result<Option<V>, DataplaneError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(self.name, "read")(error)),
        }
    }

    /// Adds or replaces an entry.
    pub fn put(&mut self, key: &K, value: &V) -> Result<(), DataplaneError> {
        self.map
            .insert(key, value, 0)
            .map_err(|error| match errno(&error) {
                Some(libc::E2BIG) => DataplaneError::MapFull {
                    map: self.name,
                    capacity: self.capacity,
                },
                _ => failed(self.name, "write")(error),
            })
    }

    /// Removes an entry, if it is there.
    pub fn delete(&mut self, key: &K) -> Result<(), DataplaneError> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(failed(self.name, "delete from")(error)),
        }
    }
}

/// `SOURCES`, a trie that finds the longest prefix.
pub struct Prefixes {
    map: LpmTrie<MapData, [u32; 5], SourceEntry>,
}

impl Prefixes {
    fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let map = take_map(ebpf, limits::SOURCES)?;
        let map = LpmTrie::try_from(map).map_err(failed(limits::SOURCES, "open"))?;
        Ok(Self { map })
    }

    /// Every entry.
    pub fn entries(&self) -> Result<Vec<(SourceKey, SourceEntry)>, DataplaneError> {
        self.map
            .iter()
            .map(|entry| {
                entry.map(|(key, value)| {
                    (SourceKey::from_parts(key.prefix_len(), key.data()), value)
                })
            })
            .collect::<Result<_, _>>()
            .map_err(failed(limits::SOURCES, "read"))
    }

    /// Adds or replaces an entry.
    pub fn put(&mut self, key: &SourceKey, value: &SourceEntry) -> Result<(), DataplaneError> {
        let key = Key::new(key.prefix_len, key.data());
        self.map
            .insert(&key, value, 0)
            .map_err(|error| match errno(&error) {
                Some(libc::ENOSPC) => DataplaneError::MapFull {
                    map: limits::SOURCES,
                    capacity: limits::MAX_SOURCES,
                },
                _ => failed(limits::SOURCES, "write")(error),
            })
    }

    /// Removes an entry, if it is there.
    pub fn delete(&mut self, key: &SourceKey) -> Result<(), DataplaneError> {
        match self.map.remove(&Key::new(key.prefix_len, key.data())) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(failed(limits::SOURCES, "delete from")(error)),
        }
    }
}

/// An array map.
pub struct Records<V: Pod> {
    name: &'static str,
    map: Array<MapData, V>,
}

impl<V: Pod> Records<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DataplaneError> {
        let map = Array::try_from(take_map(ebpf, name)?).map_err(failed(name, "open"))?;
        Ok(Self { name, map })
    }

    /// One entry.
    pub fn get(&self, index: u32) -> Result<V, DataplaneError> {
        self.map.get(&index, 0).map_err(failed(self.name, "read"))
    }

    /// Replaces an entry.
    pub fn put(&mut self, index: u32, value: &V) -> Result<(), DataplaneError> {
        self.map.set(index, value, 0).map_err(|error| match error {
            MapError::OutOfBounds { max_entries, .. } => DataplaneError::MapFull {
                map: self.name,
                capacity: max_entries,
            },
            error => failed(self.name, "write")(error),
        })
    }
}

/// An array of sockets. The kernel empties a place when its socket is closed.
pub struct Sockets {
    name: &'static str,
    map: SockMap<MapData>,
}

impl Sockets {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DataplaneError> {
        let map = SockMap::try_from(take_map(ebpf, name)?).map_err(failed(name, "open"))?;
        Ok(Self { name, map })
    }

    /// Replaces the socket at an index, in one step; `None` empties the place.
    pub fn put(&mut self, index: u32, socket: Option<&OwnedFd>) -> Result<(), DataplaneError> {
        let Some(socket) = socket else {
            return self.clear(index);
        };
        let put = self.map.set(index, socket, 0);
        put.map_err(failed(self.name, "write"))
    }

    fn clear(&mut self, index: u32) -> Result<(), DataplaneError> {
        match self.map.clear_index(&index) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if matches!(errno(&error), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            Err(error) => Err(failed(self.name, "delete from")(error)),
        }
    }
}

/// A per-CPU array of counters.
pub struct Counters<V: Pod> {
    name: &'static str,
    map: PerCpuArray<MapData, V>,
}

impl<V: Pod> Counters<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DataplaneError> {
        let map = PerCpuArray::try_from(take_map(ebpf, name)?).map_err(failed(name, "open"))?;
        Ok(Self { name, map })
    }

    /// What each CPU has.
    pub(super) fn by_cpu(&self, index: u32) -> Result<PerCpuValues<V>, DataplaneError> {
        self.map.get(&index, 0).map_err(failed(self.name, "read"))
    }
}

impl<V: Sum> Counters<V> {
    /// Sum over all CPUs.
    pub fn get(&self, index: u32) -> Result<V, DataplaneError> {
        let values = self.by_cpu(index)?;
        Ok(values
            .iter()
            .fold(V::default(), |sum, value| sum.plus(value)))
    }

    /// Sums of the first so many.
    pub(super) fn first(&self, count: u32) -> Result<Vec<V>, DataplaneError> {
        (0..count).map(|index| self.get(index)).collect()
    }

    /// Starts again at zero, so that the next owner of an id does not inherit its traffic.
    pub fn clear(&mut self, index: u32) -> Result<(), DataplaneError> {
        let cpus = self.by_cpu(index)?.len();
        let zeros = PerCpuValues::try_from(vec![V::default(); cpus])
            .map_err(|error| failed(self.name, "clear")(error.into()))?;
        self.map
            .set(index, zeros, 0)
            .map_err(failed(self.name, "clear"))
    }
}

pub(super) fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, DataplaneError> {
    ebpf.take_map(name)
        .ok_or_else(|| mismatch(name, "the BPF object does not have it"))
}

pub(super) fn mismatch(map: &'static str, what: &'static str) -> DataplaneError {
    DataplaneError::Map {
        map,
        operation: "use",
        source: anyhow::anyhow!(what),
    }
}

pub(super) fn failed(
    map: &'static str,
    operation: &'static str,
) -> impl Fn(MapError) -> DataplaneError {
    move |error| DataplaneError::Map {
        map,
        operation,
        source: error.into(),
    }
}

/// The error number of the system call behind a failure.
fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
