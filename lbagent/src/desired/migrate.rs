//! Stores of earlier versions.

use super::draft::Draft;
use super::{DesiredError, instance, keys, service_group};
use crate::store::{Range, Store};

/// Version of the store's keys and values that this lbagent writes.
///
/// 1 (which is not written down): names are unique in the whole gateway. 2: names are an account's
/// own, and addresses are claimed.
pub(super) const SCHEMA: u32 = 2;

/// The schema that a store tells; one that tells none is the oldest, or new.
pub(super) fn found(range: &Range) -> Result<Option<u32>, DesiredError> {
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
    if let Some(found) = found(&store.range(keys::SCHEMA)?)? {
        return Ok((found < SCHEMA).then_some(found));
    }
    Ok((!store.range("/")?.items.is_empty()).then_some(1))
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

/// Brings an older store up to [`SCHEMA`].
pub(super) fn migrate(draft: &mut Draft) {
    if draft.schema().unwrap_or(1) >= SCHEMA {
        return;
    }
    let state = draft.state().clone();
    let names = state.claims.keys();
    for name in names.filter(|key| key.starts_with(keys::NAMES)) {
        draft.release(name.clone());
    }
    for group in state.service_groups.values() {
        service_group::insert(draft, group.clone());
    }
    for instance in state.instances.values() {
        instance::insert(draft, instance.clone());
    }
    draft.put_schema(SCHEMA);
}
