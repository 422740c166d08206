//! A site behind the real lbterm: what a client reaches through XDP, the socket lookup and TLS.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::agent::Config;
use crate::ctl;
use crate::gateway::Gateway;
use crate::https::Trust;
use crate::netns::HostNs;
use crate::origin::Origin;
use crate::poll::poll_until;
use crate::topology::{BackendHost, Shape, VIP4};
use crate::web::{Browser, PATIENCE, Running, terminator};

/// Where the instances listen.
pub const ORIGIN_PORT: u16 = 8090;
/// The host name of the group `web`.
pub const NAME: &str = "web.lb.internal";

/// A gateway that makes its own certificates, lbterm, and instances. The fields are dropped in this
/// order.
pub struct Site {
    /// The terminator.
    pub lbterm: Lbterm,
    /// The agent and the network.
    pub gateway: Gateway,
    /// The instances, by backend.
    pub origins: Vec<Origin>,
    /// curl on the client.
    pub browser: Browser,
    /// Clients in this process.
    pub trust: Trust,
}

impl Site {
    /// Two instances of the group `web` behind HTTPS and HTTP on ports 443 and 80.
    pub fn start() -> Result<Self> {
        Self::start_with(2, |_| {}, &usual())
    }

    /// As [`Site::start`], and a third backend whose server is no instance.
    pub fn start_with_guest() -> Result<Self> {
        Self::start_on([2, 1], |_| {}, &usual())
    }

    /// As [`Site::start`], with so many instances, another configuration and other ports.
    pub fn start_with(
        instances: usize,
        configure: impl FnOnce(&mut Config),
        services: &[Value],
    ) -> Result<Self> {
        Self::start_on([instances, 0], configure, services)
    }

    fn start_on(
        [instances, guests]: [usize; 2],
        configure: impl FnOnce(&mut Config),
        services: &[Value],
    ) -> Result<Self> {
        let gateway = Gateway::start_with(Shape::Routed, instances + guests, |config| {
            config.terminator.insert("development_ca", true.into());
            config.terminator.insert("user", "nobody".into());
            configure(config);
        })?;
        let topology = &gateway.topology;
        let start = |backend: &BackendHost| Origin::start(backend, ORIGIN_PORT);
        let origins = topology.backends.iter().map(start);
        let origins = origins.collect::<Result<_>>()?;
        publish(&gateway, "web", services)?;
        for backend in &topology.backends[..instances] {
            gateway.attach(&backend.name, "web", &backend.addresses)?;
        }
        let lbterm = Lbterm::start(&topology.gateway)?;
        let browser = Browser::open(&topology.client, &topology.gateway)?;
        let trust = Trust::new(&browser.authority()?)?;
        Ok(Self {
            lbterm,
            gateway,
            origins,
            browser,
            trust,
        })
    }

    /// Waits until `https://web.lb.internal/` is answered at a VIP.
    pub fn wait_for(&self, vip: IpAddr) -> Result<SocketAddr> {
        self.browser.wait_for(vip, &format!("https://{NAME}/"))?;
        Ok(SocketAddr::new(vip, 443))
    }

    /// The backend that is no instance of `web`.
    pub fn guest(&self) -> &BackendHost {
        let backends = &self.gateway.topology.backends;
        backends.last().expect("a site has backends")
    }

    /// Publishes a group of its own for the guest, on port 443, and waits until clients reach it.
    pub fn publish_guest(&self, name: &str, destination_port: u16) -> Result<()> {
        let service = json!({
            "port": 443, "destination_port": destination_port, "handlers": ["tls", "http"],
        });
        publish(&self.gateway, name, &[service])?;
        let addresses = &self.guest().addresses;
        self.gateway.attach(name, name, addresses)?;
        let url = format!("https://{name}.lb.internal/");
        let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        // Neither "no service" nor "no instance": whatever the guest makes of the request.
        let is_reached = || {
            let asked = self.browser.get(VIP4, &url, &status);
            asked.is_ok_and(|(is_content, text)| is_content && !["404", "503"].contains(&&*text))
        };
        poll_until(&format!("{url} to be reached"), PATIENCE, is_reached)
    }
}

fn usual() -> [Value; 2] {
    let http = json!({ "port": 80, "destination_port": ORIGIN_PORT, "handlers": ["http"] });
    [https(443), http]
}

/// A port with HTTPS to [`ORIGIN_PORT`].
pub fn https(port: u16) -> Value {
    json!({ "port": port, "destination_port": ORIGIN_PORT, "handlers": ["tls", "http"] })
}

/// Creates a group with the host name `NAME.lb.internal`.
pub fn publish(gateway: &Gateway, name: &str, services: &[Value]) -> Result<Value> {
    let group = json!({ "name": name, "domains": [{ "name": name }], "services": services });
    gateway.agent.call("POST", "/v1/services", Some(&group))
}

/// The lbterm of a gateway, through all its processes; none is left when this is dropped.
pub struct Lbterm {
    gateway: HostNs,
    children: Vec<Running>,
    /// All that may run, the one that serves last.
    pids: Vec<Pid>,
}

impl Lbterm {
    /// Starts it, as its unit does.
    pub fn start(gateway: &HostNs) -> Result<Self> {
        let mut lbterm = Self {
            gateway: gateway.clone(),
            children: Vec::new(),
            pids: Vec::new(),
        };
        lbterm.start_another()?;
        Ok(lbterm)
    }

    fn start_another(&mut self) -> Result<()> {
        let child = terminator(&self.gateway)?;
        self.pids.push(Pid::from_raw(i32::try_from(child.id())?));
        self.children.push(child);
        Ok(())
    }

    /// The process that serves.
    pub fn pid(&self) -> Result<Pid> {
        self.pids.last().copied().context("lbterm is not running")
    }

    /// `lbctl terminator upgrade`: a successor takes the sockets, and this process ends by itself.
    pub fn upgrade(&mut self) -> Result<()> {
        let printed = ctl::succeed(&self.gateway, &["terminator", "upgrade"])?;
        let pid = printed.split("(lbterm").nth(1);
        let pid = pid.and_then(|rest| rest.split("process ").nth(1)?.split(')').next());
        let pid = pid.with_context(|| format!("no process in {printed:?}"))?;
        self.pids.push(Pid::from_raw(pid.parse()?));
        Ok(())
    }

    /// SIGTERM, as systemd stops it.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGTERM)?)
    }

    /// SIGKILL, as a crash.
    pub fn kill(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGKILL)?)
    }

    /// Waits for the end of all processes, and starts another, as systemd does.
    pub fn start_again(&mut self) -> Result<()> {
        self.wait_for_formers(0)?;
        self.start_another()
    }

    /// Waits until all processes have ended but the last so many.
    pub fn wait_for_formers(&mut self, kept: usize) -> Result<()> {
        let formers = self.pids.len().saturating_sub(kept);
        let formers: Vec<Pid> = self.pids.drain(..formers).collect();
        let ended = || !formers.iter().any(|pid| is_alive(*pid));
        let waited = poll_until("former lbterms to end", PATIENCE, ended);
        if waited.is_err() {
            self.pids.splice(0..0, formers);
        }
        waited
    }

    /// Resident memory of the serving process, in bytes.
    pub fn resident(&self) -> Result<u64> {
        resident(self.pid()?)
    }
}

impl Drop for Lbterm {
    fn drop(&mut self) {
        for pid in self.pids.iter().filter(|pid| is_alive(**pid)) {
            // It may have ended meanwhile.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let waited = self.wait_for_formers(0);
        if !std::thread::panicking() {
            waited.expect("what was killed ends");
        }
    }
}

/// Whether a process runs. Successors are nobody's children here, so this cannot wait for them.
fn is_alive(pid: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/status"));
    state.is_ok_and(|state| !state.contains("State:\tZ"))
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: Pid) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no VmRSS")?.parse()?;
    ensure!(kib > 0, "process {pid} has no memory");
    Ok(kib * 1024)
}
