//! The description as one page: no script, nothing from elsewhere.

use std::fmt::Write;

use serde_json::Value;

/// The page, from the completed description.
pub(super) fn page(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let version = text(&document["info"]["version"]);
    let mut index = String::new();
    let mut main = format!("<h1>{title} {version}: API</h1>\n");
    main += &prose(&document["info"]["description"]);
    main += "<p>For programs: <a href=\"/v1/openapi.json\">openapi.json</a></p>\n";
    for tag in array(&document["tags"]) {
        let name = text(&tag["name"]);
        put(&mut index, format_args!("<h2>{name}</h2>\n<ul>\n"));
        put(
            &mut main,
            format_args!("<h2>{name}</h2>\n{}", prose(&tag["description"])),
        );
        for (path, item) in object(&document["paths"]) {
            for (method, operation) in object(item) {
                if operation["tags"][0] == tag["name"] {
                    put(
                        &mut index,
                        format_args!("{}", entry(method, path, operation)),
                    );
                    main += &section(document, method, path, operation);
                }
            }
        }
        index += "</ul>\n";
    }
    index += "<h2>Schemas</h2>\n<ul>\n";
    main += "<h2>Schemas</h2>\n";
    for (name, schema) in object(&document["components"]["schemas"]) {
        let name = escaped(name);
        put(
            &mut index,
            format_args!("<li><a href=\"#schema-{name}\">{name}</a></li>\n"),
        );
        put(
            &mut main,
            format_args!(
                "<section id=\"schema-{name}\"><h3>{name}</h3>\n{}</section>\n",
                fields(schema)
            ),
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}: API</title>\
         <link rel=\"stylesheet\" href=\"/v1/docs/style.css\"></head>\n<body>\n\
         <nav>{index}</ul></nav>\n<main>{main}</main>\n</body></html>\n"
    )
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = page.write_fmt(text);
}

fn entry(method: &str, path: &str, operation: &Value) -> String {
    let (id, method) = (text(&operation["operationId"]), method.to_uppercase());
    format!(
        "<li><a class=\"path\" href=\"#{id}\">{method} {}</a></li>\n",
        escaped(path)
    )
}

fn section(document: &Value, method: &str, path: &str, operation: &Value) -> String {
    let mut section = format!(
        "<section id=\"{}\"><h3><span class=\"method\">{}</span> <span class=\"path\">{}</span></h3>\n\
         <p>{}</p>\n",
        text(&operation["operationId"]),
        method.to_uppercase(),
        escaped(path),
        text(&operation["summary"])
    );
    if operation["description"] != operation["summary"] {
        section += &prose(&operation["description"]);
    }
    let parameters = array(&operation["parameters"]).map(|one| resolved(document, one));
    let rows: String = parameters
        .map(|parameter| {
            let place = text(&parameter["in"]);
            let name = format!(
                "<code>{}</code> <small>{place}</small>",
                text(&parameter["name"])
            );
            let is_required = parameter["required"] == true;
            row(
                &name,
                is_required,
                &form(&parameter["schema"]),
                &parameter["description"],
            )
        })
        .collect();
    section += &table("Parameters", &rows);
    for (_, content) in object(&operation["requestBody"]["content"]) {
        let optional = match operation["requestBody"]["required"] == true {
            true => "",
            false => ", may be left out",
        };
        let form = form(&content["schema"]);
        put(
            &mut section,
            format_args!("<h4>Body{optional}</h4>\n<p>{form}</p>\n"),
        );
    }
    let responses: String = object(&operation["responses"])
        .map(|(status, response)| {
            let response = resolved(document, response);
            let forms = object(&response["content"]).map(|(media_type, content)| {
                format!("{} {}", escaped(media_type), form(&content["schema"]))
            });
            let forms: Vec<_> = forms.collect();
            row(
                &format!("<code>{status}</code>"),
                false,
                &forms.join("<br>"),
                &response["description"],
            )
        })
        .collect();
    section + &table("Answers", &responses) + "</section>\n"
}

/// What a reference refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|at| at.strip_prefix('#'));
    pointer.and_then(|at| document.pointer(at)).unwrap_or(value)
}

/// An object's members, or what else a schema is.
fn fields(schema: &Value) -> String {
    let required: Vec<&Value> = array(&schema["required"]).collect();
    let rows: String = object(&schema["properties"])
        .map(|(name, property)| {
            let is_required = required.iter().any(|one| *one == name);
            let name = format!("<code>{}</code>", escaped(name));
            row(
                &name,
                is_required,
                &form(property),
                &property["description"],
            )
        })
        .collect();
    let shape = if rows.is_empty() {
        format!("<p>{}</p>\n", form(schema))
    } else {
        table("", &rows)
    };
    let example = match &schema["example"] {
        Value::Null => String::new(),
        example => format!("<pre>{}</pre>\n", escaped(&format!("{example:#}"))),
    };
    prose(&schema["description"]) + &shape + &example
}

/// A schema in a few words, with links to those that have names.
fn form(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escaped(name));
    }
    for (key, word) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " with ")] {
        if schema[key].is_array() {
            let forms: Vec<String> = array(&schema[key]).map(form).collect();
            return forms.join(word);
        }
    }
    if schema["enum"].is_array() {
        let words = array(&schema["enum"]).map(|word| format!("<code>{}</code>", text(word)));
        return words.collect::<Vec<_>>().join(" ");
    }
    let types: Vec<String> = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect(),
        Value::Null => vec!["anything".to_owned()],
        one => vec![text(one)],
    };
    let mut words = types.join(" or ");
    if schema["items"].is_object() {
        words = format!("{words} of ({})", form(&schema["items"]));
    } else if schema["properties"].is_object() {
        let members = object(&schema["properties"])
            .map(|(name, property)| format!("<code>{}</code>: {}", escaped(name), form(property)));
        words = format!("{{ {} }}", members.collect::<Vec<_>>().join(", "));
    }
    for (key, word) in [
        ("format", ""),
        ("pattern", "matches "),
        ("minimum", "≥ "),
        ("maximum", "≤ "),
    ] {
        if !schema[key].is_null() {
            put(&mut words, format_args!(", {word}{}", text(&schema[key])));
        }
    }
    words
}

fn table(title: &str, rows: &str) -> String {
    match (title, rows) {
        (_, "") => String::new(),
        ("", rows) => format!("<table>{rows}</table>\n"),
        (title, rows) => format!("<h4>{title}</h4>\n<table>{rows}</table>\n"),
    }
}

fn row(name: &str, is_required: bool, form: &str, description: &Value) -> String {
    let required = if is_required {
        " <span class=\"required\">required</span>"
    } else {
        ""
    };
    format!(
        "<tr><td>{name}{required}</td><td>{form}</td><td>{}</td></tr>\n",
        inline(description)
    )
}

/// Paragraphs.
fn prose(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let paragraphs = text.split("\n\n").filter(|text| !text.trim().is_empty());
    paragraphs
        .map(|text| format!("<p>{}</p>\n", code(text)))
        .collect()
}

fn inline(value: &Value) -> String {
    code(value.as_str().unwrap_or_default())
}

/// Text whose backticks enclose code.
fn code(text: &str) -> String {
    let parts = text.trim().split('`').enumerate();
    let mark = |(place, part)| match place % 2 {
        0 => escaped(part),
        _ => format!("<code>{}</code>", escaped(part)),
    };
    parts.map(mark).collect()
}

fn text(value: &Value) -> String {
    escaped(
        &value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
    )
}

fn escaped(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
