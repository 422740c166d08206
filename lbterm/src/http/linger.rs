//! The end of a connection whose client may still be sending.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::pulse::Tapped;

/// How long a client may go on sending.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads what a client still sends to a connection that was closed before the end of its request.
/// Closing with bytes unread would be a reset, which overtakes the answer (RFC 9112, section 9.6).
pub fn linger<S>(mut stream: Tapped<S>) -> Pin<Box<impl Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Box::pin(async move {
        let end = async {
            // Where it fails, nobody reads any longer, or it was done before.
            let _ = stream.shutdown().await;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        // Whatever happens to it then, it was told.
        let _ = timeout(PATIENCE, end).await;
    })
}
