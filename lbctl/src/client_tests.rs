use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use lbagent_api::envelope::{Reference, ServiceGroups};

use super::*;
use crate::stub;

/// A server for one request.
fn stub(status: &'static str, answer: &'static str) -> (Endpoint, JoinHandle<(String, String)>) {
    let (endpoint, server) = stub::start(vec![(status, answer.to_owned())]);
    (
        endpoint,
        thread::spawn(move || server.join().unwrap().remove(0)),
    )
}

fn names(answer: ServiceGroups<Reference>) -> Result<Vec<String>, CtlError> {
    Ok(all(answer.service_groups)?
        .into_iter()
        .map(|group| group.name)
        .collect())
}

#[track_caller]
fn check(status: &'static str, answer: &'static str, expected: Result<&[&str], (u8, &str)>) {
    let (endpoint, server) = stub(status, answer);
    let client = Client::new(endpoint.clone(), None);
    let found = client.get("/v1/services").and_then(names);
    server.join().unwrap();
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(error), Err((code, text))) => {
            let lines = error
                .lines()
                .join("\n")
                .replace(&endpoint.to_string(), "ENDPOINT");
            assert_eq!((error.exit_code(), lines.as_str()), (code, text));
        }
        (found, expected) => panic!("found {found:?}, expected {expected:?}"),
    }
}

#[test]
fn envelopes() {
    check(
        "200 OK",
        r#"{"status":"success","data":{"service_groups":[{"status":"success",
            "uuid":"6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001","name":"web","new":1}]},"op_time_us":3}"#,
        Ok(&["web"]),
    );
    check(
        "200 OK",
        r#"{"status":"success","data":{"service_groups":[]}}"#,
        Ok(&[]),
    );
    check(
        "200 OK",
        r#"{"status":"error","message":"Failed to perform all operations","data":
           {"service_groups":[{"status":"error","name":"x","error":8,
            "message":"No service group with name 'x'"}]}}"#,
        Err((1, "lbctl: No service group with name 'x'")),
    );
    check(
        "200 OK",
        r#"{"status":"partial_success","data":{"service_groups":[
            {"status":"success","uuid":"6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001","name":"web"},
            {"status":"error","name":"x","error":15,"message":"in use"}]}}"#,
        Err((1, "lbctl: x: in use")),
    );
    check(
        "400 Bad Request",
        r#"{"status":"error","message":"Unknown member 'x'","errors":[{"status":400}]}"#,
        Err((1, "lbctl: Unknown member 'x'")),
    );
    check(
        "503 Service Unavailable",
        r#"{"status":"error"}"#,
        Err((1, "lbctl: the agent answered with HTTP status 503")),
    );
    check(
        "401 Unauthorized",
        r#"{"status":"error","message":"no"}"#,
        Err((
            1,
            "lbctl: the agent at ENDPOINT wants a token; give its token with --token-file FILE \
             or LBCTL_TOKEN",
        )),
    );
}

#[test]
fn answers_of_something_else() {
    let foreign = "lbctl: ENDPOINT does not answer as an lbagent of this version: ";
    check(
        "502 Bad Gateway",
        "<html>",
        Err((
            3,
            &format!("{foreign}HTTP status 502 without an explanation"),
        )),
    );
    check(
        "200 OK",
        r#"{"status":"success"}"#,
        Err((3, &format!("{foreign}the answer has no data"))),
    );
    check(
        "200 OK",
        r#"{"status":"success","data":{"users":[]}}"#,
        Err((3, &format!("{foreign}missing field `service_groups`"))),
    );
}

#[test]
fn nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Http(format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let error = Client::new(endpoint, None)
        .get::<serde_json::Value>("/v1/services")
        .unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(
        error.to_string().contains("(Connection refused)"),
        "{error}"
    );
    let endpoint = Endpoint::Unix("/nonexistent/api.sock".into());
    let error = Client::new(endpoint, None)
        .get::<serde_json::Value>("/v1/services")
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("unix:/nonexistent/api.sock (No such file"),
        "{text}"
    );
}

#[test]
fn the_token_travels_and_is_never_printed() {
    let (endpoint, server) = stub("401 Unauthorized", r#"{"status":"error"}"#);
    let client = Client::new(endpoint, Some(Token::parse(" secret \n").unwrap()));
    let error = client.get::<serde_json::Value>("/v1/services").unwrap_err();
    let (head, _) = server.join().unwrap();
    assert!(
        head.to_lowercase()
            .contains("authorization: bearer secret\r\n"),
        "{head}"
    );
    assert!(!format!("{client:?} {error:?} {error}").contains("secret"));
    assert!(
        error.to_string().contains("does not accept this token"),
        "{error}"
    );
    assert!(Token::parse("two words").is_err() && Token::parse("").is_err());
}

#[test]
fn a_unix_socket_carries_requests_with_bodies() {
    let path = std::env::temp_dir().join(format!("lbctl-test-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stub::serve(
            stream,
            "200 OK",
            r#"{"status":"success","data":{"service_groups":[]}}"#,
        )
    });
    let client = Client::new(Endpoint::Unix(path.clone()), None);
    let body = serde_json::json!([{"name": "web"}]);
    let answer: ServiceGroups<Reference> =
        client.send(Method::DELETE, "/v1/services", &body).unwrap();
    let (head, sent) = server.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(answer.service_groups.is_empty());
    assert!(
        head.starts_with("DELETE /v1/services HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(sent.contains(r#"[{"name":"web"}]"#), "{sent}");
}

#[test]
fn endpoints() {
    for (text, expected) in [
        ("http://127.0.0.1:7480", "http://127.0.0.1:7480"),
        ("http://127.0.0.1:7480/v1/", "http://127.0.0.1:7480"),
        ("gateway:7480", "http://gateway:7480"),
        ("https://gateway:7480/v1", "https://gateway:7480"),
        ("http://[::1]:7480", "http://[::1]:7480"),
        ("unix:/run/lbagent/api.sock", "unix:/run/lbagent/api.sock"),
        ("unix:///run/lbagent/api.sock", "unix:/run/lbagent/api.sock"),
        ("/run/lbagent/api.sock", "unix:/run/lbagent/api.sock"),
    ] {
        assert_eq!(Endpoint::parse(text).unwrap().to_string(), expected);
    }
    for text in ["", "ftp://gateway", "http://", "http://a/b", "unix:x"] {
        assert_eq!(Endpoint::parse(text).unwrap_err().exit_code(), 2, "{text}");
    }
}

#[test]
fn query_values_are_encoded() {
    assert_eq!(encode("a-b.c_d~e"), "a-b.c_d~e");
    assert_eq!(encode("a b&c=ä"), "a%20b%26c%3D%C3%A4");
}
