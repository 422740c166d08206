//! The map against an ordinary one, and what its copies share.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Map = SharedMap<u16, u8>;

/// `None` removes.
fn edits() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    let edit = (0..2_000_u16, prop::option::weighted(0.6, 0..4_u8));
    prop::collection::vec(edit, 0..1_500)
}

fn edit(map: &mut Map, model: &mut BTreeMap<u16, u8>, (key, value): (u16, Option<u8>)) {
    match value {
        Some(value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
        None => assert_eq!(map.remove(&key), model.remove(&key)),
    }
}

fn assert_sound(map: &Map) {
    assert!(map.chunks.iter().all(|chunk| !chunk.is_empty()));
    assert!(map.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
    assert!(map.keys().is_sorted_by(|a, b| a < b));
    assert_eq!(map.iter().count(), map.len());
}

proptest! {
    #[test]
    fn it_holds_what_an_ordinary_map_holds(edits in edits(), later in edits()) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        edits.into_iter().for_each(|change| edit(&mut map, &mut model, change));
        let (before, was) = (map.clone(), model.clone());
        later.into_iter().for_each(|change| edit(&mut map, &mut model, change));
        assert_sound(&map);
        prop_assert!(map.iter().eq(model.iter()));
        prop_assert!((0..2_000).all(|key| map.get(&key) == model.get(&key)));
        // A copy does not see what happens to the other.
        prop_assert!(before.iter().eq(was.iter()));
        let keys: BTreeSet<u16> = was.keys().chain(model.keys()).copied().collect();
        let differs = |key: &u16| was.get(key) != model.get(key);
        let changed: Vec<u16> = keys.into_iter().filter(differs).collect();
        prop_assert_eq!(before.changed_keys(&map), &changed[..]);
        prop_assert_eq!(map.changed_keys(&before), changed);
        prop_assert_eq!(map == before, model == was);
        let mut compact = map.clone();
        compact.compact();
        assert_sound(&compact);
        prop_assert_eq!(compact.chunks.len(), map.len().div_ceil(CHUNK));
        prop_assert_eq!(compact, map);
    }
}

#[test]
fn a_change_leaves_all_other_chunks_shared() {
    let map: SharedMap<u32, u32> = (0..100_000).map(|key| (key, key)).collect();
    assert_eq!(map.chunks.len(), 100_000_usize.div_ceil(CHUNK));
    let mut changed = map.clone();
    changed.insert(50_000, 1);
    changed.remove(&70_000);
    *changed.get_mut(&90_000).expect("it is there") += 1;
    let shared = map.chunks.iter().zip(&changed.chunks);
    assert_eq!(shared.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 3);
    assert_eq!(map.changed_keys(&changed), [50_000, 70_000, 90_000]);
}

#[test]
fn it_is_written_and_read_as_a_map() {
    let map: SharedMap<String, u8> = [("b".to_owned(), 2), ("a".to_owned(), 1)]
        .into_iter()
        .collect();
    let text = serde_json::to_string(&map).expect("JSON");
    assert_eq!(text, r#"{"a":1,"b":2}"#);
    let read: SharedMap<String, u8> = serde_json::from_str(&text).expect("a map");
    assert_eq!(read, map);
}
