//! Opening the store; one that an older lbagent wrote is copied first.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::info;

use super::AgentError;
use crate::desired;
use crate::store::RedbStore;

/// Opens the store. One that is about to be migrated is copied beside itself before anything in it
/// changes, so that the lbagent that wrote it can have it back.
pub(super) fn open(path: &Path) -> Result<RedbStore, AgentError> {
    let store = RedbStore::open(path)?;
    let Some(schema) = desired::older_schema(&store)? else {
        return Ok(store);
    };
    // Closed, the file is whole.
    drop(store);
    let backup = backup_path(path, schema);
    copy(path, &backup).map_err(|source| AgentError::Backup {
        path: backup.clone(),
        source,
    })?;
    info!(schema, backup = %backup.display(), "the store is migrated; it was copied before");
    Ok(RedbStore::open(path)?)
}

/// `state.redb` → `state.redb.schema-1`.
fn backup_path(path: &Path, schema: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".schema-{schema}"));
    name.into()
}

/// Copies a file durably; nobody sees half a copy under its name.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()?;
    fs::rename(&part, to)?;
    to.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use lbagent_api::Selector;
    use redb::{Database, ReadableDatabase, TableDefinition};
    use serde_json::Value;

    use super::*;
    use crate::desired::{Caller, DEFAULT_ACCOUNT, Desired, DesiredError};
    use crate::store::{Op, Range, Store, Transaction};

    /// What lbagent of git 71a3de2, which knew no schema, left in its store: groups with each kind
    /// of port, an implicit group, policies, a running, a draining and two stopped instances.
    const SCHEMA_1: &str = include_str!("../desired/fixtures/schema_1.json");
    const VALUES: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("values");
    const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

    fn write_old(path: &Path) {
        let dump: Value = serde_json::from_str(SCHEMA_1).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut values = write.open_table(VALUES).unwrap();
            for item in dump["items"].as_array().unwrap() {
                let bytes = serde_json::to_vec(&item["value"]).unwrap();
                let revisions = (number(&item["created"]), number(&item["modified"]));
                let value = (revisions.0, revisions.1, bytes.as_slice());
                values.insert(item["key"].as_str().unwrap(), value).unwrap();
            }
            let mut meta = write.open_table(META).unwrap();
            meta.insert("format", 1).unwrap();
            meta.insert("revision", number(&dump["revision"])).unwrap();
        }
        write.commit().unwrap();
    }

    fn format(path: &Path) -> u64 {
        let database = Database::create(path).unwrap();
        let read = database.begin_read().unwrap();
        let meta = read.open_table(META).unwrap();
        let value = meta.get("format").unwrap().unwrap();
        value.value()
    }

    fn content(path: &Path) -> Range {
        RedbStore::open(path).unwrap().range("").unwrap()
    }

    #[test]
    fn an_old_store_is_copied_and_migrated_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        write_old(&path);
        let old = content(&path);
        let desired = Desired::load(Arc::new(open(&path).unwrap())).unwrap();
        let state = desired.current();
        assert_eq!(state.generation, old.revision + 1, "one transaction");
        assert_eq!((state.service_groups.len(), state.instances.len()), (3, 4));
        let us = Caller::operator(DEFAULT_ACCOUNT);
        let web = state
            .service_group(us, &Selector::Name("web".into()))
            .unwrap();
        assert_eq!((web.soft_limit, web.policy.sources.allow.len()), (3, 1));
        let states: BTreeMap<_, _> = (state.instances.values())
            .map(|it| (it.name.as_str(), (it.state.name(), it.policy.weight)))
            .collect();
        let expected = [
            ("a", ("running", 300)),
            ("b", ("draining", 100)),
            ("c", ("stopped", 100)),
            ("d", ("stopped", 100)),
        ];
        assert_eq!(states, expected.into());
        for name in ["a", "b", "c", "d"] {
            assert!(state.instance(us, &Selector::Name(name.into())).is_some());
        }
        drop((state, desired));

        let backup = directory.path().join("state.redb.schema-1");
        assert_eq!(
            fs::metadata(&backup).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(content(&backup), old);
        // What knows no schema can read the copy, and refuses the store.
        assert_eq!((format(&backup), format(&path)), (1, 2));

        fs::remove_file(&backup).unwrap();
        let again = Desired::load(Arc::new(open(&path).unwrap())).unwrap();
        assert_eq!(
            again.current().generation,
            old.revision + 1,
            "migrated twice"
        );
        assert!(!backup.exists(), "nothing is copied that is not migrated");
    }

    #[test]
    fn a_newer_store_is_refused_and_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let store = RedbStore::open(&path).unwrap();
        let put = |key: &str, value: &str| Op::Put {
            key: key.into(),
            value: value.into(),
        };
        let ops = vec![
            put("/settings/schema", "99"),
            put("/groups/x", "{\"new\":1}"),
        ];
        let transaction = Transaction {
            ops,
            ..Transaction::default()
        };
        store.txn(&transaction).unwrap();
        let before = store.range("").unwrap();
        drop(store);
        let store = open(&path).unwrap();
        let error = Desired::load(Arc::new(store)).err().unwrap();
        assert!(
            matches!(error, DesiredError::NewerSchema { found: 99 }),
            "{error}"
        );
        assert!(
            error.to_string().contains("use the version that wrote it"),
            "{error}"
        );
        assert_eq!(content(&path), before);
    }

    #[test]
    fn a_copy_that_cannot_be_made_stops_the_migration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        write_old(&path);
        let old = content(&path);
        fs::create_dir(directory.path().join("state.redb.schema-1.part")).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, AgentError::Backup { .. }), "{error}");
        assert_eq!(content(&path), old);
    }
}
