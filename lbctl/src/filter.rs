//! Expressions that choose objects by their members: `state==running,name~=^web`.

use std::str::FromStr;

use regex_lite::Regex;
use serde_json::Value;

/// Conditions that all have to hold.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    /// Members from the object down, such as `service_group.name`.
    path: String,
    /// Whether some value has to match, or none may.
    wanted: bool,
    value: Pattern,
}

#[derive(Clone, Debug)]
enum Pattern {
    Equal(String),
    Like(Regex),
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(value) => text == value,
            Self::Like(regex) => regex.is_match(text),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(condition)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    // The longer operators hold the shorter ones.
    let operators = [
        ("!~=", false, true),
        ("~=", true, true),
        ("!=", false, false),
        ("==", true, false),
    ];
    let wrong = || {
        format!(
            "'{text}' is no condition; write MEMBER==VALUE, MEMBER!=VALUE, MEMBER~=REGEX or MEMBER!~=REGEX"
        )
    };
    let (at, (operator, wanted, is_regex)) = operators
        .into_iter()
        .filter_map(|operator| Some((text.find(operator.0)?, operator)))
        .min_by_key(|(at, _)| *at)
        .ok_or_else(wrong)?;
    let (path, value) = (text[..at].trim(), text[at + operator.len()..].trim());
    if path.is_empty() {
        return Err(wrong());
    }
    let value = if is_regex {
        Pattern::Like(
            Regex::new(value)
                .map_err(|error| format!("'{value}' is no regular expression: {error}"))?,
        )
    } else {
        Pattern::Equal(value.to_owned())
    };
    Ok(Condition {
        path: path.to_owned(),
        wanted,
        value,
    })
}

impl Filter {
    /// Whether an object meets all conditions.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|condition| {
            let found = lookup(object, &condition.path);
            found.iter().any(|text| condition.value.matches(text)) == condition.wanted
        })
    }

    /// The members that it asks about.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|condition| condition.path.as_str())
    }
}

/// The values of a member, as people write them. A list has one for each element, and what is in a
/// list is found without an index: `instances.name`. An object counts as what it is known by: a
/// port as `443:8080/tls+http`, a domain as its name.
pub fn lookup(value: &Value, path: &str) -> Vec<String> {
    let mut found = vec![value];
    for key in path.split('.').filter(|key| !key.is_empty()) {
        found = found
            .into_iter()
            .flat_map(elements)
            .filter_map(|value| value.get(key))
            .collect();
    }
    found.into_iter().flat_map(elements).map(word).collect()
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        value => vec![value],
    }
}

fn word(value: &Value) -> String {
    use lbagent_api::service_group::Service;
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let known_by = ["fqdn", "name", "private_ip"]
                .into_iter()
                .find_map(|key| members.get(key));
            match (
                known_by.and_then(Value::as_str),
                serde_json::from_value::<Service>(value.clone()),
            ) {
                (_, Ok(service)) => service.to_string(),
                (Some(name), Err(_)) => name.to_owned(),
                (None, Err(_)) => value.to_string(),
            }
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(filter: &str, expected: bool) {
        let web = json!({
            "name": "web-1", "soft_limit": 5, "persistent": true,
            "services": [{"port": 443, "destination_port": 8080, "handlers": ["tls", "http"]},
                         {"port": 53, "destination_port": 53, "protocol": "udp", "handlers": []}],
            "domains": [{"fqdn": "web.example.com"}], "instances": [{"name": "a"}, {"name": "b"}],
            "service_group": {"name": "g"},
        });
        assert_eq!(
            filter.parse::<Filter>().unwrap().matches(&web),
            expected,
            "{filter}"
        );
    }

    #[test]
    fn conditions() {
        check("name==web-1", true);
        check("name==web", false);
        check("name!=web", true);
        check("name~=^web", true);
        check("name~=web$", false);
        check("name!~=^db", true);
        check("name~=^web,soft_limit==5", true);
        check("name~=^web,soft_limit==6", false);
        check("persistent==true", true);
        check("instances==a", true);
        check("instances.name!=a", false);
        check("services==443:8080/tls+http", true);
        check("services.port==53", true);
        check("services~=udp", true);
        check("domains~=example", true);
        check("service_group==g", true);
        check("nothing==", false);
        check("nothing!=x", true);
    }

    #[test]
    fn mistakes() {
        for text in ["", "name", "name=web", "==web", "name==a,", "name~=("] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
