//! The data plane as the rest of the agent sees it: read everything back, write one step.
//!
//! Only the files beside this one import aya or netlink. Planning works on [`ActualState`] and
//! yields [`Step`]s; [`Dataplane::apply`] writes one step and decides nothing.

mod announce;
mod attach;
mod batch;
mod carry;
mod clsact;
mod cookies;
pub mod decap;
mod detach;
mod error;
mod events;
pub mod fake;
mod flow_maps;
mod generations;
mod held;
mod host;
mod interfaces;
mod journal;
mod kernel;
mod load;
mod load_error;
mod mapped;
mod neighbours;
mod netlink;
mod next_hops;
mod object;
mod pins;
mod read;
mod rollback;
mod running;
mod sandbox;
mod staging;
mod steer;
mod sum;
mod surroundings;
mod syscalls;
mod sysctl;
mod take_over;
mod test_run;
pub mod typed_maps;
mod walk;
mod watch;
mod ways;
mod xdp_features;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use lbagent_common::{
    BackendEntry, BackendId, CONN_WAYS, HostEntry, HostKey, PacketCounter, QuicServerKey,
    ReturnEntry, ReturnKey, Settings, Slot, SourceKey, TrafficCounter, VipEntry, VipKey,
};

pub use attach::{AttachedMode, Hook, InterfaceStatus, XdpMode};
pub use detach::{DetachError, DetachOptions, detach};
pub use error::DataplaneError;
pub use events::{EventReader, Sampling};
pub use flow_maps::FlowMaps;
pub use generations::{GenerationInfo, ObjectStatus};
pub use held::{HeldFragments, HeldFrame, HeldMaps};
pub use host::VipMode;
pub use kernel::{KernelDataplane, OpenOptions};
pub use load_error::LoadError;
pub use mapped::LiveSlots;
pub use object::embedded_object;
pub use rollback::{RollbackError, RolledBack, rollback};
pub use sandbox::Sandbox;
pub(crate) use syscalls::socket_namespace;
pub use test_run::{Action, Run, RunError};
pub use walk::Walk;
pub(crate) use walk::includes;
pub use watch::{Changes, network_changes};

/// What the maps and the host hold now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActualState {
    /// The settings entry.
    pub settings: Settings,
    /// Capacities that the maps were made with.
    pub capacity: Capacity,
    /// Published ports and VIP addresses.
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// Contents of tables that VIP entries name, by (offset, length), as far as they were read with
    /// the rest; a table that lies outside of the map is absent. See [`ActualState::table`].
    pub tables: BTreeMap<Region, Vec<Slot>>,
    /// Where the other tables are read when somebody asks for them: all of them at once would take
    /// more memory than everything else.
    pub slots: Option<LiveSlots>,
    /// Backends in use.
    pub backends: BTreeMap<BackendId, BackendEntry>,
    /// Reply sources.
    pub returns: BTreeMap<ReturnKey, ReturnEntry>,
    /// Rules of service groups' policies.
    pub rules: BTreeMap<RuleKey, u32>,
    /// Host names of port 80.
    pub hosts: BTreeMap<HostKey, HostEntry>,
    /// VIP addresses that the agent made the host answer for.
    pub host_addresses: BTreeSet<IpAddr>,
    /// How the host reaches each address asked about; absent when there is no route.
    pub paths: BTreeMap<IpAddr, Path>,
    /// The data plane's clock: ticks of 2^30 ns of the monotonic clock.
    pub tick: u32,
    /// What [`Dataplane::stored_flows`] told; without it no slot settles.
    pub stored: Option<StoredFlows>,
}

impl ActualState {
    /// The contents of a table; `None` if it lies outside of the map.
    pub fn table(&self, region: Region) -> Option<Cow<'_, [Slot]>> {
        match self.tables.get(&region) {
            Some(slots) => Some(Cow::Borrowed(slots)),
            None => self.slots.as_ref()?.read(region).map(Cow::Owned),
        }
    }
}

/// What lies around the maps; a part of [`ActualState`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostState {
    /// VIP addresses that the agent made the host answer for.
    pub addresses: BTreeSet<IpAddr>,
    /// How the host reaches each address asked about; absent when there is no route.
    pub paths: BTreeMap<IpAddr, Path>,
}

/// What a pass over some groups reads; the rest of [`ActualState`] it knows from the passes before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glimpse {
    /// Contents of the tables asked for; one that lies outside of the map is absent.
    pub tables: BTreeMap<Region, Vec<Slot>>,
    /// How the host reaches each address asked about; absent when there is no route.
    pub paths: BTreeMap<IpAddr, Path>,
    /// The data plane's clock.
    pub tick: u32,
}

/// The flows of changed slots that sent lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredFlows {
    /// The upper halves of their hashes, which tell their slots, by the backend that they go to; in
    /// no order.
    pub flows: BTreeMap<BackendId, Vec<u32>>,
    /// VIP ids of which some flow found no room lately, so that not all are known.
    pub refused: BTreeSet<u32>,
}

/// A rule of a service group's policy. The value beside it is a verdict of
/// [`lbagent_common::SourceEntry`], or a backend id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleKey {
    /// What becomes of packets from a prefix.
    Source(SourceKey),
    /// The backend with a QUIC server id.
    QuicServer(QuicServerKey),
}

impl RuleKey {
    /// Whose rule it is: [`VipEntry::policy_id`].
    pub const fn policy_id(&self) -> u32 {
        match self {
            Self::Source(key) => key.policy_id(),
            Self::QuicServer(key) => key.policy_id,
        }
    }
}

/// Map capacities, from the configuration; fixed while the maps are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Entries of `VIPS`; VIP ids are below it.
    pub vips: u32,
    /// Entries of `SLOTS`.
    pub slots: u32,
    /// Entries of `BACKENDS`; ids are below it and above 0.
    pub backends: u32,
    /// Entries of `RETURNS`.
    pub returns: u32,
    /// Flows that `CONNS` has room for; [`Capacity::conn_buckets`] of them.
    pub conns: u32,
    /// Entries of `NAT_FLOWS`.
    pub nat_flows: u32,
    /// Entries of `HOSTS`.
    pub hosts: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        use lbagent_common::limits;
        Self {
            vips: limits::MAX_VIPS,
            slots: limits::MAX_SLOTS,
            backends: limits::MAX_BACKENDS,
            returns: limits::MAX_RETURNS,
            conns: limits::MAX_CONN_BUCKETS * CONN_WAYS as u32,
            nat_flows: limits::MAX_NAT_FLOWS,
            hosts: limits::MAX_HOSTS,
        }
    }
}

impl Capacity {
    /// Buckets of `CONNS`: a power of two, because the lower bits of a flow's tag select one.
    pub const fn conn_buckets(&self) -> u32 {
        self.conns.div_ceil(CONN_WAYS as u32).next_power_of_two()
    }
}

/// A range of `SLOTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// First slot.
    pub offset: u32,
    /// Number of slots.
    pub len: u32,
}

/// How the host reaches a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Interface out.
    pub ifindex: u32,
    /// The gateway's own address on that way.
    pub source: IpAddr,
    /// Prefix length, in the address's own family, of the link that gateway and backend share;
    /// the full length (32 or 128) when they share none.
    pub onlink_prefix: u8,
    /// Whether the interface that sends (that of the next hop, where it is known) sends what XDP
    /// redirects to it. Where it does not, as a bridge, the kernel forwards the rewritten packets.
    pub takes_xdp: bool,
    /// Largest IP packet that it carries, in bytes; 0 when unknown.
    pub mtu: u16,
    /// The frame's way, where all of it is known.
    pub next_hop: Option<NextHop>,
}

/// How frames to an address leave the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface that sends them: the port, where the route names a bridge; the device below,
    /// where it names a VLAN.
    pub ifindex: u32,
    /// Link address of the backend or of the router before it.
    pub destination: [u8; 6],
    /// Link address of the gateway on that way.
    pub source: [u8; 6],
    /// VLAN that the frames are tagged with; 0 for none.
    pub vlan: u16,
}

/// One write. Steps are applied in the order of the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the settings entry.
    PutSettings(Settings),
    /// Write a backend.
    PutBackend(BackendId, BackendEntry),
    /// Clear a backend's entry and its counters. Comes after the last table that names it.
    DeleteBackend(BackendId),
    /// Fill a region that no VIP entry names yet.
    PutTable(Region, Vec<Slot>),
    /// Point a VIP at its table: the switch.
    PutVip(VipKey, VipEntry),
    /// Unpublish, and clear the VIP's counters.
    DeleteVip(VipKey, VipEntry),
    /// Write a reply source.
    PutReturn(ReturnKey, ReturnEntry),
    /// Remove a reply source.
    DeleteReturn(ReturnKey),
    /// Write a rule of a policy.
    PutRule(RuleKey, u32),
    /// Remove a rule of a policy.
    DeleteRule(RuleKey),
    /// Write where a host name is served.
    PutHost(HostKey, HostEntry),
    /// Remove a host name.
    DeleteHost(HostKey),
    /// Make the host answer for a VIP address.
    AddHostAddress(IpAddr),
    /// Stop answering for it.
    DeleteHostAddress(IpAddr),
    /// Ask the kernel to resolve a backend's link address now.
    Probe(IpAddr, Path),
}

/// Counters, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CounterSnapshot {
    /// By [`lbagent_common::Outcome`] index.
    pub outcomes: Vec<PacketCounter>,
    /// By VIP id, for the ids asked for.
    pub vips: BTreeMap<u32, TrafficCounter>,
    /// By backend id, for the ids asked for.
    pub backends: BTreeMap<BackendId, TrafficCounter>,
    /// Connections to ports with handlers, by [`lbagent_common::Steered`] index.
    pub steered: Vec<u64>,
    /// Packets for ports that redirect that were left to the terminator, by
    /// [`lbagent_common::redirect::Passed`].
    pub passed: Vec<u64>,
    /// VIPs with more SYNs than the shield leaves to the kernel, in this tick or in the last one, by
    /// [`lbagent_common::VipEntry::vip_index`].
    pub flooded: Vec<u8>,
}

/// The data plane. Implemented by the kernel's maps and, for tests of the reconciler, by a twin in
/// memory.
pub trait Dataplane: Send {
    /// Reads everything back; `addresses` are the backend addresses whose [`Path`] is wanted.
    fn read(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<ActualState, DataplaneError>;
    /// Reads what [`read`](Self::read) does of the host, but nothing of the maps.
    fn surroundings(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<HostState, DataplaneError>;
    /// Whether the host's network is as [`read`](Self::read) or
    /// [`surroundings`](Self::surroundings) last found it, as far as the kernel tells.
    fn is_current(&self) -> bool {
        true
    }
    /// Reads some tables and ways, the latter as the host's network was when it was last read.
    fn glimpse(
        &mut self,
        regions: &BTreeSet<Region>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<Glimpse, DataplaneError>;
    /// Looks at the host anew, ways left out: those that [`glimpse`](Self::glimpse) is asked about from
    /// here on are looked up again. Returns the VIP addresses that the host answers for.
    fn begin_round(&mut self) -> Result<BTreeSet<IpAddr>, DataplaneError>;
    /// Lets go of the addresses, and their neighbours, that nobody has asked about since the round
    /// began; returns them.
    fn end_round(&mut self) -> Vec<IpAddr>;
    /// Reads a portion of all entries of the maps, and tells where the next one begins. An entry that
    /// stays is in one of them.
    fn walk(&mut self, from: Walk) -> Result<(ActualState, Option<Walk>), DataplaneError>;
    /// Whether the maps hold these settings and entries, rules left out.
    fn holds(&mut self, entries: &ActualState) -> Result<bool, DataplaneError>;
    /// Reads which flows of changed slots sent within the last `idle_ticks`. Where flows of all
    /// `vips` found no room within that time, the flows are not looked at.
    fn stored_flows(
        &mut self,
        vips: &[u32],
        idle_ticks: u32,
    ) -> Result<StoredFlows, DataplaneError>;
    /// Writes one step. Repeating a step is harmless.
    fn apply(&mut self, step: &Step) -> Result<(), DataplaneError>;
    /// Has connections of a family to ports with handlers steered to a listening TCP socket, or to
    /// none. The data plane holds on to it until all descriptors of it are closed.
    fn set_terminator(
        &mut self,
        index: u32,
        socket: Option<&OwnedFd>,
    ) -> Result<(), DataplaneError>;
    /// Says that the agent lives and that what the last [`read`](Self::read) found is planned and
    /// applied: the data plane may use the next hops for some more time. To be repeated.
    fn renew(&mut self) -> Result<(), DataplaneError> {
        Ok(())
    }
    /// Has SYNs answered with cookies for some more time, having seen to it that the kernel accepts them,
    /// or no longer. To be repeated.
    fn offer_cookies(&mut self, _wanted: bool) -> Result<(), DataplaneError> {
        Ok(())
    }
    /// Has single entries looked up, for the explanation of one flow.
    fn look_up(&self, look_up: &mut dyn FnMut(&dyn FlowMaps));
    /// Says which packets are told to whoever watches, for the next [`Sampling::LEASE`].
    fn set_sampling(&mut self, sampling: Sampling) -> Result<(), DataplaneError>;
    /// Reads the counters of these VIP ids and backend ids, and all outcomes.
    fn counters(
        &mut self,
        vips: &[u32],
        backends: &[BackendId],
    ) -> Result<CounterSnapshot, DataplaneError>;
}
