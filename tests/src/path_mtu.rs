//! Datagrams that must not be fragmented, and what their sender has learnt about the way.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use libc::{
    IP_MTU, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU, IPV6_MTU_DISCOVER,
    IPV6_PMTUDISC_DO,
};

use crate::syscalls::{int_option, set_int_option};

/// Makes a socket send nothing that is larger than the way's MTU, and everything whole.
pub fn forbid_fragments(socket: &UdpSocket) -> io::Result<()> {
    let (level, name, value) = if socket.local_addr()?.is_ipv4() {
        (IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    } else {
        (IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
    };
    set_int_option(socket.as_fd(), level, name, value)
}

/// The MTU of the way that a connected socket knows of, in bytes of IP packets.
pub fn path_mtu(socket: &UdpSocket) -> io::Result<i32> {
    let (level, name) = if socket.local_addr()?.is_ipv4() {
        (IPPROTO_IP, IP_MTU)
    } else {
        (IPPROTO_IPV6, IPV6_MTU)
    };
    int_option(socket.as_fd(), level, name)
}
