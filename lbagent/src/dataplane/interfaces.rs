//! The host's network interfaces at one moment.

use std::collections::{BTreeMap, HashMap};
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, VlanProtocol,
    XdpAttached,
};

use super::netlink::Netlink;

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// Link address, on Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) up: bool,
    /// Largest IP packet, in bytes.
    pub(super) mtu: u32,
    pub(super) kind: Kind,
    /// One end of a pair.
    pub(super) is_veth: bool,
    /// As a port of a bridge: it forwards. Ports that block or learn do not.
    pub(super) is_forwarding_port: bool,
    xdp: Option<XdpAttached>,
}

/// What an interface does with the frames given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sends them as they are: a network card, a veth, a TAP device.
    Plain,
    /// Sends them by one of its ports.
    Bridge {
        /// The VLAN decides too.
        filters_vlans: bool,
    },
    /// Tags them (802.1Q) and gives them to another interface.
    Vlan { id: u16, below: u32 },
    /// Something else.
    Other,
}

#[cfg(test)]
impl Interface {
    /// An interface that works.
    pub(super) const fn for_test(index: u32, mac: [u8; 6], kind: Kind, mtu: u32) -> Self {
        Self {
            index,
            mac: Some(mac),
            up: true,
            mtu,
            kind,
            is_veth: false,
            is_forwarding_port: true,
            xdp: None,
        }
    }
}

/// All interfaces by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    by_name: BTreeMap<String, Interface>,
    names: HashMap<u32, String>,
}

impl Interfaces {
    /// Asks the kernel.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let messages = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(messages.into_iter().filter_map(parse).collect())
    }

    /// An interface.
    pub(super) fn get(&self, name: &str) -> Option<&Interface> {
        self.by_name.get(name)
    }

    /// An interface by its index.
    pub(super) fn by_index(&self, index: u32) -> Option<&Interface> {
        self.names.get(&index).and_then(|name| self.get(name))
    }

    /// An interface's index.
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.get(name).map(|interface| interface.index)
    }

    /// Those of these interfaces that are there, and the VLAN devices on them: by one of those the
    /// kernel takes a tagged frame to come in.
    pub(super) fn with_vlans<'a>(&'a self, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let named = names.filter_map(|name| self.by_name.get_key_value(name));
        let mut found: Vec<_> = named.collect();
        let mut done = 0;
        while let Some((_, Interface { index, .. })) = found.get(done) {
            let is_on_it = |(_, upper): &(_, &Interface)| matches!(upper.kind, Kind::Vlan { below, .. } if below == *index);
            found.extend(self.by_name.iter().filter(is_on_it));
            done += 1;
        }
        found.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// How an XDP program is attached to an interface.
    pub(super) fn xdp(&self, name: &str) -> Option<XdpAttached> {
        self.get(name).and_then(|interface| interface.xdp)
    }
}

impl FromIterator<(String, Interface)> for Interfaces {
    fn from_iter<T: IntoIterator<Item = (String, Interface)>>(interfaces: T) -> Self {
        let by_name: BTreeMap<_, _> = interfaces.into_iter().collect();
        let names = by_name
            .iter()
            .map(|(name, interface)| (interface.index, name.clone()))
            .collect();
        Self { by_name, names }
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<(String, Interface)> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let mut name = None;
    let mut interface = Interface {
        index: link.header.index,
        mac: None,
        up: link
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        mtu: 0,
        kind: Kind::Plain,
        is_veth: false,
        is_forwarding_port: false,
        xdp: None,
    };
    let (mut below, mut info) = (None, Vec::new());
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = Some(given),
            LinkAttribute::Address(address)
                if link.header.link_layer_type == LinkLayerType::Ether =>
            {
                interface.mac = address.try_into().ok();
            }
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::Link(index) => below = Some(index),
            LinkAttribute::LinkInfo(given) => info = given,
            LinkAttribute::Xdp(xdp) => {
                interface.xdp = xdp.iter().find_map(|attribute| match attribute {
                    LinkXdp::Attached(attached) if *attached != XdpAttached::None => {
                        Some(*attached)
                    }
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface.kind = kind(&info, below);
    interface.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
    interface.is_forwarding_port = info.iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
        }
        _ => false,
    });
    Some((name?, interface))
}

/// A network card says no kind at all.
fn kind(info: &[LinkInfo], below: Option<u32>) -> Kind {
    let kind = info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = info.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (None | Some(InfoKind::Veth | InfoKind::Tun | InfoKind::Dummy), _) => Kind::Plain,
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(bridge))) => Kind::Bridge {
            filters_vlans: bridge.contains(&InfoBridge::VlanFiltering(true)),
        },
        (Some(InfoKind::Vlan), Some(InfoData::Vlan(vlan))) => vlan_kind(vlan, below),
        _ => Kind::Other,
    }
}

fn vlan_kind(vlan: &[InfoVlan], below: Option<u32>) -> Kind {
    let id = vlan.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    });
    let is_customer_tag = vlan.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Q));
    match (id, below) {
        (Some(id), Some(below)) if is_customer_tag => Kind::Vlan { id, below },
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_devices_count_with_what_they_are_on() {
        let vlan = |below| Kind::Vlan { id: 7, below };
        let interfaces: Interfaces = [
            ("eth0", 2, Kind::Plain),
            ("eth0.7", 3, vlan(2)),
            ("eth0.7.9", 4, vlan(3)),
            ("eth1", 5, Kind::Plain),
            ("eth1.7", 6, vlan(5)),
            ("br0", 7, Kind::Other),
        ]
        .map(|(name, index, kind)| {
            let interface = Interface::for_test(index, [0; 6], kind, 1500);
            (name.to_owned(), interface)
        })
        .into_iter()
        .collect();
        let found = interfaces.with_vlans(["eth0", "gone"].into_iter());
        assert_eq!(found, ["eth0", "eth0.7", "eth0.7.9"]);
    }
}
