//! `lbagent detach` leaves the host as it was before the first start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lbagent_tests::agent::{Agent, BPFFS_DIR, CONFIG_PATH, Config};
use lbagent_tests::gateway::Gateway;
use lbagent_tests::net_link::Netlink;
use lbagent_tests::netns::HostNs;
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{count_tc_ingress_programs, interface_index};
use lbagent_tests::topology::{Shape, Topology};

/// Links, addresses, routes, sysctls, pins and TC programs of a host, as lines.
fn snapshot(host: &HostNs, interfaces: &[String]) -> BTreeSet<String> {
    host.run(|| {
        let mut lines = Netlink::open().unwrap().describe().unwrap();
        for family in ["ipv4", "ipv6"] {
            add_files(&mut lines, &Path::new("/proc/sys/net").join(family));
        }
        for interface in interfaces {
            let programs = count_tc_ingress_programs(interface_index(interface).unwrap()).unwrap();
            lines.insert(format!("{interface}: {programs} TC programs"));
        }
        let pins = fs::read_dir("/sys/fs/bpf").unwrap();
        lines.extend(pins.map(|pin| format!("pin {:?}", pin.unwrap().path())));
        lines
    })
}

fn add_files(lines: &mut BTreeSet<String>, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_files(lines, &path);
        } else if let Ok(value) = fs::read_to_string(&path) {
            // Some settings can only be written; they have nothing to restore.
            lines.insert(format!("{} = {}", path.display(), value.trim()));
        }
    }
}

#[track_caller]
fn assert_same(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let gone: Vec<_> = before.difference(after).collect();
    let left: Vec<_> = after.difference(before).collect();
    assert!(
        gone.is_empty() && left.is_empty(),
        "gone: {gone:#?}\nleft behind: {left:#?}"
    );
}

#[test]
fn detach_leaves_nothing() {
    #[track_caller]
    fn check(shape: Shape, vip_mode: &'static str) {
        let topology = Topology::build(shape, 2).unwrap();
        let mut interfaces = topology.backend_interfaces();
        interfaces.push(topology.client_interface().into());
        let host = topology.gateway.clone();
        let before = snapshot(&host, &interfaces);
        let mut config = Config::new(&topology);
        config.vip_mode = Some(vip_mode);
        let agent = Agent::start(&host, &config).unwrap();
        let mut gateway = Gateway {
            agent,
            servers: Vec::new(),
            topology,
        };
        gateway.publish_web().unwrap();
        let during = snapshot(&host, &interfaces);
        assert!(
            before != during,
            "{shape:?}: an agent without a trace does nothing"
        );

        let refused = gateway
            .agent
            .run(&["detach", "--config", CONFIG_PATH])
            .unwrap();
        assert_ne!(refused.code, 0, "detach under a running agent: {refused:?}");
        assert!(refused.stderr.contains("stop it first"), "{refused:?}");

        gateway.agent.terminate().unwrap();
        for _ in 0..2 {
            let detached = gateway
                .agent
                .run(&["detach", "--config", CONFIG_PATH])
                .unwrap();
            assert_eq!(detached.code, 0, "{detached:?}");
            assert_same(&before, &snapshot(&host, &interfaces));
            assert!(
                !host.run(|| Path::new(BPFFS_DIR).exists()),
                "{BPFFS_DIR} is left"
            );
        }
        // The desired state is not the host's: it stays for the next start.
        gateway.agent.launch().unwrap();
        assert_eq!(gateway.agent.vips().unwrap().len(), 4);
    }
    require_root!();
    check(Shape::Routed, "l2");
    check(Shape::Routed, "routed");
    check(Shape::OneArmed, "l2");
}
