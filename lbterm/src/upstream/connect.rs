//! Connecting to instances.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::balance::{self, Lease, Unavailable};
use crate::metrics::GroupCounter;
use crate::route::Target;

/// Instances that are tried for one connection, at most.
const MAX_TRIES: usize = 3;

/// Why there is no connection to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// None was tried.
    Unavailable(Unavailable),
    /// Each that was tried could not be reached.
    Unreachable,
}

/// Connects to an instance of the target's group, to another one if it cannot be reached.
pub async fn connect(target: &Target) -> Result<(Lease, TcpStream), NotConnected> {
    let group = &target.group;
    let mut tried = Vec::new();
    while tried.len() < MAX_TRIES {
        let lease = match balance::select(group, &tried, Instant::now()) {
            Ok(lease) => lease,
            Err(why) if tried.is_empty() => {
                group.counters.count(match why {
                    Unavailable::NoInstance => GroupCounter::NoInstance,
                    Unavailable::Busy => GroupCounter::OverHardLimit,
                });
                return Err(NotConnected::Unavailable(why));
            }
            Err(_) => break,
        };
        let instance = lease.instance();
        match connect_any(&instance.addresses, target).await {
            Ok((stream, _)) => {
                lease.reached();
                return Ok((lease, stream));
            }
            Err(error) => {
                tracing::debug!(instance = %instance.name, %error, "cannot connect");
                tried.push(instance.uuid);
                lease.failed(Instant::now());
            }
        }
    }
    group.counters.count(GroupCounter::Unreachable);
    Err(NotConnected::Unreachable)
}

/// Connects to the first of an instance's addresses that can be reached, and tells which.
pub async fn connect_any(
    addresses: &[IpAddr],
    target: &Target,
) -> io::Result<(TcpStream, SocketAddr)> {
    let limit = Duration::from_millis(target.policy.connect_timeout_ms.into());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the instance has no address");
    for address in addresses {
        let address = SocketAddr::new(*address, target.destination_port);
        let connected = timeout(limit, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok((stream, address));
            }
            Err(error) => {
                target.group.counters.count(GroupCounter::ConnectFailed);
                last = error;
            }
        }
    }
    Err(last)
}
