//! Proxies in front of the gateway: who is one, and the header of the PROXY protocol by which one says
//! whom a connection is from.

use std::io;
use std::net::{IpAddr, SocketAddr};

use lbagent_api::policy::IpNetwork;
use lbagent_api::terminator::Proxies;
use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before those that it tells the length of.
const START: usize = 16;
/// Longest header of version 2: further TLVs than these are of no use here, and cost memory.
const MAX_V2: usize = 4 << 10;
/// Longest header of version 1, its end included.
const MAX_V1: usize = 107;

/// Whether one of the prefixes holds an address.
pub fn hold(prefixes: &[IpNetwork], address: IpAddr) -> bool {
    let address = address.to_canonical();
    prefixes.iter().any(|prefix| prefix.contains(address))
}

/// Whether many clients may come from an address, because it is a proxy.
pub fn is_proxy(proxies: &Proxies, peer: IpAddr) -> bool {
    hold(&proxies.trusted, peer) || hold(&proxies.proxy_protocol, peer)
}

/// Why what came is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection failed or ended.
    #[error("no header of the PROXY protocol came")]
    Io(#[from] io::Error),
    /// It is none.
    #[error("what came is no header of the PROXY protocol")]
    Malformed,
}

/// Takes the header from the beginning of a proxy's connection, and nothing after it. Returns the client
/// that it tells; none where the proxy speaks for itself, or does not know. The caller bounds the time.
pub async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == SIGNATURE {
        read_v2(stream, bytes).await
    } else if bytes.starts_with(b"PROXY ") {
        read_v1(stream, bytes).await
    } else {
        Err(HeaderError::Malformed)
    }
}

async fn read_v2(
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
) -> Result<Option<SocketAddr>, HeaderError> {
    bytes.resize(START, 0);
    stream.read_exact(&mut bytes[SIGNATURE.len()..]).await?;
    let length = START + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MAX_V2 {
        return Err(HeaderError::Malformed);
    }
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[START..]).await?;
    let header = v2::Header::try_from(&bytes[..]).map_err(|_| HeaderError::Malformed)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(it) => Some((it.source_address, it.source_port).into()),
        v2::Addresses::IPv6(it) => Some((it.source_address, it.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

async fn read_v1(
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
) -> Result<Option<SocketAddr>, HeaderError> {
    // Looked at before it is taken: what follows the line is the client's.
    while !bytes.ends_with(b"\n") {
        let mut ahead = [0; MAX_V1];
        let room = MAX_V1.saturating_sub(bytes.len());
        let seen = stream.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(HeaderError::Malformed);
        }
        let line = memchr::memchr(b'\n', &ahead[..seen]).map_or(seen, |end| end + 1);
        stream.read_exact(&mut ahead[..line]).await?;
        bytes.extend_from_slice(&ahead[..line]);
    }
    let header = v1::Header::try_from(&bytes[..]).map_err(|_| HeaderError::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read from `sent`, and what is left of it.
    async fn read(sent: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = sent.to_vec();
        let sending = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // In pieces, so that a header comes in several.
            for piece in sent.chunks(5) {
                // The reader may have refused it already.
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let found = read_header(&mut stream).await;
        let mut rest = Vec::new();
        if found.is_ok() {
            stream.read_to_end(&mut rest).await.unwrap();
        }
        drop(stream);
        sending.await.unwrap();
        (found, rest)
    }

    fn v2(command: v2::Command, addresses: v2::Addresses) -> Vec<u8> {
        let start = v2::Version::Two | command;
        let mut bytes = v2::Builder::with_addresses(start, v2::Protocol::Stream, addresses)
            .write_tlv(v2::Type::Authority, b"a.example")
            .unwrap()
            .build()
            .unwrap();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        bytes
    }

    #[tokio::test]
    async fn headers_tell_the_client_and_leave_the_rest() {
        let four = v2::IPv4::new([192, 0, 2, 9], [198, 51, 100, 1], 50_000, 443).into();
        let client: Option<SocketAddr> = Some("192.0.2.9:50000".parse().unwrap());
        let line = |text: &str| [text.as_bytes(), b"\r\nGET / HTTP/1.1\r\n"].concat();
        for (bytes, expected) in [
            (v2(v2::Command::Proxy, four), client),
            (v2(v2::Command::Local, four), None),
            (v2(v2::Command::Proxy, v2::Addresses::Unspecified), None),
            (line("PROXY TCP4 192.0.2.9 198.51.100.1 50000 443"), client),
            (
                line("PROXY TCP6 2001:db8::9 2001:db8::1 50000 443"),
                Some("[2001:db8::9]:50000".parse().unwrap()),
            ),
            (line("PROXY UNKNOWN"), None),
        ] {
            let (found, rest) = read(&bytes).await;
            assert_eq!(found.unwrap(), expected);
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let mut long = SIGNATURE.to_vec();
        long.extend([0x21, 0x11, 0xff, 0xff]);
        long.extend(vec![0; 70_000]);
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 1.2.3.4 nonsense 1 2\r\n rest",
            b"PROXY TCP4 1.2",
            b"\r\n\r\n",
            &long,
            &endless,
        ] {
            assert!(read(bytes).await.0.is_err());
        }
    }

    #[test]
    fn prefixes_hold_addresses_of_their_own_family() {
        let prefixes = ["192.0.2.0/24", "2001:db8::/32"].map(|it| it.parse().unwrap());
        let holds = |address: &str| hold(&prefixes, address.parse().unwrap());
        assert!(holds("192.0.2.200") && holds("::ffff:192.0.2.1") && holds("2001:db8::1"));
        assert!(!holds("192.0.3.1") && !holds("2001:db9::1"));
    }
}
