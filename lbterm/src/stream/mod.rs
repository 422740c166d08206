//! `tls` without `http`: the decrypted bytes to an instance, and its bytes back.

pub(crate) mod copy;
pub(crate) mod proxy;

use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::conn::ConnMeta;
use crate::metrics::GroupCounter;
use crate::route::Target;
use crate::upstream;

use copy::End;

/// Passes a client's decrypted connection on to an instance until both ways have ended.
pub async fn relay<S>(mut client: S, meta: ConnMeta, target: &Target)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let counters = &target.group.counters;
    counters.count(GroupCounter::Streams);
    // The counters say why there is none; a client of bytes can be told nothing.
    let Ok((lease, mut instance)) = upstream::connect(target).await else {
        return;
    };
    if target.policy.send_proxy {
        let sent = match proxy::header(&meta) {
            Ok(header) => instance.write_all(&header).await,
            Err(error) => Err(error),
        };
        if sent.is_err() {
            lease.failed(Instant::now());
            return;
        }
    }
    let idle = Duration::from_millis(target.policy.idle_timeout_ms.into());
    let (end, moved) = Box::pin(copy::copy(&mut client, &mut instance, idle)).await;
    counters.add(GroupCounter::BytesIn, moved.to_instance);
    counters.add(GroupCounter::BytesOut, moved.to_client);
    match &end {
        End::Finished => lease.succeeded(),
        End::Idle => {
            counters.count(GroupCounter::IdleTimeout);
            lease.succeeded();
            // The client is told that this is the end; it may be gone.
            let _ = tokio::time::timeout(CLOSING, client.shutdown()).await;
        }
        End::ClientFailed(error) => {
            tracing::debug!(connection = meta.id, %error, "the client went away");
            lease.succeeded();
            reset(&instance);
        }
        // Without an alert at its end, the client sees that something is missing.
        End::InstanceFailed(error) => {
            tracing::debug!(connection = meta.id, %error, "the instance went away");
            lease.failed(Instant::now());
        }
    }
}

/// How long a client that is silent may take to hear of the end.
const CLOSING: Duration = Duration::from_secs(1);

/// Lets the connection end with a reset: to the instance, an end in good order would make bytes that
/// are missing look complete.
fn reset(instance: &TcpStream) {
    // Where it fails, the connection is gone already.
    let _ = SockRef::from(instance).set_linger(Some(Duration::ZERO));
}
