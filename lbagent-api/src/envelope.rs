//! The envelope around every answer.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::instance::InstanceState;
use crate::request::{ContractError, Selector};

/// `message` of an answer whose items all failed.
pub const ALL_FAILED: &str = "Failed to perform all operations";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// All of it was done.
    Success,
    /// None of it was done.
    Error,
    /// Some items failed.
    PartialSuccess,
}

/// What every answer looks like. `data` has exactly one member: official clients reject a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<D> {
    /// How the request ended.
    pub status: ResponseStatus,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The result.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub data: Option<D>,
    /// Why the request as a whole failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<HttpError>,
    /// What was done, but should be done otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Time that the operation took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_time_us: Option<u64>,
}

fn none<D>() -> Option<D> {
    None
}

/// A request-level error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpError {
    /// The HTTP status.
    pub status: u16,
}

/// A remark that does not hinder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// For people.
    pub message: String,
}

impl<D> Envelope<D> {
    /// An answer whose result is `data`.
    pub fn success(data: D) -> Self {
        Self {
            status: ResponseStatus::Success,
            message: None,
            data: Some(data),
            errors: Vec::new(),
            warnings: Vec::new(),
            op_time_us: None,
        }
    }

    /// A request that failed as a whole, with the HTTP status that it travels with.
    pub fn request_error(status: u16, message: impl Into<String>) -> Self {
        Self {
            status: ResponseStatus::Error,
            message: Some(message.into()),
            data: None,
            errors: vec![HttpError { status }],
            warnings: Vec::new(),
            op_time_us: None,
        }
    }

    /// An answer whose status follows from its items; `wrap` puts them under their key.
    pub fn of_items<T>(items: Vec<Item<T>>, wrap: impl FnOnce(Vec<Item<T>>) -> D) -> Self {
        let failed = items.iter().filter(|item| item.is_failed()).count();
        let status = match failed {
            0 => ResponseStatus::Success,
            _ if failed == items.len() => ResponseStatus::Error,
            _ => ResponseStatus::PartialSuccess,
        };
        let message = (status == ResponseStatus::Error).then(|| ALL_FAILED.to_owned());
        Self {
            status,
            message,
            ..Self::success(wrap(items))
        }
    }
}

/// One object's part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<T> {
    /// Done; travels with `"status": "success"` beside the object's own members.
    Done(T),
    /// Not done.
    Failed(ItemError),
}

impl<T> Item<T> {
    /// Whether the operation failed on this object.
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// The object, or why there is none.
    pub fn into_result(self) -> Result<T, ItemError> {
        match self {
            Self::Done(object) => Ok(object),
            Self::Failed(error) => Err(error),
        }
    }
}

impl<T> From<Result<T, ItemError>> for Item<T> {
    fn from(result: Result<T, ItemError>) -> Self {
        result.map_or_else(Self::Failed, Self::Done)
    }
}

/// Why an operation failed on one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ItemError {
    /// The object, where the request named it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The object, where the request named it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// For programs.
    #[serde(default = "unknown")]
    pub error: ErrorCode,
    /// The failed operation of a PATCH, as the request numbered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the instance is, where another state was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
}

const fn unknown() -> ErrorCode {
    ErrorCode::Unknown
}

impl ItemError {
    /// A failure on the object that `selector` names.
    pub fn new(selector: &Selector, error: ErrorCode, message: impl Into<String>) -> Self {
        let (uuid, name) = match selector {
            Selector::Uuid(uuid) => (Some(uuid.to_string()), None),
            Selector::Name(name) => (None, Some(name.clone())),
        };
        Self {
            uuid,
            name,
            message: message.into(),
            error,
            id: None,
            state: None,
        }
    }

    /// `No <noun> with <uuid|name> '<value>'`.
    pub fn not_found(noun: &str, selector: &Selector) -> Self {
        Self::new(
            selector,
            ErrorCode::NotFound,
            format!("No {noun} with {selector}"),
        )
    }

    /// A broken rule, told as an item.
    pub fn from_contract(name: Option<String>, error: ContractError) -> Self {
        Self {
            uuid: None,
            name,
            message: error.message,
            error: error.code,
            id: None,
            state: None,
        }
    }
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    status: ResponseStatus,
    #[serde(flatten)]
    content: &'a T,
}

impl<T: Serialize> Serialize for Item<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Done(content) => Tagged {
                status: ResponseStatus::Success,
                content,
            }
            .serialize(serializer),
            Self::Failed(content) => Tagged {
                status: ResponseStatus::Error,
                content,
            }
            .serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Item<T> {
    /// Reads `status` first, because an untagged enum would report a failed item whose members
    /// do not fit as "no variant matched".
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let status = value
            .as_object_mut()
            .and_then(|members| members.remove("status"));
        if status.is_some_and(|status| status == "error") {
            serde_json::from_value(value)
                .map(Self::Failed)
                .map_err(D::Error::custom)
        } else {
            serde_json::from_value(value)
                .map(Self::Done)
                .map_err(D::Error::custom)
        }
    }
}

/// `data` of answers about service groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct ServiceGroups<T> {
    /// One item for each object asked about.
    pub service_groups: Vec<Item<T>>,
}

/// `data` of answers about instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct Instances<T> {
    /// One item for each object asked about.
    pub instances: Vec<Item<T>>,
}

/// An object by both of its names: answers to a deletion, members of other objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reference {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn done(name: &str) -> Item<Reference> {
        Item::Done(Reference {
            uuid: Uuid::nil(),
            name: name.into(),
        })
    }

    fn failed(name: &str) -> Item<Reference> {
        Item::Failed(ItemError::not_found(
            "service group",
            &Selector::Name(name.into()),
        ))
    }

    #[track_caller]
    fn check(items: Vec<Item<Reference>>, status: &str, message: Option<&str>) {
        let envelope = Envelope::of_items(items, |service_groups| ServiceGroups { service_groups });
        let value = serde_json::to_value(&envelope).unwrap();
        assert_eq!(value["status"], status);
        assert_eq!(value.get("message").and_then(Value::as_str), message);
        assert_eq!(value["data"].as_object().unwrap().len(), 1);
        let read: Envelope<ServiceGroups<Reference>> = serde_json::from_value(value).unwrap();
        assert_eq!(read, envelope);
    }

    #[test]
    fn status_follows_from_the_items() {
        check(vec![], "success", None);
        check(vec![done("a"), done("b")], "success", None);
        check(vec![done("a"), failed("b")], "partial_success", None);
        check(vec![failed("a"), failed("b")], "error", Some(ALL_FAILED));
    }

    #[test]
    fn a_failed_item_has_the_contracts_members() {
        assert_eq!(
            serde_json::to_value(failed("nope")).unwrap(),
            json!({"status": "error", "name": "nope", "error": 8,
                   "message": "No service group with name 'nope'"})
        );
    }

    #[test]
    fn a_request_error_carries_its_http_status() {
        assert_eq!(
            serde_json::to_value(Envelope::<()>::request_error(404, "no such path")).unwrap(),
            json!({"status": "error", "message": "no such path", "errors": [{"status": 404}]})
        );
    }
}
