//! Bytes that a check sends or looks for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::request::ContractError;

/// One to [`MAX`](Self::MAX) bytes, written as `{"text": "PING\r\n"}` or `{"hex": "50494e47"}`.
/// What is UTF-8 is written as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PayloadSpec", into = "PayloadSpec")]
pub struct Payload(Vec<u8>);

/// 1 to 1024 bytes: as text, or in hexadecimal with two digits for each byte.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum PayloadSpec {
    Text(String),
    Hex(String),
}

impl Payload {
    /// Most bytes.
    pub const MAX: usize = 1024;

    /// Takes bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ContractError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return Err(ContractError::invalid(format!(
                "What a health check sends or expects must have 1 to {} bytes, not {}",
                Self::MAX,
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// Reads two hexadecimal digits a byte.
    pub fn from_hex(text: &str) -> Result<Self, ContractError> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let digits: Option<Vec<u32>> = text.as_bytes().iter().map(digit).collect();
        let wrong = || {
            ContractError::invalid(format!(
                "'{text}' is no sequence of bytes in hexadecimal; write two digits for each byte"
            ))
        };
        let digits = digits.ok_or_else(wrong)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(wrong());
        }
        let byte = |[high, low]: &[u32; 2]| (high << 4 | low) as u8;
        Self::new(pairs.iter().map(byte).collect::<Vec<u8>>())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<PayloadSpec> for Payload {
    type Error = ContractError;

    fn try_from(received: PayloadSpec) -> Result<Self, ContractError> {
        match received {
            PayloadSpec::Text(text) => Self::new(text),
            PayloadSpec::Hex(text) => Self::from_hex(&text),
        }
    }
}

impl From<Payload> for PayloadSpec {
    fn from(payload: Payload) -> Self {
        String::from_utf8(payload.0).map_or_else(
            |error| {
                let bytes = error.as_bytes().iter();
                Self::Hex(bytes.map(|byte| format!("{byte:02x}")).collect())
            },
            Self::Text,
        )
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
