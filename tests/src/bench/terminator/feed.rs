//! The agent's side of lbterm's socket: sockets to accept on, and one snapshot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{
    FromAgent, FromTerminator, Group, GroupDomain, Instance, InstanceState, ListenerFamily,
    Listeners, PROTOCOL_VERSION, Service, ServiceKind, ServicePolicy, Snapshot,
    TerminatorCertificate, TicketKey, Welcome,
};
use uuid::Uuid;

use super::origin;
use super::pki::{Identity, Pki};
use super::proxies::Port;
use crate::frames::{receive, send};
use crate::poll::{SOON, poll_for};

/// Connections that may wait in each listening socket.
const BACKLOG: i32 = 4096;

/// Waits for a terminator where it will look for its agent.
pub(super) struct Feed {
    listener: UnixListener,
    sockets: Vec<TcpListener>,
    snapshot: Snapshot,
}

impl Feed {
    /// Listens at the path, and on the ports of this thread's namespace from `base` on.
    pub(super) fn open(path: &Path, base: u16, pki: &Pki) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let open = |port: &Port| -> Result<TcpListener> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, base + port.offset()));
            let socket =
                TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
            // Longer than the standard library's.
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        Ok(Self {
            listener,
            sockets: Port::ALL.iter().map(open).collect::<Result<_>>()?,
            snapshot: snapshot(base, pki),
        })
    }

    /// Takes the terminator, and returns when it serves the snapshot.
    pub(super) fn serve(self) -> Result<()> {
        let accept = || self.listener.accept().ok();
        let (mut stream, _) = poll_for("lbterm to come to its agent", SOON, accept)?;
        stream.set_nonblocking(false)?;
        let (FromTerminator::Hello(hello), _) = receive(&mut stream)? else {
            bail!("lbterm does not greet");
        };
        ensure!(hello.workers == 1, "lbterm has {} workers", hello.workers);
        let welcome = FromAgent::Welcome(Welcome {
            protocol: PROTOCOL_VERSION,
            listeners: Listeners {
                sockets: vec![ListenerFamily::Ipv4; self.sockets.len()],
            },
        });
        let fds: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        send(&stream, &welcome, &fds)?;
        send(&stream, &FromAgent::Snapshot(self.snapshot.into()), &[])?;
        stream.set_read_timeout(Some(SOON))?;
        let verdict = loop {
            if let (FromTerminator::Verdict(verdict), _) = receive(&mut stream)? {
                break verdict;
            }
        };
        ensure!(verdict.faults.is_empty(), "lbterm: {:?}", verdict.faults);
        stream.set_read_timeout(None::<Duration>)?;
        std::thread::spawn(move || listen(stream));
        Ok(())
    }
}

/// Takes reports until the terminator ends.
fn listen(mut stream: UnixStream) {
    while receive::<FromTerminator>(&mut stream).is_ok() {}
}

fn snapshot(base: u16, pki: &Pki) -> Snapshot {
    let certificates = [&pki.ecdsa, &pki.rsa].map(certificate);
    let domains = certificates.iter().map(|certificate| GroupDomain {
        name: certificate.name.clone(),
        certificate: Some(certificate.uuid),
        alternatives: Vec::new(),
    });
    let service = |port: &Port| Service {
        vips: vec![Ipv4Addr::LOCALHOST.into()],
        port: base + port.offset(),
        destination_port: origin::PORT,
        kind: match port {
            Port::Http => ServiceKind::Http,
            Port::Https | Port::Rsa => ServiceKind::Https,
            Port::Stream => ServiceKind::Tls,
        },
        policy: ServicePolicy::default(),
    };
    let instance = |address: &[u8; 4]| Instance {
        uuid: Uuid::new_v4(),
        name: IpAddr::from(*address).to_string(),
        addresses: vec![IpAddr::from(*address)],
        weight: 1,
        state: InstanceState::Active,
    };
    let group = Group {
        uuid: Uuid::new_v4(),
        name: "bench".to_owned(),
        soft_limit: u16::MAX,
        hard_limit: u16::MAX,
        domains: domains.collect(),
        services: Port::ALL.iter().map(service).collect(),
        instances: origin::ADDRESSES.iter().map(instance).collect(),
    };
    Snapshot {
        generation: 1,
        groups: vec![group],
        certificates: certificates.into(),
        ticket_keys: vec![TicketKey {
            secret: Secret::new("5a".repeat(32)),
        }],
        ..Snapshot::default()
    }
}

fn certificate(identity: &Identity) -> TerminatorCertificate {
    TerminatorCertificate {
        uuid: Uuid::new_v4(),
        name: identity.name.to_owned(),
        names: vec![identity.name.to_owned()],
        chain: identity.chain.clone(),
        key: Secret::new(identity.key.clone()),
    }
}
