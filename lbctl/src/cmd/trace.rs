//! `lbctl trace`: why a flow goes where it goes.

use clap::Args;
use lbagent_api::paths;
use lbagent_api::trace::{
    Published, SourceChoice, Trace, TraceData, TraceForwarding, TraceInstance, TraceQuery,
    TraceSlot, parse_address, parse_protocol,
};

use crate::client::{Client, encode};
use crate::error::CtlError;
use crate::output::{Column, Format, align, print};

/// `lbctl trace`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// tcp or udp
    #[arg(value_name = "PROTOCOL")]
    protocol: String,
    /// The client: ADDRESS:PORT, an IPv6 address in brackets
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The VIP: ADDRESS:PORT
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// A packet that starts the flow, such as a SYN; otherwise one of a connection, or for UDP
    /// whatever the data plane would take it for
    #[arg(long)]
    new: bool,
    /// Client-facing interface that the packet arrives by [default: the first one]
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,
    /// Host name of the request that the packet carries: what becomes of it on a port that redirects
    #[arg(long, value_name = "NAME", conflicts_with = "new")]
    host: Option<String>,
}

impl Arguments {
    fn query(&self) -> Result<TraceQuery, CtlError> {
        let read = || {
            TraceQuery {
                protocol: parse_protocol(&self.protocol)?,
                source: parse_address("source", &self.source)?,
                destination: parse_address("destination", &self.destination)?,
                is_new: self.new,
                interface: self.interface.clone(),
                host: self.host.clone(),
            }
            .check()
        };
        read().map_err(|error| CtlError::Usage(error.message))
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let query = arguments.query()?;
    let mut path = format!(
        "{}?protocol={}&source={}&destination={}&new={}",
        paths::TRACE,
        query.protocol,
        encode(&query.source.to_string()),
        encode(&query.destination.to_string()),
        query.is_new
    );
    if let Some(interface) = &query.interface {
        path.push_str("&interface=");
        path.push_str(&encode(interface));
    }
    if let Some(host) = &query.host {
        path.push_str("&host=");
        path.push_str(&encode(host));
    }
    let trace = client.get::<TraceData>(&path)?.trace;
    print(format, &trace, || render(&trace))
}

/// A line for each step of the packet.
fn render(trace: &Trace) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("packet", packet(trace));
    row("destination", destination(trace));
    if let Some(rule) = &trace.source_rule {
        row("source", source(rule));
    }
    if let Some(len) = trace.quic_server_id_len {
        row(
            "quic",
            format!(
                "a packet whose connection id carries a known server id ({len} bytes) goes to the \
                 instance that it names; any other as follows"
            ),
        );
    }
    if let Some(slot) = &trace.slot {
        row("slot", slot_text(slot, trace));
    }
    if let Some(slot) = &trace.former_slot {
        row("former table", slot_text(slot, trace));
    }
    if trace.slot.is_some() {
        row("stored", stored(trace));
    }
    if let Some(choice) = &trace.choice {
        let who = choice.instance.as_ref().map_or("nobody", |to| &to.name);
        let stores = if choice.is_stored_now {
            "; this packet stores the flow"
        } else {
            ""
        };
        row("choice", format!("{who}: {}{stores}", choice.why.text()));
        if let Some(instance) = &choice.instance {
            row("backend", backend(instance));
        }
    }
    if let Some(forwarding) = &trace.forwarding {
        row("forwarding", forwarding_text(forwarding));
        row("next hop", next_hop(forwarding));
    }
    row(
        "outcome",
        format!(
            "{} ({}): {}",
            trace.outcome,
            trace.verdict.as_str(),
            trace.reason
        ),
    );
    align(&[Column::Left(""), Column::Left("")], &rows)
}

fn source(rule: &lbagent_api::trace::TraceSourceRule) -> String {
    let verdict = if rule.is_admitted {
        "admitted"
    } else {
        "refused"
    };
    match &rule.prefix {
        Some(prefix) => format!("{verdict} by the rule for {prefix}"),
        None => format!("{verdict}: no rule holds it"),
    }
}

fn packet(trace: &Trace) -> String {
    let is_new = if trace.is_new {
        "the first of its flow"
    } else {
        "of a flow that goes on"
    };
    let interface = trace.interface.as_ref();
    let interface = interface.map_or_else(String::new, |name| format!(", arrives by {name}"));
    format!(
        "{} {} -> {}, {is_new}{interface}",
        trace.protocol, trace.source, trace.destination
    )
}

fn destination(trace: &Trace) -> String {
    let group = || {
        let group = trace.service_group.as_ref();
        group.map_or_else(String::new, |group| {
            format!(" of service group '{}' ({})", group.name, group.uuid)
        })
    };
    match trace.published {
        Published::Forward => format!("published port{}", group()),
        Published::Terminate => format!("published port of the terminator{}", group()),
        Published::UnpublishedPort => "a VIP address, on a port that nobody published".to_owned(),
        Published::Foreign => "no VIP address".to_owned(),
    }
}

fn slot_text(slot: &TraceSlot, trace: &Trace) -> String {
    let name = |instance: &Option<TraceInstance>| match instance {
        Some(instance) => instance.name.clone(),
        None => "nobody".to_owned(),
    };
    let owners = if slot.is_settled {
        format!("all flows to {}", name(&slot.current))
    } else {
        format!(
            "changed: new flows to {}, flows that are not stored to {}",
            name(&slot.current),
            name(&slot.previous)
        )
    };
    let age = trace.changed_s_ago;
    let age = age.map_or_else(String::new, |age| {
        format!("; the table changed {age} s ago")
    });
    let hash = trace.flow_hash.as_deref().unwrap_or_default();
    format!(
        "{} of {} at {}, by hash {hash}: {owners}{age}",
        slot.index, slot.table_len, slot.table_offset
    )
}

fn stored(trace: &Trace) -> String {
    let Some(stored) = &trace.stored else {
        return "no".to_owned();
    };
    let owner = stored.owner.as_ref();
    let owner = owner.map_or("a backend that is gone", |owner| &owner.name);
    let established = if stored.is_established {
        "established"
    } else {
        "one packet so far"
    };
    format!(
        "with {owner}, last packet {} s ago, {established}",
        stored.last_seen_s_ago
    )
}

fn backend(instance: &TraceInstance) -> String {
    let alive = if instance.is_alive {
        ""
    } else {
        ", gets no packets"
    };
    format!(
        "{} ({}) at {}, {}{alive}",
        instance.name,
        instance.uuid,
        instance.ip,
        instance.state.as_str()
    )
}

fn forwarding_text(forwarding: &TraceForwarding) -> String {
    let source = match forwarding.source_choice {
        SourceChoice::Client => "",
        SourceChoice::ClientStored => " (stored for the way back)",
        SourceChoice::Gateway => " (the gateway's own source, stored for the way back)",
        SourceChoice::Outer => ", around the packet as it came",
        SourceChoice::None => " (no free source)",
    };
    format!(
        "{}: leaves as {} -> {}{source}",
        forwarding.mode, forwarding.source, forwarding.destination
    )
}

fn next_hop(forwarding: &TraceForwarding) -> String {
    let hop = &forwarding.next_hop;
    if !hop.is_resolved {
        return "by the kernel's routing table, asked for each packet".to_owned();
    }
    let mut words = Vec::new();
    words.extend(hop.link_address.clone());
    words.extend(hop.interface.as_ref().map(|name| format!("by {name}")));
    words.extend(hop.vlan.map(|vlan| format!("VLAN {vlan}")));
    words.extend(hop.mtu.map(|mtu| format!("MTU {mtu}")));
    if hop.is_via_kernel {
        words.push("sent by the kernel".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
