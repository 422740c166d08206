//! Writes as the kernel takes or refuses them.

use anyhow::anyhow;

use super::*;

impl FakeDataplane {
    pub(super) fn put_table(
        &mut self,
        region: Region,
        slots: &[Slot],
    ) -> Result<(), DataplaneError> {
        let overlaps = |named: Region| {
            named.offset < region.offset.saturating_add(region.len)
                && region.offset < named.offset.saturating_add(named.len)
        };
        let entries = self.vips.values();
        let mut named = entries
            .flat_map(|entry| [table_region(entry), previous_region(entry)])
            .flatten();
        if named.any(overlaps) {
            return Err(refused(limits::SLOTS, "fill", "the region is in use"));
        }
        let end = region.offset.saturating_add(region.len) as usize;
        match self.slots.get_mut(region.offset as usize..end) {
            Some(target) if target.len() == slots.len() => {
                target.copy_from_slice(slots);
                Ok(())
            }
            _ => Err(refused(limits::SLOTS, "fill", "the region is out of range")),
        }
    }

    pub(super) fn put_backend(
        &mut self,
        id: BackendId,
        entry: BackendEntry,
    ) -> Result<(), DataplaneError> {
        if id == 0 || id >= self.capacity.backends {
            return Err(refused(limits::BACKENDS, "write", "the id is out of range"));
        }
        self.backends.insert(id, entry);
        Ok(())
    }

    pub(super) fn delete_backend(&mut self, id: BackendId) -> Result<(), DataplaneError> {
        let named = named_regions(&self.actual());
        let mut slots = named
            .into_iter()
            .filter_map(|region| self.region(region))
            .flatten();
        if slots.any(|slot| slot.current == id || slot.previous() == id) {
            return Err(refused(
                limits::BACKENDS,
                "delete",
                "a table names the backend",
            ));
        }
        self.backends.remove(&id);
        self.backend_counters.remove(&id);
        Ok(())
    }

    pub(super) fn put_vip(&mut self, key: VipKey, entry: VipEntry) -> Result<(), DataplaneError> {
        has_room(limits::VIPS, &self.vips, &key, self.capacity.vips)?;
        if entry.vip_id >= self.capacity.vips {
            return Err(refused(limits::VIPS, "write", "the id is out of range"));
        }
        let regions = [table_region(&entry), previous_region(&entry)];
        for slot in regions.into_iter().flatten() {
            let slots = self.region(slot);
            let slots = slots.ok_or_else(|| refused(limits::VIPS, "write", "no such region"))?;
            let mut owners = slots
                .iter()
                .flat_map(|slot| [slot.current, slot.previous()]);
            if owners.any(|id| id != 0 && !self.backends.contains_key(&id)) {
                return Err(refused(
                    limits::VIPS,
                    "write",
                    "the table names an unknown backend",
                ));
            }
        }
        self.vips.insert(key, entry);
        Ok(())
    }
}

pub(super) fn has_room<K: Ord, V>(
    map: &'static str,
    entries: &BTreeMap<K, V>,
    key: &K,
    capacity: u32,
) -> Result<(), DataplaneError> {
    if entries.contains_key(key) || entries.len() < capacity as usize {
        return Ok(());
    }
    Err(DataplaneError::MapFull { map, capacity })
}

pub(super) fn refused(
    map: &'static str,
    operation: &'static str,
    why: &'static str,
) -> DataplaneError {
    DataplaneError::Map {
        map,
        operation,
        source: anyhow!(why),
    }
}
