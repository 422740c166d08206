//! Instances that answer as they are told to, and remember what they were asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// An instance. Its threads end with the test's process.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Request {
    pub fn fields(&self, name: &str) -> Vec<&str> {
        super::client::fields(&self.head, name)
    }
}

/// A connection to an instance.
pub type Stream = BufReader<TcpStream>;

impl Origin {
    /// Answers each request with the same bytes.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, stream| stream.get_mut().write_all(&answer).is_ok())
    }

    /// Answers each request, read to its end, as the function does; it returns whether the
    /// connection goes on.
    pub fn new(answer: impl Fn(&Request, &mut Stream) -> bool + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", answer)
    }

    /// As [`Self::new`], at an address.
    pub fn on(
        address: &str,
        answer: impl Fn(&Request, &mut Stream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Seen>::default();
        let noted = Arc::clone(&seen);
        let address = Self::raw(address, move |mut stream| {
            noted.connections.fetch_add(1, Ordering::SeqCst);
            while let Some(request) = read_request(&mut stream) {
                noted.requests.lock().unwrap().push(request.clone());
                if !answer(&request, &mut stream) {
                    return;
                }
            }
        });
        Self { address, seen }
    }

    /// Lets the function have each connection, and returns the address.
    pub fn raw(address: &str, serve: impl Fn(Stream) + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                let _ = stream.set_nodelay(true);
                thread::spawn(move || serve(BufReader::new(stream)));
            }
        });
        address
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How often it was connected to.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

/// Reads lines up to an empty one; none if the connection ends before that.
pub fn read_block(stream: &mut Stream) -> Option<String> {
    let mut block = Vec::new();
    loop {
        let before = block.len();
        if stream.read_until(b'\n', &mut block).ok()? == 0 {
            return None;
        }
        if &block[before..] == b"\r\n" {
            block.truncate(before);
            return Some(String::from_utf8_lossy(&block).into_owned());
        }
    }
}

fn read_request(stream: &mut Stream) -> Option<Request> {
    let mut request = Request {
        head: read_block(stream)?,
        ..Request::default()
    };
    if !request.fields("transfer-encoding").is_empty() {
        loop {
            let chunk = read_chunk(stream)?;
            if chunk.is_empty() {
                break;
            }
            request.body.extend(chunk);
        }
        request.trailers = read_block(stream)?;
    } else if let Some(length) = request.fields("content-length").first() {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).ok()?;
        request.body = body;
    }
    Some(request)
}

/// Reads a chunk; the last is empty, and its trailers are left.
pub fn read_chunk(stream: &mut Stream) -> Option<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut chunk = vec![0; length];
    stream.read_exact(&mut chunk).ok()?;
    if length > 0 {
        stream.read_line(&mut line).ok()?;
    }
    Some(chunk)
}

/// A short answer that leaves the connection open.
pub fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
