//! Which service group an instance serves, lbagent's own: `GET` and `PUT
//! /v1/x/instances/{uuid|name}/service-group`. Both answer a [`MembershipData`].

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::envelope::Reference;
use crate::instance::InstanceState;
use crate::lifecycle::StopSpec;
use crate::request::{ContractError, Selector, SelectorSpec};

/// Body of a `PUT`: `{"service_group": {"name": "web"}}`, or `null` for no group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"service_group": {"name": "web"}, "drain_timeout_ms": 30_000})))]
#[serde(deny_unknown_fields)]
pub struct MembershipSpec {
    /// The group to serve from now on; none if `null`. It may not be left out.
    #[serde(deserialize_with = "Option::deserialize")]
    pub service_group: Option<SelectorSpec>,
    /// So long it serves established connections of the group that it leaves, before it leaves: 0
    /// for not at all, -1 for the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -1, maximum = 3_600_000))]
    pub drain_timeout_ms: Option<i64>,
}

impl MembershipSpec {
    /// The group named; `None` for no group.
    pub fn service_group(&self) -> Result<Option<Selector>, ContractError> {
        let spec = self.service_group.as_ref();
        spec.map(SelectorSpec::required).transpose()
    }

    /// How long to drain, in milliseconds.
    pub fn drain_ms(&self) -> Result<u64, ContractError> {
        let stop = StopSpec {
            drain_timeout_ms: self.drain_timeout_ms,
            ..StopSpec::default()
        };
        stop.drain_ms()
    }
}

/// `data` of every answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MembershipData {
    /// What the instance serves.
    pub membership: Membership,
}

/// What an instance serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Membership {
    /// The group, if any.
    pub service_group: Option<Reference>,
    /// Whether the instance gets traffic.
    pub state: InstanceState,
    /// Present while it drains in order to leave the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
}

/// How an instance leaves its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leaving {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The group that it serves from then on, if any.
    pub to: Option<Reference>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;

    #[track_caller]
    fn check(body: &str, expected: Result<(Option<Selector>, u64), &str>) {
        let found = parse_body::<MembershipSpec>(body.as_bytes())
            .and_then(|spec| Ok((spec.service_group()?, spec.drain_ms()?)));
        let found = found.map_err(|error| error.message);
        assert_eq!(found, expected.map_err(str::to_owned), "{body}");
    }

    #[test]
    fn bodies() {
        let web = || Some(Selector::Name("web".into()));
        check(r#"{"service_group":{"name":"web"}}"#, Ok((web(), 0)));
        check(
            r#"{"service_group":null,"drain_timeout_ms":5}"#,
            Ok((None, 5)),
        );
        check("{}", Err("Missing member 'service_group'"));
        check(
            r#"{"service_group":{}}"#,
            Err("Missing member 'uuid' or 'name'"),
        );
        check(
            r#"{"service_group":null,"drain_timeout_ms":-2}"#,
            Err("Value of 'drain_timeout_ms' must be -1 or in the range 0 to 3600000"),
        );
    }
}
