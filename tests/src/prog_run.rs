//! Ring 1: single packets through the real BPF object, its maps filled by the agent's own plan and
//! apply, in a namespace whose routes and neighbours are known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lbagent::dataplane::{ActualState, Capacity, Dataplane, NextHop, Path, Region};
use lbagent::desired::{
    DEFAULT_ACCOUNT, DesiredState, ForwardingMode, GroupPolicy, Instance, InstancePolicy,
    InstanceState, Service, ServiceGroup, Transport,
};
use lbagent::plan::{
    Elsewhere, GatewaySettings, Health, IdCursor, Plan, PlanInput, SynShield, Terminator,
    UnpublishedPorts, WithoutTerminator, backend_addresses, plan, settle,
};
use rtnetlink::packet_route::neighbour::NeighbourState;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::net_link::{Cidr, Netlink};
use crate::netns::{NetNs, NetNsGuard, set_sysctl};
use crate::packet_builder::CLIENT_MAC;
use crate::shared_load::SharedLoad;
use crate::syscalls::link_address;

pub use self::run::{Action, Ran, Side};

mod clock;
mod run;

/// VIPs of the rig.
pub const VIP_V4: &str = "192.0.2.10";
/// VIPs of the rig.
pub const VIP_V6: &str = "2001:db8:a::10";
/// Clients, behind a router on the client side.
pub const CLIENT_V4: &str = "203.0.113.7";
/// Clients, behind a router on the client side.
pub const CLIENT_V6: &str = "2001:db8:c::7";
/// The gateway's own addresses on the backend side.
pub const GATEWAY_V4: &str = "10.66.0.1";
/// The gateway's own addresses on the backend side.
pub const GATEWAY_V6: &str = "fd66::1";
/// Link address of the router on the client side.
pub const ROUTER_MAC: [u8; 6] = CLIENT_MAC;

/// Link address of a backend, made from the last octet of its address.
pub fn backend_mac(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    [0x02, 0, 0, 0, 1, last]
}

/// The data plane, a desired state, and a namespace where both make sense.
pub struct Rig {
    /// What is asked for; change it, then call [`reconcile`](Self::reconcile).
    pub desired: DesiredState,
    /// The configuration; likewise.
    pub gateway: GatewaySettings,
    /// Decides which draining is over.
    pub now: OffsetDateTime,
    /// The programs and maps.
    pub dataplane: SharedLoad,
    /// Whether the agent knows the next hops of instances added from now on; otherwise the programs
    /// ask the routing table.
    pub resolved: bool,
    /// Largest IP packet that instances added from now on can be sent.
    pub mtu: u16,
    /// What a terminator takes.
    pub terminator: Terminator,
    /// By how many ticks the planner's clock is ahead of the machine's; see
    /// [`advance`](Self::advance).
    ahead: u32,
    paths: BTreeMap<IpAddr, Path>,
    retired: BTreeSet<Region>,
    cursor: IdCursor,
    client_interface: u32,
    backend_interface: u32,
    // Left before the namespaces go.
    _guard: NetNsGuard,
    _gateway: NetNs,
    _peers: NetNs,
}

/// The gateway of a rig, until a test says otherwise.
fn settings() -> GatewaySettings {
    GatewaySettings {
        vips: [VIP_V4, VIP_V6].map(|text| text.parse().unwrap()).into(),
        unpublished_ports: UnpublishedPorts::Pass,
        hash_seed: 0x5eed,
        udp_idle: Duration::from_secs(60),
        settle_after: GatewaySettings::SETTLE_AFTER,
        source_port_first: GatewaySettings::SOURCE_PORT_FIRST,
        source_port_count: GatewaySettings::SOURCE_PORT_COUNT,
        without_terminator: WithoutTerminator::Reset,
        answers_per_second: GatewaySettings::ANSWERS_PER_SECOND,
        redirect_at_nic: true,
        not_at_nic: None,
        without_shield: None,
        syn_shield: SynShield::Off,
    }
}

impl Rig {
    /// A rig with default capacities and no service group.
    pub fn new() -> Result<Self> {
        // Reading back takes a system call for each entry, at every packet.
        Self::with_capacity(Capacity {
            slots: 1 << 16,
            vips: 256,
            backends: 256,
            returns: 1 << 10,
            ..Capacity::default()
        })
    }

    /// A rig with maps of another size.
    pub fn with_capacity(capacity: Capacity) -> Result<Self> {
        let gateway = NetNs::new("rig")?;
        let peers = NetNs::new("rig-peers")?;
        // Nothing but the test may send to the programs, and IPv6 hosts talk by themselves.
        peers.run(|| {
            set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        })?;
        let guard = gateway.enter()?;
        let netlink = Netlink::open()?;
        netlink.add_veth("cl0", &peers, "cl1")?;
        netlink.add_veth("be0", &peers, "be1")?;
        for (interface, cidr) in [
            ("cl0", "198.51.100.1/24"),
            ("cl0", "2001:db8:1::1/64"),
            ("be0", "10.66.0.1/24"),
            ("be0", "fd66::1/64"),
        ] {
            netlink.add_address(interface, Cidr::new(cidr))?;
        }
        let routers = ["198.51.100.254", "2001:db8:1::fe"].map(|text| text.parse().unwrap());
        netlink.add_default_routes("cl0", &routers)?;
        for interface in ["cl0", "be0"] {
            set_sysctl(&format!("net/ipv4/conf/{interface}/forwarding"), "1")?;
            set_sysctl(&format!("net/ipv6/conf/{interface}/forwarding"), "1")?;
        }
        let mut dataplane = SharedLoad::take(capacity)?;
        // A test run on behalf of an interface needs receive queues, which veth has only while a
        // native program is attached.
        dataplane.attach("cl0")?;
        let rig = Self {
            desired: DesiredState::default(),
            gateway: settings(),
            now: OffsetDateTime::UNIX_EPOCH,
            dataplane,
            resolved: true,
            mtu: 1500,
            terminator: Terminator::default(),
            ahead: 0,
            paths: BTreeMap::new(),
            retired: BTreeSet::new(),
            cursor: IdCursor::default(),
            client_interface: index("cl0")?,
            backend_interface: index("be0")?,
            _guard: guard,
            _gateway: gateway,
            _peers: peers,
        };
        for router in routers {
            rig.add_neighbour(router, "cl0", ROUTER_MAC)?;
        }
        Ok(rig)
    }

    /// Makes a link address known, so that routing to `address` needs no resolution.
    pub fn add_neighbour(&self, address: IpAddr, interface: &str, mac: [u8; 6]) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            handle
                .neighbours()
                .add(index(interface)?, address)
                .link_layer_address(&mac)
                .state(NeighbourState::Permanent)
                .replace()
                .execute()
                .await
                .with_context(|| format!("adding neighbour {address} on {interface}"))
        })
    }

    /// Adds a group that publishes these (port, destination port, transport).
    pub fn group(&mut self, name: &str, services: &[(u16, u16, Transport)]) -> Uuid {
        let uuid = Uuid::from_u128(0x1000 + self.desired.service_groups.len() as u128);
        let group = ServiceGroup {
            uuid,
            account: DEFAULT_ACCOUNT,
            name: name.into(),
            created_at: self.now,
            persistent: true,
            soft_limit: 1,
            hard_limit: u16::MAX,
            services: services
                .iter()
                .map(|&(port, destination_port, protocol)| Service {
                    port,
                    destination_port,
                    protocol,
                    ip: None,
                    handlers: Vec::new(),
                })
                .collect(),
            domains: Vec::new(),
            autokill_ms: 0,
            empty_since: None,
            policy: GroupPolicy::default(),
        };
        self.desired.service_groups.insert(uuid, group);
        uuid
    }

    /// Adds a running instance whose addresses are on the backend link, with known link addresses.
    pub fn instance(&mut self, name: &str, group: Uuid, addresses: &[&str]) -> Result<Uuid> {
        let uuid = Uuid::from_u128(0x2000 + self.desired.instances.len() as u128);
        for text in addresses {
            let address: IpAddr = text.parse()?;
            self.add_neighbour(address, "be0", backend_mac(address))?;
            self.set_path(address, "be0")?;
        }
        let instance = Instance {
            uuid,
            account: DEFAULT_ACCOUNT,
            name: name.into(),
            created_at: self.now,
            state: InstanceState::Running,
            service_group: Some(group),
            addresses: addresses
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            image: None,
            tags: Vec::new(),
            annotations: BTreeMap::new(),
            policy: InstancePolicy::default(),
        };
        self.desired.instances.insert(uuid, instance);
        Ok(uuid)
    }

    /// Says that an address is on the link of `interface`, which the gateway has .1 (::1) on.
    pub fn set_path(&mut self, address: IpAddr, interface: &str) -> Result<()> {
        let (source, onlink_prefix) = match (address, interface) {
            (IpAddr::V4(_), "be0") => (GATEWAY_V4, 24),
            (IpAddr::V6(_), "be0") => (GATEWAY_V6, 64),
            (IpAddr::V4(_), _) => ("198.51.100.1", 24),
            (IpAddr::V6(_), _) => ("2001:db8:1::1", 64),
        };
        let ifindex = index(interface)?;
        let mac =
            link_address(interface).with_context(|| format!("link address of {interface}"))?;
        self.paths.insert(
            address,
            Path {
                ifindex,
                source: source.parse()?,
                onlink_prefix,
                takes_xdp: true,
                mtu: self.mtu,
                next_hop: self.resolved.then(|| NextHop {
                    ifindex,
                    destination: backend_mac(address),
                    source: mac,
                    vlan: 0,
                }),
            },
        );
        Ok(())
    }

    /// Says whether the interface towards an address sends what XDP redirects to it.
    pub fn set_sender(&mut self, address: IpAddr, takes_xdp: bool) -> Result<()> {
        let path = self.paths.get_mut(&address);
        path.with_context(|| format!("{address} has no path"))?
            .takes_xdp = takes_xdp;
        Ok(())
    }

    /// Says that frames to an address are tagged with a VLAN.
    pub fn set_vlan(&mut self, address: &str, vlan: u16) -> Result<()> {
        let path = self.paths.get_mut(&address.parse()?);
        let hop = path.and_then(|path| path.next_hop.as_mut());
        hop.with_context(|| format!("{address} has no next hop"))?
            .vlan = vlan;
        Ok(())
    }

    /// Says that an address is behind a router on the link of `interface`.
    pub fn set_far_path(&mut self, address: IpAddr, interface: &str) -> Result<()> {
        self.set_path(address, interface)?;
        let path = self.paths.get_mut(&address).context("the path just set")?;
        path.onlink_prefix = if address.is_ipv4() { 32 } else { 128 };
        Ok(())
    }

    /// Says that the gateway has no address of its own on the way to this one.
    pub fn forget_source(&mut self, address: IpAddr) {
        if let Some(path) = self.paths.get_mut(&address) {
            path.source = match address {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
        }
    }

    /// Changes a group's forwarding mode.
    pub fn set_mode(&mut self, group: Uuid, mode: ForwardingMode) {
        let group = self.desired.service_groups.get_mut(&group);
        group.expect("a group of the rig").policy.forwarding_mode = mode;
    }

    /// Changes an instance's state.
    pub fn set_state(&mut self, instance: Uuid, state: InstanceState) {
        self.desired
            .instances
            .get_mut(&instance)
            .expect("an instance of the rig")
            .state = state;
    }

    /// Plans and applies, as the agent does, until there is nothing left to write.
    pub fn reconcile(&mut self) -> Result<Plan> {
        for _ in 0..4 {
            let plan = self.plan()?;
            if plan.steps.is_empty() {
                return Ok(plan);
            }
            for step in &plan.steps {
                self.dataplane.apply(step)?;
            }
            self.cursor = plan.cursor;
        }
        anyhow::bail!("four passes and still steps: {:?}", self.plan()?.steps)
    }

    fn plan(&mut self) -> Result<Plan> {
        let actual = self.actual()?;
        Ok(plan(&PlanInput {
            desired: &self.desired,
            gateway: &self.gateway,
            health: &Health::new(),
            terminator: self.terminator,
            elsewhere: &Elsewhere::default(),
            actual: &actual,
            retired: &self.retired,
            cursor: self.cursor,
            now: self.now,
        }))
    }

    /// What the maps hold.
    pub fn actual(&mut self) -> Result<ActualState> {
        self.dataplane.set_paths(self.paths.clone());
        let mut actual = self.dataplane.read(&backend_addresses(&self.desired))?;
        actual.tick += self.ahead;
        let vips = settle::due_vips(&actual, &self.gateway);
        if !vips.is_empty() {
            let idle_ticks = self.gateway.settle_after_ticks();
            actual.stored = Some(self.dataplane.stored_flows(&vips, idle_ticks)?);
        }
        Ok(actual)
    }
}

fn index(interface: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(interface).with_context(|| format!("interface {interface}"))
}

/// The object under test: the one named by the environment, else the one that the agent embeds.
pub(crate) fn object() -> Option<PathBuf> {
    std::env::var_os("LBAGENT_TEST_BPF_OBJECT").map(PathBuf::from)
}
