//! Two gateways with the same state, behind a router that spreads flows over them.
//!
//! ```text
//! client ── cl0 router gw1 ── cl0 gateway 1 be0 ── lan
//!                      gw2 ── cl0 gateway 2 be0 ── lan ══ b1, b2, …
//!                      lan0 ───────────────────── lan    the way back past the gateways
//! ```

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::{Agent, Config, Ended, binary};
use crate::gateway::PORT;
use crate::net_link::{Cidr, Netlink};
use crate::netns::{BpfFs, HostNs, NetNs, set_sysctl};
use crate::server::Server;
use crate::syscalls::{Offload, attach_xdp_pass, interface_index, set_offload};
use crate::topology::{VIPS, add_addresses, make_wire_like};

/// Key of the flow hash, as operators give it to all of their gateways.
pub const SEED: u32 = 0x5eed;

const GROUP: &str = "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce000";
const CREATED: &str = "2026-01-01T00:00:00Z";

const CLIENT: [&str; 2] = ["198.51.100.2/24", "2001:db8:1::2/64"];
const ROUTER: [&str; 2] = ["198.51.100.1/24", "2001:db8:1::1/64"];
/// The router's addresses on its links to the gateways.
const ROUTER_LINKS: [[&str; 2]; 2] = [
    ["10.77.1.254/24", "fd77:1::fe/64"],
    ["10.77.2.254/24", "fd77:2::fe/64"],
];
/// The gateways' addresses there.
const GATEWAY_LINKS: [[&str; 2]; 2] = [
    ["10.77.1.1/24", "fd77:1::1/64"],
    ["10.77.2.1/24", "fd77:2::1/64"],
];
/// The gateways' addresses on the backends' link, and the router's.
const LAN: [[&str; 2]; 3] = [
    ["10.66.0.1/24", "fd66::1/64"],
    ["10.66.0.2/24", "fd66::2/64"],
    ["10.66.0.254/24", "fd66::fe/64"],
];

/// Which way backends' packets to clients take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Through the gateway of this index.
    Gateway(usize),
    /// Past both gateways.
    Router,
}

/// A backend on the gateways' common link.
#[derive(Debug)]
pub struct FleetBackend {
    /// `b1`, `b2`, …
    pub name: String,
    /// The host.
    pub host: HostNs,
    /// Its IPv4 and its IPv6 address.
    pub addresses: [Cidr; 2],
}

/// Two running gateways. The fields are dropped in this order: the daemons first.
#[derive(Debug)]
pub struct Fleet {
    /// The daemons.
    pub agents: [Agent; 2],
    _servers: Vec<Server>,
    /// The client, on `eth0`.
    pub client: NetNs,
    /// The router.
    pub router: NetNs,
    /// The gateways.
    pub gateways: [HostNs; 2],
    lan: NetNs,
    /// The backends.
    pub backends: Vec<FleetBackend>,
    state: Value,
    /// Programs at the far ends of the gateways' links; see [`attach_xdp_pass`].
    _peer_programs: Vec<OwnedFd>,
}

impl Fleet {
    /// Starts the gateways, one with each of these configurations, and `backends` backends. The
    /// first `members` of them serve [`PORT`] by TCP and UDP in this forwarding mode.
    pub fn start(
        mode: &str,
        backends: usize,
        members: usize,
        configure: impl Fn(usize, &mut Config),
    ) -> Result<Self> {
        let (client, router) = (NetNs::new("client")?, NetNs::new("router")?);
        let lan = NetNs::new("lan")?;
        let gateways = [
            HostNs::new("gateway-1", BpfFs::Mounted)?,
            HostNs::new("gateway-2", BpfFs::Mounted)?,
        ];
        lan.run(|| Netlink::open()?.add_bridge("br0"))?;
        wire_router(&router, &client, &lan)?;
        let peer_programs = (0..)
            .zip(&gateways)
            .map(|(number, gateway)| wire_gateway(number, gateway, &router, &lan))
            .collect::<Result<_>>()?;
        let backends: Vec<_> = (1..=backends)
            .map(|number| wire_backend(number, &lan))
            .collect::<Result<_>>()?;
        let serve = |backend: &FleetBackend| backend.serve(mode);
        let servers = backends.iter().map(serve).collect::<Result<_>>()?;
        let start = |number: usize| {
            let mut config = Config::between("cl0", vec!["be0".into()]);
            config.vip_mode = Some("routed");
            config.flow.insert("hash_seed", SEED);
            configure(number, &mut config);
            Agent::start(&gateways[number], &config)
        };
        let fleet = Self {
            agents: [start(0)?, start(1)?],
            _servers: servers,
            client,
            router,
            state: document(mode, &backends[..members]),
            gateways,
            lan,
            backends,
            _peer_programs: peer_programs,
        };
        fleet.apply()?;
        fleet.route([1, 1])?;
        let is_nat = mode == "nat";
        fleet.route_back(if is_nat {
            Back::Gateway(0)
        } else {
            Back::Router
        })?;
        Ok(fleet)
    }

    /// Changes the state on both gateways, as `lbctl state import` does.
    pub fn change(&mut self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        edit(&mut self.state);
        self.apply()
    }

    fn apply(&self) -> Result<()> {
        for agent in &self.agents {
            agent.call("PUT", "/v1/x/state", Some(&self.state))?;
        }
        Ok(())
    }

    /// Adds a backend to the group.
    pub fn attach(&mut self, index: usize) -> Result<()> {
        let instance = self.backends[index].instance();
        self.change(|state| {
            let instances = state["instances"].as_array_mut();
            instances.expect("a list").push(instance);
        })
    }

    /// Changes a member of the group.
    pub fn edit(&mut self, index: usize, member: &str, value: Value) -> Result<()> {
        self.change(|state| state["instances"][index][member] = value)
    }

    /// Sends the VIPs' packets to the gateways by these weights; 0 sends none.
    pub fn route(&self, weights: [u8; 2]) -> Result<()> {
        let route = |family: usize| {
            let stations = GATEWAY_LINKS.map(|link| address(link[family]));
            let ways = stations.into_iter().zip(weights);
            let ways: Vec<_> = ways.filter(|(_, weight)| *weight > 0).collect();
            self.route_vip(family, &ways)
        };
        route(0)?;
        route(1)
    }

    /// Sends the packets of the IPv4 VIP (0) or the IPv6 VIP (1) to these addresses.
    pub fn route_vip(&self, family: usize, ways: &[(IpAddr, u8)]) -> Result<()> {
        let vip = Cidr::host(VIPS[family]);
        self.router
            .run(|| Netlink::open()?.replace_route(vip, ways))
    }

    /// Sends the backends' packets to clients this way.
    pub fn route_back(&self, back: Back) -> Result<()> {
        let station = match back {
            Back::Gateway(number) => LAN[number],
            Back::Router => LAN[2],
        };
        for backend in &self.backends {
            backend.host.net.run(|| -> Result<()> {
                let netlink = Netlink::open()?;
                for (any, via) in ["0.0.0.0/0", "::/0"].into_iter().zip(station) {
                    netlink.replace_route(Cidr::new(any), &[(address(via), 1)])?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives the gateways' links towards the backends another MTU.
    pub fn set_inner_mtu(&self, mtu: u32) -> Result<()> {
        for (number, gateway) in self.gateways.iter().enumerate() {
            gateway.run(|| Netlink::open()?.set_mtu("be0", mtu))?;
            self.lan
                .run(|| Netlink::open()?.set_mtu(&gateway_port(number), mtu))?;
        }
        Ok(())
    }

    /// Packets from clients that each gateway has sent to backends.
    pub fn forwarded(&self) -> Result<[u64; 2]> {
        let total = |agent: &Agent| -> Result<u64> {
            let vips = agent.vips()?;
            Ok(vips.iter().map(|vip| vip.traffic.in_packets).sum())
        };
        Ok([total(&self.agents[0])?, total(&self.agents[1])?])
    }

    /// Packets from backends that each gateway has sent to clients.
    pub fn returned(&self) -> Result<[u64; 2]> {
        let of = |agent: &Agent| agent.outcome("return_redirect");
        Ok([of(&self.agents[0])?, of(&self.agents[1])?])
    }

    /// Where the service is.
    pub fn service(vip: IpAddr) -> SocketAddr {
        SocketAddr::new(vip, PORT)
    }
}

impl FleetBackend {
    fn serve(&self, mode: &str) -> Result<Server> {
        let net = &self.host.net;
        if mode == "nat" {
            return Server::start(net, &self.name, &[PORT], &[PORT]);
        }
        net.run(|| {
            let netlink = Netlink::open()?;
            VIPS.iter()
                .try_for_each(|vip| netlink.add_address("lo", Cidr::host(*vip)))
        })?;
        self.decap(&[])?;
        Server::start_for_vips(net, &self.name, PORT, &VIPS)
    }

    /// `lbagent decap --iface eth0 ARGUMENTS…` on the backend.
    pub fn decap(&self, arguments: &[&str]) -> Result<()> {
        let mut decap = self.host.command(binary("LBAGENT_BIN", "lbagent"));
        decap.args(["decap", "--iface", "eth0"]).args(arguments);
        let ended = Ended::of(&mut decap)?;
        ensure!(ended.code == 0, "{}: decap: {}", self.name, ended.stderr);
        Ok(())
    }

    fn instance(&self) -> Value {
        let number = &self.name[1..];
        let addresses = self.addresses.map(|cidr| Cidr::host(cidr.address));
        json!({
            "uuid": format!("6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce{number:0>3}"),
            "name": self.name,
            "created_at": CREATED,
            "state": "running",
            "service_group": GROUP,
            "addresses": addresses.map(|cidr| cidr.to_string()),
        })
    }
}

fn document(mode: &str, members: &[FleetBackend]) -> Value {
    let service = |protocol| {
        json!({
            "port": PORT, "destination_port": PORT, "protocol": protocol, "handlers": [],
        })
    };
    let instances: Vec<_> = members.iter().map(FleetBackend::instance).collect();
    json!({
        "format": 1,
        "service_groups": [{
            "uuid": GROUP,
            "name": "web",
            "created_at": CREATED,
            "services": [service("tcp"), service("udp")],
            "policy": { "forwarding_mode": mode },
        }],
        "instances": instances,
    })
}

fn address(cidr: &str) -> IpAddr {
    Cidr::new(cidr).address
}

/// The far end of a gateway's link: in the router and in the LAN.
fn gateway_port(number: usize) -> String {
    format!("gw{}", number + 1)
}

fn wire_router(router: &NetNs, client: &NetNs, lan: &NetNs) -> Result<()> {
    router.run(|| -> Result<()> {
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // By the 5-tuple, as routers before load balancers do.
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
            // Answers of DSR backends come in where no route to their source leads.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            set_sysctl(key, value)?;
        }
        let netlink = Netlink::open()?;
        netlink.add_veth("cl0", client, "eth0")?;
        add_addresses(&netlink, "cl0", ROUTER)?;
        netlink.add_veth("lan0", lan, "router")?;
        add_addresses(&netlink, "lan0", LAN[2])
    })?;
    lan.run(|| Netlink::open()?.add_port("br0", "router"))?;
    client.run(|| {
        let netlink = Netlink::open()?;
        add_addresses(&netlink, "eth0", CLIENT)?;
        netlink.add_default_routes("eth0", &ROUTER.map(address))?;
        make_wire_like("eth0")
    })
}

fn wire_gateway(number: usize, gateway: &HostNs, router: &NetNs, lan: &NetNs) -> Result<OwnedFd> {
    let port = gateway_port(number);
    let program = router.run(|| -> Result<OwnedFd> {
        let netlink = Netlink::open()?;
        netlink.add_veth(&port, &gateway.net, "cl0")?;
        add_addresses(&netlink, &port, ROUTER_LINKS[number])?;
        make_wire_like(&port)?;
        // What the gateway answers by XDP_TX arrives here only with a program.
        Ok(attach_xdp_pass(interface_index(&port)?)?)
    })?;
    gateway.run(|| {
        let netlink = Netlink::open()?;
        netlink.add_veth("be0", lan, &port)?;
        add_addresses(&netlink, "cl0", GATEWAY_LINKS[number])?;
        add_addresses(&netlink, "be0", LAN[number])?;
        netlink.add_default_routes("cl0", &ROUTER_LINKS[number].map(address))
    })?;
    lan.run(|| {
        Netlink::open()?.add_port("br0", &port)?;
        // Frames that XDP redirects into the link arrive only with this.
        set_offload(&port, Offload::Gro, true).context("switching GRO on")
    })?;
    Ok(program)
}

fn wire_backend(number: usize, lan: &NetNs) -> Result<FleetBackend> {
    let name = format!("b{number}");
    let host = HostNs::new(&name, BpfFs::Mounted)?;
    let low = 10 + number;
    let addresses = [format!("10.66.0.{low}/24"), format!("fd66::{low}/64")];
    let addresses = addresses.map(|text| Cidr::new(&text));
    lan.run(|| {
        let netlink = Netlink::open()?;
        netlink.add_veth(&name, &host.net, "eth0")?;
        netlink.add_port("br0", &name)
    })?;
    host.net.run(|| -> Result<()> {
        let netlink = Netlink::open()?;
        for cidr in addresses {
            netlink.add_address("eth0", cidr)?;
        }
        set_offload("eth0", Offload::Gro, true).context("switching GRO on")
    })?;
    Ok(FleetBackend {
        name,
        host,
        addresses,
    })
}
