//! Where frames to a next hop leave, and with which link addresses: what the kernel's neighbour
//! tables and the forwarding tables of its bridges say.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::interfaces::{Interface, Interfaces, Kind};
use super::neighbours::{self, usable_link_address};
use super::netlink::Netlink;
use super::ways::Way;
use super::{NextHop, Path};

type LinkAddress = [u8; 6];

/// Everything that the host knows about its links.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbourhood {
    /// Link addresses by interface and IP address.
    links: HashMap<(u32, IpAddr), LinkAddress>,
    /// Ports by bridge and link address.
    ports: HashMap<(u32, LinkAddress), u32>,
}

impl Neighbourhood {
    /// Asks the kernel.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let mut found = Self::default();
        for message in dump(netlink, AddressFamily::Unspec)? {
            if let (Some(identity), Some(link)) = (
                neighbours::identity(&message),
                usable_link_address(&message),
            ) {
                found.links.insert(identity, link);
            }
        }
        let bridged = dump(netlink, AddressFamily::Bridge)?;
        found.ports.extend(bridged.iter().filter_map(port));
        Ok(found)
    }
}

fn dump(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<NeighbourMessage>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    let messages = netlink.dump(RouteNetlinkMessage::GetNeighbour(message))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        })
        .collect())
}

/// An entry of a bridge's forwarding table. Those of the bridge's own addresses ("permanent") lead
/// to the host itself.
fn port(message: &NeighbourMessage) -> Option<((u32, LinkAddress), u32)> {
    if message.header.state == NeighbourState::Permanent {
        return None;
    }
    let (mut bridge, mut link) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::LinkLayerAddress(address) => {
                link = LinkAddress::try_from(address.as_slice()).ok();
            }
            _ => {}
        }
    }
    Some(((bridge?, link?), message.header.ifindex))
}

/// Whether the destination alone decides where packets go. With rules that look at the source, a
/// mark or an interface, only the routing table knows the way of a packet.
pub(super) fn destination_decides(netlink: &mut Netlink) -> io::Result<bool> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let rules = match netlink.dump(RouteNetlinkMessage::GetRule(message)) {
            Ok(rules) => rules,
            // A kernel without policy routing, or without the family.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            Err(error) => return Err(error),
        };
        let selects = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRule(rule) => selects_packets(rule),
            _ => false,
        };
        if rules.iter().any(selects) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a rule looks at more than the destination.
fn selects_packets(rule: &RuleMessage) -> bool {
    let looks = |attribute: &RuleAttribute| {
        matches!(
            attribute,
            RuleAttribute::Source(_)
                | RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::FwMark(_)
                | RuleAttribute::TunId(_)
                | RuleAttribute::L3MDev(true)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_)
        )
    };
    rule.header.src_len > 0 || rule.header.tos > 0 || rule.attributes.iter().any(looks)
}

/// Completes a way with the interface that sends, the link addresses and the MTU. `takes_xdp` tells
/// whether an interface sends what XDP redirects to it.
pub(super) fn complete(
    destination: IpAddr,
    way: &Way,
    interfaces: &Interfaces,
    neighbourhood: &Neighbourhood,
    takes_xdp: impl FnOnce(u32) -> bool,
) -> Path {
    let device = interfaces.by_index(way.path.ifindex);
    let found = device.filter(|_| way.is_plain).and_then(|device| {
        let next_hop = way.next_hop(destination);
        self::next_hop(next_hop, device, interfaces, neighbourhood)
    });
    let sender = found.and_then(|hop| interfaces.by_index(hop.ifindex));
    let mtus = [
        Some(way.route_mtu),
        device.map(|device| device.mtu),
        sender.map(|sender| sender.mtu),
    ];
    let mtu = mtus.into_iter().flatten().filter(|mtu| *mtu > 0).min();
    Path {
        next_hop: found,
        takes_xdp: takes_xdp(found.map_or(way.path.ifindex, |hop| hop.ifindex)),
        mtu: mtu.map_or(0, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
        ..way.path
    }
}

fn next_hop(
    next_hop: IpAddr,
    device: &Interface,
    interfaces: &Interfaces,
    neighbourhood: &Neighbourhood,
) -> Option<NextHop> {
    let destination = *neighbourhood.links.get(&(device.index, next_hop))?;
    let (sender, vlan) = match device.kind {
        Kind::Plain => (device, 0),
        Kind::Bridge {
            filters_vlans: false,
        } => {
            let port = neighbourhood.ports.get(&(device.index, destination))?;
            let port = interfaces.by_index(*port)?;
            (port.is_forwarding_port.then_some(port)?, 0)
        }
        Kind::Vlan { id, below } => (interfaces.by_index(below)?, id),
        Kind::Bridge {
            filters_vlans: true,
        }
        | Kind::Other => return None,
    };
    let is_ready = device.up && sender.up && sender.kind == Kind::Plain;
    is_ready.then_some(NextHop {
        ifindex: sender.index,
        destination,
        source: device.mac?,
        vlan,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: LinkAddress = [2, 0, 0, 0, 0, 0xbe];

    fn interface(index: u32, kind: Kind, mtu: u32) -> (String, Interface) {
        let last = u8::try_from(index).unwrap();
        let interface = Interface::for_test(index, [2, 0, 0, 0, 0, last], kind, mtu);
        (format!("if{index}"), interface)
    }

    /// 1 a card, 2 a bridge with port 3, 4 VLAN 100 on 1, 5 a bond, 6 VLAN 7 on the bond, 7 a bridge
    /// that filters VLANs with port 8.
    fn interfaces(change: impl Fn(&mut Interface)) -> Interfaces {
        let bridge = |filters_vlans| Kind::Bridge { filters_vlans };
        let vlan = |id, below| Kind::Vlan { id, below };
        [
            interface(1, Kind::Plain, 1500),
            interface(2, bridge(false), 9000),
            interface(3, Kind::Plain, 1450),
            interface(4, vlan(100, 1), 1500),
            interface(5, Kind::Other, 1500),
            interface(6, vlan(7, 5), 1500),
            interface(7, bridge(true), 1500),
            interface(8, Kind::Plain, 1500),
        ]
        .into_iter()
        .map(|(name, mut interface)| {
            change(&mut interface);
            (name, interface)
        })
        .collect()
    }

    fn neighbourhood() -> Neighbourhood {
        let address = IpAddr::from([10, 0, 0, 9]);
        Neighbourhood {
            links: (1..8).map(|index| ((index, address), BACKEND)).collect(),
            ports: [((2, BACKEND), 3), ((7, BACKEND), 8)].into(),
        }
    }

    fn way(ifindex: u32, route_mtu: u32, is_plain: bool) -> Way {
        Way {
            path: Path {
                ifindex,
                source: [10, 0, 0, 1].into(),
                onlink_prefix: 24,
                takes_xdp: false,
                mtu: 0,
                next_hop: None,
            },
            router: Some([10, 0, 0, 9].into()),
            route_mtu,
            is_plain,
        }
    }

    /// (sending interface, own link address's last byte, VLAN)
    type Wanted = Option<(u32, u8, u16)>;

    #[track_caller]
    fn check_with(way: &Way, change: impl Fn(&mut Interface), wanted: Wanted, mtu: u16) {
        let destination = [10, 0, 5, 5].into();
        let sends = |index| index == 3;
        let path = complete(
            destination,
            way,
            &interfaces(change),
            &neighbourhood(),
            sends,
        );
        let found = path
            .next_hop
            .map(|hop| (hop.ifindex, hop.source[5], hop.vlan));
        assert_eq!(found, wanted, "{way:?}");
        assert_eq!(path.mtu, mtu, "{way:?}");
        assert!(path.next_hop.is_none_or(|hop| hop.destination == BACKEND));
        // Who sends is who must be able to.
        let sender = wanted.map_or(way.path.ifindex, |(sender, _, _)| sender);
        assert_eq!(path.takes_xdp, sender == 3, "{way:?}");
    }

    #[track_caller]
    fn check(ifindex: u32, wanted: Wanted, mtu: u16) {
        check_with(&way(ifindex, 0, true), |_| {}, wanted, mtu);
    }

    #[test]
    fn the_interface_that_sends_is_found() {
        check(1, Some((1, 1, 0)), 1500);
        check(2, Some((3, 2, 0)), 1450);
        check(4, Some((1, 4, 100)), 1500);
    }

    #[test]
    fn an_address_on_the_link_is_its_own_next_hop() {
        let way = Way {
            router: None,
            ..way(1, 0, true)
        };
        let found = |last| {
            let (destination, all) = ([10, 0, 0, last].into(), interfaces(|_| {}));
            let path = complete(destination, &way, &all, &neighbourhood(), |_| true);
            path.next_hop.map(|hop| hop.destination)
        };
        assert_eq!((found(9), found(8)), (Some(BACKEND), None));
    }

    #[test]
    fn what_is_stacked_otherwise_is_left_to_the_routing_table() {
        check(5, None, 1500);
        check(6, None, 1500);
        check(7, None, 1500);
        check(99, None, 0);
        check_with(&way(1, 0, false), |_| {}, None, 1500);
    }

    #[test]
    fn a_link_that_does_not_work_is_no_next_hop() {
        let down = |index| move |found: &mut Interface| found.up &= found.index != index;
        check_with(&way(1, 0, true), down(1), None, 1500);
        check_with(&way(2, 0, true), down(3), None, 9000);
        check_with(&way(4, 0, true), down(1), None, 1500);
        let blocked = |found: &mut Interface| found.is_forwarding_port = false;
        check_with(&way(2, 0, true), blocked, None, 9000);
    }

    #[test]
    fn the_smallest_mtu_counts() {
        check_with(&way(1, 1400, true), |_| {}, Some((1, 1, 0)), 1400);
        check_with(&way(1, 9000, true), |_| {}, Some((1, 1, 0)), 1500);
        let loopback = |found: &mut Interface| found.mtu = 65_536;
        check_with(&way(1, 0, true), loopback, Some((1, 1, 0)), u16::MAX);
    }

    #[test]
    fn a_neighbour_without_a_link_address_is_no_next_hop() {
        let path = complete(
            [10, 0, 5, 5].into(),
            &way(1, 0, true),
            &interfaces(|_| {}),
            &Neighbourhood::default(),
            |_| true,
        );
        assert_eq!(
            (path.next_hop, path.mtu, path.takes_xdp),
            (None, 1500, true)
        );
    }

    #[test]
    fn rules_that_look_at_packets_are_told_from_those_that_do_not() {
        #[track_caller]
        fn check(attributes: Vec<RuleAttribute>, expected: bool) {
            let mut rule = RuleMessage::default();
            rule.attributes = attributes;
            assert_eq!(selects_packets(&rule), expected, "{rule:?}");
        }
        let plain = [
            RuleAttribute::Table(254),
            RuleAttribute::Priority(32_766),
            RuleAttribute::SuppressPrefixLen(u32::MAX),
        ];
        check(plain.to_vec(), false);
        for selector in [
            RuleAttribute::Source([10, 0, 0, 0].into()),
            RuleAttribute::FwMark(1),
            RuleAttribute::Iifname("eth0".into()),
            RuleAttribute::L3MDev(true),
        ] {
            check(plain.iter().cloned().chain([selector]).collect(), true);
        }
    }
}
