use super::*;
use crate::listing::{ListQuery, Order};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its parsing is looked at")]
struct Outer {
    must: i64,
    #[serde(default)]
    list: Vec<Inner>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its parsing is looked at")]
struct Inner {
    kind: Kind,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Tls,
    Http,
}

#[track_caller]
fn check_body(body: &str, code: ErrorCode, message: &str) {
    let error = parse_body::<Outer>(body.as_bytes()).expect_err("the body is wrong");
    assert_eq!((error.code, error.message.as_str()), (code, message));
}

#[test]
fn wrong_bodies_get_the_contracts_words() {
    use ErrorCode::{Invalid, MalformedRequest, UnknownMember};
    check_body(r#"{"must":1,"x":2}"#, UnknownMember, "Unknown member 'x'");
    check_body(
        r#"{"must":1,"list":[{"kind":"tls","y":1}]}"#,
        UnknownMember,
        "Unknown member 'y'",
    );
    check_body("{}", Invalid, "Missing member 'must'");
    check_body(
        r#"{"must":1,"list":[{}]}"#,
        Invalid,
        "Missing member 'kind' in 'list[0]'",
    );
    check_body(
        r#"{"must":"1"}"#,
        Invalid,
        "Invalid value in 'must': invalid type: string \"1\", expected i64",
    );
    check_body(
        r#"{"must":1,"list":[{"kind":"raw"}]}"#,
        Invalid,
        "Invalid value 'raw' in 'list[0].kind': expected 'tls' or 'http'",
    );
    check_body(
        "[1]",
        MalformedRequest,
        "The request body must be a JSON object or an array of objects",
    );
    let error = parse_body::<Outer>(b"{").unwrap_err();
    assert_eq!(error.code, MalformedRequest);
    assert!(error.message.starts_with("Invalid JSON: EOF"), "{error}");
}

const A: &str = "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001";

#[track_caller]
fn check_selectors(body: &str, expected: Result<&[&str], &str>) {
    let found = parse_selectors(body.as_bytes());
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(
                found.iter().map(ToString::to_string).collect::<Vec<_>>(),
                expected
            );
        }
        (Err(error), Err(expected)) => assert_eq!(error.message, expected),
        (found, expected) => panic!("found {found:?}, expected {expected:?}"),
    }
}

#[test]
fn selectors_come_alone_or_in_an_array() {
    check_selectors("", Ok(&[]));
    check_selectors(" \n", Ok(&[]));
    check_selectors("[]", Ok(&[]));
    check_selectors(r#"{"name":"web"}"#, Ok(&["name 'web'"]));
    check_selectors(
        &format!(r#"[{{"name":"web"}},{{"uuid":"{A}"}}]"#),
        Ok(&["name 'web'", &format!("uuid '{A}'")]),
    );
    check_selectors(r#"[{"uuid":"7"}]"#, Err("Invalid uuid '7'"));
    check_selectors(r#"[{"id":"7"}]"#, Err("Unknown member 'id'"));
    check_selectors("[{}]", Err("Missing member 'uuid' or 'name'"));
    check_selectors(
        &format!(r#"{{"uuid":"{A}","name":"a"}}"#),
        Err("Members 'uuid' and 'name' exclude each other"),
    );
}

#[test]
fn a_listing_takes_repeated_and_comma_lists() {
    let parameters = [
        ("uuid", A),
        ("name", "a,b"),
        ("name", "c"),
        ("details", "false"),
        ("count", "2"),
        ("order", "desc"),
        ("sortby", "create_time"),
        ("from", A),
        ("persistent", "true"),
        ("fqdn", "a.example.com"),
    ];
    let query = ListQuery::parse(parameters, &["persistent", "fqdn"]).unwrap();
    assert_eq!(query.filters.persistent, Some(true));
    assert_eq!(query.filters.fqdn.as_deref(), Some("a.example.com"));
    assert_eq!(query.selectors.len(), 4);
    assert_eq!(
        (query.details, query.count, query.order),
        (false, Some(2), Order::Desc)
    );
    assert_eq!(query.from.as_deref(), Some(A));
    for (key, value, message) in [
        ("nope", "1", "Unknown query parameter 'nope'"),
        ("persistent", "1", "Unknown query parameter 'persistent'"),
        (
            "sortby",
            "name",
            "Invalid value 'name' of 'sortby': expected create_time",
        ),
        (
            "count",
            "0",
            "Invalid value '0' of 'count': expected a number above 0",
        ),
        (
            "details",
            "maybe",
            "Invalid value 'maybe' of 'details': expected true or false",
        ),
        ("uuid", "x", "Invalid uuid 'x'"),
    ] {
        assert_eq!(
            ListQuery::parse([(key, value)], &["tags"])
                .unwrap_err()
                .message,
            message
        );
    }
}

#[test]
fn names() {
    let longest = "a".repeat(MAX_NAME);
    for name in ["a", "web-1", "0day", "a.b", longest.as_str()] {
        validate_name(name).unwrap();
    }
    let too_long = "a".repeat(MAX_NAME + 1);
    for name in [
        "",
        "a-",
        "a.",
        "-a",
        "a--b",
        "a..b",
        "a b",
        "a_b",
        "ä",
        A,
        too_long.as_str(),
    ] {
        let message = validate_name(name).unwrap_err().message;
        let told = format!("Invalid name '{name}': expected 1 to 63 letters");
        assert!(message.starts_with(&told), "{message}");
    }
}

#[test]
fn domains() {
    for (name, fqdn) in [
        ("web", "web.lb.internal"),
        ("Example.COM.", "example.com"),
        ("*.example.com.", "*.example.com"),
        ("a.b", "a.b.lb.internal"),
    ] {
        assert_eq!(qualify_domain(name, "lb.internal").unwrap(), fqdn);
    }
    for name in ["", ".", "com.", "a..b.", "-a", "a_b", "a.*.b.", "*."] {
        let message = qualify_domain(name, "lb.internal").unwrap_err().message;
        assert_eq!(message, format!("Invalid DNS name '{name}'"));
    }
}
