//! Follows the host's network: wakes the reconciler, and says which part of what was read is old.

use std::collections::HashMap;
use std::io;
use std::thread;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::watch;

use super::neighbours::usable_link_address;
use super::netlink::split;

/// Groups of `enum rtnetlink_groups` whose changes move ways or attachments.
const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    // RTNLGRP_IPV6_RULE (include/uapi/linux/rtnetlink.h); libc does not have it.
    19,
];

/// Room for notifications that the thread did not read yet: a router may announce many thousands of
/// routes at once. Losing some costs one full reading.
const QUEUE_BYTES: i32 = 4 << 20;

/// What has happened since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Notifications about interfaces, addresses, routes and rules.
    pub ways: u64,
    /// Changes of the link address that a neighbour is reached at, or of the port behind which a
    /// bridge has found one.
    pub neighbours: u64,
}

/// Watches interfaces, addresses, routes and rules in the network namespace of the calling thread.
pub fn network_changes() -> io::Result<watch::Receiver<Changes>> {
    watch_groups(&GROUPS)
}

/// Watches neighbours too.
pub(super) fn network_and_neighbours() -> io::Result<watch::Receiver<Changes>> {
    let groups: Vec<u32> = GROUPS.into_iter().chain([libc::RTNLGRP_NEIGH]).collect();
    watch_groups(&groups)
}

/// The receiver learns that the watch ended, for whatever reason, by the sender being gone.
fn watch_groups(groups: &[u32]) -> io::Result<watch::Receiver<Changes>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    // What the kernel does not grant is no reason to do without.
    let _ = socket.set_rx_buf_sz(QUEUE_BYTES);
    for group in groups {
        socket.add_membership(*group)?;
    }
    let (sender, receiver) = watch::channel(Changes::default());
    thread::Builder::new()
        .name("network-changes".to_owned())
        .spawn(move || forward(&socket, &sender))?;
    Ok(receiver)
}

/// Counts changes until nobody listens. A queue that overflowed lost messages, so it counts as a
/// change of everything.
fn forward(socket: &Socket, changes: &watch::Sender<Changes>) {
    let mut known = Known::default();
    loop {
        let found = match socket.recv_from_full() {
            Ok((datagram, _)) => known.take(&datagram),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                known = Known::default();
                Changes {
                    ways: 1,
                    neighbours: 1,
                }
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "cannot watch the network: only the timer reconciles now, and each packet's \
                     way is looked up in the routing table"
                );
                return;
            }
        };
        if changes.is_closed() {
            return;
        }
        if found != Changes::default() {
            changes.send_modify(|changes| {
                changes.ways += found.ways;
                changes.neighbours += found.neighbours;
            });
        }
    }
}

/// The neighbours as last heard of: most notifications are about the state of an entry whose link
/// address stays, every few seconds for each neighbour, and must not wake anybody.
#[derive(Debug, Default)]
struct Known {
    neighbours: HashMap<Neighbour, Place>,
}

/// Who is reached: the interface with the neighbour's address; for an entry of a bridge's
/// forwarding table the bridge with the link address.
type Neighbour = (u8, u32, Vec<u8>);
/// Where: the link address; for an entry of a forwarding table the port.
type Place = Vec<u8>;

impl Known {
    /// Takes the notifications of one datagram.
    fn take(&mut self, datagram: &[u8]) -> Changes {
        let mut changes = Changes::default();
        for bytes in split(datagram) {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
                // Not understood, so it may be anything but a neighbour.
                changes.ways += 1;
                continue;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) => {
                    changes.neighbours += u64::from(self.is_news(&neighbour, true));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(neighbour)) => {
                    changes.neighbours += u64::from(self.is_news(&neighbour, false));
                }
                _ => changes.ways += 1,
            }
        }
        changes
    }

    fn is_news(&mut self, message: &NeighbourMessage, is_there: bool) -> bool {
        let Some((neighbour, place)) = placed(message) else {
            return false;
        };
        match place.filter(|_| is_there) {
            Some(place) => self.neighbours.insert(neighbour, place.clone()) != Some(place),
            None => self.neighbours.remove(&neighbour).is_some(),
        }
    }
}

/// Who a message is about, and where that neighbour is reached now.
fn placed(message: &NeighbourMessage) -> Option<(Neighbour, Option<Place>)> {
    let (family, ifindex) = (message.header.family, message.header.ifindex);
    if family == AddressFamily::Bridge {
        let mut bridge = None;
        let mut link = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Controller(index) => bridge = Some(*index),
                NeighbourAttribute::LinkLayerAddress(address) => link = Some(address.clone()),
                _ => {}
            }
        }
        let port = ifindex.to_ne_bytes().to_vec();
        return Some(((family.into(), bridge?, link?), Some(port)));
    }
    let (ifindex, ip) = super::neighbours::identity(message)?;
    let address = match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let place = usable_link_address(message).map(|link| link.to_vec());
    Some(((family.into(), ifindex, address), place))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_route::neighbour::NeighbourState::{
        self, Failed, Incomplete, Probe, Reachable, Stale,
    };

    use super::*;

    fn neighbour(state: NeighbourState, link: Option<u8>) -> NeighbourMessage {
        let ip: IpAddr = [10, 0, 0, 1].into();
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
        message.attributes.extend(
            link.map(|last| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last])),
        );
        message
    }

    fn port(ifindex: u32) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = ifindex;
        message.attributes = vec![
            NeighbourAttribute::Controller(9),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        message
    }

    #[test]
    fn only_moves_are_news() {
        let mut known = Known::default();
        let mut check = |message: &NeighbourMessage, is_there, expected| {
            assert_eq!(
                known.is_news(message, is_there),
                expected,
                "{message:?} {is_there}"
            );
        };
        check(&neighbour(Incomplete, None), true, false);
        check(&neighbour(Reachable, Some(1)), true, true);
        check(&neighbour(Stale, Some(1)), true, false);
        check(&neighbour(Probe, Some(1)), true, false);
        check(&neighbour(Stale, Some(2)), true, true);
        check(&neighbour(Failed, None), true, true);
        check(&neighbour(Failed, None), true, false);
        check(&neighbour(Reachable, Some(2)), true, true);
        check(&neighbour(Reachable, Some(2)), false, true);
        check(&neighbour(Reachable, Some(2)), false, false);
        check(&port(4), true, true);
        check(&port(4), true, false);
        check(&port(5), true, true);
        check(&port(5), false, true);
    }
}
