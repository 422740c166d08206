//! A client that sends the bytes it is told to, and reads HTTP/1.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A client's connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Answer {
    /// The values of a field, in the order in which they came.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The values of a field in a head.
pub fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let named = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim()).collect()
}

/// Sends one GET for `a.example` and returns the answer.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let mut client = Client::new(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    client.answer()
}

impl Client {
    #[track_caller]
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// As [`Self::send`], where the other side may have had enough.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// The stream for bytes that are no longer HTTP.
    pub fn stream(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.stream
    }

    /// The answer to a request that was not a HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        match fields(&answer.head, "transfer-encoding").first() {
            Some(_) => self.chunks(&mut answer),
            None => match fields(&answer.head, "content-length").first() {
                Some(length) => {
                    answer.body = vec![0; length.parse().unwrap()];
                    self.stream.read_exact(&mut answer.body).unwrap();
                }
                None if answer.status == 204 || answer.status == 304 || answer.status < 200 => {}
                None => drop(self.stream.read_to_end(&mut answer.body).unwrap()),
            },
        }
        answer
    }

    /// The head of an answer alone.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let head = self.block();
        let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("{head:?}"));
        Answer {
            status: status.parse().unwrap(),
            head,
            ..Answer::default()
        }
    }

    /// The next chunk of a body; empty for the last.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("{line:?}"));
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).unwrap();
        if length > 0 {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            assert_eq!(line, "\r\n");
        }
        chunk
    }

    /// Whether the connection is over, and nothing more came.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too.
        let result = self.stream.read_to_end(&mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "", "{result:?}");
        let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !result.as_ref().is_err_and(timed_out)
    }

    fn chunks(&mut self, answer: &mut Answer) {
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                answer.trailers = self.block();
                return;
            }
            answer.body.extend(chunk);
        }
    }

    /// Lines up to an empty one.
    #[track_caller]
    fn block(&mut self) -> String {
        let mut block = String::new();
        loop {
            let before = block.len();
            let read = self.stream.read_line(&mut block).unwrap();
            assert!(read > 0, "the connection ended after {block:?}");
            if &block[before..] == "\r\n" {
                block.truncate(before);
                return block;
            }
        }
    }
}
