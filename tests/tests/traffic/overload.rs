//! Floods of live frames, as fast as a CPU sends them, beside connections whose flows are stored.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lbagent_common::Outcome;
use lbagent_tests::bench::traffic::live::{self, FRAME, Live};
use lbagent_tests::client::{Connection, exchange_on, udp_socket_here};
use lbagent_tests::gateway::{Gateway, PORT, service, web_services};
use lbagent_tests::packet_builder::{self, Segment};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;
use lbagent_tests::syscalls::link_address;
use lbagent_tests::topology::{Shape, VIP4};
use serde_json::json;

/// Port of the group that is flooded.
const VICTIM: u16 = 81;
const CONNECTIONS: usize = 40;
/// How long one of them may wait for an echo.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames of one flood, of 65,536 flows: the map has room for 16,384.
const FRAMES: u32 = 1_000_000;
/// A quarter of so many floods has to be balanced; on a busy machine that takes some more of them.
const FLOODS: u32 = 3;
const MOST_FLOODS: u32 = 40;
/// The lower half is for the generator to vary.
const FLOODERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// A gateway with two groups on one VIP, all of whose slots changed hands, so that each of their
/// flows is to be stored: `web`, and one whose only instance that takes new flows drops them.
fn gateway(live: &mut Live) -> Result<Gateway> {
    let gateway = Gateway::start(Shape::Routed, 6)?;
    gateway.create_service("web", &web_services())?;
    let attach = |name: &str, group| {
        let backend = gateway.topology.backends.iter().find(|b| b.name == name);
        let backend = backend.with_context(|| format!("no backend {name}"))?;
        gateway.attach(name, group, &backend.addresses)
    };
    attach("b1", "web")?;
    attach("b2", "web")?;
    let services = json!([
        service(VICTIM, VICTIM, "tcp"),
        service(VICTIM, VICTIM, "udp")
    ]);
    gateway.create_service("victim", &services)?;
    attach("b5", "victim")?;
    gateway.probe()?;
    for (group, old, new) in [
        ("web", &["b1", "b2"][..], &["b3", "b4"][..]),
        ("victim", &["b5"], &["b6"]),
    ] {
        for name in new {
            attach(name, group)?;
        }
        for name in old {
            gateway.stop(name, Duration::from_secs(600))?;
        }
    }
    for backend in gateway
        .topology
        .backends
        .iter()
        .filter(|b| b.name == "b5" || b.name == "b6")
    {
        backend.ns.run(|| live.attach(live::SINK, "eth0"))?;
    }
    Ok(gateway)
}

/// The frame that the generator varies: to the victim's port.
fn template(
    gateway: &Gateway,
    frame: impl Fn(SocketAddr, SocketAddr, &[u8]) -> Vec<u8>,
) -> Result<Vec<u8>> {
    let (from, to) = (
        SocketAddr::new(FLOODERS.into(), 0),
        SocketAddr::new(VIP4, VICTIM),
    );
    let headers = frame(from, to, &[]).len();
    let mut frame = frame(from, to, &vec![0x5a; FRAME - headers]);
    let here = gateway.topology.client.run(|| link_address("eth0"))?;
    let there = gateway.topology.gateway.run(|| link_address("cl0"))?;
    frame[..6].copy_from_slice(&there);
    frame[6..12].copy_from_slice(&here);
    Ok(frame)
}

#[test]
fn connections_outlive_a_flood_of_live_syns() {
    require_root!();
    let mut live = Live::load().unwrap();
    let gateway = gateway(&mut live).unwrap();
    let client = &gateway.topology.client;
    let to = SocketAddr::new(VIP4, PORT);
    // What the rings of the devices drop is sent again, later and later.
    let open = || Connection::open_within(to, None, PATIENCE).unwrap();
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| client.run(open)).collect();
    for connection in &mut connections {
        connection.command("echo").unwrap();
    }
    let sockets: Vec<_> = (0..CONNECTIONS)
        .map(|_| client.run(|| udp_socket_here(to, None).unwrap()))
        .collect();
    let who = |socket| exchange_on(socket, b"x").unwrap().greeting.name;
    sockets.iter().for_each(|socket| drop(who(socket)));
    // A flow of one datagram holds its place for as long as a handshake takes; on a busy machine the flood
    // lasts longer.
    let before: Vec<String> = sockets.iter().map(who).collect();
    assert!(
        before.iter().all(|name| name == "b3" || name == "b4"),
        "{before:?}"
    );

    let frame = template(&gateway, |from, to, payload| {
        packet_builder::tcp(from, to, Segment::Syn, payload)
    })
    .unwrap();
    let flooding = AtomicBool::new(true);
    let balanced = || gateway.agent.outcome(Outcome::ForwardRedirect.label());
    let (rounds, sent) = thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<u64> {
            let _guard = client.enter()?;
            let ifindex = nix::net::if_::if_nametoindex("eth0").context("eth0")?;
            let count = repetitions(FRAMES);
            let mut floods = 0;
            // The rings of the devices drop what the gateway has no time for.
            while floods < FLOODS || balanced()? < u64::from(FLOODS * count / 4) {
                ensure!(floods < MOST_FLOODS, "{} were balanced", balanced()?);
                live.send(&frame, ifindex, count)?;
                floods += 1;
            }
            flooding.store(false, Ordering::Release);
            Ok(u64::from(floods * count))
        });
        let mut rounds = 0;
        while flooding.load(Ordering::Acquire) && !flood.is_finished() {
            for connection in &mut connections {
                connection.echo("in the flood").unwrap();
            }
            rounds += 1;
        }
        (rounds, flood.join().unwrap().unwrap())
    });
    assert!(rounds > 0, "no echo came back during the flood");
    for connection in &mut connections {
        connection.echo("after the flood").unwrap();
    }
    let after: Vec<String> = sockets.iter().map(who).collect();
    assert_eq!(before, after, "UDP flows moved");
    println!("{rounds} rounds of {CONNECTIONS} echoes beside {sent} SYNs");
}
