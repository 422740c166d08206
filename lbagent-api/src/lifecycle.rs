//! Stop, start and delete: what happens to an instance after it was made.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::instance::InstanceState;
use crate::request::{ContractError, Selector, SelectorSpec};

/// The longest drain: what `drain_timeout_ms: -1` asks for.
pub const MAX_DRAIN_MS: u64 = 3_600_000;

/// `PUT /v1/instances/stop` (one or an array, each naming an instance) and
/// `PUT /v1/instances/{uuid}/stop` (without a name).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At once; excludes a drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// So long established connections stay: 0 for not at all, -1 for the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_ms: Option<i64>,
    /// Only if the instance is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifstate: Option<InstanceState>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quick: Option<bool>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<bool>,
}

impl StopSpec {
    /// The instance named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        SelectorSpec {
            uuid: self.uuid.clone(),
            name: self.name.clone(),
        }
        .selector()
    }

    /// How long to drain, in milliseconds.
    pub fn drain_ms(&self) -> Result<u64, ContractError> {
        let forced = self.force.unwrap_or(false);
        match self.drain_timeout_ms {
            None | Some(0) => Ok(0),
            Some(_) if forced => Err(ContractError::new(
                ErrorCode::NotBoth,
                "Members 'force' and 'drain_timeout_ms' exclude each other",
            )),
            Some(-1) => Ok(MAX_DRAIN_MS),
            Some(value) => match u64::try_from(value) {
                Ok(value) if value <= MAX_DRAIN_MS => Ok(value),
                _ => Err(ContractError::invalid(format!(
                    "Value of 'drain_timeout_ms' must be -1 or in the range 0 to {MAX_DRAIN_MS}"
                ))),
            },
        }
    }
}

/// `PUT /v1/instances/start` and `PUT /v1/instances/{uuid}/start`, like [`StopSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout_ms: Option<i64>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<i64>,
}

impl StartSpec {
    /// The instance named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        SelectorSpec {
            uuid: self.uuid.clone(),
            name: self.name.clone(),
        }
        .selector()
    }
}

/// `DELETE /v1/instances` (one or an array, each naming an instance) and
/// `DELETE /v1/instances/{uuid}` (without a name).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteInstanceSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<i64>,
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dont_retain: Option<bool>,
}

impl DeleteInstanceSpec {
    /// The instance named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        SelectorSpec {
            uuid: self.uuid.clone(),
            name: self.name.clone(),
        }
        .selector()
    }
}

/// Answer to a start or a stop, for one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// What it is now.
    pub state: InstanceState,
    /// What it was before.
    pub previous_state: InstanceState,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;

    #[track_caller]
    fn check_drain(body: &str, expected: Result<u64, &str>) {
        let spec: StopSpec = parse_body(body.as_bytes()).unwrap();
        assert_eq!(
            spec.drain_ms().map_err(|error| error.message),
            expected.map_err(str::to_owned)
        );
    }

    #[test]
    fn drain_timeouts() {
        check_drain("{}", Ok(0));
        check_drain(r#"{"drain_timeout_ms":0,"force":true}"#, Ok(0));
        check_drain(r#"{"drain_timeout_ms":30000}"#, Ok(30_000));
        check_drain(r#"{"drain_timeout_ms":-1}"#, Ok(MAX_DRAIN_MS));
        let range = "Value of 'drain_timeout_ms' must be -1 or in the range 0 to 3600000";
        check_drain(r#"{"drain_timeout_ms":-2}"#, Err(range));
        check_drain(r#"{"drain_timeout_ms":3600001}"#, Err(range));
        check_drain(
            r#"{"drain_timeout_ms":1,"force":true}"#,
            Err("Members 'force' and 'drain_timeout_ms' exclude each other"),
        );
    }
}
