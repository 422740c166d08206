//! `lbagent` and the kernel's own tunnel devices understand each other. Most virtual hosts' kernels
//! have such devices as modules; `cargo xtask vm` loads them.

use std::net::SocketAddr;

use lbagent_tests::agent::{Ended, binary};
use lbagent_tests::client::Connection;
use lbagent_tests::ip::{ip, missing_device};
use lbagent_tests::net_link::{Cidr, Netlink};
use lbagent_tests::netns::{BpfFs, HostNs, NetNs, set_sysctl};
use lbagent_tests::server::Server;
use lbagent_tests::{require_root, skip};
use serde_json::Value;

const CLIENT: [&str; 2] = ["10.78.0.1", "fd78::1"];
/// The gateway's addresses towards the client and towards the backend.
const GATEWAY: [[&str; 2]; 2] = [["10.78.0.9", "fd78::9"], ["10.79.0.9", "fd79::9"]];
const BACKEND: [&str; 2] = ["10.79.0.2", "fd79::2"];
const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8:a::10"];
const PORT: u16 = 7000;

/// A router between a client and a backend that has the VIPs on its loopback interface.
struct Lab {
    client: NetNs,
    gateway: NetNs,
    backend: HostNs,
}

impl Lab {
    fn new() -> Self {
        let client = NetNs::new("tunnel-client").unwrap();
        let gateway = NetNs::new("tunnel-gateway").unwrap();
        let backend = HostNs::new("tunnel-backend", BpfFs::Mounted).unwrap();
        let parse = |addresses: [&str; 2]| addresses.map(|text| text.parse().unwrap());
        gateway.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("g0", &client, "c0").unwrap();
            netlink.add_veth("g1", &backend.net, "b0").unwrap();
            add_addresses(&netlink, "g0", GATEWAY[0]);
            add_addresses(&netlink, "g1", GATEWAY[1]);
            set_sysctl("net/ipv4/ip_forward", "1").unwrap();
            set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        client.run(|| {
            let netlink = Netlink::open().unwrap();
            add_addresses(&netlink, "c0", CLIENT);
            netlink
                .add_default_routes("c0", &parse(GATEWAY[0]))
                .unwrap();
        });
        backend.net.run(|| {
            let netlink = Netlink::open().unwrap();
            add_addresses(&netlink, "b0", BACKEND);
            netlink
                .add_default_routes("b0", &parse(GATEWAY[1]))
                .unwrap();
            for vip in VIPS {
                let vip = Cidr::host(vip.parse().unwrap());
                netlink.add_address("lo", vip).unwrap();
            }
        });
        Self {
            client,
            gateway,
            backend,
        }
    }

    /// `lbagent decap --iface b0 ARGUMENTS…` on the backend.
    #[track_caller]
    fn decap(&self, arguments: &[&str]) -> String {
        let mut command = self.backend.command(binary("LBAGENT_BIN", "lbagent"));
        command.args(["decap", "--iface", "b0"]).args(arguments);
        let ended = Ended::of(&mut command).unwrap();
        assert_eq!(ended.code, 0, "decap {arguments:?}: {ended:?}");
        ended.stdout
    }

    fn outcomes(&self) -> Value {
        let status = self.decap(&["--status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["outcomes"].clone()
    }

    fn talk(&self, vip: &str) -> anyhow::Result<()> {
        let to = SocketAddr::new(vip.parse()?, PORT);
        let mut connection = Connection::open(&self.client, to)?;
        connection.command("echo")?;
        connection.echo("through the tunnel")?;
        Ok(())
    }
}

fn add_addresses(netlink: &Netlink, interface: &str, addresses: [&str; 2]) {
    for (address, len) in addresses.into_iter().zip([24, 64]) {
        let address = address.parse().unwrap();
        netlink
            .add_address(interface, Cidr { address, len })
            .unwrap();
    }
}

#[test]
fn decap_takes_off_what_the_kernel_puts_on() {
    #[track_caller]
    fn check(lab: &Lab, device: &str, vip: &str, counter: &str) {
        let family = if vip.contains(':') { "-6" } else { "-4" };
        ip(&lab.gateway, &format!("link add tun9 {device}")).unwrap();
        ip(&lab.gateway, "link set tun9 up").unwrap();
        ip(&lab.gateway, &format!("{family} route add {vip} dev tun9")).unwrap();
        let before = lab.outcomes();
        let talked = lab.talk(vip);
        let after = lab.outcomes();
        talked.unwrap_or_else(|error| panic!("{device} {vip}: {error:#}\n{after}"));
        let count = |outcomes: &Value| outcomes[counter]["packets"].as_u64().unwrap();
        // SYN, ACK, command and text at least.
        let taken_off = count(&after) - count(&before);
        assert!(taken_off >= 4, "{device} {vip}: {counter} {taken_off}");
        ip(&lab.gateway, "link del tun9").unwrap();
    }
    require_root!();
    if let Some(reason) = missing_device(&["ipip", "sit", "ip6tnl"]).unwrap() {
        skip!("{reason}");
    }
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    lab.talk(VIPS[0]).expect_err("nothing leads to the VIP yet");
    lab.decap(&[]);
    let (v4, v6) = (
        "local 10.79.0.9 remote 10.79.0.2",
        "local fd79::9 remote fd79::2",
    );
    // The kernel's GUE is variant 0.
    let gue = "encap gue encap-sport auto encap-dport 6080";
    // Without the limit, which is an extension header that nobody needs here.
    let any = "mode any encaplimit none";
    for (encap, counter) in [("", "decap_ipip"), (gue, "decap_gue")] {
        check(&lab, &format!("type ipip {v4} {encap}"), VIPS[0], counter);
        check(&lab, &format!("type sit {v4} {encap}"), VIPS[1], counter);
        for vip in VIPS {
            check(
                &lab,
                &format!("type ip6tnl {any} {v6} {encap}"),
                vip,
                counter,
            );
        }
    }
}
