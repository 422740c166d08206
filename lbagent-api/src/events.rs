//! Streams of events: `GET /v1/x/events`, lbagent's own, and `GET /v1/audit`, the contract's. Both are
//! server-sent events (`text/event-stream`); each event's `data` is one of these as JSON.

mod author;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::request::{ContractError, parse_uuid};

pub use author::Author;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A service group.
    ServiceGroup,
    /// An instance.
    Instance,
    /// A certificate.
    Certificate,
    /// An account; told to operators only.
    Account,
    /// A token; told to operators only, by its label.
    Token,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ServiceGroup,
        Self::Instance,
        Self::Certificate,
        Self::Account,
        Self::Token,
    ];

    /// The word in filters and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServiceGroup => "service_group",
            Self::Instance => "instance",
            Self::Certificate => "certificate",
            Self::Account => "account",
            Self::Token => "token",
        }
    }
}

/// What became of an object; also the name of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangeType {
    /// It was created.
    Created,
    /// It was written again.
    Changed,
    /// It was deleted.
    Deleted,
}

impl ChangeType {
    /// The event's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// `created`, `changed` and `deleted` of `/v1/x/events`. Objects that changed together have the same
/// generation, and the last of them has it as its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// What became of it.
    pub r#type: ChangeType,
    /// What it is.
    pub kind: ObjectKind,
    /// Identity.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub account: Uuid,
    /// Generation of the desired state that the change made, and the object's revision.
    pub generation: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who made it.
    pub by: Author,
}

/// `applied` of `/v1/x/events`: the data plane holds a generation. For operators only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Applied {
    /// The generation.
    pub generation: u64,
    /// Writes that this took.
    pub steps: usize,
    /// Objects that are not as they were asked for.
    pub conditions: usize,
    /// Why it is incomplete; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `gap` of `/v1/x/events`: what happened from `from` to before `next` is not kept any more. Read the
/// objects anew; the stream goes on with `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// First generation that is missing.
    pub from: u64,
    /// First generation that is told.
    pub next: u64,
}

/// What a client of `/v1/x/events` wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// From this generation on (inclusive); from now on when absent.
    pub from: Option<u64>,
    /// Objects of these kinds; all when empty.
    pub kinds: Vec<ObjectKind>,
    /// Objects of this account, by UUID; for operators.
    pub account: Option<Uuid>,
}

impl EventsQuery {
    /// Reads the pairs of a query string, already percent-decoded.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let mut query = Self::default();
        for (key, value) in pairs {
            match key {
                "from" => query.from = Some(parse_generation(key, value)?),
                "kind" => {
                    for word in value.split(',').filter(|word| !word.is_empty()) {
                        query.kinds.push(parse_kind(word)?);
                    }
                }
                "account" => query.account = Some(parse_uuid(value)?),
                _ => return Err(unknown_parameter(key)),
            }
        }
        Ok(query)
    }
}

/// Reads a generation: the parameter `from`, or the header `Last-Event-ID`.
pub fn parse_generation(name: &str, value: &str) -> Result<u64, ContractError> {
    value.trim().parse().map_err(|_| {
        ContractError::invalid(format!(
            "Invalid value '{value}' of '{name}': expected a generation"
        ))
    })
}

fn parse_kind(word: &str) -> Result<ObjectKind, ContractError> {
    let found = ObjectKind::ALL.into_iter().find(|kind| kind.name() == word);
    found.ok_or_else(|| {
        let known = ObjectKind::ALL.map(ObjectKind::name).join(", ");
        ContractError::invalid(format!(
            "Invalid value '{word}' of 'kind': expected {known}"
        ))
    })
}

fn unknown_parameter(key: &str) -> ContractError {
    ContractError::new(
        ErrorCode::UnknownMember,
        format!("Unknown query parameter '{key}'"),
    )
}

/// What a client of `/v1/audit` wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Events of these types; all when empty.
    pub events: Vec<String>,
    /// About these instances; all when empty.
    pub uuids: Vec<Uuid>,
}

/// Event types of `/v1/audit`. lbagent starts no machines, so that no start of one fails. Those that
/// begin with `x.` are lbagent's own, and told to operators only.
pub const AUDIT_TYPES: [&str; 5] = [
    "vm.state_change",
    "vm.start_failed",
    "gap",
    "x.account_change",
    "x.token_change",
];

impl AuditQuery {
    /// Reads the pairs of a query string, already percent-decoded. Instances have no tags here: a
    /// filter by `tags` is refused rather than answered with silence.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let mut query = Self::default();
        for (key, value) in pairs {
            for word in value.split(',').filter(|word| !word.is_empty()) {
                match key {
                    "events" if AUDIT_TYPES.contains(&word) => query.events.push(word.to_owned()),
                    "events" => {
                        let text = format!(
                            "Invalid value '{word}' of 'events': expected {}",
                            AUDIT_TYPES.join(", ")
                        );
                        return Err(ContractError::invalid(text));
                    }
                    "uuid" => query.uuids.push(parse_uuid(word)?),
                    _ => return Err(unknown_parameter(key)),
                }
            }
            if !matches!(key, "events" | "uuid") {
                return Err(unknown_parameter(key));
            }
        }
        Ok(query)
    }
}

/// One event of `/v1/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEvent {
    /// One of [`AUDIT_TYPES`].
    pub r#type: String,
    /// When it happened; of a `gap`, when it is told.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// What it is about; absent on `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<AuditObject>,
    /// What happened to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<AuditData>,
    /// Who made it so, which the Services API has no word for; absent on `gap`.
    #[serde(default, rename = "x.by", skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
    /// How many changes were lost, of whatever object; only on `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// The object of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditObject {
    /// `i`: an instance; `x.account`, `x.token`.
    pub r#type: String,
    /// Identity.
    pub uuid: Uuid,
    /// Whose it is.
    pub owner: Uuid,
    /// None: instances have no tags here.
    pub tags: Vec<String>,
}

/// What happened to an instance; an account or a token is `created`, `changed` or `deleted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditData {
    /// State before; absent for a new instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<String>,
    /// State now; `deleted` in the end.
    pub new: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = EventsQuery::parse([("from", "7"), ("kind", "instance,certificate")]).unwrap();
        assert_eq!(query.from, Some(7));
        assert_eq!(query.kinds, [ObjectKind::Instance, ObjectKind::Certificate]);
        for (key, value, message) in [
            (
                "from",
                "x",
                "Invalid value 'x' of 'from': expected a generation",
            ),
            ("kind", "vm", "Invalid value 'vm' of 'kind'"),
            ("since", "1", "Unknown query parameter 'since'"),
            ("account", "me", "Invalid uuid 'me'"),
        ] {
            let error = EventsQuery::parse([(key, value)]).unwrap_err();
            assert!(error.message.starts_with(message), "{error}");
        }
        for (key, value, message) in [
            ("tags", "a", "Unknown query parameter 'tags'"),
            ("tags", "", "Unknown query parameter 'tags'"),
            ("events", "vm.gone", "Invalid value 'vm.gone' of 'events'"),
            ("uuid", "x", "Invalid uuid 'x'"),
        ] {
            let error = AuditQuery::parse([(key, value)]).unwrap_err();
            assert!(error.message.starts_with(message), "{error}");
        }
    }
}
