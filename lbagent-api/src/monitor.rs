//! What becomes of packets, as it happens, an extension of lbagent's own: `GET /v1/x/monitor`.
//!
//! The answer is a stream of lines, each a JSON object ([`MonitorLine`]), that goes on until the
//! client closes it. Packets are sampled while somebody watches, and at no other time.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::request::ContractError;
use crate::status::Verdict;

/// Which packets are asked for: the query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorQuery {
    /// One packet in so many; rounded up to a power of two.
    pub sample: u32,
    /// A service group's name or UUID; packets of all when absent.
    pub group: Option<String>,
    /// Outcomes, or words for several: `forward`, `pass`, `answer`, `drop`. When empty, all but
    /// packets that are passed on unchanged.
    pub outcomes: Vec<String>,
}

/// The sample when none is asked for.
pub const DEFAULT_SAMPLE: u32 = 128;
/// The thinnest sample.
pub const MAX_SAMPLE: u32 = 1 << 30;

impl Default for MonitorQuery {
    fn default() -> Self {
        Self {
            sample: DEFAULT_SAMPLE,
            group: None,
            outcomes: Vec::new(),
        }
    }
}

impl MonitorQuery {
    /// Reads the pairs of a query string, already percent-decoded. `outcome` may be repeated.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let mut query = Self::default();
        for (key, value) in pairs {
            match key {
                "sample" => query.sample = parse_sample(value)?,
                "group" => query.group = Some(value.to_owned()),
                "outcome" => query.outcomes.push(value.to_owned()),
                _ => {
                    return Err(ContractError::new(
                        crate::ErrorCode::UnknownMember,
                        format!("Unknown parameter '{key}'"),
                    ));
                }
            }
        }
        Ok(query)
    }
}

/// Reads `100` or `1/100`, both one packet in a hundred.
pub fn parse_sample(text: &str) -> Result<u32, ContractError> {
    let number = text.strip_prefix("1/").unwrap_or(text);
    match number.parse() {
        Ok(sample @ 1..=MAX_SAMPLE) => Ok(sample),
        _ => Err(ContractError::invalid(format!(
            "Invalid sample '{text}': expected 1/N or N, one packet in N, with N from 1 to \
             {MAX_SAMPLE}"
        ))),
    }
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MonitorLine {
    /// The first line: what is watched.
    Watching {
        /// One packet in so many.
        sample: u32,
    },
    /// A packet.
    Event(FlowEvent),
    /// Packets of the sample that are not told, because there were too many; since the line before.
    Lost {
        /// How many.
        events: u64,
    },
    /// Nothing to tell for a while.
    Idle {},
}

/// What became of a packet. Addresses and ports are those that it arrived with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowEvent {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The outcome that was counted.
    pub outcome: String,
    /// What became of the packet.
    pub verdict: Verdict,
    /// `tcp`, `udp` or a protocol number; absent where the headers were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub source: Option<IpAddr>,
    /// Source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub destination: Option<IpAddr>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Length of the frame.
    pub bytes: u32,
    /// Interface that it arrived by.
    pub interface: String,
    /// Service group, by name; absent when the packet is no group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_group: Option<String>,
    /// Instance that it went to or came from, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let query = [
            ("sample", "1/100"),
            ("group", "web"),
            ("outcome", "drop"),
            ("outcome", "answer_echo"),
        ];
        assert_eq!(
            MonitorQuery::parse(query),
            Ok(MonitorQuery {
                sample: 100,
                group: Some("web".into()),
                outcomes: vec!["drop".into(), "answer_echo".into()],
            })
        );
        for wrong in ["0", "1/0", "2/3", "-1", "many", "4294967295"] {
            assert!(MonitorQuery::parse([("sample", wrong)]).is_err(), "{wrong}");
        }
        assert!(MonitorQuery::parse([("colour", "red")]).is_err());
    }

    #[test]
    fn lines_are_objects_with_one_member() {
        let line = serde_json::to_string(&MonitorLine::Lost { events: 7 }).unwrap();
        assert_eq!(line, r#"{"lost":{"events":7}}"#);
        let idle = serde_json::to_string(&MonitorLine::Idle {}).unwrap();
        assert_eq!(idle, r#"{"idle":{}}"#);
    }
}
