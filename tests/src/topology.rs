//! Named networks of a client, a gateway and backends, each in namespaces of its own.
//!
//! ```text
//! Routed     client ── cl0 gateway be1 ── b1        each backend on a link of its own, /32 and /128
//!                                 be2 ── b2
//! Bridged    client ── cl0 gateway br0 ══ b1, b2    backends in one subnet, on the gateway's bridge
//! OneArmed   client, b1, b2 ══ switch ══ eth0 gateway   one interface, one wire; client elsewhere
//! SameSubnet as OneArmed, the client in the backends' subnet
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use crate::net_link::{Cidr, Netlink};
use crate::netns::{BpfFs, HostNs, NetNs};
use crate::syscalls::{Offload, attach_xdp_pass, interface_index, set_offload};

/// The VIPs of every topology unless a test names others.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
/// The IPv6 VIP.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10));
/// Both VIPs.
pub const VIPS: [IpAddr; 2] = [VIP4, VIP6];

/// The client's own addresses where it is on a network of its own.
const CLIENT_NET: [&str; 2] = ["198.51.100.2/24", "2001:db8:1::2/64"];
/// The gateway's addresses on that network.
const GATEWAY_NET: [&str; 2] = ["198.51.100.1/24", "2001:db8:1::1/64"];
/// The gateway's addresses towards the backends.
const BACKEND_GATEWAY: [&str; 2] = ["10.66.0.1/24", "fd66::1/64"];
/// The client's addresses where it shares the backends' subnet.
const CLIENT_IN_SUBNET: [&str; 2] = ["10.66.0.100/24", "fd66::100/64"];

/// How client, gateway and backends are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each backend on a link of its own, as virtual machines are.
    Routed,
    /// Backends on a bridge of the gateway, as containers are.
    Bridged,
    /// One interface for both sides; the client in another subnet of the same wire.
    OneArmed,
    /// One interface for both sides; the client in the backends' subnet.
    SameSubnet,
}

impl Shape {
    fn has_switch(self) -> bool {
        matches!(self, Self::OneArmed | Self::SameSubnet)
    }
}

/// A backend: a namespace with `eth0`.
#[derive(Debug)]
pub struct BackendHost {
    /// `b1`, `b2`, …
    pub name: String,
    /// Its namespace.
    pub ns: NetNs,
    /// Its IPv4 and its IPv6 address.
    pub addresses: [IpAddr; 2],
}

impl BackendHost {
    /// The interface that leads to it: in the gateway, or in the switch.
    pub fn link_name(&self) -> String {
        format!("be{}", &self.name[1..])
    }
}

/// A wired-up network.
#[derive(Debug)]
pub struct Topology {
    /// How it is wired.
    pub shape: Shape,
    /// The client, on `eth0`.
    pub client: NetNs,
    /// The client's IPv4 and IPv6 address.
    pub client_addresses: [IpAddr; 2],
    /// The gateway.
    pub gateway: HostNs,
    /// The backends.
    pub backends: Vec<BackendHost>,
    /// The wire of one-armed shapes.
    pub switch: Option<NetNs>,
    /// Programs at the far ends of the gateway's links; see [`attach_xdp_pass`].
    _peer_programs: Vec<OwnedFd>,
}

impl Topology {
    /// Builds it with `backends` backends.
    pub fn build(shape: Shape, backends: usize) -> Result<Self> {
        Self::build_on(shape, backends, BpfFs::Mounted)
    }

    /// Builds it with or without a BPF file system on the gateway.
    pub fn build_on(shape: Shape, backends: usize, bpf: BpfFs) -> Result<Self> {
        let mut topology = Self {
            shape,
            client: NetNs::new("client")?,
            client_addresses: client_net(shape).map(|text| Cidr::new(text).address),
            gateway: HostNs::new("gateway", bpf)?,
            backends: (1..=backends).map(new_backend).collect::<Result<_>>()?,
            switch: shape
                .has_switch()
                .then(|| NetNs::new("switch"))
                .transpose()?,
            _peer_programs: Vec::new(),
        };
        topology.wire_gateway()?;
        topology.wire_client()?;
        for backend in &topology.backends {
            topology.wire_backend(backend)?;
        }
        Ok(topology)
    }

    /// The gateway's interface towards the client.
    pub fn client_interface(&self) -> &'static str {
        if self.shape.has_switch() {
            "eth0"
        } else {
            "cl0"
        }
    }

    /// The gateway's interfaces towards the backends.
    pub fn backend_interfaces(&self) -> Vec<String> {
        match self.shape {
            Shape::Routed => self.backends.iter().map(BackendHost::link_name).collect(),
            Shape::Bridged => vec!["br0".into()],
            Shape::OneArmed | Shape::SameSubnet => vec!["eth0".into()],
        }
    }

    /// The gateway's addresses on the side of the backends.
    pub fn gateway_addresses(&self) -> [IpAddr; 2] {
        BACKEND_GATEWAY.map(|text| Cidr::new(text).address)
    }

    fn wire_gateway(&mut self) -> Result<()> {
        if let Some(switch) = &self.switch {
            let program = switch.run(|| -> Result<OwnedFd> {
                let net = Netlink::open()?;
                net.add_bridge("br0")?;
                net.add_veth("gw0", &self.gateway.net, "eth0")?;
                net.add_port("br0", "gw0")?;
                // The wire between switch and gateway: whoever sends through it, offloads on, its
                // frames have complete checksums.
                set_offload("gw0", Offload::TxChecksum, false)?;
                // What the gateway sends by XDP_TX arrives here only with a program.
                Ok(attach_xdp_pass(interface_index("gw0")?)?)
            })?;
            self._peer_programs.push(program);
        }
        let shape = self.shape;
        self.gateway.run(|| -> Result<()> {
            let net = Netlink::open()?;
            if shape == Shape::Bridged {
                net.add_bridge("br0")?;
                add_addresses(&net, "br0", BACKEND_GATEWAY)?;
            }
            if shape.has_switch() {
                add_addresses(&net, "eth0", BACKEND_GATEWAY)?;
            }
            if shape == Shape::OneArmed {
                add_addresses(&net, "eth0", GATEWAY_NET)?;
            }
            Ok(())
        })
    }

    /// Connects the client to the gateway, for the first time or after its link was deleted.
    pub fn wire_client(&self) -> Result<()> {
        let addresses = client_net(self.shape);
        match &self.switch {
            Some(switch) => plug_into(switch, "cl0", &self.client)?,
            None => self.gateway.run(|| {
                let net = Netlink::open()?;
                net.add_veth("cl0", &self.client, "eth0")?;
                add_addresses(&net, "cl0", GATEWAY_NET)
            })?,
        }
        let gateways = match self.shape {
            Shape::SameSubnet => BACKEND_GATEWAY,
            _ => GATEWAY_NET,
        };
        self.client.run(|| {
            let net = Netlink::open()?;
            add_addresses(&net, "eth0", addresses)?;
            net.add_default_routes("eth0", &gateways.map(|text| Cidr::new(text).address))?;
            make_wire_like("eth0")
        })
    }

    /// Lets the client get what XDP sends back, as through a wire: until the program is dropped.
    pub fn arm_client(&self) -> Result<OwnedFd> {
        self.client
            .run(|| Ok(attach_xdp_pass(interface_index("eth0")?)?))
    }

    /// Connects a backend to the gateway, for the first time or after its link was deleted.
    pub fn wire_backend(&self, backend: &BackendHost) -> Result<()> {
        let link = backend.link_name();
        match &self.switch {
            Some(switch) => plug_into(switch, &link, &backend.ns)?,
            None => self
                .gateway
                .run(|| self.wire_backend_to_gateway(backend, &link))?,
        }
        backend.ns.run(|| {
            let net = Netlink::open()?;
            let whole = self.shape == Shape::Routed;
            for (address, on_subnet) in backend.addresses.iter().zip([24, 64]) {
                let host = Cidr::host(*address);
                let cidr = if whole {
                    host
                } else {
                    Cidr {
                        len: on_subnet,
                        ..host
                    }
                };
                net.add_address("eth0", cidr)?;
            }
            net.add_default_routes("eth0", &self.gateway_addresses())?;
            // Frames that XDP redirects into the link arrive only with this; offloads of the
            // sending direction all stay on.
            set_offload("eth0", Offload::Gro, true).context("switching GRO on")
        })
    }

    fn wire_backend_to_gateway(&self, backend: &BackendHost, link: &str) -> Result<()> {
        let net = Netlink::open()?;
        net.add_veth(link, &backend.ns, "eth0")?;
        if self.shape == Shape::Bridged {
            return net.add_port("br0", link);
        }
        for (own, backend) in self.gateway_addresses().into_iter().zip(backend.addresses) {
            net.add_address(link, Cidr::host(own))?;
            net.add_route(Cidr::host(backend), link, None)?;
        }
        Ok(())
    }
}

fn client_net(shape: Shape) -> [&'static str; 2] {
    if shape == Shape::SameSubnet {
        CLIENT_IN_SUBNET
    } else {
        CLIENT_NET
    }
}

fn new_backend(number: usize) -> Result<BackendHost> {
    let name = format!("b{number}");
    let low = u8::try_from(10 + number).context("too many backends")?;
    Ok(BackendHost {
        ns: NetNs::new(&name)?,
        name,
        addresses: [
            Ipv4Addr::new(10, 66, 0, low).into(),
            Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, low.into()).into(),
        ],
    })
}

/// Connects a host's `eth0` to the switch.
fn plug_into(switch: &NetNs, port: &str, host: &NetNs) -> Result<()> {
    switch.run(|| {
        let net = Netlink::open()?;
        net.add_veth(port, host, "eth0")?;
        net.add_port("br0", port)
    })
}

/// Makes a sender's frames look as they do after a wire: with complete checksums. XDP sees frames
/// before anything could complete them.
pub(crate) fn make_wire_like(interface: &str) -> Result<()> {
    set_offload(interface, Offload::TxChecksum, false).context("switching checksum offload off")?;
    set_offload(interface, Offload::Gro, true).context("switching GRO on")
}

pub(crate) fn add_addresses(net: &Netlink, interface: &str, addresses: [&str; 2]) -> Result<()> {
    addresses
        .iter()
        .try_for_each(|text| net.add_address(interface, Cidr::new(text)))
}
