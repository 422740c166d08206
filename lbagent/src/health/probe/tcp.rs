//! TCP: a connection is accepted; then, if asked for, the right bytes come.

use std::net::SocketAddr;

use lbagent_api::health::Payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Failure, FailureKind, Limit, excerpt, holds};
use crate::desired::Check;

pub(super) async fn check(
    to: SocketAddr,
    send: Option<&Payload>,
    expect: Option<&Payload>,
    limit: Limit,
) -> Result<(), Failure> {
    let mut stream = connect(to, limit).await?;
    if let Some(send) = send {
        let sent = stream.write_all(send.as_bytes());
        let sent = limit.wait("bytes were not taken", sent).await?;
        sent.map_err(|error| Failure::of("sending", &error))?;
    }
    let Some(expect) = expect else {
        return Ok(());
    };
    let mut answer = Vec::new();
    while !holds(&answer, expect.as_bytes()) {
        if answer.len() >= Check::MAX_ANSWER {
            let text = format!(
                "the first {} bytes hold no {expect}: {}",
                answer.len(),
                excerpt(&answer)
            );
            return Err(Failure::new(FailureKind::Content, text));
        }
        let what = || format!("no {expect} came, but {},", excerpt(&answer));
        let what = what();
        let mut part = [0; 1024];
        let read = limit.wait(&what, stream.read(&mut part)).await?;
        match read.map_err(|error| Failure::of("receiving", &error))? {
            0 => {
                let text = format!("closed after {}, without {expect}", excerpt(&answer));
                return Err(Failure::new(FailureKind::Closed, text));
            }
            len => answer.extend(&part[..len]),
        }
    }
    Ok(())
}

/// Connects from the address that the route to the instance names.
///
/// The connection ends by a reset: an orderly end would leave a socket in TIME_WAIT here for a minute
/// after every check, and use up the gateway's ports.
pub(super) async fn connect(to: SocketAddr, limit: Limit) -> Result<TcpStream, Failure> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let ready = socket.and_then(|socket| {
        socket.set_zero_linger()?;
        Ok(socket)
    });
    let socket = ready.map_err(|error| {
        let Failure { text, .. } = Failure::of("making a socket", &error);
        Failure::new(FailureKind::Local, text)
    })?;
    let connected = limit.wait("not connected", socket.connect(to)).await?;
    connected.map_err(|error| Failure::of("connecting", &error))
}
