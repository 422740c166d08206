//! UDP: a datagram is answered, or at least not refused.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use lbagent_api::health::Payload;
use tokio::net::UdpSocket;

use super::{Failure, FailureKind, Limit, excerpt, holds};

pub(super) async fn check(
    to: SocketAddr,
    send: &Payload,
    expect: Option<&Payload>,
    limit: Limit,
) -> Result<(), Failure> {
    let socket = open(to)
        .await
        .map_err(|error| Failure::of("making a socket", &error))?;
    let sent = socket.send(send.as_bytes()).await;
    sent.map_err(|error| Failure::of("sending", &error))?;
    let mut answer = vec![0; 2048];
    let mut last = None;
    loop {
        let what = match &last {
            None => "no answer came".to_owned(),
            Some(other) => format!("no answer came but {other}"),
        };
        let received = limit.wait(&what, socket.recv(&mut answer)).await;
        let received = match (received, expect) {
            // Silence is no refusal.
            (Err(_), None) => return Ok(()),
            (Err(timeout), Some(_)) if last.is_none() => return Err(timeout),
            (Err(timeout), Some(expect)) => {
                let text = format!("{}, without {expect}", timeout.text);
                return Err(Failure::new(FailureKind::Content, text));
            }
            (Ok(received), _) => received,
        };
        let len = received.map_err(|error| Failure::of("receiving", &error))?;
        match expect {
            Some(expect) if !holds(&answer[..len], expect.as_bytes()) => {
                last = Some(excerpt(&answer[..len]));
            }
            _ => return Ok(()),
        }
    }
}

/// A connected socket hears of ICMP errors.
async fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}
