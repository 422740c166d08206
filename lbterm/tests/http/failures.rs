//! Instances and clients that do not end what they began.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::client::Client;
use super::gateway::{Gateway, group, pause, poll_until};
use super::origin::{self, Origin, read_block};

#[test]
fn own_answers_have_the_form_that_clients_read() {
    let gateway = Gateway::new(&[]);
    let ask = |host: &str, accept: &str| {
        let mut client = Client::new(gateway.address());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n"
        ));
        client.answer()
    };
    let answer = ask("b.example", "text/html");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("There is no service on this URL."));
    assert_eq!(answer.fields("content-type"), ["text/html; charset=utf-8"]);
    let answer = ask("a.example", "application/json");
    assert_eq!(
        (answer.status, answer.fields("retry-after")),
        (503, vec!["1"])
    );
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"], "no_instance");
    assert_eq!(
        (gateway.count("no_service"), gateway.count("no_instance")),
        (1, 2)
    );
}

#[test]
fn instances_that_fail() {
    let status = |serve: fn(origin::Stream), text: &str| {
        let mut first = group("a.example", 0, &[Origin::raw("127.0.0.1:0", serve)]);
        first.services[0].policy.response_timeout_ms = 300;
        let gateway = Gateway::with(|ports| {
            first.services[0].port = ports[0];
            vec![first]
        });
        let mut client = Client::new(gateway.address());
        client.send(text);
        client.answer().status
    };
    let get = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi";
    let closing = |mut stream: origin::Stream| drop(read_block(&mut stream));
    assert_eq!(status(closing, get), 502);
    assert_eq!(status(closing, post), 502);
    let babbling = |mut stream: origin::Stream| {
        read_block(&mut stream);
        let _ = stream
            .get_mut()
            .write_all(b"220 mail.example ESMTP\r\n\r\n");
    };
    assert_eq!(status(babbling, get), 502);
    let switching = |mut stream: origin::Stream| {
        read_block(&mut stream);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
        let _ = stream.get_mut().write_all(answer);
    };
    assert_eq!(status(switching, get), 502);
    let silent = |mut stream: origin::Stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };
    assert_eq!(status(silent, get), 504);
}

#[test]
fn an_answer_that_breaks_off_is_not_completed() {
    let breaking = Origin::new(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
        let _ = stream.get_mut().write_all(head.as_bytes());
        false
    });
    let gateway = Gateway::new(&[breaking.address]);
    let mut client = Client::new(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk(), b"ok");
    assert!(client.is_closed(), "no last chunk");
    poll_until("it counts as failed", || {
        gateway.load(breaking.address) == (0, 0, 1)
    });
}

#[test]
fn an_instance_is_free_again_when_a_client_has_gone() {
    let endless = Origin::new(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let stream = stream.get_mut();
        stream.write_all(head).is_ok()
            && loop {
                if stream.write_all(b"2\r\nok\r\n").is_err() {
                    break false;
                }
                pause(Duration::from_millis(1));
            }
    });
    let gateway = Gateway::new(&[endless.address]);
    let mut client = Client::new(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.head();
    assert_eq!(gateway.load(endless.address).0, 1);
    drop(client);
    poll_until("nothing is in flight", || {
        gateway.load(endless.address) == (0, 0, 0)
    });
}

#[test]
fn an_answer_is_not_lost_to_a_client_that_sends_on() {
    let refusing = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream);
        let answer =
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
        stream.get_mut().write_all(answer).unwrap();
        stream.get_mut().shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let gateway = Gateway::new(&[refusing]);
    for head in [
        "Host: a.example\r\nContent-Length: 100000000",
        "Host: a.example\r\nHost: a.example\r\nContent-Length: 100000000",
        "Host: a.example\r\nContent-Length: 1\r\nContent-Length: 100000000",
        // hyper gives the stream away when another protocol is named.
        "Host: a.example\r\nHost: a.example\r\nUpgrade: x\r\nContent-Length: 100000000",
    ] {
        let mut client = Client::new(gateway.address());
        client.send(format!("POST / HTTP/1.1\r\n{head}\r\n\r\n"));
        for _ in 0..50 {
            client.send([0; 20_000]);
            pause(Duration::from_millis(2));
        }
        let answer = client.answer();
        assert!([413, 400].contains(&answer.status), "{answer:?}");
    }
}
