//! The access log of requests that went through.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::client::{Client, get};
use super::gateway::{Gateway, poll_until};
use super::origin::{Origin, ok};

/// Keeps what is written.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        let lines = serde_json::Deserializer::from_slice(&bytes).into_iter();
        lines.map(Result::unwrap).collect()
    }

    /// The line of the request with this path.
    #[track_caller]
    fn line(&self, path: &str) -> Value {
        let find = || self.lines().into_iter().find(|line| line["path"] == path);
        poll_until("there is a line", || find().is_some());
        find().unwrap()
    }
}

#[test]
fn each_request_has_a_line() {
    let origin = Origin::new(|request, stream| {
        !request.head.contains("/never") && stream.get_mut().write_all(&ok("12345")).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    let output = Output::default();
    let log = &gateway.shared.http.access;
    log.start(Box::new(output.clone()), 1).unwrap();

    get(gateway.address(), "/one?a=b");
    let line = output.line("/one?a=b");
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
    assert_eq!(
        (&line["method"], &line["protocol"]),
        (&"GET".into(), &"HTTP/1.1".into())
    );
    assert_eq!(
        (&line["host"], &line["group"]),
        (&"a.example".into(), &"a.example".into())
    );
    assert_eq!(line["instance"], origin.address.to_string());
    assert_eq!(line["answer"], Value::Null);
    assert_eq!(line["broken"], false);
    assert_eq!(line["client"], "127.0.0.1");
    let id = origin.requests()[0].fields("x-request-id")[0].to_owned();
    assert_eq!(line["request_id"], id);

    let mut client = Client::new(gateway.address());
    client.send("GET /two HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    let line = output.line("/two");
    assert_eq!(
        (&line["status"], &line["answer"]),
        (&404.into(), &"no_service".into())
    );

    client.send("POST /never HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.answer().status, 502);
    // Also those whose instance has failed; what is refused at once takes no time.
    assert_eq!(gateway.timed(), 2);
    let line = output.line("/never");
    assert_eq!(
        (&line["status"], &line["answer"]),
        (&502.into(), &"upstream_fault".into())
    );

    log.set_one_of(0);
    get(gateway.address(), "/three");
    log.set_one_of(1);
    get(gateway.address(), "/four");
    output.line("/four");
    assert_eq!(output.lines().len(), 4);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_line_names_the_client_that_proxies_tell_of() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = Gateway::new(&[origin.address]);
    gateway.change(|snapshot| {
        snapshot.proxies.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let output = Output::default();
    let log = &gateway.shared.http.access;
    log.start(Box::new(output.clone()), 1).unwrap();
    let address = gateway.address();
    let send = |path: &str, proxy: &str, fields: &str| {
        let mut client = Client::new(address);
        client.send(format!(
            "{proxy}GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
        ));
        assert_eq!(client.answer().status, 200);
        let line = output.line(path);
        let peer: std::net::SocketAddr = line["peer"].as_str().unwrap().parse().unwrap();
        (
            line["client"].as_str().unwrap().to_owned(),
            peer.ip().to_string(),
        )
    };
    let told = |client: &str, peer: &str| (client.to_owned(), peer.to_owned());
    let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.5, 127.0.0.9\r\n";
    assert_eq!(send("/told", "", fields), told("203.0.113.5", "127.0.0.1"));
    assert_eq!(send("/own", "", ""), told("127.0.0.1", "127.0.0.1"));
    gateway.change(|snapshot| {
        snapshot.proxies.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
        snapshot.proxies.trusted.clear();
    });
    let header = "PROXY TCP4 203.0.113.7 198.51.100.1 50000 80\r\n";
    // Whoever is no trusted proxy is not believed.
    let line = send("/header", header, fields);
    assert_eq!(line, told("203.0.113.7", "203.0.113.7"));
}

#[test]
fn a_client_that_went_is_told_of() {
    let silent = Origin::raw("127.0.0.1:0", |mut stream| {
        let _ = io::Read::read_to_end(&mut stream, &mut Vec::new());
    });
    let gateway = Gateway::new(&[silent]);
    let output = Output::default();
    let log = &gateway.shared.http.access;
    log.start(Box::new(output.clone()), 1).unwrap();
    let mut client = Client::new(gateway.address());
    client.send("GET /gone HTTP/1.1\r\nHost: a.example\r\n\r\n");
    poll_until("it is in flight", || gateway.load(silent).0 == 1);
    drop(client);
    let line = output.line("/gone");
    assert_eq!(
        (&line["status"], &line["broken"]),
        (&0.into(), &true.into())
    );
}
