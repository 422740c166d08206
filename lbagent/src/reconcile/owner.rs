//! The one thread that touches the data plane: its calls block, and two at once would race.

use tokio::sync::{mpsc, oneshot};

use crate::dataplane::Dataplane;

type Job = Box<dyn FnOnce(&mut dyn Dataplane) + Send>;

/// Runs jobs on the thread that owns the data plane, one after the other. The thread ends, and
/// drops the data plane, when the last clone is gone.
#[derive(Clone, Debug)]
pub(super) struct DataplaneOwner {
    jobs: mpsc::UnboundedSender<Job>,
}

impl DataplaneOwner {
    /// Starts the thread.
    pub(super) fn start(mut dataplane: Box<dyn Dataplane>) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        std::thread::Builder::new()
            .name("dataplane".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(dataplane.as_mut());
                }
            })?;
        Ok(Self { jobs })
    }

    /// Runs one job and waits for its result; `None` when the thread is gone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Dataplane) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |dataplane| {
            // Whoever asked may have given up waiting.
            let _ = reply.send(job(dataplane));
        });
        self.jobs.send(job).ok()?;
        result.await.ok()
    }
}
