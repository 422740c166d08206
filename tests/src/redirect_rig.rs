//! A [`Rig`] whose port 80 redirects, with listening sockets to take what is passed up.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use lbagent::dataplane::Dataplane as _;
use lbagent::desired::{Domain, Transport};
use lbagent::plan::Terminator;
use lbagent_api::service_group::Handler;
use lbagent_common::{TERMINATOR_V4, TERMINATOR_V6};

use crate::netns::set_sysctl;
use crate::prog_run::{Action, Rig, Side};
use crate::tcp_segment::{TcpSegment, flags};

/// What a client offers that is used to talk to the whole world: its largest segment, that it can
/// acknowledge selectively, timestamps, and a window scale.
pub const OPTIONS: [u8; 20] = [
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];

/// Groups with port 443: which handlers port 80 has beside it, and the domain names.
const GROUPS: [(&str, &[Handler], &[&str]); 2] = [
    (
        "shop",
        &[Handler::Http, Handler::Redirect],
        &["shop.example", "*.shop.example", "example"],
    ),
    (
        "plain",
        &[Handler::Http],
        &["plain.shop.example", "*.plain.example"],
    ),
];

/// A gateway with a group that redirects and one that does not.
pub struct RedirectRig {
    /// The gateway.
    pub rig: Rig,
    /// The terminator's sockets: IPv4 and IPv6.
    pub listeners: Vec<TcpListener>,
}

impl RedirectRig {
    /// Everything planned and applied, sockets registered, and SYNs answered.
    pub fn new() -> Result<Self> {
        let mut rig = Rig::new()?;
        set_sysctl("net/ipv4/tcp_syncookies", "2")?;
        rig.terminator = Terminator { v4: true, v6: true };
        for (name, handlers, domains) in GROUPS {
            let ports = [(443, 8080, Transport::Tcp), (80, 443, Transport::Tcp)];
            let group = rig.group(name, &ports);
            let group = rig.desired.service_groups.get_mut(&group);
            let group = group.context("the group just made")?;
            group.services[0].handlers = vec![Handler::Tls, Handler::Http];
            group.services[1].handlers = handlers.to_vec();
            group.domains = domains
                .iter()
                .map(|fqdn| Domain {
                    fqdn: (*fqdn).to_owned(),
                    certificate: None,
                })
                .collect();
        }
        rig.reconcile()?;
        let mut rig = Self {
            rig,
            listeners: Vec::new(),
        };
        rig.lend(u32::MAX)?;
        rig.listen()?;
        Ok(rig)
    }

    /// Opens a connection; the SYN with which it was done, and the connection.
    pub fn connect(&mut self, client: SocketAddr, vip: SocketAddr) -> Result<(Vec<u8>, Opened)> {
        let syn = syn().frame(client, vip);
        let (action, answer) = self.rig.run_uncounted(Side::Client, &syn)?;
        ensure!(action == Action::Transmit, "the SYN was not answered");
        let answer = TcpSegment::of_answer(&answer, client, vip).map_err(anyhow::Error::msg)?;
        let opened = Opened {
            client,
            vip,
            cookie: answer.sequence,
        };
        Ok((syn, opened))
    }

    /// Registers new listening sockets; those from before are closed.
    pub fn listen(&mut self) -> Result<()> {
        self.listeners.clear();
        for (index, at) in [(TERMINATOR_V4, "127.0.0.1:0"), (TERMINATOR_V6, "[::1]:0")] {
            self.register(index, TcpListener::bind(at)?)?;
        }
        Ok(())
    }

    /// Registers a listening socket, which is kept.
    pub fn register(&mut self, index: u32, listener: TcpListener) -> Result<()> {
        let socket = OwnedFd::from(listener.try_clone()?);
        self.rig.dataplane.set_terminator(index, Some(&socket))?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Says until when SYNs are answered, as the agent does while it looks after the kernel's settings.
    pub fn lend(&mut self, until: u32) -> Result<()> {
        let settings = &mut self.rig.dataplane.maps_mut().settings;
        let mut written = settings.get(0)?;
        written.cookies_until = [until; 2];
        settings.put(0, &written)?;
        Ok(())
    }
}

/// A client's first sequence number; soon it starts again at zero.
pub const ISN: u32 = 0xffff_ff00;

/// The SYN of a client that offers all of [`OPTIONS`].
pub fn syn() -> TcpSegment {
    TcpSegment {
        sequence: ISN,
        flags: flags::SYN,
        window: 64_240,
        options: OPTIONS.to_vec(),
        ..TcpSegment::default()
    }
}

/// A connection that a client has opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    client: SocketAddr,
    vip: SocketAddr,
    cookie: u32,
}

impl Opened {
    /// A frame of the client, which has sent and received so many bytes, ends of streams included.
    pub fn frame(&self, flags: u8, sent: u32, received: u32, payload: &[u8]) -> Vec<u8> {
        let segment = TcpSegment {
            sequence: ISN.wrapping_add(1 + sent),
            acknowledged: self.cookie.wrapping_add(1 + received),
            flags: flags | flags::ACK,
            window: 64_240,
            options: Vec::new(),
            payload: payload.to_vec(),
        };
        segment.frame(self.client, self.vip)
    }
}
