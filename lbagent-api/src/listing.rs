//! Listings: which objects, how many, and from where on.

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::request::{ContractError, Selector, SelectorSpec, parse_uuid};

/// Order of a listing, by time of creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

/// What the query string of a listing asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// These objects; all when empty.
    pub selectors: Vec<Selector>,
    /// Whole objects rather than their names.
    pub details: bool,
    /// At most so many objects.
    pub count: Option<usize>,
    /// Begin with this object (inclusive): a UUID or a time, as the client was given it.
    pub from: Option<String>,
    /// By time of creation.
    pub order: Order,
    /// Only these objects.
    pub filters: Filters,
}

/// What the objects of a listing must all be; the endpoint tells which of these it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Service groups that are persistent, or that are not.
    pub persistent: Option<bool>,
    /// The service group with this domain.
    pub fqdn: Option<String>,
    /// Instances that have all of these tags.
    pub tags: Vec<String>,
}

/// The body of `GET /v1/services/list`: one object, or an array of selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct GroupFilterSpec {
    /// By identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`Filters::persistent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    /// See [`Filters::fqdn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            selectors: Vec::new(),
            details: true,
            count: None,
            from: None,
            order: Order::Asc,
            filters: Filters::default(),
        }
    }
}

impl ListQuery {
    /// Reads the pairs of a query string, already percent-decoded. `uuid` and `name` may be
    /// repeated and may hold lists with commas. Of the filters the endpoint knows those of `known`.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        known: &[&str],
    ) -> Result<Self, ContractError> {
        let mut query = Self::default();
        for (key, value) in pairs {
            match key {
                "uuid" => {
                    for word in words(value) {
                        query.selectors.push(Selector::Uuid(parse_uuid(word)?));
                    }
                }
                "name" => {
                    query
                        .selectors
                        .extend(words(value).map(|word| Selector::Name(word.into())));
                }
                "details" => query.details = parse_bool(key, value)?,
                "count" => query.count = Some(parse_count(value)?),
                "from" => query.from = Some(value.to_owned()),
                "order" => query.order = parse_order(value)?,
                "sortby" if value == "create_time" => {}
                "sortby" => return Err(invalid_parameter(key, value, "create_time")),
                _ if known.contains(&key) => query.filters.read(key, value)?,
                _ => {
                    return Err(ContractError::new(
                        ErrorCode::UnknownMember,
                        format!("Unknown query parameter '{key}'"),
                    ));
                }
            }
        }
        Ok(query)
    }
}

impl Filters {
    fn read(&mut self, key: &str, value: &str) -> Result<(), ContractError> {
        match key {
            "persistent" => self.persistent = Some(parse_bool(key, value)?),
            "fqdn" => self.fqdn = Some(value.to_owned()),
            _ => self.tags.extend(words(value).map(str::to_owned)),
        }
        Ok(())
    }

    /// Adds what a body asks for; the selectors come back.
    pub fn add(&mut self, spec: &GroupFilterSpec) -> Result<Option<Selector>, ContractError> {
        let GroupFilterSpec {
            uuid,
            name,
            persistent,
            fqdn,
        } = spec;
        self.persistent = persistent.or(self.persistent);
        self.fqdn = fqdn.clone().or(self.fqdn.take());
        let (uuid, name) = (uuid.clone(), name.clone());
        SelectorSpec { uuid, name }.selector()
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|word| !word.is_empty())
}

fn parse_bool(key: &str, value: &str) -> Result<bool, ContractError> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid_parameter(key, value, "true or false")),
    }
}

fn parse_count(value: &str) -> Result<usize, ContractError> {
    match value.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(invalid_parameter("count", value, "a number above 0")),
    }
}

fn parse_order(value: &str) -> Result<Order, ContractError> {
    match value {
        "asc" => Ok(Order::Asc),
        "desc" => Ok(Order::Desc),
        _ => Err(invalid_parameter("order", value, "asc or desc")),
    }
}

fn invalid_parameter(key: &str, value: &str, expected: &str) -> ContractError {
    ContractError::invalid(format!(
        "Invalid value '{value}' of '{key}': expected {expected}"
    ))
}
