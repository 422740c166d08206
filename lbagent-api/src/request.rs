//! What requests share: bodies with one object or many, selectors, names, and the contract's words
//! for what is wrong with them.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::error_code::ErrorCode;

/// A request that breaks a rule of the contract. Nothing of it is applied; HTTP status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ContractError {
    /// For programs.
    pub code: ErrorCode,
    /// For people, in the contract's words.
    pub message: String,
}

impl ContractError {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A value that breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }
}

/// Reads a body that is one object.
pub fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ContractError> {
    // A state of many thousand objects would take many times its size as a tree of values. Only what is
    // wrong needs one, to be told in the contract's words.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(read) = serde_json::from_slice(body)
    {
        return Ok(read);
    }
    convert(parse_json(body)?)
}

/// Reads a body that is one object or an array of them; an empty body is no object.
pub fn parse_one_or_many<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, ContractError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    match parse_json(body)? {
        Value::Array(values) => values.into_iter().map(convert).collect(),
        value => convert(value).map(|one| vec![one]),
    }
}

fn parse_json(body: &[u8]) -> Result<Value, ContractError> {
    serde_json::from_slice(body).map_err(|error| {
        ContractError::new(
            ErrorCode::MalformedRequest,
            format!("Invalid JSON: {error}"),
        )
    })
}

fn convert<T: DeserializeOwned>(value: Value) -> Result<T, ContractError> {
    // serde's derived code would read an array as a struct with its members in order.
    if !value.is_object() {
        return Err(ContractError::new(
            ErrorCode::MalformedRequest,
            "The request body must be a JSON object or an array of objects",
        ));
    }
    parse_value(value)
}

/// Reads a value that is part of a body.
pub(crate) fn parse_value<T: DeserializeOwned>(value: Value) -> Result<T, ContractError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| describe(&error.path().to_string(), &error.inner().to_string()))
}

/// Says in the contract's words what serde says in its own.
fn describe(path: &str, text: &str) -> ContractError {
    let quoted = |prefix: &str| {
        let rest = text.strip_prefix(prefix)?.strip_prefix('`')?;
        rest.split_once('`')
            .map(|(word, rest)| (word.to_owned(), rest.to_owned()))
    };
    if let Some((member, _)) = quoted("unknown field ") {
        return ContractError::new(
            ErrorCode::UnknownMember,
            format!("Unknown member '{member}'"),
        );
    }
    let place = if path == "." {
        String::new()
    } else {
        format!(" in '{path}'")
    };
    if let Some((member, _)) = quoted("missing field ") {
        return ContractError::invalid(format!("Missing member '{member}'{place}"));
    }
    if let Some((value, expected)) = quoted("unknown variant ") {
        let expected = expected.trim_start_matches(", ").replace('`', "'");
        return ContractError::invalid(format!("Invalid value '{value}'{place}: {expected}"));
    }
    ContractError::invalid(format!("Invalid value{place}: {}", text.replace('`', "'")))
}

/// An object named by a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// By identity.
    Uuid(Uuid),
    /// By name.
    Name(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "uuid '{uuid}'"),
            Self::Name(name) => write!(f, "name '{name}'"),
        }
    }
}

impl Selector {
    /// What an operator typed: a UUID if it reads as one (names never do), else a name.
    pub fn from_word(word: &str) -> Self {
        Uuid::try_parse(word).map_or_else(|_| Self::Name(word.to_owned()), Self::Uuid)
    }
}

/// A selector as received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"name": "web"})))]
#[serde(deny_unknown_fields)]
pub struct SelectorSpec {
    /// By identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl SelectorSpec {
    /// The object named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        match (&self.uuid, &self.name) {
            (Some(_), Some(_)) => Err(ContractError::new(
                ErrorCode::NotBoth,
                "Members 'uuid' and 'name' exclude each other",
            )),
            (Some(uuid), None) => parse_uuid(uuid).map(Selector::Uuid).map(Some),
            (None, Some(name)) => Ok(Some(Selector::Name(name.clone()))),
            (None, None) => Ok(None),
        }
    }

    /// The object named; it is an error to name none.
    pub fn required(&self) -> Result<Selector, ContractError> {
        self.selector()?.ok_or_else(|| {
            ContractError::new(ErrorCode::MissingId, "Missing member 'uuid' or 'name'")
        })
    }
}

impl From<&Selector> for SelectorSpec {
    fn from(selector: &Selector) -> Self {
        match selector {
            Selector::Uuid(uuid) => Self {
                uuid: Some(uuid.to_string()),
                name: None,
            },
            Selector::Name(name) => Self {
                uuid: None,
                name: Some(name.clone()),
            },
        }
    }
}

/// Reads a body of selectors: empty, one object, or an array.
pub fn parse_selectors(body: &[u8]) -> Result<Vec<Selector>, ContractError> {
    parse_one_or_many::<SelectorSpec>(body)?
        .iter()
        .map(SelectorSpec::required)
        .collect()
}

/// Reads a UUID in its usual form with hyphens.
pub fn parse_uuid(text: &str) -> Result<Uuid, ContractError> {
    match Uuid::try_parse(text) {
        Ok(uuid) if text.len() == 36 => Ok(uuid),
        _ => Err(ContractError::invalid(format!("Invalid uuid '{text}'"))),
    }
}

/// Longest name of an object, and longest label of a domain.
pub const MAX_NAME: usize = 63;

/// Checks the name of an object: letters, digits, single hyphens and dots inside, no UUID.
pub fn validate_name(name: &str) -> Result<(), ContractError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: char| !c.is_ascii_alphanumeric();
    let broken = name.is_empty()
        || name.len() > MAX_NAME
        || !name.chars().all(allowed)
        || name.starts_with(edge)
        || name.ends_with(edge)
        || name.contains("--")
        || name.contains("..")
        || Uuid::try_parse(name).is_ok();
    if broken {
        Err(ContractError::invalid(format!(
            "Invalid name '{name}': expected 1 to {MAX_NAME} letters and digits, with single hyphens and \
             dots between them, and no UUID"
        )))
    } else {
        Ok(())
    }
}

/// The fully-qualified domain name, lower case and without trailing dot: a name with a trailing
/// dot as it is, another below the metro domain.
pub fn qualify_domain(name: &str, metro_domain: &str) -> Result<String, ContractError> {
    let fqdn = match name.strip_suffix('.') {
        Some(fqdn) => fqdn.to_ascii_lowercase(),
        None => format!("{name}.{}", metro_domain.trim_matches('.')).to_ascii_lowercase(),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_NAME
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A wildcard stands alone in the first label.
    let plain = fqdn.strip_prefix("*.").unwrap_or(&fqdn);
    if fqdn.len() <= 253 && plain.contains('.') && plain.split('.').all(label) {
        Ok(fqdn)
    } else {
        Err(ContractError::invalid(format!("Invalid DNS name '{name}'")))
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
