//! Stores of earlier versions.

use super::draft::Draft;
use super::{instance, keys, service_group};

/// Version of the store's keys and values that this lbagent writes.
///
/// 1 (which is not written down): names are unique in the whole gateway. 2: names are an account's
/// own, and addresses are claimed.
pub(super) const SCHEMA: u32 = 2;

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
