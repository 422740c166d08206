//! What lbagent is compared with, each configured as its documentation has it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::server::{ANSWER_PORT, BULK_PORT};
use crate::bench::programs::{Program, SBIN};
use crate::net_link::{Cidr, Netlink};
use crate::netns::HostNs;
use crate::topology::{Topology, VIP4};

/// Destination NAT of (VIP port, backend port) to one of the backends, chosen by the flow's hash
/// when the flow is new; connection tracking remembers it.
pub(super) fn nftables(gateway: &HostNs, backends: &[IpAddr], ports: &[(u16, u16)]) -> Result<()> {
    let count = backends.len();
    let mut rules = String::from(
        "table ip bench {\n chain prerouting {\n  \
         type nat hook prerouting priority dstnat; policy accept;\n",
    );
    for (port, destination_port) in ports {
        let choices: Vec<String> = (0..)
            .zip(backends)
            .map(|(index, address): (u32, _)| format!("{index} : {address} . {destination_port}"))
            .collect();
        writeln!(
            rules,
            "  ip daddr {VIP4} tcp dport {port} dnat ip to jhash ip saddr . tcp sport \
             mod {count} map {{ {} }}",
            choices.join(", ")
        )?;
    }
    rules.push_str(" }\n}\n");
    let mut command = gateway.command(format!("{SBIN}/nft"));
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().context("starting nft")?;
    child
        .stdin
        .take()
        .context("a pipe was asked for")?
        .write_all(rules.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "nft refuses these rules:\n{rules}");
    Ok(())
}

/// HAProxy in TCP mode with as many threads as CPUs, its default.
pub(super) fn haproxy(topology: &Topology) -> Result<Program> {
    let mut config = String::from(
        "global\n  maxconn 4096\n\
         defaults\n  mode tcp\n  balance roundrobin\n  option splice-auto\n  \
         timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n",
    );
    for port in [ANSWER_PORT, BULK_PORT] {
        writeln!(config, "listen p{port}\n  bind {VIP4}:{port}")?;
        for backend in &topology.backends {
            let (name, address) = (&backend.name, backend.addresses[0]);
            writeln!(config, "  server {name} {address}:{port}")?;
        }
    }
    let (file, directory) = place(topology, "haproxy.cfg", &config)?;
    let mut command = topology.gateway.command(format!("{SBIN}/haproxy"));
    command.args(["-db", "-f"]).arg(file);
    Program::start(command.current_dir(directory))
}

/// nginx's stream module with as many workers as CPUs.
pub(super) fn nginx(topology: &Topology) -> Result<Program> {
    let mut config = String::from(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nuser root;\npid nginx.pid;\nerror_log stderr warn;\nworker_processes auto;\n\
         events {\n worker_connections 4096;\n}\nstream {\n access_log off;\n",
    );
    for port in [ANSWER_PORT, BULK_PORT] {
        writeln!(config, " upstream p{port} {{")?;
        for backend in &topology.backends {
            writeln!(config, "  server {}:{port};", backend.addresses[0])?;
        }
        writeln!(
            config,
            " }}\n server {{\n  listen {VIP4}:{port};\n  proxy_pass p{port};\n  proxy_half_close on;\n }}"
        )?;
    }
    config.push_str("}\n");
    let (file, directory) = place(topology, "nginx.conf", &config)?;
    Program::start_nginx(topology.gateway.command("unshare"), &directory, &file)
}

/// Makes the VIP the gateway's own and writes a configuration to its `/run`.
fn place(topology: &Topology, name: &str, text: &str) -> Result<(PathBuf, PathBuf)> {
    topology.gateway.run(|| {
        Netlink::open()?.add_address("lo", Cidr::host(VIP4))?;
        let directory = PathBuf::from("/run");
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok((file, directory))
    })
}
