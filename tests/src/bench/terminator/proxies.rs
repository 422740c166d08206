//! The proxies, each pinned to the first CPU.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::feed::Feed;
use super::pki::Pki;
use super::{Proxy, costs};
use crate::agent::binary;
use crate::bench::programs::{Program, SBIN, Usable};
use crate::netns::NetNs;
use crate::poll::{SOON, retry};

/// The proxies' CPU, and everybody else's.
pub(super) const PROXY_CPU: usize = 0;
pub(super) const OTHER_CPU: usize = 1;

const HAPROXY: &str = include_str!("haproxy.cfg");
const NGINX: &str = include_str!("nginx.conf");

/// What a proxy listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Handler `http`.
    Http,
    /// Handlers `tls` and `http`, a certificate for P-256.
    Https,
    /// The same, a certificate for RSA.
    Rsa,
    /// Handler `tls`.
    Stream,
}

impl Port {
    pub(super) const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Rsa, Self::Stream];

    /// From a proxy's first port on.
    pub(super) fn offset(self) -> u16 {
        self as u16
    }
}

/// The first port of a proxy, as its configuration has it.
fn base(proxy: Proxy) -> u16 {
    match proxy {
        Proxy::Lbterm => 7100,
        Proxy::Haproxy => 7200,
        Proxy::Nginx => 7300,
    }
}

/// Where a proxy listens.
pub(super) fn address(proxy: Proxy, port: Port) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, base(proxy) + port.offset()).into()
}

/// A proxy that runs.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    program: Program,
}

impl Running {
    /// Starts one with files in this directory; returns when all its ports take connections.
    pub(super) fn start(
        proxy: Proxy,
        ns: &NetNs,
        directory: &Path,
        pki: &Pki,
        usable: &Usable,
    ) -> Result<Self> {
        usable.pin(PROXY_CPU)?;
        let program = match proxy {
            Proxy::Lbterm => lbterm(ns, directory, pki),
            Proxy::Haproxy => haproxy(ns, directory),
            Proxy::Nginx => nginx(ns, directory),
        };
        usable.pin(OTHER_CPU)?;
        let program = program.with_context(|| format!("starting {}", proxy.name()))?;
        for port in Port::ALL {
            let address = address(proxy, port);
            let connect = || Ok(ns.run(|| TcpStream::connect(address))?);
            retry(proxy.name(), SOON, connect).with_context(|| format!("{address}"))?;
        }
        Ok(Self { proxy, program })
    }

    /// CPU time so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        costs::cpu_time(self.program.0.id())
    }

    /// Memory in KiB.
    pub(super) fn memory(&self) -> Result<f64> {
        costs::memory(self.program.0.id())
    }
}

fn lbterm(ns: &NetNs, directory: &Path, pki: &Pki) -> Result<Program> {
    let socket = directory.join("terminator.sock");
    // Of a former run of the same stage.
    let _ = fs::remove_file(&socket);
    let base = base(Proxy::Lbterm);
    let feed = ns.run(|| Feed::open(&socket, base, pki))?;
    let mut command = ns.command(binary("LBTERM_BIN", "lbterm"));
    command.args(["run", "--workers", "1", "--allow-root"]);
    command.arg("--socket").arg(&socket);
    let program = Program::start(command.env("LBTERM_LOG", "warn"))?;
    feed.serve()?;
    Ok(program)
}

fn haproxy(ns: &NetNs, directory: &Path) -> Result<Program> {
    let file = directory.join("haproxy.cfg");
    fs::write(&file, HAPROXY)?;
    let mut command = ns.command(format!("{SBIN}/haproxy"));
    command.args(["-db", "-f"]).arg(file);
    Program::start(command.current_dir(directory))
}

fn nginx(ns: &NetNs, directory: &Path) -> Result<Program> {
    let file = directory.join("nginx.conf");
    fs::write(&file, NGINX)?;
    Program::start_nginx(ns.command("unshare"), directory, &file)
}
