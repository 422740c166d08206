//! The ways to backends: which interface, which source, and the link address at its end.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia,
};

use super::host::{Address, OWN_PROTOCOL, delete, family, full_length};
use super::netlink::Netlink;
use super::{DataplaneError, Path, host};

/// A way to an address, as the routing table says it; [`super::next_hops`] adds the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) path: Path,
    /// The router, or the address itself.
    pub(super) next_hop: IpAddr,
    /// The MTU that the route was given, in bytes; 0 for none.
    pub(super) route_mtu: u32,
    /// Packets leave as they are; a route may also wrap them.
    pub(super) is_plain: bool,
}

/// The neighbours that the kernel keeps resolved for the agent.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    kept: BTreeSet<(u32, IpAddr)>,
    /// Those that the kernel was asked to keep since the others were let go: many thousands of
    /// addresses may lie behind one router.
    asked: BTreeSet<(u32, IpAddr)>,
}

impl Neighbours {
    /// Takes over those of a former agent.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let kept = own(netlink)?.iter().filter_map(identity).collect();
        Ok(Self {
            kept,
            asked: BTreeSet::new(),
        })
    }

    /// Has the kernel resolve an address now and keep it resolved, agent or no agent. Kernels
    /// before 5.16 resolve it once.
    pub(super) fn keep(
        &mut self,
        netlink: &mut Netlink,
        ifindex: u32,
        next_hop: IpAddr,
    ) -> Result<(), DataplaneError> {
        if self.asked.contains(&(ifindex, next_hop)) || is_permanent(netlink, ifindex, next_hop) {
            return Ok(());
        }
        netlink
            .request(
                RouteNetlinkMessage::NewNeighbour(kept_message(ifindex, next_hop)),
                NLM_F_CREATE,
            )
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOBUFS) => DataplaneError::NeighboursFull,
                _ => host::failed("resolve", next_hop)(error),
            })?;
        self.kept.insert((ifindex, next_hop));
        self.asked.insert((ifindex, next_hop));
        Ok(())
    }

    /// Lets go of the neighbours that no way leads through any more.
    pub(super) fn release_others<'a>(
        &mut self,
        netlink: &mut Netlink,
        ways: impl Iterator<Item = &'a Way>,
    ) {
        self.asked.clear();
        let needed: BTreeSet<_> = ways.map(|way| (way.path.ifindex, way.next_hop)).collect();
        for (ifindex, next_hop) in self.kept.difference(&needed) {
            let message = RouteNetlinkMessage::DelNeighbour(message(*ifindex, *next_hop));
            if let Err(error) = delete(netlink, message) {
                tracing::debug!(%next_hop, %error, "cannot remove a neighbour");
            }
        }
        self.kept = self.kept.intersection(&needed).copied().collect();
    }
}

/// Removes every neighbour that an agent had the kernel keep; returns which.
pub(crate) fn remove_ours(netlink: &mut Netlink) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for (ifindex, ip) in own(netlink)?.iter().filter_map(identity) {
        delete(
            netlink,
            RouteNetlinkMessage::DelNeighbour(message(ifindex, ip)),
        )?;
        removed.push(format!("neighbour {ip} of interface {ifindex}"));
    }
    Ok(removed)
}

/// How the host reaches these addresses; `None` where it does not, or is it itself.
pub(super) fn ways(
    netlink: &mut Netlink,
    destinations: &[IpAddr],
    addresses: &[Address],
) -> io::Result<Vec<Option<Way>>> {
    let questions: Vec<_> = destinations.iter().map(|ip| question(*ip)).collect();
    let answers = netlink.ask(&questions)?;
    let ways = destinations.iter().zip(answers);
    ways.map(|(ip, answer)| way(*ip, answer, addresses))
        .collect()
}

fn question(destination: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = full_length(destination);
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    RouteNetlinkMessage::GetRoute(message)
}

fn way(
    destination: IpAddr,
    answer: io::Result<RouteNetlinkMessage>,
    addresses: &[Address],
) -> io::Result<Option<Way>> {
    /// What the kernel answers when there is no route, or one that refuses.
    const NO_ROUTE: [i32; 5] = [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
        libc::ENETDOWN,
    ];
    match answer {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(parse_way(&route, destination, addresses)),
        Ok(_) => Ok(None),
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|errno| NO_ROUTE.contains(&errno)) =>
        {
            Ok(None)
        }
        // A kernel newer than the parser may name a way that it does not know, which is none of ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::debug!(%destination, %error, "skipped a route");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse_way(route: &RouteMessage, destination: IpAddr, addresses: &[Address]) -> Option<Way> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut source, mut gateway) = (None, None, None);
    let (mut route_mtu, mut is_plain) = (0, true);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::Metrics(metrics) => route_mtu = mtu(metrics),
            RouteAttribute::EncapType(_) => is_plain = false,
            _ => {}
        }
    }
    let ifindex = ifindex?;
    let unspecified = match destination {
        IpAddr::V4(_) => IpAddr::from([0_u8; 4]),
        IpAddr::V6(_) => IpAddr::from([0_u8; 16]),
    };
    let onlink_prefix = match gateway {
        Some(_) => full_length(destination),
        None => shared_prefix(destination, ifindex, addresses),
    };
    let path = Path {
        ifindex,
        source: source.unwrap_or(unspecified),
        onlink_prefix,
        takes_xdp: false,
        mtu: 0,
        next_hop: None,
    };
    Some(Way {
        path,
        next_hop: gateway.unwrap_or(destination),
        route_mtu,
        is_plain,
    })
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(0)
}

/// The length of the widest network of an interface that holds the address.
fn shared_prefix(destination: IpAddr, ifindex: u32, addresses: &[Address]) -> u8 {
    addresses
        .iter()
        .filter(|address| address.ifindex == ifindex)
        .filter_map(|address| IpNetwork::new(address.ip, address.prefix_len).ok())
        .filter(|network| network.contains(destination))
        .map(|network| network.prefix())
        .min()
        .unwrap_or(full_length(destination))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn own(netlink: &mut Netlink) -> io::Result<Vec<NeighbourMessage>> {
    let messages = netlink.dump(RouteNetlinkMessage::GetNeighbour(
        NeighbourMessage::default(),
    ))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        })
        .filter(|message| {
            // An operator who fixes the address of such a neighbour takes it over: it keeps the
            // protocol number, but the kernel no longer resolves it.
            let own = NeighbourAttribute::Protocol(RouteProtocol::Other(OWN_PROTOCOL));
            let kept = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
            message.attributes.contains(&own) && message.attributes.contains(&kept)
        })
        .collect())
}

/// Which interface's neighbour a message is about.
pub(super) fn identity(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                Some((message.header.ifindex, IpAddr::V4(*ip)))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                Some((message.header.ifindex, IpAddr::V6(*ip)))
            }
            _ => None,
        })
}

/// The link address that frames to a neighbour get now; `None` while the kernel has none, or has
/// found that nobody answers there.
pub(super) fn usable_link_address(message: &NeighbourMessage) -> Option<[u8; 6]> {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let is_valid = matches!(
        message.header.state,
        Reachable | Stale | Delay | Probe | Permanent | Noarp
    );
    let link = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(link) => Some(link),
            _ => None,
        })?;
    link.as_slice().try_into().ok().filter(|_| is_valid)
}

/// An operator's fixed neighbour would lose its address if the kernel were told to keep it.
fn is_permanent(netlink: &mut Netlink, ifindex: u32, ip: IpAddr) -> bool {
    let found = netlink.request(RouteNetlinkMessage::GetNeighbour(message(ifindex, ip)), 0);
    found
        .unwrap_or_default()
        .iter()
        .any(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                matches!(
                    message.header.state,
                    NeighbourState::Permanent | NeighbourState::Noarp
                )
            }
            _ => false,
        })
}

fn message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

fn kept_message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = message(ifindex, ip);
    message.header.flags = NeighbourFlags::Use;
    message.attributes.extend([
        NeighbourAttribute::Protocol(RouteProtocol::Other(OWN_PROTOCOL)),
        NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
    ]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_network_of_the_interface_is_shared() {
        #[track_caller]
        fn check(destination: &str, ifindex: u32, expected: u8) {
            let address = |ip: &str, prefix_len, ifindex| Address {
                ip: ip.parse().unwrap(),
                prefix_len,
                ifindex,
                ours: false,
            };
            let addresses = [
                address("10.0.0.1", 24, 2),
                address("10.0.0.2", 16, 2),
                address("10.0.0.3", 8, 3),
                address("2001:db8::1", 64, 2),
            ];
            let destination = destination.parse().unwrap();
            assert_eq!(shared_prefix(destination, ifindex, &addresses), expected);
        }
        check("10.0.0.9", 2, 16);
        check("10.0.0.9", 3, 8);
        check("10.9.0.9", 2, 32);
        check("2001:db8::9", 2, 64);
        check("2001:db8:1::9", 2, 128);
        check("2001:db8::9", 3, 128);
    }
}
