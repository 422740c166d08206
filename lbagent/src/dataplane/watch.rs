//! Wakes the reconciler when the host's network changes.

use std::io;
use std::thread;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::watch;

/// Groups of `enum rtnetlink_groups` whose changes move ways or attachments. Neighbours are not
/// among them: the kernel keeps them resolved, and their states change all the time.
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Watches the network namespace of the calling thread. The value counts changes.
pub fn network_changes() -> io::Result<watch::Receiver<u64>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    let (sender, receiver) = watch::channel(0);
    thread::Builder::new()
        .name("network-changes".to_owned())
        .spawn(move || forward(&socket, &sender))?;
    Ok(receiver)
}

/// Counts messages until nobody listens. A queue that overflowed lost messages, so it counts as a
/// change too.
fn forward(socket: &Socket, changes: &watch::Sender<u64>) {
    loop {
        if let Err(error) = socket.recv_from_full()
            && error.raw_os_error() != Some(libc::ENOBUFS)
        {
            tracing::error!(%error, "cannot watch the network; only the timer reconciles now");
            return;
        }
        if changes.is_closed() {
            return;
        }
        changes.send_modify(|count| *count += 1);
    }
}
