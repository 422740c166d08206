//! What runs on the backends: servers that say who they are.
//!
//! A TCP server greets with `NAME PEER\n`, then obeys one line: `echo` (sends everything back),
//! `send N` or `receive N` (N bytes of [`Pattern`]; what it received it answers with the digest).
//! A UDP server answers every datagram with `NAME PEER\n` and the datagram.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::netns::NetNs;
use crate::pattern::{CHUNK, Pattern};
use crate::resident::Resident;

/// Servers of one backend, on one thread; they stop when this is dropped.
#[derive(Debug)]
pub struct Server {
    _resident: Resident,
}

impl Server {
    /// Listens on these ports of both families in the namespace; returns when it does.
    pub fn start(ns: &NetNs, name: &str, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let udp: Vec<_> = udp.iter().map(|port| any(*port)).collect();
        Self::start_at(ns, name, tcp, &udp)
    }

    /// Listens on this port for VIPs that the namespace has. UDP answers leave from the VIP that
    /// was asked, which a socket bound to no address would not see to.
    pub fn start_for_vips(ns: &NetNs, name: &str, port: u16, vips: &[IpAddr]) -> Result<Self> {
        let udp: Vec<_> = vips.iter().map(|vip| SocketAddr::new(*vip, port)).collect();
        Self::start_at(ns, name, &[port], &udp)
    }

    fn start_at(ns: &NetNs, name: &str, tcp: &[u16], udp: &[SocketAddr]) -> Result<Self> {
        let (name, tcp, udp) = (Arc::<str>::from(name), tcp.to_vec(), udp.to_vec());
        let label = format!("server {name}");
        let listen = move || async move { listen(&name, &tcp, &udp).await };
        Ok(Self {
            _resident: Resident::start(ns, &label, listen)?,
        })
    }
}

/// A port of every address of both families.
fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

async fn listen(name: &Arc<str>, tcp: &[u16], udp: &[SocketAddr]) -> Result<()> {
    for port in tcp {
        let listener = TcpListener::bind(any(*port)).await;
        let listener = listener.with_context(|| format!("{name}: listening on TCP {port}"))?;
        tokio::spawn(accept(Arc::clone(name), listener));
    }
    for address in udp {
        let socket = UdpSocket::bind(address).await;
        let socket = socket.with_context(|| format!("{name}: binding UDP {address}"))?;
        tokio::spawn(answer_datagrams(Arc::clone(name), socket));
    }
    Ok(())
}

async fn accept(name: Arc<str>, listener: TcpListener) {
    while let Ok((stream, peer)) = listener.accept().await {
        let name = Arc::clone(&name);
        // A client that goes away in the middle is its own test's business.
        tokio::spawn(async move { serve(&name, stream, canonical(peer)).await.ok() });
    }
}

async fn serve(name: &str, stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("{name} {peer}\n").as_bytes())
        .await?;
    let mut command = String::new();
    stream.read_line(&mut command).await?;
    match command.trim_end().split_once(' ') {
        Some(("send", length)) => send(&mut stream, length.parse()?).await,
        Some(("receive", length)) => receive(&mut stream, length.parse()?).await,
        None if command == "echo\n" => echo(&mut stream).await,
        None if command.is_empty() => Ok(()),
        _ => Err(anyhow!("unknown command {command:?}")),
    }
}

async fn send(stream: &mut BufReader<TcpStream>, length: u64) -> Result<()> {
    let mut pattern = Pattern::new(length);
    let mut chunk = vec![0; CHUNK];
    loop {
        let filled = pattern.fill(&mut chunk);
        if filled == 0 {
            return Ok(stream.shutdown().await?);
        }
        stream.write_all(&chunk[..filled]).await?;
    }
}

async fn receive(stream: &mut BufReader<TcpStream>, length: u64) -> Result<()> {
    let mut pattern = Pattern::new(length);
    let mut chunk = vec![0; CHUNK];
    while let expected @ 1.. = pattern.next_len() {
        stream.read_exact(&mut chunk[..expected]).await?;
        if let Err(error) = pattern.check(&chunk[..expected]) {
            stream.write_all(format!("{error}\n").as_bytes()).await?;
            return Err(error);
        }
    }
    Ok(stream.write_all(b"intact\n").await?)
}

async fn echo(stream: &mut BufReader<TcpStream>) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&chunk[..read]).await?;
    }
}

async fn answer_datagrams(name: Arc<str>, socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error for an earlier answer shows up here; it ends nothing.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let mut answer = format!("{name} {}\n", canonical(peer)).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, peer).await;
    }
}

/// Dual-stack sockets show IPv4 peers as mapped addresses.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// How often each backend answered.
pub type Spread = BTreeMap<String, usize>;
