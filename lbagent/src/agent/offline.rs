//! What operators do with the store while no agent runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use time::OffsetDateTime;

use super::lock::Lock;
use super::{AgentError, open_store};
use crate::config::Config;
use crate::desired::document::{self, Replaced, Secrets};
use crate::desired::{Desired, NewToken, Written};

/// A stopped agent's store. No agent can start while this is held.
pub struct Offline {
    config: Config,
    desired: Desired,
    // Dropped last: the store is closed before the next one may open it.
    _lock: Lock,
}

impl Offline {
    /// Opens the store of a configuration; refuses while an agent runs on it.
    pub fn open(config: Config) -> Result<Self, AgentError> {
        let lock = Lock::take(&config.state_dir)?;
        let store = open_store::open(&config.store_path())?;
        Ok(Self {
            desired: Desired::load(Arc::new(store))?,
            config,
            _lock: lock,
        })
    }

    /// Writes the state document to a file of mode 0600, or to stdout (`-`).
    pub fn export(&self, file: &Path, with_private_keys: bool) -> Result<(), AgentError> {
        let (state, mut secrets) = self.desired.with_private_keys()?;
        if !with_private_keys {
            secrets = Secrets::default();
        }
        let gateway = self.config.gateway_settings(self.desired.hash_seed());
        let document = document::export(&state, &gateway, None, &secrets);
        let write = || {
            let mut text = serde_json::to_vec_pretty(&document)?;
            text.push(b'\n');
            if file == Path::new("-") {
                return io::stdout().write_all(&text);
            }
            let mut part = file.as_os_str().to_owned();
            part.push(".part");
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut out = options.open(&part)?;
            out.write_all(&text)?;
            out.sync_all()?;
            fs::rename(&part, file)
        };
        write().map_err(|source| AgentError::Export {
            path: file.to_owned(),
            source,
        })
    }

    /// Makes the state what a document says, in one transaction.
    pub fn import(&self, file: &Path) -> Result<Written<Replaced>, AgentError> {
        import(&self.desired, file, &self.config)
    }

    /// Creates a token; returns what its holder shows.
    pub fn create_token(&self, new: &NewToken) -> Result<String, AgentError> {
        let written = self.desired.create_token(new, OffsetDateTime::now_utc())?;
        let (_, secret) = written.outcome.map_err(AgentError::NoToken)?;
        Ok(secret)
    }
}

/// Makes the state what a document says.
pub(super) fn import(
    desired: &Desired,
    file: &Path,
    config: &Config,
) -> Result<Written<Replaced>, AgentError> {
    let refused = |source| AgentError::Import {
        path: file.to_owned(),
        source,
    };
    let read = || -> anyhow::Result<_> {
        let text = match file == Path::new("-") {
            true => io::read_to_string(io::stdin())?.into_bytes(),
            false => fs::read(file)?,
        };
        Ok(document::import(&document::parse(&text)?, &config.vips)?)
    };
    let wanted = read().map_err(refused)?;
    let Written {
        outcome,
        generation,
    } = desired.replace(&wanted)?;
    Ok(Written {
        outcome: outcome.map_err(|error| refused(error.into()))?,
        generation,
    })
}
