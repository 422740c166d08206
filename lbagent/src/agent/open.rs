//! What a start needs before anything of it runs: the desired state and the data plane.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tracing::info;

use super::{AgentError, cannot, offline, open_store};
use crate::config::Config;
use crate::dataplane::{KernelDataplane, OpenOptions};
use crate::desired::Desired;

/// Reads the store, and opens the data plane meanwhile, which takes as long and changes nothing that
/// carries packets. What is wrong with the store is told first.
pub(super) fn open(
    config: &Config,
    import_state: Option<&Path>,
) -> Result<(Arc<Desired>, KernelDataplane), AgentError> {
    let options: OpenOptions = config.open_options();
    let read = || {
        let store = open_store::open(&config.store_path())?;
        let desired = Arc::new(Desired::load(Arc::new(store))?);
        if let Some(path) = import_state {
            import(&desired, path, config)?;
        }
        Ok::<_, AgentError>(desired)
    };
    thread::scope(|scope| {
        let opening = thread::Builder::new()
            .spawn_scoped(scope, || KernelDataplane::open(&options))
            .map_err(cannot("start a thread"))?;
        let desired = read();
        let dataplane = opening.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((desired?, dataplane?))
    })
}

fn import(desired: &Desired, path: &Path, config: &Config) -> Result<(), AgentError> {
    if !desired.current().is_empty() {
        info!(path = %path.display(), "the store is not empty: the state document is not imported");
        return Ok(());
    }
    let written = offline::import(desired, path, config)?;
    info!(path = %path.display(), generation = written.generation, "imported the state document");
    Ok(())
}
