//! Stores of earlier versions.

use super::draft::Draft;
use super::snapshot::Snapshot;
use super::{DesiredError, instance, keys, service_group};
use crate::store::Store;

/// Version of the store's keys and values that this lbagent writes.
///
/// 1 (which is not written down): names are unique in the whole gateway. 2: names are an account's
/// own, and addresses are claimed.
pub(super) const SCHEMA: u32 = 2;

/// The schema that a store tells; one that tells none is the oldest, or new.
pub(super) fn found(store: &dyn Store) -> Result<Option<u32>, DesiredError> {
    let range = store.range(keys::SCHEMA)?;
    let item = range.items.iter().find(|item| item.key == keys::SCHEMA);
    item.map(|item| serde_json::from_slice(&item.value))
        .transpose()
        .map_err(|source| DesiredError::Unreadable {
            key: keys::SCHEMA.to_owned(),
            source,
        })
}

/// The schema of a store that [`migrate`] would change; `None` for a new store and for one that is
/// up to date.
pub fn older_schema(store: &dyn Store) -> Result<Option<u32>, DesiredError> {
    if let Some(found) = found(store)? {
        return Ok((found < SCHEMA).then_some(found));
    }
    let mut is_empty = true;
    store.scan("/", &mut |_| is_empty = false)?;
    Ok((!is_empty).then_some(1))
}

impl Draft {
    pub(super) fn put_schema(&mut self, schema: u32) {
        self.write(keys::SCHEMA.to_owned(), &schema);
        self.snapshot.schema = Some(schema);
    }

    pub(super) fn schema(&self) -> Option<u32> {
        self.snapshot.schema
    }
}

/// The keys of names in a store that [`migrate`] changes.
pub(super) fn names(store: &dyn Store, snapshot: &Snapshot) -> Result<Vec<String>, DesiredError> {
    let mut names = Vec::new();
    if snapshot.schema.unwrap_or(1) < SCHEMA {
        store.scan(keys::NAMES, &mut |entry| names.push(entry.key.to_owned()))?;
    }
    Ok(names)
}

/// Brings an older store up to [`SCHEMA`].
pub(super) fn migrate(draft: &mut Draft, names: &[String]) {
    if draft.schema().unwrap_or(1) >= SCHEMA {
        return;
    }
    let state = draft.state().clone();
    names.iter().for_each(|name| draft.release(name.clone()));
    for group in state.service_groups.values() {
        service_group::insert(draft, group.clone());
    }
    for instance in state.instances.values() {
        instance::insert(draft, instance.clone());
    }
    draft.put_schema(SCHEMA);
}
