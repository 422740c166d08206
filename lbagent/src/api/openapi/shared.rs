//! What endpoints share: who may call them, how they refuse, what can be conditional, and where one
//! leads to the next.

use serde_json::{Map, Value, json};

use super::super::etag;
use super::PUBLIC;

/// Collections whose `POST` makes an object: where the answer has its UUID, and the paths that take
/// it.
const MADE: [(&str, &str, &[&str]); 5] = [
    (
        "/v1/services",
        "/data/service_groups/0/uuid",
        &["/v1/services/{uuid}", "/v1/x/service-groups/{uuid}"],
    ),
    (
        "/v1/instances",
        "/data/instances/0/uuid",
        &["/v1/instances/{uuid}", "/v1/x/instances/{uuid}"],
    ),
    (
        "/v1/certificates",
        "/data/certificates/0/uuid",
        &["/v1/certificates/{uuid}"],
    ),
    (
        "/v1/x/accounts",
        "/data/accounts/0/uuid",
        &["/v1/x/accounts/{uuid}"],
    ),
    ("/v1/x/tokens", "/data/token/uuid", &["/v1/x/tokens/{uuid}"]),
];

/// Refusals that any operation may answer with: (status, name, text).
const REFUSALS: [(&str, &str, &str); 11] = [
    (
        "400",
        "BadRequest",
        "It breaks a rule or cannot be read. Nothing was changed.",
    ),
    ("401", "Unauthorized", "The token is missing or not good."),
    ("403", "Forbidden", "The caller may not do this."),
    (
        "404",
        "NotFound",
        "There is no such object, or no account as `X-Lbagent-Account` names.",
    ),
    (
        "405",
        "MethodNotAllowed",
        "The path has no such method; `Allow` has those that it has.",
    ),
    (
        "408",
        "RequestTimeout",
        "The body did not arrive within 30 s.",
    ),
    (
        "412",
        "PreconditionFailed",
        "The object is not as `If-Match` expects. Nothing was changed.",
    ),
    (
        "413",
        "PayloadTooLarge",
        "The body is larger than 8 MiB (64 MiB for `/v1/x/state`).",
    ),
    (
        "500",
        "InternalError",
        "A mistake in the agent; its log says more.",
    ),
    (
        "501",
        "NotSupported",
        "The Services API has this, lbagent does not.",
    ),
    (
        "503",
        "Unavailable",
        "The store or the data plane cannot be reached. Nothing was changed.",
    ),
];

/// Adds all of it.
pub(super) fn complete(document: &mut Value) {
    let components = &mut document["components"];
    components["responses"] = refusals();
    components["parameters"] = parameters();
    components["securitySchemes"] = json!({ "token": {
        "type": "http", "scheme": "bearer",
        "description": "A token that `lbctl token create` made, or that of `api.token_file`."
    } });
    let mut links = links(&document["paths"]);
    for (path, item) in members(&mut document["paths"]) {
        for (method, operation) in members(item) {
            operation["operationId"] = operation_id(path, method, operation).into();
            if let Some(links) = links.remove(&(path.clone(), method.clone())) {
                operation["responses"]["200"]["links"] = links;
            }
            operation["tags"] = json!([tag(path, operation)]);
            if let Some(description) = operation["summary"].as_str()
                && operation["description"].is_null()
            {
                operation["description"] = json!(description);
            }
            add_parameters(path, method, operation);
            add_responses(path, method, operation);
        }
    }
    plain(document);
}

/// A name of its own for each: endpoints of several methods have one for all of them, and what is not
/// supported has none.
fn operation_id(path: &str, method: &str, operation: &Value) -> String {
    match operation["operationId"].as_str() {
        Some(id) if id.starts_with("wait_") && method == "put" => format!("{id}_put"),
        Some(id) => id.to_owned(),
        None => {
            let is_part = |c: char| !c.is_ascii_alphanumeric();
            let words = path.split(is_part).filter(|word| !word.is_empty()).skip(1);
            format!("{method}_{}", words.collect::<Vec<_>>().join("_"))
        }
    }
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn refusals() -> Value {
    let mut responses = Map::new();
    for (status, name, text) in REFUSALS {
        let schema = json!({ "$ref": "#/components/schemas/Refusal" });
        let mut response =
            json!({ "description": text, "content": { "application/json": { "schema": schema } } });
        let header = match status {
            "401" => Some(("WWW-Authenticate", "The scheme, `Bearer`.")),
            "405" => Some(("Allow", "Methods of the path.")),
            "503" => Some(("Retry-After", "Seconds.")),
            _ => None,
        };
        if let Some((header, text)) = header {
            response["headers"] =
                json!({ header: { "description": text, "schema": { "type": "string" } } });
        }
        responses.insert(name.to_owned(), response);
    }
    let text = "As the tag of `If-None-Match` has it.";
    responses.insert("NotModified".to_owned(), json!({ "description": text }));
    responses.into()
}

fn parameters() -> Value {
    let header = |name: &str, text: &str| {
        json!({ "name": name, "in": "header", "required": false, "description": text,
                "schema": { "type": "string" } })
    };
    json!({
        "Account": header(
            lbagent_api::access::ACCOUNT_HEADER,
            "The account, by name or UUID, that an operator acts for; the default account when absent.",
        ),
        "IfMatch": header("If-Match", "Only if the object still has one of these tags."),
        "IfNoneMatch": header("If-None-Match", "Only if the answer has none of these tags."),
    })
}

/// Links from what makes an object to what takes its UUID.
fn links(paths: &Value) -> std::collections::BTreeMap<(String, String), Value> {
    let links = |place: &str, bases: &[&str]| {
        let mut links = Map::new();
        for (path, item) in paths.as_object().into_iter().flatten() {
            let operations = item.as_object().into_iter().flatten();
            let is_meant = bases.iter().any(|base| path.starts_with(base));
            for (_, operation) in operations.filter(|_| is_meant) {
                let is_served = !operation["responses"]["200"].is_null();
                if let (Some(id), true) = (operation["operationId"].as_str(), is_served) {
                    let parameters = json!({ "uuid": format!("$response.body#{place}") });
                    let link = json!({ "operationId": id, "parameters": parameters });
                    links.insert(id.to_owned(), link);
                }
            }
        }
        Value::from(links)
    };
    let made = MADE.iter().map(|(collection, place, bases)| {
        let operation = ((*collection).to_owned(), "post".to_owned());
        (operation, links(place, bases))
    });
    made.collect()
}

fn tag(path: &str, operation: &Value) -> &'static str {
    const TAGS: [(&str, &str); 8] = [
        ("/v1/services", "Service groups"),
        ("/v1/instances", "Instances"),
        ("/v1/audit", "Instances"),
        ("/v1/certificates", "Certificates"),
        ("/v1/x/accounts", "Accounts"),
        ("/v1/x/tokens", "Accounts"),
        ("/v1/users", "Accounts"),
        ("/v1/x", "Extensions"),
    ];
    if operation["responses"]["200"].is_null() {
        return "Not supported";
    }
    let found = TAGS.iter().find(|(base, _)| path.starts_with(base));
    found.map_or("Agent", |(_, tag)| tag)
}

fn add_parameters(path: &str, method: &str, operation: &mut Value) {
    let mut parameters = match operation["parameters"].take() {
        Value::Array(parameters) => parameters,
        _ => Vec::new(),
    };
    for name in ["uuid", "name"] {
        if path.contains(&format!("{{{name}}}")) {
            parameters.push(path_parameter(path, name));
        }
    }
    let component = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    if !PUBLIC.contains(&path) {
        parameters.push(component("Account"));
    }
    if etag::is_conditional(path) {
        let name = if method == "get" {
            "IfNoneMatch"
        } else {
            "IfMatch"
        };
        parameters.push(component(name));
    }
    if parameters.is_empty() {
        operation
            .as_object_mut()
            .map(|members| members.remove("parameters"));
    } else {
        operation["parameters"] = parameters.into();
    }
}

fn path_parameter(path: &str, name: &str) -> Value {
    // Tokens and what the Services API has go by UUID alone.
    let takes_names = path.starts_with("/v1/x/") && !path.starts_with("/v1/x/tokens");
    let (text, schema) = match name {
        "uuid" if takes_names => ("UUID or name.", json!({ "type": "string", "minLength": 1 })),
        "uuid" => ("UUID.", json!({ "type": "string", "format": "uuid" })),
        _ => ("Name.", json!({ "type": "string", "minLength": 1 })),
    };
    json!({ "name": name, "in": "path", "required": true, "description": text, "schema": schema })
}

fn add_responses(path: &str, method: &str, operation: &mut Value) {
    let is_read = method == "get";
    let is_conditional = etag::is_conditional(path);
    let is_supported = !operation["responses"]["200"].is_null();
    let responses = &mut operation["responses"];
    if PUBLIC.contains(&path) {
        operation["security"] = json!([]);
        return;
    }
    for (status, name, _) in REFUSALS {
        let is_possible = match status {
            "405" => false,
            "412" => is_conditional && !is_read,
            "501" => !is_supported,
            _ => true,
        };
        if is_possible && responses[status].is_null() {
            responses[status] = json!({ "$ref": format!("#/components/responses/{name}") });
        }
    }
    if is_read && is_supported {
        let header = |text: &str| json!({ "description": text, "schema": { "type": "string" } });
        let headers = &mut responses["200"]["headers"];
        headers["Lbagent-Generation"] =
            header("The generation of the desired state that this is not older than.");
        if is_conditional {
            headers["ETag"] = header("Its tag.");
            responses["304"] = json!({ "$ref": "#/components/responses/NotModified" });
        }
    }
    operation["security"] = json!([{ "token": [] }]);
}

/// Takes out what is Rust's: links of its documentation, the size of its small integers, and defaults
/// that say nothing.
fn plain(value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, value| match key.as_str() {
            "default" => !value.is_null() && value != "",
            "format" => value != "int32",
            _ => true,
        });
    }
    for (key, value) in members(value) {
        match value {
            Value::String(text) if matches!(key.as_str(), "description" | "summary") => {
                *text = without_links(text);
            }
            _ => plain(value),
        }
    }
    value.as_array_mut().into_iter().flatten().for_each(plain);
}

/// `` [`X`](y) `` and `` [`X`] `` become `` `X` ``.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, after)) = after.split_once("`]") else {
            break;
        };
        plain += &format!("{before}`{name}`");
        rest = match after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
        {
            Some((_, after)) => after,
            None => after,
        };
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_rust_are_taken_out() {
        let text = "See [`A::b`](Self::c) and [`D`]; [1, 2) stays.";
        assert_eq!(without_links(text), "See `A::b` and `D`; [1, 2) stays.");
    }
}
