//! `GET /v1/instances/metrics` and `/v1/instances/{uuid}/metrics`: what the data plane counted, as
//! JSON or, for whoever does not ask for JSON, as Prometheus text.
//!
//! What nobody here knows has no member: how many connections are open (`nconns`), how many requests
//! wait (`nqueued`), and what a machine uses.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::instance::InstanceState;

/// Counters of one instance, since the data plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceMetrics {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// What it was when the counters were read.
    pub state: InstanceState,
    /// Bytes sent to it.
    pub rx_bytes: u64,
    /// Packets sent to it.
    pub rx_packets: u64,
    /// Bytes that it replied; 0 where replies do not pass the gateway.
    pub tx_bytes: u64,
    /// Packets that it replied; 0 where replies do not pass the gateway.
    pub tx_packets: u64,
    /// Connections and UDP flows that were given to it.
    pub ntotal: u64,
    /// Requests, and connections of `tls` alone, that are under way through a terminator; absent where
    /// none has told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nreqs: Option<u64>,
}

impl InstanceState {
    /// The number that stands for the state among metrics, where the contract has one.
    const fn number(self) -> Option<u8> {
        match self {
            Self::Stopped => Some(0),
            Self::Starting => Some(1),
            Self::Running => Some(2),
            Self::Draining => Some(3),
            Self::Stopping => Some(4),
            Self::Standby => Some(5),
            Self::Template => Some(6),
            Self::Deleted => Some(7),
            Self::Checkpoint => None,
        }
    }
}

/// The metrics in Prometheus' text format, version 0.0.4.
pub fn prometheus_text(instances: &[InstanceMetrics]) -> String {
    type Read = fn(&InstanceMetrics) -> Option<u64>;
    let families: [(&str, &str, &str, Read); 7] = [
        (
            "instance_state",
            "gauge",
            "0 stopped, 1 starting, 2 running, 3 draining, 4 stopping, 5 standby, 6 template, 7 deleted",
            |instance| instance.state.number().map(u64::from),
        ),
        (
            "instance_ntotal",
            "counter",
            "Connections and UDP flows given to the instance",
            |instance| Some(instance.ntotal),
        ),
        (
            "instance_nreqs",
            "gauge",
            "Requests under way through the terminator",
            |instance| instance.nreqs,
        ),
        (
            "instance_rx_bytes",
            "counter",
            "Bytes sent to the instance",
            |instance| Some(instance.rx_bytes),
        ),
        (
            "instance_rx_packets",
            "counter",
            "Packets sent to the instance",
            |instance| Some(instance.rx_packets),
        ),
        (
            "instance_tx_bytes",
            "counter",
            "Bytes that the instance replied through the gateway",
            |instance| Some(instance.tx_bytes),
        ),
        (
            "instance_tx_packets",
            "counter",
            "Packets that the instance replied through the gateway",
            |instance| Some(instance.tx_packets),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, read) in families {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for instance in instances {
            if let Some(value) = read(instance) {
                let uuid = instance.uuid;
                let _ = writeln!(text, "{name}{{instance_uuid=\"{uuid}\"}} {value}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_line_for_each_number() {
        let instance = InstanceMetrics {
            uuid: Uuid::nil(),
            name: "a".into(),
            state: InstanceState::Draining,
            rx_bytes: 1,
            rx_packets: 2,
            tx_bytes: 3,
            tx_packets: 4,
            ntotal: 5,
            nreqs: Some(6),
        };
        let text = prometheus_text(&[instance]);
        let uuid = Uuid::nil();
        for line in [
            format!("instance_state{{instance_uuid=\"{uuid}\"}} 3"),
            format!("instance_rx_bytes{{instance_uuid=\"{uuid}\"}} 1"),
            format!("instance_ntotal{{instance_uuid=\"{uuid}\"}} 5"),
            format!("instance_nreqs{{instance_uuid=\"{uuid}\"}} 6"),
            "# TYPE instance_tx_packets counter".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
