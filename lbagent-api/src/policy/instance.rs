//! An instance's policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::in_range;
use crate::request::ContractError;

/// An instance's share of its group's flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "InstanceNumbers")]
pub struct InstancePolicy {
    /// Share of new flows, against the weights of the group's other instances: 0 to
    /// [`MAX_WEIGHT`](Self::MAX_WEIGHT). With 0 it gets no new flows and keeps established ones,
    /// without a deadline.
    pub weight: u16,
    /// What connection ids of this instance hold, where the group has a [`QuicLayout`]; unique
    /// within the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_server_id: Option<QuicServerId>,
}

impl InstancePolicy {
    /// Weight unless asked for otherwise.
    pub const DEFAULT_WEIGHT: u16 = 100;
    /// Largest weight.
    pub const MAX_WEIGHT: u16 = 1000;

    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for InstancePolicy {
    fn default() -> Self {
        Self {
            weight: Self::DEFAULT_WEIGHT,
            quic_server_id: None,
        }
    }
}

/// An instance's share of its group's flows, as received.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"weight": 50})))]
#[serde(deny_unknown_fields)]
pub(crate) struct InstanceNumbers {
    /// Share of new flows against the weights of the group's other instances. With 0 it gets no new
    /// flows and keeps established ones.
    #[serde(default = "default_weight")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1000))]
    weight: i64,
    /// What connection ids of this instance hold, where the group has a QUIC layout; unique within
    /// the group.
    #[serde(default)]
    quic_server_id: Option<QuicServerId>,
}

const fn default_weight() -> i64 {
    InstancePolicy::DEFAULT_WEIGHT as i64
}

impl TryFrom<InstanceNumbers> for InstancePolicy {
    type Error = ContractError;

    fn try_from(received: InstanceNumbers) -> Result<Self, ContractError> {
        Ok(Self {
            weight: in_range("weight", received.weight, 0, Self::MAX_WEIGHT)?,
            quic_server_id: received.quic_server_id,
        })
    }
}

/// The bytes that tell an instance in a QUIC connection id: 1 to 15, written in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuicServerId(Vec<u8>);

impl QuicServerId {
    /// Most bytes.
    pub const MAX: usize = 15;

    /// The bytes, in the order in which a connection id holds them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for QuicServerId {
    type Err = ContractError;

    fn from_str(text: &str) -> Result<Self, ContractError> {
        let wrong = |why: String| ContractError::invalid(format!("QUIC server id '{text}' {why}"));
        let value = |digit: char| {
            digit
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let digits = text
            .chars()
            .map(value)
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| wrong("is not hexadecimal; write two digits for each byte".into()))?;
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(wrong(
                "has an odd number of digits; write two for each byte".into(),
            ));
        }
        if pairs.is_empty() || pairs.len() > Self::MAX {
            return Err(wrong(format!(
                "has {} bytes; it must have 1 to {}",
                pairs.len(),
                Self::MAX
            )));
        }
        let byte = |[high, low]: &[u8; 2]| high << 4 | low;
        Ok(Self(pairs.iter().map(byte).collect()))
    }
}

impl TryFrom<String> for QuicServerId {
    type Error = ContractError;

    fn try_from(text: String) -> Result<Self, ContractError> {
        text.parse()
    }
}

impl From<QuicServerId> for String {
    fn from(id: QuicServerId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for QuicServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
