//! Makes the host answer for VIP addresses: as addresses of the client interfaces where the
//! network asks by ARP and neighbour discovery, as `local` routes where routers know the way.
//!
//! What the agent makes carries its protocol number. What an operator made is never removed: a
//! gateway's own address may be a VIP.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::DataplaneError;
use super::announce::announce;
use super::interfaces::Interfaces;
use super::netlink::Netlink;

/// Marks addresses (`IFA_PROTO`, Linux 5.18), routes and neighbours as the agent's.
pub(crate) const OWN_PROTOCOL: u8 = 199;
/// The table of addresses that the host itself has.
const LOCAL_TABLE: u8 = 255;

/// How the host comes to answer for VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipMode {
    /// As an address of each client interface: the host answers ARP and neighbour discovery.
    #[default]
    L2,
    /// By a `local` route: routers send the VIPs here.
    Routed,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) ifindex: u32,
    /// Whether the agent made it.
    pub(super) ours: bool,
}

/// The VIP addresses of the host.
#[derive(Debug)]
pub(super) struct HostAddresses {
    mode: VipMode,
    clients: Vec<String>,
    /// Addresses asked for by this process.
    wanted: BTreeSet<IpAddr>,
}

impl HostAddresses {
    pub(super) fn new(mode: VipMode, clients: Vec<String>) -> Self {
        Self {
            mode,
            clients,
            wanted: BTreeSet::new(),
        }
    }

    /// Makes the host answer for a VIP.
    pub(super) fn add(&mut self, netlink: &mut Netlink, ip: IpAddr) -> Result<(), DataplaneError> {
        self.wanted.insert(ip);
        let present = addresses(netlink).map_err(failed("list", "addresses"))?;
        let interfaces = Interfaces::read(netlink).map_err(failed("list", "interfaces"))?;
        self.complete(netlink, ip, &present, &interfaces)
            .map_err(failed("add the VIP address", ip))
    }

    /// Stops answering for a VIP, as far as the agent made the host do so.
    pub(super) fn remove(
        &mut self,
        netlink: &mut Netlink,
        ip: IpAddr,
    ) -> Result<(), DataplaneError> {
        self.wanted.remove(&ip);
        remove_ours(netlink, |found| found == ip)
            .map(drop)
            .map_err(failed("remove the VIP address", ip))
    }

    /// The VIPs that the host answers for. An interface that was taken down or made anew lost its
    /// addresses; they are added again here, so that the plan need not know interfaces.
    pub(super) fn answered(
        &mut self,
        netlink: &mut Netlink,
        present: &[Address],
        interfaces: &Interfaces,
    ) -> io::Result<BTreeSet<IpAddr>> {
        let ours = present
            .iter()
            .filter(|address| address.ours)
            .map(|address| address.ip);
        let mut found: BTreeSet<IpAddr> = ours.collect();
        found.extend(own_routes(netlink)?.iter().filter_map(destination));
        let candidates: Vec<IpAddr> = found.union(&self.wanted).copied().collect();
        for ip in candidates {
            match self.complete(netlink, ip, present, interfaces) {
                Ok(()) => {
                    found.insert(ip);
                }
                Err(error) => {
                    tracing::warn!(%ip, %error, "cannot make the host answer for a VIP");
                    found.remove(&ip);
                }
            }
        }
        Ok(found)
    }

    fn complete(
        &self,
        netlink: &mut Netlink,
        ip: IpAddr,
        present: &[Address],
        interfaces: &Interfaces,
    ) -> io::Result<()> {
        let foreign = |address: &&Address| address.ip == ip && !address.ours;
        if self.mode == VipMode::Routed {
            if present.iter().any(|address| foreign(&address)) {
                return Ok(());
            }
            return create(netlink, RouteNetlinkMessage::NewRoute(local_route(ip))).map(drop);
        }
        // IPv4 answers ARP for an address of any interface, IPv6 only for those of the same one.
        if ip.is_ipv4() && present.iter().any(|address| foreign(&address)) {
            return Ok(());
        }
        for interface in self.clients.iter().filter_map(|name| interfaces.get(name)) {
            let there = present
                .iter()
                .any(|address| address.ip == ip && address.ifindex == interface.index);
            if there {
                continue;
            }
            let message = RouteNetlinkMessage::NewAddress(vip_address(ip, interface.index));
            if create(netlink, message)? && interface.up {
                announce(ip, interface);
            }
        }
        Ok(())
    }

    /// Removes what an agent with another configuration left: addresses of interfaces that no
    /// longer face clients, and the other mode's kind.
    pub(super) fn remove_others(&self, netlink: &mut Netlink) -> io::Result<()> {
        let interfaces = Interfaces::read(netlink)?;
        let kept: BTreeSet<u32> = self
            .clients
            .iter()
            .filter_map(|name| interfaces.index(name))
            .collect();
        for message in own_addresses(netlink)? {
            if self.mode == VipMode::Routed || !kept.contains(&message.header.index) {
                delete(netlink, RouteNetlinkMessage::DelAddress(message))?;
            }
        }
        if self.mode == VipMode::L2 {
            for route in own_routes(netlink)? {
                delete(netlink, RouteNetlinkMessage::DelRoute(route))?;
            }
        }
        Ok(())
    }
}

/// All addresses of the host.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    let messages = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => parse(message),
            _ => None,
        })
        .collect())
}

/// Removes the agent's addresses and local routes that `select` takes; returns which.
pub(crate) fn remove_ours(
    netlink: &mut Netlink,
    select: impl Fn(IpAddr) -> bool,
) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for message in own_addresses(netlink)? {
        let Some(address) = parse(&message).filter(|address| select(address.ip)) else {
            continue;
        };
        delete(netlink, RouteNetlinkMessage::DelAddress(message))?;
        removed.push(format!(
            "address {} of interface {}",
            address.ip, address.ifindex
        ));
    }
    for route in own_routes(netlink)? {
        let Some(ip) = destination(&route).filter(|ip| select(*ip)) else {
            continue;
        };
        delete(netlink, RouteNetlinkMessage::DelRoute(route))?;
        removed.push(format!("local route {ip}"));
    }
    Ok(removed)
}

fn own_addresses(netlink: &mut Netlink) -> io::Result<Vec<AddressMessage>> {
    let messages = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Some(message),
            _ => None,
        })
        .filter(|message| parse(message).is_some_and(|address| address.ours))
        .collect())
}

fn own_routes(netlink: &mut Netlink) -> io::Result<Vec<RouteMessage>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family;
        wanted.header.table = LOCAL_TABLE;
        wanted.header.protocol = RouteProtocol::Other(OWN_PROTOCOL);
        wanted.header.kind = RouteType::Local;
        found.extend(netlink.dump_selected(RouteNetlinkMessage::GetRoute(wanted))?);
    }
    let routes = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    // Checked again: a kernel may select less than it was asked to.
    Ok(routes
        .filter(|route| {
            route.header.protocol == RouteProtocol::Other(OWN_PROTOCOL)
                && route.header.kind == RouteType::Local
        })
        .collect())
}

fn parse(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Protocol(protocol) => {
                ours = *protocol == AddressProtocol::Other(OWN_PROTOCOL);
            }
            _ => {}
        }
    }
    let header = &message.header;
    // On point-to-point links `IFA_ADDRESS` is the other end.
    let ip = local.or(address)?;
    Some(Address {
        ip,
        prefix_len: header.prefix_len,
        ifindex: header.index,
        ours,
    })
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
}

/// A VIP as an address that the host accepts and answers for, but never chooses as a source.
fn vip_address(ip: IpAddr, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = full_length(ip);
    message.header.index = ifindex;
    message.attributes = vec![
        AddressAttribute::Local(ip),
        AddressAttribute::Address(ip),
        AddressAttribute::Protocol(AddressProtocol::Other(OWN_PROTOCOL)),
    ];
    if ip.is_ipv4() {
        message.header.scope = AddressScope::Host;
    } else {
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = u32::MAX;
        lifetime.ifa_preferred = 0;
        // Two gateways may announce one VIP, so its uniqueness is not asked about.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetime));
    }
    message
}

fn local_route(ip: IpAddr) -> RouteMessage {
    /// The loopback interface is the first of every network namespace.
    const LOOPBACK: u32 = 1;
    let mut message = RouteMessage::default();
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = full_length(ip);
    message.header.table = LOCAL_TABLE;
    message.header.protocol = RouteProtocol::Other(OWN_PROTOCOL);
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes = vec![
        RouteAttribute::Destination(ip.into()),
        RouteAttribute::Oif(LOOPBACK),
    ];
    message
}

/// Creates; false when it was there.
pub(super) fn create(netlink: &mut Netlink, message: RouteNetlinkMessage) -> io::Result<bool> {
    match netlink.request(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes; its absence is no failure.
pub(super) fn delete(netlink: &mut Netlink, message: RouteNetlinkMessage) -> io::Result<()> {
    const GONE: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENODEV];
    match netlink.request(message, 0) {
        Err(error)
            if !error
                .raw_os_error()
                .is_some_and(|errno| GONE.contains(&errno)) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

pub(super) fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

pub(super) fn failed(
    operation: &'static str,
    object: impl ToString,
) -> impl FnOnce(io::Error) -> DataplaneError {
    let object = object.to_string();
    move |source| DataplaneError::Host {
        operation,
        object,
        source: source.into(),
    }
}
