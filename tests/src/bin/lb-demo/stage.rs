//! The network and the daemon of the demo.

use std::os::fd::OwnedFd;

use anyhow::Result;
use lbagent_tests::agent::{Agent, CONFIG_PATH, Config};
use lbagent_tests::ctl;
use lbagent_tests::gateway::SERVER_PORT;
use lbagent_tests::server::Server;
use lbagent_tests::topology::{BackendHost, Shape, Topology};

use crate::report::Report;

/// Dropped in this order: the daemon first, the network last.
pub struct Stage {
    pub agent: Agent,
    servers: Vec<Server>,
    pub topology: Topology,
    /// Lets the client's end of the link take what XDP sends back, as a wire does.
    _program: OwnedFd,
}

impl Stage {
    /// Wires the network, starts the servers and the daemon.
    pub fn build(report: &Report) -> Result<Self> {
        report.act("a client, a gateway and three backends, in namespaces");
        let topology = Topology::build(Shape::Routed, 3)?;
        let program = topology.arm_client()?;
        report.line(
            "198.51.100.2     192.0.2.10 (VIP)     be1 ── b1  10.66.0.11 fd66::b\n\
             2001:db8:1::2    2001:db8:a::10 (VIP) be2 ── b2  10.66.0.12 fd66::c\n\
             client ───── cl0 gateway              be3 ── b3  10.66.0.13 fd66::d",
        );
        let serve = |backend: &BackendHost| {
            Server::start(&backend.ns, &backend.name, &[SERVER_PORT], &[SERVER_PORT])
        };
        let servers = topology.backends.iter().map(serve).collect::<Result<_>>()?;
        report.act("the daemon");
        let mut config = Config::new(&topology);
        config.limits.clear();
        config.terminator.insert("development_ca", true.into());
        config.terminator.insert("user", "nobody".into());
        config.redirect.insert("at_nic", "on");
        let config = config.to_toml();
        report.line(format!("$ cat {CONFIG_PATH}\n{}", config.trim_end()));
        report.line(format!("$ lbagent run --config {CONFIG_PATH} &"));
        let agent = Agent::start_with(&topology.gateway, &config)?;
        report.line(format!("pid {}", agent.pid()?));
        Ok(Self {
            agent,
            servers,
            topology,
            _program: program,
        })
    }

    /// Runs `lbctl`, which must succeed, and shows the command and what it printed.
    pub fn lbctl(&self, report: &Report, arguments: &[&str]) -> Result<()> {
        report.line(format!("$ lbctl {}", arguments.join(" ")));
        report.line(ctl::succeed(&self.topology.gateway, arguments)?);
        Ok(())
    }

    /// Stops the servers and gives the rest back.
    pub fn strike(self) -> (Agent, Topology) {
        drop(self.servers);
        (self.agent, self.topology)
    }
}
