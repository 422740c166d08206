//! A web site behind the gateway: HTTPS by the real terminator, port 80 sending clients to it.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::Config;
use crate::gateway::Gateway;
use crate::netns::NetNs;
use crate::poll::poll_until;
use crate::topology::{Shape, Topology, VIPS};
use crate::web::{Browser, PATIENCE, Running, serve, terminator};

/// Where the instances listen.
const PORT: u16 = 8090;

/// The gateway with its site; dropped in this order.
pub struct Site {
    /// The gateway, with an instance behind it.
    pub gateway: Gateway,
    /// curl on the client.
    pub browser: Browser,
    /// lbterm; `None` where it is gone.
    pub terminator: Option<Running>,
    _servers: Vec<Running>,
    _program: Option<OwnedFd>,
}

impl Site {
    /// Starts all of it, and waits until SYNs are answered with cookies.
    pub fn start(configure: impl FnOnce(&mut Config)) -> Result<Self> {
        let site = Self::start_on(Shape::Routed, configure)?;
        site.wait_for_cookies()?;
        Ok(site)
    }

    /// As [`Site::start`], on a network of another shape, and without waiting for cookies.
    pub fn start_on(shape: Shape, configure: impl FnOnce(&mut Config)) -> Result<Self> {
        Self::start_in(Topology::build(shape, 1)?, configure)
    }

    /// As [`Site::start_on`], on a network that is there already.
    pub fn start_in(topology: Topology, configure: impl FnOnce(&mut Config)) -> Result<Self> {
        let program = match topology.switch {
            Some(_) => None,
            None => Some(topology.arm_client()?),
        };
        let gateway = Gateway::start_in(topology, |config| {
            config.terminator.insert("development_ca", true.into());
            config.terminator.insert("user", "nobody".into());
            // The far end of the client's link has a program; an agent does not see that.
            config.redirect.insert("at_nic", "on");
            configure(config);
        })?;
        let group =
            json!({ "name": "web", "domains": [{ "name": "web" }], "services": services() });
        gateway.agent.call("POST", "/v1/services", Some(&group))?;
        let backend = &gateway.topology.backends[0];
        gateway.attach(&backend.name, "web", &backend.addresses)?;
        let servers = vec![serve(backend, PORT)?];
        let topology = &gateway.topology;
        let browser = Browser::open(&topology.client, &topology.gateway)?;
        let terminator = terminator(&topology.gateway)?;
        let site = Self {
            browser,
            terminator: Some(terminator),
            _servers: servers,
            _program: program,
            gateway,
        };
        for vip in VIPS {
            site.browser.wait_for(vip, "https://web.lb.internal/")?;
        }
        Ok(site)
    }

    /// Waits until a redirect by each VIP is answered before the kernel has seen the client.
    pub fn wait_for_cookies(&self) -> Result<()> {
        for vip in VIPS {
            let is_answered = || -> Result<bool> {
                let before = self.redirects()?;
                self.browser.get(vip, "http://web.lb.internal/", &[])?;
                Ok(self.redirects()? > before)
            };
            poll_until(&format!("a redirect at the NIC by {vip}"), PATIENCE, || {
                is_answered().unwrap_or_default()
            })?;
        }
        Ok(())
    }

    /// Redirects that were answered before the kernel has seen the client.
    pub fn redirects(&self) -> Result<u64> {
        self.gateway.agent.outcome("answer_redirect")
    }

    /// What was left to the terminator for a reason.
    pub fn passed(&self, reason: &str) -> Result<u64> {
        let data = self.gateway.agent.call("GET", "/v1/x/counters", None)?;
        let count = &data["counters"]["passed_redirects"][reason];
        count
            .as_u64()
            .with_context(|| format!("no counter {reason} in {data}"))
    }

    /// A setting of the gateway below `/proc/sys`.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = format!("/proc/sys/{name}");
        let text = self
            .gateway
            .topology
            .gateway
            .run(|| std::fs::read_to_string(path))?;
        Ok(text.trim().to_owned())
    }

    /// A program on the client that reaches `web.lb.internal` at a VIP and trusts the gateway's
    /// authority: its own file of hosts lies over the machine's.
    pub fn client_command(&self, vip: IpAddr, program: &str) -> Result<Command> {
        let client: &NetNs = &self.gateway.topology.client;
        let hosts = tempfile::NamedTempFile::new()?;
        let (hosts_file, path) = hosts.keep()?;
        drop(hosts_file);
        std::fs::write(&path, format!("{vip} web.lb.internal web\n"))?;
        let mut command = client.command("unshare");
        let script = "mount --bind \"$0\" /etc/hosts && rm \"$0\" && exec \"$@\"";
        command
            .args(["--mount", "sh", "-c", script])
            .arg(path)
            .arg(program);
        Ok(command)
    }
}

/// Ports 443 and 80, as everybody has them.
pub fn services() -> Value {
    json!([
        { "port": 443, "destination_port": PORT, "handlers": ["tls", "http"] },
        { "port": 80, "destination_port": 443, "handlers": ["http", "redirect"] },
    ])
}

/// Runs a command; returns what it printed.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}");
    Ok(text)
}
