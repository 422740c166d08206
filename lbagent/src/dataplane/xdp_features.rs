//! Which interfaces can send what XDP redirects to them.
//!
//! A frame redirected to an interface that cannot vanishes without a counter: a bridge never can,
//! a veth only while its peer has an XDP program or GRO. The kernel tells by the `netdev` family of
//! generic netlink, and keeps the answer current (Linux 6.3, commit d3d854fd6a1d).

use std::io;
use std::path::Path;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`
/// (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES`,
/// `NETDEV_XDP_ACT_NDO_XMIT` (include/uapi/linux/netdev.h).
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const NDO_XMIT: u64 = 4;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Asks the kernel, or guesses where it is too old to answer.
#[derive(Debug)]
pub(super) struct XdpFeatures {
    /// Socket and number of the family; absent before Linux 6.3.
    netdev: Option<(Socket, u16)>,
}

impl XdpFeatures {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let answer = ask(&socket, CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0");
        let family = answer.ok().and_then(|attributes| {
            let id = attribute(&attributes, FAMILY_ID)?;
            Some(u16::from_ne_bytes(id.try_into().ok()?))
        });
        Ok(Self {
            netdev: family.map(|family| (socket, family)),
        })
    }

    /// Whether the interface sends what is redirected to it.
    pub(super) fn sends(&self, ifindex: u32) -> bool {
        let Some((socket, family)) = &self.netdev else {
            return guess(ifindex);
        };
        let asked = ask(
            socket,
            *family,
            DEV_GET,
            DEV_IFINDEX,
            &ifindex.to_ne_bytes(),
        );
        let features = asked.ok().and_then(|attributes| {
            let features = attribute(&attributes, DEV_XDP_FEATURES)?;
            Some(u64::from_ne_bytes(features.try_into().ok()?))
        });
        features.is_some_and(|features| features & NDO_XMIT != 0)
    }
}

/// Without an answer, only network cards and TUN/TAP devices are trusted: the kernel's own
/// forwarding is slower, but loses nothing.
fn guess(ifindex: u32) -> bool {
    nix::net::if_::if_indextoname(ifindex).is_ok_and(|name| {
        let sysfs = Path::new("/sys/class/net").join(&*name.to_string_lossy());
        sysfs.join("device").exists() || sysfs.join("tun_flags").exists()
    })
}

/// Sends one request with one attribute; returns the answer's attributes.
fn ask(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let padded = value.len().next_multiple_of(4);
    let len = NLMSG_HEADER + GENL_HEADER + ATTRIBUTE_HEADER + padded;
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(len, 0);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let is_error = answer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
    match answer.get(NLMSG_HEADER + GENL_HEADER..) {
        Some(attributes) if !is_error => Ok(attributes.to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.get(..ATTRIBUTE_HEADER)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = attributes.get(ATTRIBUTE_HEADER..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_never_beyond_the_end() {
        let bytes = [5, 0, 1, 0, 0xaa, 0, 0, 0, 6, 0, 3, 0, 0xbb, 0xcc, 0, 0];
        assert_eq!(attribute(&bytes, 1), Some(&[0xaa][..]));
        assert_eq!(attribute(&bytes, 3), Some(&[0xbb, 0xcc][..]));
        assert_eq!(attribute(&bytes, 4), None);
        assert_eq!(attribute(&bytes[..13], 3), None);
        assert_eq!(
            attribute(&[2, 0, 1, 0], 1),
            None,
            "a length below its own header"
        );
    }

    #[test]
    fn loopback_takes_no_redirected_frames() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(!XdpFeatures::open().unwrap().sends(loopback));
        assert!(!XdpFeatures::open().unwrap().sends(u32::MAX));
    }
}
