//! The modes in which backends answer clients directly, with the real daemon, real decapsulation
//! and real connections. Client and backends share a link, so that there is a way past the gateway.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command};

use lbagent_tests::agent::binary;
use lbagent_tests::client::{Connection, Transport, identify};
use lbagent_tests::gateway::{Gateway, SERVER_PORT, service};
use lbagent_tests::net_link::{Cidr, Netlink};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{BackendHost, Shape, VIPS};
use lbagent_tests::transfer::{Direction, Transfer};
use serde_json::json;

/// `lbagent decap --foreground` on a backend, ended with the test.
struct Decap(Child);

impl Decap {
    fn start(backend: &BackendHost) -> Self {
        let mut command: Command = backend.ns.command("unshare");
        // A mount namespace of its own, whose BPF file system goes with the process.
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && exec {} decap --iface eth0 --foreground",
            binary("LBAGENT_BIN", "lbagent").display()
        );
        command.args(["-m", "sh", "-c", &script]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed by then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Which addresses of its instances a group gets.
type Chosen = fn(&IpAddr) -> bool;

/// A gateway whose group has this forwarding mode, and two backends that have the VIPs.
fn gateway(mode: &str, chosen: Chosen) -> (Gateway, Vec<Decap>) {
    let gateway = Gateway::start(Shape::SameSubnet, 2).unwrap();
    let services = json!([service(SERVER_PORT, SERVER_PORT, "tcp")]);
    gateway.create_service("web", &services).unwrap();
    let policy = json!({ "policy": { "forwarding_mode": mode } });
    let path = "/v1/x/service-groups/web/policy";
    gateway.agent.call("PUT", path, Some(&policy)).unwrap();
    let mut decaps = Vec::new();
    for backend in &gateway.topology.backends {
        backend.ns.run(|| {
            let netlink = Netlink::open().unwrap();
            for vip in VIPS {
                netlink.add_address("lo", Cidr::host(vip)).unwrap();
            }
        });
        decaps.push(Decap::start(backend));
        let addresses: Vec<IpAddr> = backend.addresses.into_iter().filter(chosen).collect();
        gateway.attach(&backend.name, "web", &addresses).unwrap();
    }
    (gateway, decaps)
}

/// Talks to a VIP until both backends have answered, then moves a lot.
#[track_caller]
fn check(mode: &str, chosen: Chosen, vips: &[IpAddr]) {
    let (gateway, _decaps) = gateway(mode, chosen);
    let client = &gateway.topology.client;
    for vip in vips {
        let to = SocketAddr::new(*vip, SERVER_PORT);
        let mut seen = std::collections::BTreeSet::new();
        poll_until(&format!("{mode} {vip}: both to answer"), SOON, || {
            seen.extend(identify(client, Transport::Tcp, to).ok());
            seen.len() == 2
        })
        .unwrap();
        let mut connection = Connection::open(client, to).unwrap();
        connection.command("echo").unwrap();
        connection.echo("answered directly").unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let transfer =
                Transfer::start(client, to, direction, 4_000_000, std::time::Duration::ZERO);
            transfer.unwrap().finish().unwrap();
        }
    }
    let forwarded = gateway.agent.outcome("forward_tx").unwrap();
    let returned = gateway.agent.outcome("return_redirect").unwrap();
    assert!(forwarded > 1_000, "{mode}: only {forwarded} packets");
    assert_eq!(returned, 0, "{mode}: replies came through the gateway");
}

const ANY: Chosen = |_| true;

#[test]
fn l2_reaches_backends_on_the_link() {
    require_root!();
    check("dsr-l2", ANY, &VIPS);
}

#[test]
fn ipip_reaches_backends_of_the_vips_family() {
    require_root!();
    check("dsr-ipip", ANY, &VIPS);
}

#[test]
fn gue_reaches_backends_of_the_vips_family() {
    require_root!();
    check("dsr-gue", ANY, &VIPS);
}

#[test]
fn tunnels_carry_the_other_family() {
    require_root!();
    for mode in ["dsr-ipip", "dsr-gue"] {
        check(mode, IpAddr::is_ipv6, &VIPS[..1]);
        check(mode, IpAddr::is_ipv4, &VIPS[1..]);
    }
}
