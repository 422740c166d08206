//! What the client does: connect, ask who answers, and compare what the server saw with what it is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::netns::NetNs;
use crate::server::Spread;

/// How long a client waits for an answer that should come at once: long enough for two lost SYNs, which
/// TCP sends again after one second and after three.
pub const ANSWER: Duration = Duration::from_secs(5);

/// Transport of a test connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Who answered, and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The backend's name.
    pub name: String,
    /// The client's address as the backend saw it.
    pub seen: SocketAddr,
}

impl Greeting {
    fn parse(line: &str) -> Result<Self> {
        let (name, seen) = line.trim_end().split_once(' ').context("no greeting")?;
        Ok(Self {
            name: name.into(),
            seen: seen.parse().context("no address in the greeting")?,
        })
    }
}

/// An open connection to some backend.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    /// What the server said.
    pub greeting: Greeting,
    /// The client's own address.
    pub local: SocketAddr,
}

impl Connection {
    /// Connects from a namespace, from any port.
    pub fn open(ns: &NetNs, to: SocketAddr) -> Result<Self> {
        ns.run(|| Self::open_here(to, None))
    }

    /// Connects from this thread's namespace, from a given address and port if need be.
    pub fn open_here(to: SocketAddr, from: Option<SocketAddr>) -> Result<Self> {
        Self::open_within(to, from, ANSWER)
    }

    /// As [`Connection::open_here`], waiting no longer than `patience` for each step.
    pub fn open_within(
        to: SocketAddr,
        from: Option<SocketAddr>,
        patience: Duration,
    ) -> Result<Self> {
        let stream =
            connect_stream(to, from, patience).with_context(|| format!("connecting to {to}"))?;
        let local = stream.local_addr()?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .with_context(|| format!("waiting for {to} to greet"))?;
        let greeting = Greeting::parse(&line).with_context(|| format!("greeting of {to}"))?;
        Ok(Self {
            stream,
            greeting,
            local,
        })
    }

    /// Gives the one command that the server obeys.
    pub fn command(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.stream.get_mut(), "{command}")?)
    }

    /// Asks for the echo of a text, after the command `echo`; an error means the connection is gone.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        self.stream
            .read_exact(&mut answer)
            .context("waiting for the echo")?;
        ensure!(
            answer == text.as_bytes(),
            "the echo of {text:?} came back as {answer:?}"
        );
        Ok(())
    }

    /// Reads a line.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    /// Both directions of the byte stream.
    pub fn stream(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.stream
    }
}

/// As `TcpStream::connect_timeout`, which cannot choose its source.
fn connect_stream(
    to: SocketAddr,
    from: Option<SocketAddr>,
    timeout: Duration,
) -> Result<TcpStream> {
    let stream = match from {
        None => TcpStream::connect_timeout(&to, timeout)?,
        Some(from) => {
            let family = if to.is_ipv4() {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            };
            let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            // The send timeout bounds connecting too.
            let limit = nix::sys::time::TimeVal::new(timeout.as_secs() as i64, 0);
            setsockopt(&fd, sockopt::SendTimeout, &limit)?;
            let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
            bind(raw, &SockaddrStorage::from(from)).with_context(|| format!("binding {from}"))?;
            connect(raw, &SockaddrStorage::from(to))?;
            TcpStream::from(fd)
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// Who answered a question, whom it saw, and who had asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the server said.
    pub greeting: Greeting,
    /// The client's own address.
    pub local: SocketAddr,
}

impl Answer {
    /// The backend's name, provided that it saw the client's own address.
    pub fn with_source_kept(self) -> Result<String> {
        let Greeting { name, seen } = self.greeting;
        ensure!(
            seen == self.local,
            "{name} saw {seen} instead of {}",
            self.local
        );
        Ok(name)
    }
}

/// Sends a datagram on a connected socket and waits for the answer. Nothing is sent twice.
pub fn exchange_on(socket: &UdpSocket, payload: &[u8]) -> Result<Answer> {
    socket.send(payload)?;
    receive_answer(socket, payload)
}

/// Waits for the answer to a datagram that left by a connected socket's address.
pub fn receive_answer(socket: &UdpSocket, payload: &[u8]) -> Result<Answer> {
    socket.set_read_timeout(Some(ANSWER))?;
    let mut buffer = vec![0; payload.len() + 256];
    let length = socket.recv(&mut buffer)?;
    let end = buffer[..length]
        .iter()
        .position(|byte| *byte == b'\n')
        .context("no greeting")?;
    ensure!(
        &buffer[end + 1..length] == payload,
        "the payload came back changed"
    );
    let greeting = Greeting::parse(std::str::from_utf8(&buffer[..end])?)?;
    Ok(Answer {
        greeting,
        local: socket.local_addr()?,
    })
}

/// A UDP socket of this thread's namespace, connected.
pub fn udp_socket_here(to: SocketAddr, from: Option<SocketAddr>) -> Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(from.unwrap_or(SocketAddr::new(any, 0)))?;
    socket
        .connect(to)
        .with_context(|| format!("connecting a UDP socket to {to}"))?;
    Ok(socket)
}

/// Asks `to` who it is, from a namespace.
pub fn ask(ns: &NetNs, transport: Transport, to: SocketAddr) -> Result<Answer> {
    ns.run(|| ask_here(transport, to, None))
}

/// Asks `to` who it is, from this thread's namespace and a given source.
pub fn ask_here(transport: Transport, to: SocketAddr, from: Option<SocketAddr>) -> Result<Answer> {
    match transport {
        Transport::Udp => {
            let socket = udp_socket_here(to, from)?;
            exchange_on(&socket, b"are you there?").with_context(|| format!("asking {to} by UDP"))
        }
        Transport::Tcp => {
            let Connection {
                greeting, local, ..
            } = Connection::open_here(to, from)?;
            Ok(Answer { greeting, local })
        }
    }
}

/// Asks `to` once, from a namespace, and returns who answered; the source must have been kept.
pub fn identify(ns: &NetNs, transport: Transport, to: SocketAddr) -> Result<String> {
    ask(ns, transport, to)?.with_source_kept()
}

/// As [`identify`] by TCP, for a try that may well fail: half of the table may lead nowhere.
pub fn identify_if_quick(ns: &NetNs, to: SocketAddr) -> Option<String> {
    const PATIENCE: Duration = Duration::from_millis(400);
    let connection = ns.run(|| Connection::open_within(to, None, PATIENCE));
    connection.ok().map(|connection| connection.greeting.name)
}

/// Asks `count` times, each time from a new port, and counts the answers.
pub fn spread(ns: &NetNs, transport: Transport, to: SocketAddr, count: usize) -> Result<Spread> {
    ns.run(|| {
        let mut spread = Spread::new();
        for number in 1..=count {
            let name = ask_here(transport, to, None)
                .and_then(Answer::with_source_kept)
                .with_context(|| format!("{transport} {number} of {count} to {to}"))?;
            *spread.entry(name).or_default() += 1;
        }
        Ok(spread)
    })
}

/// Succeeds if nobody answers: refused, reset, unreachable or silent within `timeout`.
pub fn ensure_unanswered(
    ns: &NetNs,
    transport: Transport,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Unanswered> {
    ns.run(|| {
        let failure = match transport {
            Transport::Tcp => match TcpStream::connect_timeout(&to, timeout) {
                Ok(_) => bail!("{to} accepted a connection"),
                Err(error) => error,
            },
            Transport::Udp => {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(timeout))?;
                socket.send(b"is anybody there?")?;
                match socket.recv(&mut [0; 512]) {
                    Ok(_) => bail!("{to} answered"),
                    Err(error) => error,
                }
            }
        };
        Unanswered::from_error(&failure).with_context(|| format!("{to}: {failure}"))
    })
}

/// The way in which nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// A reset or a port unreachable: somebody said no.
    Refused,
    /// A host or network unreachable.
    Unreachable,
    /// Silence.
    Silent,
}

impl Unanswered {
    fn from_error(error: &std::io::Error) -> Option<Self> {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::ConnectionReset => Some(Self::Refused),
            Kind::HostUnreachable | Kind::NetworkUnreachable => Some(Self::Unreachable),
            Kind::TimedOut | Kind::WouldBlock => Some(Self::Silent),
            _ => None,
        }
    }
}
