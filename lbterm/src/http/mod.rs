//! Everything HTTP, behind [`serve_http`].

use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::conn::{Alpn, ConnMeta};
use crate::worker::Worker;

/// What the requests of one worker share.
#[derive(Debug, Default)]
pub struct Engine {}

/// Serves a client's connection, decrypted where it was encrypted, until it ends.
pub async fn serve_http<S>(mut stream: S, meta: ConnMeta, _worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if meta.tls.as_ref().is_none_or(|tls| tls.alpn != Alpn::H2) {
        let answer =
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    }
    let _ = stream.shutdown().await;
}
