//! `lbctl show`: VIPs and backends in the look of ipvsadm.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use clap::Args;
use lbagent_api::paths;
use lbagent_api::status::{Table, TableBackend, TableData, TableGroup, TableVip, Traffic};
use serde::Serialize;

use super::{policy, terminated};
use crate::client::Client;
use crate::error::CtlError;
use crate::output::{Column, Format, align, count, print};
use crate::screen;

/// `lbctl show`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Addresses instead of the instances' names
    #[arg(short, long)]
    numeric: bool,
    /// Connections, packets and bytes; a backend's are for all VIPs of its group together
    #[arg(long)]
    stats: bool,
    /// Connections, packets and bytes per second, measured over --interval
    #[arg(long, conflicts_with = "stats")]
    rate: bool,
    /// How long --rate measures
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::watch::parse_interval)]
    interval: Duration,
    /// Only this service group
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    pub watch: super::watch::Polling,
}

/// Runs the command.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let table = fetch(arguments, client)?;
    if arguments.rate {
        thread::sleep(arguments.interval);
        let rates = rates(&table, &fetch(arguments, client)?);
        return print(format, &rates, || render_rates(&rates, arguments.numeric));
    }
    print(format, &table, || {
        if arguments.stats {
            render_stats(&table, arguments.numeric)
        } else {
            render(&table, arguments.numeric)
        }
    })
}

fn fetch(arguments: &Arguments, client: &Client) -> Result<Table, CtlError> {
    let mut table = client.get::<TableData>(paths::TABLE)?.table;
    if let Some(word) = &arguments.service {
        let named = |group: &TableGroup| group.name == *word || group.uuid.to_string() == *word;
        if !table.groups.iter().any(named) {
            use lbagent_api::{ItemError, Selector};
            let item = ItemError::not_found("service group", &Selector::from_word(word));
            let error = CtlError::Items(vec![item]);
            return Err(super::advise_names(
                error,
                client,
                super::Kind::ServiceGroup,
            ));
        }
        table.groups.retain(named);
    }
    Ok(table)
}

fn vip_name(vip: &TableVip) -> String {
    let address = SocketAddr::new(vip.ip, vip.port);
    format!("{:<4} {address}", vip.protocol.to_string().to_uppercase())
}

fn backend_name(vip: &TableVip, backend: &TableBackend, numeric: bool) -> String {
    if numeric {
        format!(
            "{ARROW}{}",
            SocketAddr::new(backend.ip, vip.destination_port)
        )
    } else {
        format!("{ARROW}{}:{}", backend.name, vip.destination_port)
    }
}

/// Lines for every VIP and, below each, its backends.
fn rows(
    table: &Table,
    numeric: bool,
    vip_cells: impl Fn(&TableGroup, &TableVip) -> Vec<String>,
    backend_cells: impl Fn(&TableVip, &TableBackend) -> Vec<String>,
) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for group in &table.groups {
        for vip in &group.vips {
            let mut row = vec![vip_name(vip)];
            row.extend(vip_cells(group, vip));
            rows.push(row);
            for backend in &vip.backends {
                let mut row = vec![backend_name(vip, backend, numeric)];
                row.extend(backend_cells(vip, backend));
                rows.push(row);
            }
        }
    }
    rows
}

fn heading(table: &Table) -> String {
    let (groups, vips) = (
        table.groups.len(),
        table
            .groups
            .iter()
            .map(|g| g.vips.len() + g.terminated.len())
            .sum(),
    );
    format!(
        "lbagent, generation {}: {}, {}",
        table.generation_applied,
        count(groups, "service group"),
        count(vips, "published port")
    )
}

/// Begins a backend's line. Its blanks break no line.
const ARROW: &str = "\u{a0}\u{a0}->\u{a0}";

fn aligned(columns: &[Column<'_>], lines: &[Vec<String>]) -> String {
    align(columns, lines).replace('\u{a0}', " ")
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn render(table: &Table, numeric: bool) -> String {
    let columns = [
        Column::Left(""),
        Column::Left(""),
        Column::Right(""),
        Column::Right(""),
        Column::Wrap(""),
    ];
    let mut lines = vec![
        words([
            "Prot LocalAddress:Port",
            "Scheduler",
            "",
            "Slots",
            "Service",
        ]),
        words([
            &format!("{ARROW}RemoteAddress:Port"),
            "Forward",
            "Weight",
            "Slots",
            "State",
        ]),
    ];
    lines.extend(rows(
        table,
        numeric,
        |group, vip| {
            let name = format!("{}{}", group.name, policy::remark(&group.policy));
            words(["maglev", "", &vip.slots.to_string(), &name])
        },
        |vip, backend| {
            let (weight, slots) = (backend.weight.to_string(), backend.slots.to_string());
            words([
                &vip.forwarding_mode,
                &weight,
                &slots,
                &format!("{} {}", backend.state.as_str(), way(backend)),
            ])
        },
    ));
    lines.extend(table.groups.iter().flat_map(terminated::rows));
    format!("{}\n{}", heading(table), aligned(&columns, &lines))
}

/// How frames to a backend leave.
fn way(backend: &TableBackend) -> String {
    let Some(hop) = &backend.next_hop else {
        return "by routing table".to_owned();
    };
    let vlan = match hop.vlan {
        0 => String::new(),
        vlan => format!(" vlan {vlan}"),
    };
    let mtu = match hop.mtu {
        0 => String::new(),
        mtu => format!(" mtu {mtu}"),
    };
    format!("by {} to {}{vlan}{mtu}", hop.interface, hop.link_address)
}

const NUMBERS: [Column; 6] = [
    Column::Left(""),
    Column::Right(""),
    Column::Right(""),
    Column::Right(""),
    Column::Right(""),
    Column::Right(""),
];

fn render_stats(table: &Table, numeric: bool) -> String {
    let cells = |traffic: &Traffic| {
        let Traffic {
            flows,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = traffic;
        [flows, in_packets, out_packets, in_bytes, out_bytes]
            .map(|number| screen::number(*number))
            .to_vec()
    };
    let mut lines = vec![
        words([
            "Prot LocalAddress:Port",
            "Conns",
            "InPkts",
            "OutPkts",
            "InBytes",
            "OutBytes",
        ]),
        words([&format!("{ARROW}RemoteAddress:Port"), "", "", "", "", ""]),
    ];
    lines.extend(rows(
        table,
        numeric,
        |_, vip| cells(&vip.traffic),
        |_, backend| cells(&backend.traffic),
    ));
    format!("{}\n{}", heading(table), aligned(&NUMBERS, &lines))
}

/// What `--rate` prints: a line for each VIP and each backend.
#[derive(Debug, PartialEq, Serialize)]
struct Rates {
    interval_s: f64,
    vips: Vec<VipRate>,
}

#[derive(Debug, PartialEq, Serialize)]
struct VipRate {
    service_group: String,
    ip: IpAddr,
    port: u16,
    protocol: lbagent_api::service_group::Protocol,
    rate: Rate,
    backends: Vec<BackendRate>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BackendRate {
    name: String,
    ip: IpAddr,
    port: u16,
    rate: Rate,
}

/// Per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Rate {
    connections: f64,
    in_packets: f64,
    out_packets: f64,
    in_bytes: f64,
    out_bytes: f64,
}

impl Rate {
    /// A counter that is smaller than before belongs to an object made anew, and one that was not
    /// there before counted from 0.
    fn between(before: Option<&Traffic>, after: &Traffic, seconds: f64) -> Self {
        let none = Traffic::default();
        let before = before.unwrap_or(&none);
        #[expect(clippy::cast_precision_loss, reason = "rates are for people")]
        let rate = |before: u64, after: u64| {
            if seconds > 0.0 {
                after.saturating_sub(before) as f64 / seconds
            } else {
                0.0
            }
        };
        Self {
            connections: rate(before.flows, after.flows),
            in_packets: rate(before.in_packets, after.in_packets),
            out_packets: rate(before.out_packets, after.out_packets),
            in_bytes: rate(before.in_bytes, after.in_bytes),
            out_bytes: rate(before.out_bytes, after.out_bytes),
        }
    }
}

fn rates(before: &Table, after: &Table) -> Rates {
    let interval_s = (after.taken_at - before.taken_at).as_seconds_f64();
    let mut vips = Vec::new();
    for group in &after.groups {
        for vip in &group.vips {
            let old = before
                .groups
                .iter()
                .flat_map(|group| &group.vips)
                .find(|old| (old.ip, old.port, old.protocol) == (vip.ip, vip.port, vip.protocol));
            let backends = vip.backends.iter().map(|backend| {
                let old = old.iter().flat_map(|vip| &vip.backends);
                let old = old
                    .clone()
                    .find(|old| (old.uuid, old.ip) == (backend.uuid, backend.ip));
                BackendRate {
                    name: backend.name.clone(),
                    ip: backend.ip,
                    port: vip.destination_port,
                    rate: Rate::between(old.map(|old| &old.traffic), &backend.traffic, interval_s),
                }
            });
            vips.push(VipRate {
                service_group: group.name.clone(),
                ip: vip.ip,
                port: vip.port,
                protocol: vip.protocol,
                rate: Rate::between(old.map(|old| &old.traffic), &vip.traffic, interval_s),
                backends: backends.collect(),
            });
        }
    }
    Rates { interval_s, vips }
}

fn render_rates(rates: &Rates, numeric: bool) -> String {
    let cells = |name: String, rate: &Rate| {
        let Rate {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = rate;
        let mut row = vec![name];
        row.extend(
            [connections, in_packets, out_packets, in_bytes, out_bytes]
                .map(|value| screen::number(value.round() as u64)),
        );
        row
    };
    let mut lines = vec![
        words([
            "Prot LocalAddress:Port",
            "CPS",
            "InPPS",
            "OutPPS",
            "InBPS",
            "OutBPS",
        ]),
        words([&format!("{ARROW}RemoteAddress:Port"), "", "", "", "", ""]),
    ];
    for vip in &rates.vips {
        let protocol = vip.protocol.to_string().to_uppercase();
        let name = format!("{protocol:<4} {}", SocketAddr::new(vip.ip, vip.port));
        lines.push(cells(name, &vip.rate));
        for backend in &vip.backends {
            let name = if numeric {
                format!("{ARROW}{}", SocketAddr::new(backend.ip, backend.port))
            } else {
                format!("{ARROW}{}:{}", backend.name, backend.port)
            };
            lines.push(cells(name, &backend.rate));
        }
    }
    format!(
        "Over {:.1} s, bytes per second:\n{}",
        rates.interval_s,
        aligned(&NUMBERS, &lines)
    )
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
