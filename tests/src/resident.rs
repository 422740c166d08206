//! Servers on threads of their own, in the namespace that they serve in.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::netns::NetNs;

/// A thread with a runtime in a namespace. What runs there stops when this is dropped.
#[derive(Debug)]
pub struct Resident {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Resident {
    /// Waits there for `listen`, which spawns what goes on.
    pub fn start<F>(
        ns: &NetNs,
        label: &str,
        listen: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let (stop, stopped) = oneshot::channel();
        let (ready, wait_ready) = mpsc::channel();
        let ns = ns.clone();
        let thread = thread::Builder::new()
            .name(label.to_owned())
            .spawn(move || {
                let _guard = ns.enter().expect("the namespace is alive");
                runtime().block_on(async {
                    let listening = listen().await;
                    let serve = listening.is_ok();
                    ready.send(listening).expect("start() waits for this");
                    if serve {
                        // Dropping the sender is the signal, so an error means the same as a message.
                        let _ = stopped.await;
                    }
                });
            })?;
        wait_ready.recv().context("the server thread died")??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        if !thread::panicking() {
            ended.expect("the server thread ended in order");
        }
    }
}

/// Runs a future to its end in a namespace, on a thread of its own.
pub fn block_on<F: Future>(ns: &NetNs, work: impl FnOnce() -> F + Send) -> F::Output
where
    F::Output: Send,
{
    ns.run(|| runtime().block_on(work()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
