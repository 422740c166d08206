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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "web-1", "drain_timeout_ms": 30_000})))]
#[serde(deny_unknown_fields, default)]
pub struct StopSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At once; excludes a drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// So long established connections stay: 0 for not at all, -1 for the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -1, maximum = 3_600_000))]
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

/// `PUT /v1/instances/suspend` and `PUT /v1/instances/{uuid}/suspend`, like [`StopSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SuspendSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// So long established connections stay: 0 for not at all, -1 for the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -1, maximum = 3_600_000))]
    pub drain_timeout_ms: Option<i64>,
}

impl From<SuspendSpec> for StopSpec {
    /// The stop with the same drain.
    fn from(spec: SuspendSpec) -> Self {
        Self {
            uuid: spec.uuid,
            name: spec.name,
            drain_timeout_ms: spec.drain_timeout_ms,
            ..Self::default()
        }
    }
}

/// Longest wait: what a `timeout_s` of -1 asks for.
pub const MAX_WAIT_S: u64 = 3_600;

/// `GET` or `PUT /v1/instances/wait` (one or an array, each naming an instance) and
/// `/v1/instances/{uuid}/wait` (without a name); `state` and the timeouts may travel in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct WaitSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The state to wait for; running when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
    /// So long at most: 0 for not at all, -1 for the maximum, which holds when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<i64>,
    /// As `timeout_s`, which excels it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<i64>,
}

impl WaitSpec {
    /// The instance named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        let (uuid, name) = (self.uuid.clone(), self.name.clone());
        SelectorSpec { uuid, name }.selector()
    }

    /// How long to wait, in seconds.
    pub fn seconds(&self) -> Result<u64, ContractError> {
        let (member, seconds) = match (self.timeout_s, self.timeout_ms) {
            (Some(seconds), _) => ("timeout_s", seconds),
            // Rounded up, but -1 stays what it is.
            (None, Some(ms)) if ms > 0 => {
                ("timeout_ms", ms.div_euclid(1000) + i64::from(ms % 1000 > 0))
            }
            (None, Some(ms)) => ("timeout_ms", ms),
            (None, None) => return Ok(MAX_WAIT_S),
        };
        match u64::try_from(seconds) {
            Ok(seconds) if seconds <= MAX_WAIT_S => Ok(seconds),
            Err(_) if seconds == -1 => Ok(MAX_WAIT_S),
            _ => Err(ContractError::invalid(format!(
                "Value of '{member}' must be -1 or stand for 0 to {MAX_WAIT_S} seconds"
            ))),
        }
    }
}

/// Answer to a wait, for one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Waited {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// What it is now.
    pub state: InstanceState,
}

/// `PUT /v1/instances/start` and `PUT /v1/instances/{uuid}/start`, like [`StopSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "web-1"})))]
#[serde(deny_unknown_fields, default)]
pub struct StartSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DeleteInstanceSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

    #[track_caller]
    fn check_wait(body: &str, expected: Result<u64, &str>) {
        let spec: WaitSpec = parse_body(body.as_bytes()).unwrap();
        let found = spec.seconds().map_err(|error| error.message);
        assert_eq!(found, expected.map_err(str::to_owned), "{body}");
    }

    #[test]
    fn wait_timeouts() {
        check_wait("{}", Ok(MAX_WAIT_S));
        check_wait(r#"{"timeout_s":0}"#, Ok(0));
        check_wait(r#"{"timeout_s":-1}"#, Ok(MAX_WAIT_S));
        check_wait(r#"{"timeout_ms":1001}"#, Ok(2));
        check_wait(r#"{"timeout_ms":-1}"#, Ok(MAX_WAIT_S));
        check_wait(r#"{"timeout_ms":1,"timeout_s":7}"#, Ok(7));
        let range = "Value of 'timeout_s' must be -1 or stand for 0 to 3600 seconds";
        check_wait(r#"{"timeout_s":-2}"#, Err(range));
        check_wait(r#"{"timeout_s":3601}"#, Err(range));
    }
}
