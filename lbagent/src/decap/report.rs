//! `lbagent decap --status`, for people and for programs.

use std::fmt::Write;
use std::net::IpAddr;

use lbagent_common::decap::{DecapSettings, ROLE_HOST, ROLE_VIP};
use serde_json::{Value, json};

use super::{Options, RunError};
use crate::dataplane::AttachedMode;
use crate::dataplane::decap::{DecapStatus, status};

/// Prints the state of every interface.
pub fn show(options: &Options, as_json: bool) -> Result<(), RunError> {
    for interface in &options.interfaces {
        let status = status(&options.bpffs_dir, interface)?;
        if as_json {
            println!("{}", to_json(interface, &status));
        } else {
            print!("{}", describe(interface, &status));
        }
    }
    Ok(())
}

/// As text.
fn describe(interface: &str, status: &DecapStatus) -> String {
    let settings = &status.settings;
    let mode = |mode: Option<AttachedMode>| {
        mode.map_or("not attached".to_owned(), |mode| mode.to_string())
    };
    let mut text = format!("{interface}\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    line("lb_decap", mode(status.xdp));
    line("lb_clamp", mode(status.tc));
    line("takes off", modes(settings).join(", "));
    line(
        "MSS",
        format!("{} (IPv4), {} (IPv6)", settings.mss_v4, settings.mss_v6),
    );
    line("VIPs", list(&with_role(status, ROLE_VIP)));
    line("own addresses", list(&with_role(status, ROLE_HOST)));
    for (outcome, counter) in &status.counters {
        let _ = writeln!(
            text,
            "  {:<18} {:>12} packets {:>16} bytes",
            outcome.label(),
            counter.packets,
            counter.bytes
        );
    }
    text
}

/// As JSON.
fn to_json(interface: &str, status: &DecapStatus) -> Value {
    let settings = &status.settings;
    let counters: serde_json::Map<String, Value> = status
        .counters
        .iter()
        .map(|(outcome, counter)| {
            let value = json!({"packets": counter.packets, "bytes": counter.bytes});
            (outcome.label().to_owned(), value)
        })
        .collect();
    json!({
        "interface": interface,
        "xdp": status.xdp,
        "tc": status.tc,
        "modes": modes(settings),
        "mss": {"ipv4": settings.mss_v4, "ipv6": settings.mss_v6},
        "vips": with_role(status, ROLE_VIP),
        "addresses": with_role(status, ROLE_HOST),
        "outcomes": counters,
    })
}

fn modes(settings: &DecapSettings) -> Vec<String> {
    let ipip = (settings.modes & DecapSettings::MODE_IPIP != 0).then(|| "ipip".to_owned());
    let gue = (settings.modes & DecapSettings::MODE_GUE != 0)
        .then(|| format!("gue on UDP port {}", settings.gue_port.get()));
    ipip.into_iter().chain(gue).collect()
}

fn with_role(status: &DecapStatus, role: u32) -> Vec<IpAddr> {
    let has = |(address, roles): (&IpAddr, &u32)| (roles & role != 0).then_some(*address);
    status.roles.iter().filter_map(has).collect()
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}
