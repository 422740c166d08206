//! The ways to addresses, as the routing table says them.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use super::Path;
use super::host::{Address, family, full_length};
use super::netlink::Netlink;

/// Addresses that are asked about at once, and by one thread.
const PORTION: usize = 1 << 10;

/// A way to an address, as the routing table says it; [`super::next_hops`] adds the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) path: Path,
    /// The router; `None`: the address itself is on the link.
    pub(super) router: Option<IpAddr>,
    /// The MTU that the route was given, in bytes; 0 for none.
    pub(super) route_mtu: u32,
    /// Packets leave as they are; a route may also wrap them.
    pub(super) is_plain: bool,
}

impl Way {
    /// Whose link address frames to this address get.
    pub(super) fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.router.unwrap_or(destination)
    }
}

/// Ways to addresses; many thousands of addresses have few ways between them.
pub(super) type Ways = Vec<Option<Arc<Way>>>;

/// How the host reaches these addresses; `None` where it does not, or is it itself. Many are asked about
/// by several threads: the kernel looks routes up for all of them at once.
pub(super) fn ways(
    netlink: &mut Netlink,
    destinations: &[IpAddr],
    addresses: &[Address],
) -> io::Result<Ways> {
    if destinations.len() <= PORTION {
        // To ask how many CPUs there are takes longer than to ask for a few ways.
        return ways_of(netlink, destinations, addresses);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = destinations.len().div_ceil(threads).max(PORTION);
    let (first, rest) = destinations.split_at(share.min(destinations.len()));
    thread::scope(|scope| {
        let ask = |share| {
            let ask = move || ways_of(&mut Netlink::open()?, share, addresses);
            thread::Builder::new().spawn_scoped(scope, ask)
        };
        let others = rest.chunks(share).map(ask);
        let others = others.collect::<io::Result<Vec<_>>>()?;
        let mut ways = ways_of(netlink, first, addresses)?;
        for other in others {
            let stopped = |_| io::Error::other("the thread that asked has panicked");
            ways.extend(other.join().map_err(stopped)??);
        }
        Ok(ways)
    })
}

/// The same, on this thread.
fn ways_of(
    netlink: &mut Netlink,
    destinations: &[IpAddr],
    addresses: &[Address],
) -> io::Result<Ways> {
    let mut known: HashSet<Arc<Way>> = HashSet::new();
    let mut ways = Vec::with_capacity(destinations.len());
    for portion in destinations.chunks(PORTION) {
        let questions: Vec<_> = portion.iter().map(|ip| question(*ip)).collect();
        let answers = netlink.ask(&questions)?;
        for (ip, answer) in portion.iter().zip(answers) {
            let way = way(*ip, answer, addresses)?;
            ways.push(way.map(|way| match known.get(&way) {
                Some(known) => Arc::clone(known),
                None => {
                    let new = Arc::new(way);
                    known.insert(Arc::clone(&new));
                    new
                }
            }));
        }
    }
    Ok(ways)
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
        router: gateway,
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
