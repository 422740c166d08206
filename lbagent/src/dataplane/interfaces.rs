//! The host's network interfaces at one moment.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};

use super::netlink::Netlink;

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// Link address, on Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) up: bool,
    xdp: Option<XdpAttached>,
}

/// All interfaces by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    by_name: BTreeMap<String, Interface>,
}

impl Interfaces {
    /// Asks the kernel.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let messages = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let by_name = messages.into_iter().filter_map(parse).collect();
        Ok(Self { by_name })
    }

    /// An interface.
    pub(super) fn get(&self, name: &str) -> Option<&Interface> {
        self.by_name.get(name)
    }

    /// An interface's index.
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.get(name).map(|interface| interface.index)
    }

    /// How an XDP program is attached to an interface.
    pub(super) fn xdp(&self, name: &str) -> Option<XdpAttached> {
        self.get(name).and_then(|interface| interface.xdp)
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
        xdp: None,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = Some(given),
            LinkAttribute::Address(address)
                if link.header.link_layer_type == LinkLayerType::Ether =>
            {
                interface.mac = address.try_into().ok();
            }
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
    Some((name?, interface))
}
