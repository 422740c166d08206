//! What the agent changed on the host and could not mark as its own there: `host.json` in the
//! state directory. A change is recorded before it is made, so that `lbagent detach` finds it
//! whenever the agent dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::LoadError;

/// File name below the state directory.
const FILE: &str = "host.json";

/// A kernel setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// What it was before the agent's first change.
    pub(crate) previous: String,
    /// What the agent wrote; an operator's later change is left alone.
    pub(crate) written: String,
}

/// Everything on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// By path below `/proc/sys`.
    pub(crate) sysctls: BTreeMap<String, Change>,
    /// Interfaces that got the `clsact` queueing discipline.
    pub(crate) clsact: BTreeSet<String>,
    /// Interfaces that got a filter.
    pub(crate) filters: BTreeSet<String>,
}

/// The record and its file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    record: Record,
}

impl Journal {
    /// Reads the record; there is none at the first start.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, LoadError> {
        let path = state_dir.join(FILE);
        let record = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error),
        };
        match record {
            Ok(record) => Ok(Self { path, record }),
            Err(source) => Err(LoadError::Journal { path, source }),
        }
    }

    /// What is on record.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// A kernel setting is about to change.
    pub(super) fn sysctl_changed(
        &mut self,
        name: &str,
        previous: &str,
        written: &str,
    ) -> io::Result<()> {
        let (previous, written) = (previous.to_owned(), written.to_owned());
        self.record
            .sysctls
            .entry(name.to_owned())
            .and_modify(|change| change.written.clone_from(&written))
            .or_insert(Change { previous, written });
        self.save()
    }

    /// An interface got `clsact`.
    pub(super) fn clsact_made(&mut self, interface: &str) -> io::Result<()> {
        self.record.clsact.insert(interface.to_owned());
        self.save()
    }

    /// An interface is about to get a filter.
    pub(super) fn filter_made(&mut self, interface: &str) -> io::Result<()> {
        if self.record.filters.insert(interface.to_owned()) {
            self.save()
        } else {
            Ok(())
        }
    }

    /// Removes the file: everything on record was undone.
    pub(crate) fn remove(self) -> io::Result<bool> {
        super::load::remove_if_there(&self.path)
    }

    fn save(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = self.path.with_extension("json.new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&self.record)?)?;
        file.sync_all()?;
        fs::rename(temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_previous_value_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.sysctl_changed("net/a", "0", "1").unwrap();
        journal.sysctl_changed("net/a", "7", "2").unwrap();
        journal.clsact_made("eth0").unwrap();

        let journal = Journal::open(directory.path()).unwrap();
        let change = Change {
            previous: "0".to_owned(),
            written: "2".to_owned(),
        };
        assert_eq!(journal.record().sysctls["net/a"], change);
        assert!(journal.record().clsact.contains("eth0"));
        assert!(journal.remove().unwrap());
        assert_eq!(
            *Journal::open(directory.path()).unwrap().record(),
            Record::default()
        );
    }

    #[test]
    fn a_damaged_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{").unwrap();
        let error = Journal::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("host.json"), "{error}");
    }
}
