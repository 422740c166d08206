//! Listening sockets: opened by the first terminator of a host, inherited by all that follow.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use lbagent_api::terminator::{ListenerFamily, Listeners, MAX_LISTENERS};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted, for each socket; `net.core.somaxconn` bounds it.
const BACKLOG: i32 = 4096;

/// After how much silence the kernel asks whether a client is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// The listening sockets of this terminator.
#[derive(Debug)]
pub struct Sockets(Vec<(ListenerFamily, TcpListener)>);

/// Why inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The frame and its file descriptors differ.
    #[error("{named} listening sockets were announced and {came} came")]
    Count {
        /// In the frame.
        named: usize,
        /// File descriptors.
        came: usize,
    },
    /// It is something else.
    #[error("file descriptor {position} is no listening socket")]
    NotListening {
        /// Its place, from 1.
        position: usize,
    },
    /// The kernel does not do as asked.
    #[error("cannot use listening socket {position}")]
    Socket {
        /// Its place, from 1.
        position: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Sockets {
    /// Opens a socket for each worker and family, those of a family in one `SO_REUSEPORT` group.
    ///
    /// They are bound to the loopback address: what the kernel steers to them is for other addresses,
    /// and nothing else shall reach them.
    pub fn open(workers: usize) -> io::Result<Self> {
        let workers = workers.min(MAX_LISTENERS / 2);
        let mut sockets = Vec::new();
        let families = [
            (
                ListenerFamily::Ipv4,
                SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ),
            (
                ListenerFamily::Ipv6,
                SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
            ),
        ];
        for (family, mut address) in families {
            for _ in 0..workers {
                match bind(address) {
                    Ok(listener) => {
                        // The rest of the group has the port that the first one got.
                        address = listener.local_addr()?;
                        sockets.push((family, listener));
                    }
                    Err(error) if family == ListenerFamily::Ipv6 && is_without(&error) => {
                        tracing::warn!(%error, "this host has no IPv6: none is served");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Self(sockets))
    }

    /// Takes over sockets that another process opened.
    pub fn adopt(named: &Listeners, came: Vec<OwnedFd>) -> Result<Self, AdoptError> {
        if named.sockets.len() != came.len() {
            return Err(AdoptError::Count {
                named: named.sockets.len(),
                came: came.len(),
            });
        }
        let adopt = |(index, (family, fd)): (usize, (&ListenerFamily, OwnedFd))| {
            let position = index + 1;
            let socket = Socket::from(fd);
            if !socket.is_listener().unwrap_or(false) {
                return Err(AdoptError::NotListening { position });
            }
            set_options(&socket).map_err(|source| AdoptError::Socket { position, source })?;
            Ok((*family, socket.into()))
        };
        let sockets = named.sockets.iter().zip(came).enumerate();
        sockets.map(adopt).collect::<Result<_, _>>().map(Self)
    }

    /// What is said of them to the agent.
    pub fn describe(&self) -> Listeners {
        Listeners {
            sockets: self.0.iter().map(|(family, _)| *family).collect(),
        }
    }

    /// To be sent.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0
            .iter()
            .map(|(_, listener)| listener.as_fd())
            .collect()
    }

    /// Those that one of the workers accepts on. Each socket has a worker and each worker has one of
    /// every family, so that workers and sockets need not be equally many.
    pub fn of_worker(&self, worker: usize, workers: usize) -> io::Result<Vec<TcpListener>> {
        let mut mine = Vec::new();
        for family in [ListenerFamily::Ipv4, ListenerFamily::Ipv6] {
            let all: Vec<_> = self.0.iter().filter(|(it, _)| *it == family).collect();
            let own = all.iter().skip(worker).step_by(workers);
            let shared = all
                .iter()
                .cycle()
                .skip(worker)
                .take(usize::from(worker >= all.len()));
            let chosen: Vec<_> = if all.is_empty() {
                Vec::new()
            } else {
                own.chain(shared).collect()
            };
            for (_, listener) in chosen {
                mine.push(listener.try_clone()?);
            }
        }
        Ok(mine)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    set_options(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections inherit these from the socket that they were accepted on.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// Whether the host lacks a family.
fn is_without(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many sockets each worker gets, and how many of all are left without one.
    #[track_caller]
    fn check(sockets: usize, workers: usize, expected: &[usize]) {
        let opened = Sockets::open(sockets).unwrap();
        let ipv4 = |listener: &TcpListener| listener.local_addr().unwrap().is_ipv4();
        let shares: Vec<_> = (0..workers)
            .map(|worker| {
                let mine = opened.of_worker(worker, workers).unwrap();
                mine.iter().filter(|it| ipv4(it)).count()
            })
            .collect();
        assert_eq!(shares, expected);
    }

    #[test]
    fn each_socket_has_a_worker_and_each_worker_a_socket() {
        check(2, 2, &[1, 1]);
        check(5, 2, &[3, 2]);
        check(2, 5, &[1, 1, 1, 1, 1]);
    }

    #[test]
    fn only_listening_sockets_are_taken_over() {
        let named = |count| Listeners {
            sockets: vec![ListenerFamily::Ipv4; count],
        };
        let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(Sockets::adopt(&named(1), vec![listener()]).is_ok());
        let error = Sockets::adopt(&named(2), vec![listener()]).unwrap_err();
        assert!(matches!(error, AdoptError::Count { named: 2, came: 1 }));
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let error = Sockets::adopt(&named(2), vec![listener(), file]).unwrap_err();
        assert!(matches!(error, AdoptError::NotListening { position: 2 }));
    }
}
