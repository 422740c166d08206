//! An agent for tests: a server on loopback with answers made beforehand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use crate::endpoint::Endpoint;

/// Gives these answers, (status line, body), to as many requests, and then no more. The thread
/// ends with the requests' heads and bodies.
pub fn start(
    answers: Vec<(&'static str, String)>,
) -> (Endpoint, JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Http(format!("http://{}", listener.local_addr().unwrap()));
    let server = thread::spawn(move || {
        answers
            .into_iter()
            .map(|(status, answer)| serve(listener.accept().unwrap().0, status, &answer))
            .collect()
    });
    (endpoint, server)
}

/// Reads one request and answers it; returns its head and body.
pub fn serve(mut stream: impl Read + Write, status: &str, answer: &str) -> (String, String) {
    let mut reader = BufReader::new(&mut stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(
            reader.read_line(&mut head).unwrap(),
            0,
            "the request ended in its head"
        );
    }
    let lower = head.to_lowercase();
    let mut body = String::new();
    if let Some((_, rest)) = lower.split_once("content-length: ") {
        let mut bytes = vec![0; rest.split("\r\n").next().unwrap().parse().unwrap()];
        reader.read_exact(&mut bytes).unwrap();
        body = String::from_utf8(bytes).unwrap();
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = vec![0; size + "\r\n".len()];
            reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break;
            }
            body.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    (head, body)
}
