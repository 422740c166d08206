//! Listening sockets of terminators: which may take connections to ports with handlers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use lbagent_api::terminator::ListenerFamily;
use nix::sys::socket::{SockaddrStorage, getsockname};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::dataplane::socket_namespace;

/// A listening TCP socket of this network namespace. Holding it keeps the connections that wait in
/// it, whatever becomes of the program that accepts them.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    pub(super) family: ListenerFamily,
    /// An IPv6 socket that takes IPv4 connections as well.
    is_dual: bool,
    /// Where it is bound; steering does not depend on it.
    pub(super) address: SocketAddr,
    /// The kernel's name of the socket, the same in every process that has it.
    pub(super) cookie: u64,
}

/// Why no connections can be steered to a descriptor.
#[derive(Debug, thiserror::Error)]
pub enum NotAListener {
    /// It is something else.
    #[error("it is no TCP socket")]
    NotTcp,
    /// Nobody listens on it.
    #[error("it does not listen; call listen() first")]
    NotListening,
    /// It is of another namespace than the VIPs.
    #[error("it is in another network namespace than the agent")]
    OtherNamespace,
    /// The kernel does not tell.
    #[error("the kernel does not tell what it is")]
    Unreadable(#[from] io::Error),
}

impl Listener {
    /// Looks at what a program handed over.
    pub(super) fn examine(fd: OwnedFd) -> Result<Self, NotAListener> {
        let family = match socket_family(&fd)? {
            Some(family) => family,
            None => return Err(NotAListener::NotTcp),
        };
        if !sockopt::socket_acceptconn(&fd).map_err(io::Error::from)? {
            return Err(NotAListener::NotListening);
        }
        if socket_namespace(fd.as_fd())? != own_namespace()? {
            return Err(NotAListener::OtherNamespace);
        }
        let is_dual = family == ListenerFamily::Ipv6
            && !sockopt::ipv6_v6only(&fd).map_err(io::Error::from)?;
        Ok(Self {
            family,
            is_dual,
            address: local_address(&fd)?,
            cookie: sockopt::socket_cookie(&fd).map_err(io::Error::from)?,
            fd,
        })
    }

    /// Whether it takes connections of a family.
    pub(super) fn takes(&self, family: ListenerFamily) -> bool {
        self.family == family || self.is_dual
    }
}

/// The first of the sockets that takes connections of a family; one for that family alone before one
/// for both. One of a reuseport group stands for all of it.
pub(super) fn find<L: AsRef<Listener>>(listeners: &[L], family: ListenerFamily) -> Option<&L> {
    let own = listeners.iter().find(|it| it.as_ref().family == family);
    own.or_else(|| listeners.iter().find(|it| it.as_ref().takes(family)))
}

impl AsRef<Self> for Listener {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The family of a TCP socket; `None` for anything else.
fn socket_family(fd: &OwnedFd) -> io::Result<Option<ListenerFamily>> {
    let kind = match sockopt::socket_type(fd) {
        Err(rustix::io::Errno::NOTSOCK) => return Ok(None),
        kind => kind?,
    };
    if kind != SocketType::STREAM || sockopt::socket_protocol(fd)? != Some(ipproto::TCP) {
        return Ok(None);
    }
    Ok(match sockopt::socket_domain(fd)? {
        AddressFamily::INET => Some(ListenerFamily::Ipv4),
        AddressFamily::INET6 => Some(ListenerFamily::Ipv6),
        _ => None,
    })
}

fn own_namespace() -> io::Result<u64> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    socket_namespace(socket.as_fd())
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::V4((*it).into()));
    let v6 = address
        .as_sockaddr_in6()
        .map(|it| SocketAddr::V6((*it).into()));
    v4.or(v6).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_listening_tcp_socket_is_taken_for_its_family() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = v4.local_addr().unwrap();
        let v4 = Listener::examine(v4.into()).unwrap();
        assert_eq!((v4.family, v4.address), (ListenerFamily::Ipv4, address));
        let twin = Listener::examine(v4.fd.try_clone().unwrap()).unwrap();
        assert_eq!(
            twin.cookie, v4.cookie,
            "the same socket in another descriptor"
        );
        // The standard library leaves IPv6 sockets open to IPv4, as Linux does by default.
        let both = Listener::examine(TcpListener::bind("[::]:0").unwrap().into()).unwrap();
        assert!(both.takes(ListenerFamily::Ipv4) && both.takes(ListenerFamily::Ipv6));
        assert!(!v4.takes(ListenerFamily::Ipv6));
        let all = [both, v4];
        let found = |family| find(&all, family).unwrap().cookie;
        assert_eq!(found(ListenerFamily::Ipv4), all[1].cookie);
        assert_eq!(found(ListenerFamily::Ipv6), all[0].cookie);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        #[track_caller]
        fn check(fd: impl Into<OwnedFd>, expected: &str) {
            let error = Listener::examine(fd.into()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        check(UdpSocket::bind("127.0.0.1:0").unwrap(), "no TCP socket");
        check(std::fs::File::open("/dev/null").unwrap(), "no TCP socket");
        check(
            TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            "does not listen",
        );
        let directory = tempfile::tempdir().unwrap();
        let local = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
        check(local, "no TCP socket");
    }
}
