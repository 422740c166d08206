//! One HTTP/1.1 request over a fresh connection, byte by byte: what the agent answers is under test,
//! so nothing in between may be clever.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines, lower case names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {:?}", self.body))
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Bearer token.
    pub token: Option<&'a str>,
    /// Body, sent as `application/json`.
    pub body: Option<String>,
}

impl Request<'_> {
    /// Sends it from this thread's namespace.
    pub fn send(&self, to: SocketAddr) -> Result<Response> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
            .with_context(|| format!("connecting to the API at {to}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n",
            self.method, self.path
        );
        if let Some(token) = self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        if let Some(body) = &self.body {
            head += "content-type: application/json\r\n";
            head += &format!("content-length: {}\r\n", body.len());
        }
        write!(stream, "{head}\r\n{}", self.body.as_deref().unwrap_or(""))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer).with_context(|| format!("{} {}", self.method, self.path))
    }
}

fn parse(answer: &[u8]) -> Result<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("no end of headers in the answer")?;
    let mut lines = std::str::from_utf8(&answer[..end])?.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    if headers.iter().any(|(name, _)| name == "transfer-encoding") {
        bail!("a chunked answer; the API sends whole documents");
    }
    let body = String::from_utf8(answer[end + 4..].to_vec())?;
    let response = Response {
        status: status.parse()?,
        headers,
        body,
    };
    let announced = response
        .header("content-length")
        .map(str::parse::<usize>)
        .transpose()?;
    ensure!(
        announced.is_none_or(|length| length == response.body.len()),
        "the body was cut"
    );
    Ok(response)
}
