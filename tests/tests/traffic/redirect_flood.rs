//! Floods of SYNs that nobody sent: what they leave behind, and what they leave to others.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use lbagent_tests::bench::traffic::live::Live;
use lbagent_tests::flooded_site::{Flood, FloodedSite, spoofed_syn};
use lbagent_tests::gateway::{PORT, web_services};
use lbagent_tests::poll::poll_until;
use lbagent_tests::redirect_site::Site;
use lbagent_tests::slowness::{is_long, repetitions};
use lbagent_tests::syscalls::link_address;
use lbagent_tests::topology::{VIP4, VIPS};
use lbagent_tests::transfer::{Direction, Transfer};
use lbagent_tests::web::PATIENCE;
use lbagent_tests::{kernel, map_entries, require_root};

use crate::redirect::{any, follow, pages};

/// Sockets that the gateway has, in whatever state, and half-open connections.
fn sockets(site: &Site) -> usize {
    kernel::sockets(&site.gateway.topology.gateway.net).len()
}

/// Sends SYNs as fast as a CPU does; returns how many. No socket comes of them meanwhile, nor is one left.
#[track_caller]
fn flood(site: &Site, live: &mut Live, frame: &[u8], [times, count]: [u32; 2]) -> u64 {
    let before = sockets(site);
    let sending = AtomicBool::new(true);
    let most = std::thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<()> {
            let _guard = site.gateway.topology.client.enter()?;
            let ifindex = nix::net::if_::if_nametoindex("eth0").context("eth0")?;
            for _ in 0..times {
                live.send(frame, ifindex, count)?;
            }
            sending.store(false, Ordering::Release);
            Ok(())
        });
        let mut most = 0;
        while sending.load(Ordering::Acquire) && !flood.is_finished() {
            most = most.max(sockets(site));
        }
        flood.join().unwrap().unwrap();
        most.max(sockets(site))
    });
    assert!(most <= before + 4, "{most} sockets, {before} before");
    u64::from(times * count)
}

#[test]
fn spoofed_syns_leave_nothing_behind() {
    /// Ten times as many in the long form.
    const SYNS: u32 = 1_000_000;
    require_root!();
    let floods = if is_long() { 10 } else { 1 };
    let mut live = Live::load().unwrap();
    let site = Site::start(any).unwrap();
    site.gateway.create_service("raw", &web_services()).unwrap();
    let backend = &site.gateway.topology.backends[0];
    site.gateway
        .attach("raw-1", "raw", &backend.addresses)
        .unwrap();
    let tracked = Transfer::start(
        &site.gateway.topology.client,
        SocketAddr::new(VIP4, PORT),
        Direction::Download,
        20_000_000,
        Duration::from_millis(2),
    )
    .unwrap();
    tracked.wait_for(0.05).unwrap();
    let answered = || site.gateway.agent.outcome("answer_cookie").unwrap();
    let before = answered();
    let entries = || map_entries::of_ingress(&site.gateway.topology.gateway).unwrap();
    let (memory, entries_before) = (slab(&site), entries());
    let topology = &site.gateway.topology;
    let frame = spoofed_syn(
        SocketAddr::new(VIP4, 80),
        [
            topology.gateway.run(|| link_address("cl0")).unwrap(),
            topology.client.run(|| link_address("eth0")).unwrap(),
        ],
    );
    let count = repetitions(SYNS);
    let mut sent = 0;
    // The devices' rings drop what the gateway has no time for: on a busy machine it takes more floods
    // until a quarter of one was answered.
    for _ in 0..20 {
        sent += flood(&site, &mut live, &frame, [floods, count]);
        if answered() - before > u64::from(floods * count / 4) {
            break;
        }
    }
    let answered = answered() - before;
    assert!(
        answered > u64::from(floods * count / 4),
        "{answered} of {sent} SYNs were answered"
    );
    assert_eq!(entries(), entries_before, "entries of maps");
    tracked.finish().unwrap();
    // The whole machine's: what runs beside this test takes memory, and gives it back.
    let mut grown = 0;
    let is_flat = || {
        grown = slab(&site).saturating_sub(memory);
        grown < 16 << 10
    };
    let flat = poll_until("the kernel's memory to be as it was", PATIENCE, is_flat);
    flat.unwrap_or_else(|error| panic!("{error:#}: {grown} KiB are gone"));
    for vip in VIPS {
        assert_eq!(
            follow(&site, vip, 20, &[]),
            pages(20),
            "{vip} after the flood"
        );
    }
    println!("{answered} of {sent} SYNs answered, {grown} KiB more in use");
}

/// Kernel memory for objects that cannot be given back at once, in KiB.
fn slab(_: &Site) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("SUnreclaim:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap()
}

/// `cargo xtask bench redirect` holds what connections keep to a tenth, on a machine that does nothing
/// else. Here it is that no flood stops them, whatever else the machine does.
#[test]
fn established_connections_carry_on_under_floods() {
    const TURNS: u32 = 24;
    const LEAST: f64 = 0.25;
    require_root!();
    let mut flooded = FloodedSite::start().unwrap();
    let kept = flooded.compare(repetitions(TURNS) as usize).unwrap();
    flooded.finish().unwrap();
    for kept in kept {
        println!("{kept:?}");
        let is_carried = kept.parts.iter().all(|part| *part > LEAST);
        assert!(is_carried || kept.flood == Flood::Kernels, "{kept:?}");
        // Each flood is the one that it is meant to be.
        assert!(kept.handled > 0.1, "{kept:?}");
    }
}
