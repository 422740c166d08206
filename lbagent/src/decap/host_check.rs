//! What else a backend host needs, and does not have yet.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use super::{Options, RunError, vips};
use crate::dataplane::decap::{DecapError, HostView};

/// Prints what is missing on every interface; the inner error counts it.
pub fn check(options: &Options) -> Result<Result<(), usize>, RunError> {
    let host = HostView::read()?;
    let vips = vips(options, &host);
    if vips.is_empty() {
        return Err(RunError::NoVip);
    }
    let mut advice: Vec<Advice> = Vec::new();
    for interface in &options.interfaces {
        if !host.interfaces.contains_key(interface) {
            let interface = interface.clone();
            return Err(DecapError::NoInterface { interface }.into());
        }
        for found in advise(interface, Settings::read(interface), &vips, &host) {
            if !advice.contains(&found) {
                advice.push(found);
            }
        }
    }
    for Advice { problem, command } in &advice {
        println!("{problem}\n  {command}");
    }
    if advice.is_empty() {
        println!("nothing to do");
        return Ok(Ok(()));
    }
    Ok(Err(advice.len()))
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// What is wrong.
    pub(super) problem: String,
    /// The command that mends it until the next boot.
    pub(super) command: String,
}

/// Settings of an interface. The kernel uses the larger of `all` and the interface's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `arp_ignore`.
    pub(super) arp_ignore: u8,
    /// `arp_announce`.
    pub(super) arp_announce: u8,
    /// `rp_filter`.
    pub(super) rp_filter: u8,
}

impl Settings {
    /// Reads them; an interface that the kernel does not list has zeros.
    pub(super) fn read(interface: &str) -> Self {
        let one = |place: &str, name: &str| -> u8 {
            let path = format!("/proc/sys/net/ipv4/conf/{place}/{name}");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let larger = |name| one("all", name).max(one(interface, name));
        Self {
            arp_ignore: larger("arp_ignore"),
            arp_announce: larger("arp_announce"),
            rp_filter: larger("rp_filter"),
        }
    }
}

/// Compares a host with what direct server return needs.
pub(super) fn advise(
    interface: &str,
    settings: Settings,
    vips: &BTreeSet<IpAddr>,
    host: &HostView,
) -> Vec<Advice> {
    let mut advice = Vec::new();
    for vip in vips.iter().filter(|vip| !host.addresses.contains(vip)) {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        advice.push(Advice {
            problem: format!("the host does not have the VIP {vip}: packets to it are discarded"),
            command: format!("ip address add {vip}/{length} dev lo"),
        });
    }
    if !vips.iter().any(IpAddr::is_ipv4) {
        return advice;
    }
    let mut sysctl = |is_wrong: bool, problem: &str, name: &str, value: u8| {
        if is_wrong {
            advice.push(Advice {
                problem: format!("{interface} {problem}"),
                command: format!("sysctl -w net.ipv4.conf.{interface}.{name}={value}"),
            });
        }
    };
    sysctl(
        settings.arp_ignore == 0,
        "answers ARP for the VIPs on lo, and takes their traffic away from the gateway",
        "arp_ignore",
        1,
    );
    sysctl(
        settings.arp_announce < 2,
        "may send ARP requests from a VIP, which moves it in the neighbours' tables",
        "arp_announce",
        2,
    );
    sysctl(
        settings.rp_filter == 1,
        "discards clients whose way back is another interface (strict reverse-path filter)",
        "rp_filter",
        2,
    );
    advice
}
