//! A network namespace in which programs can be run by hand: two interfaces, one towards clients
//! and one towards backends, and routes with known link addresses, so that the programs' route
//! lookups end as they would on the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::sched::{CloneFlags, unshare};

use super::host::{failed, family, full_length};
use super::interfaces::Interfaces;
use super::netlink::Netlink;
use super::{DataplaneError, Path};

const CLIENT: &str = "client0";
const BACKEND: &str = "backend0";
/// The routers that all other addresses are behind, from the benchmarking range (RFC 2544) and a
/// link-local one.
const ROUTERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];
/// Link address of the routers; locally administered.
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0xff, 0, 1];

/// The namespace of the current thread, left when the thread ends.
#[derive(Debug)]
pub struct Sandbox {
    netlink: Netlink,
    /// The interface towards clients.
    pub client_ifindex: u32,
    /// The interface towards backends.
    pub backend_ifindex: u32,
}

impl Sandbox {
    /// Moves the current thread, and no other, into a namespace of its own.
    pub fn enter() -> Result<Self, DataplaneError> {
        let sandbox = |operation| failed(operation, "a private network namespace");
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| sandbox("create")(error.into()))?;
        let mut netlink = Netlink::open().map_err(sandbox("open a socket in"))?;
        // Its address makes the kernel set IPv4 routing up.
        set_up(&mut netlink, "lo").map_err(sandbox("set up"))?;
        let client_ifindex = create_pair(&mut netlink, CLIENT).map_err(sandbox("set up"))?;
        let backend_ifindex = create_pair(&mut netlink, BACKEND).map_err(sandbox("set up"))?;
        for interface in [CLIENT, BACKEND] {
            forward(interface).map_err(sandbox("enable forwarding in"))?;
        }
        let mut sandbox_ready = Self {
            netlink,
            client_ifindex,
            backend_ifindex,
        };
        for router in ROUTERS {
            sandbox_ready
                .add_neighbour(client_ifindex, router, ROUTER_MAC)
                .and_then(|()| sandbox_ready.add_route(None, client_ifindex, Some(router)))
                .map_err(sandbox("route in"))?;
        }
        Ok(sandbox_ready)
    }

    /// Listening sockets for IPv4 and IPv6 that stand for a terminator's: programs answer SYNs only for
    /// somebody who would take the connection. None for a family that this host does not have.
    pub fn listen(&self) -> Result<[Option<OwnedFd>; 2], DataplaneError> {
        let sandbox = |operation| failed(operation, "a private network namespace");
        let listen = |ip: IpAddr| TcpListener::bind((ip, 0)).ok().map(OwnedFd::from);
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").map_err(sandbox("set up"))?;
        Ok([
            listen(Ipv4Addr::LOCALHOST.into()),
            listen(Ipv6Addr::LOCALHOST.into()),
        ])
    }

    /// Makes addresses reachable, each through the side that `client_side` says, and returns their
    /// paths with the interfaces of this namespace.
    pub fn connect(
        &mut self,
        paths: &BTreeMap<IpAddr, Path>,
        client_side: &BTreeSet<u32>,
    ) -> Result<BTreeMap<IpAddr, Path>, DataplaneError> {
        let mut connected = BTreeMap::new();
        for (number, (ip, path)) in (0_u32..).zip(paths) {
            let ifindex = if client_side.contains(&path.ifindex) {
                self.client_ifindex
            } else {
                self.backend_ifindex
            };
            let [a, b, c, d] = number.to_be_bytes();
            self.add_route(Some(*ip), ifindex, None)
                .and_then(|()| self.add_neighbour(ifindex, *ip, [0x02, 1, a, b, c, d]))
                .map_err(failed("connect", ip))?;
            connected.insert(*ip, Path { ifindex, ..*path });
        }
        Ok(connected)
    }

    fn add_route(
        &mut self,
        destination: Option<IpAddr>,
        ifindex: u32,
        gateway: Option<IpAddr>,
    ) -> io::Result<()> {
        let Some(ip) = destination.or(gateway) else {
            return Ok(());
        };
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(ifindex));
        if let Some(destination) = destination {
            message.header.destination_prefix_length = full_length(destination);
            message.header.scope = RouteScope::Link;
            message
                .attributes
                .push(RouteAttribute::Destination(destination.into()));
        }
        if let Some(gateway) = gateway {
            // The router is on the link though no address of ours says so.
            message.header.flags = netlink_packet_route::route::RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.netlink
            .request(RouteNetlinkMessage::NewRoute(message), flags)
            .map(drop)
    }

    fn add_neighbour(&mut self, ifindex: u32, ip: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(ip.into()),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.netlink
            .request(RouteNetlinkMessage::NewNeighbour(message), flags)
            .map(drop)
    }
}

/// Creates an interface with its other end, both up; returns the interface's index.
fn create_pair(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    let peer = format!("{name}-peer");
    let mut other_end = LinkMessage::default();
    other_end.attributes = vec![LinkAttribute::IfName(peer.clone())];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other_end))),
        ]),
    ];
    netlink.request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )?;
    set_up(netlink, &peer)?;
    set_up(netlink, name)
}

/// Takes an interface up; returns its index.
fn set_up(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    let index = Interfaces::read(netlink)?
        .index(name)
        .ok_or(io::ErrorKind::NotFound)?;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink.request(RouteNetlinkMessage::SetLink(message), 0)?;
    Ok(index)
}

fn forward(interface: &str) -> io::Result<()> {
    for family in ["ipv4", "ipv6"] {
        std::fs::write(
            format!("/proc/sys/net/{family}/conf/{interface}/forwarding"),
            "1",
        )?;
    }
    Ok(())
}
