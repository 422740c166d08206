//! What the listener of 2024 says otherwise: service groups in the words of that year, and answers without
//! what that year did not know.

use lbagent_api::Envelope;
use lbagent_api::dialect_2024::{Created, Group};
use lbagent_api::envelope::ServiceGroups;
use lbagent_api::schema::Listed;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Refusal, bodies};

const ABOUT: &str = include_str!("about_2024.md");

/// Answers of that year, by path and method.
const MADE: [(&str, &str); 1] = [("/v1/services", "post")];
const LISTED: [(&str, &str); 2] = [("/v1/services", "get"), ("/v1/services/{uuid}", "get")];
const NAMED: [(&str, &str); 1] = [("/v1/services/list", "get")];

/// Makes the description of today's dialect that of 2024.
pub(super) fn adapt(document: &mut Value) {
    let info = &mut document["info"];
    info["title"] = "lbagent, dialect of 2024".into();
    let about = info["description"].as_str().unwrap_or_default();
    // What differs is said first, in the place of what is said of this dialect.
    let (_, rest) = about.split_once("\n\n").unwrap_or_default();
    info["description"] = format!("{ABOUT}\n{rest}").into();
    let schemas = &mut document["components"]["schemas"];
    let made = add::<Envelope<ServiceGroups<Created>>>(schemas);
    let listed = add::<Envelope<ServiceGroups<Listed<Group>>>>(schemas);
    let named = names(schemas);
    for gone in [
        bodies::Groups::name(),
        bodies::GroupList::name(),
        Listed::<lbagent_api::service_group::ServiceGroup>::name(),
    ] {
        schemas.as_object_mut().map(|all| all.remove(&*gone));
    }
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        let is_answer = name.starts_with("Envelope_") || *name == *Refusal::name();
        if is_answer && let Some(members) = schema["properties"].as_object_mut() {
            members.retain(|member, _| !matches!(member.as_str(), "warnings" | "op_time_us"));
        }
    }
    for (operations, answer) in [(&MADE[..], made), (&LISTED, listed), (&NAMED, named)] {
        for (path, method) in operations {
            let responses = &mut document["paths"][path][method]["responses"];
            responses["200"]["content"]["application/json"]["schema"] = answer.clone();
        }
    }
}

/// Adds a schema with those that it refers to; returns what refers to it.
fn add<T: ToSchema>(schemas: &mut Value) -> Value {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        schemas[name] = json!(schema);
    }
    refer(&T::name())
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The listing of names, whose items have no status unless they failed.
fn names(schemas: &mut Value) -> Value {
    const NAME: &str = "Envelope_Names2024";
    let mut schema = schemas[&*bodies::GroupNames::name()].clone();
    let items = [refer("Reference"), refer("ItemError")];
    schema["properties"]["data"]["properties"]["service_groups"]["items"] =
        json!({ "anyOf": items });
    schemas[NAME] = schema;
    refer(NAME)
}
