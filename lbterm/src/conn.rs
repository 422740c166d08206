//! What is known of a client's connection.

use std::net::SocketAddr;

/// What is known of a client's connection before its first byte of HTTP.
#[derive(Clone, Debug)]
pub struct ConnMeta {
    /// Unique among the connections of this process, for logs and request ids.
    pub id: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The address that the client dialled: VIP and published port.
    pub dialled: SocketAddr,
    /// How the connection is encrypted; none where it is not.
    pub tls: Option<TlsMeta>,
}

/// How a connection is encrypted.
#[derive(Clone, Debug)]
pub struct TlsMeta {
    /// The server that the client named (SNI), as [`crate::route::canonical_host`] writes it.
    pub server_name: Option<Box<str>>,
    /// What the two sides agreed to speak.
    pub alpn: Alpn,
    /// Version of TLS, as `TLSv1.3`.
    pub version: &'static str,
    /// Name of the cipher suite, as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// Whether the session is that of an earlier connection.
    pub is_resumed: bool,
}

/// Outcome of ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// The client offered none: HTTP/1.1, where it is HTTP.
    None,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    H2,
}
