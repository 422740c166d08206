//! The map against an ordinary one, and what its copies share.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Map = SharedMap<u16, u8>;

const LEAF: usize = Leaf::<u8, u8>::WIDTH;
const BRANCH: usize = Branch::<Leaf<u8, u8>>::WIDTH;

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

fn leaves<K, V>(map: &SharedMap<K, V>) -> impl Iterator<Item = &Leaf<K, V>> {
    let branches = map.root.0.iter();
    branches.flat_map(|branch| branch.0.iter().map(|leaf| &**leaf))
}

fn is_sound<N: Node>(node: &N) -> bool {
    (1..=N::WIDTH).contains(&node.width())
}

fn assert_sound(map: &Map) {
    let branches = &map.root.0;
    assert!(branches.iter().all(|branch| is_sound(&**branch)));
    assert!(leaves(map).all(is_sound));
    assert!(map.keys().is_sorted_by(|a, b| a < b));
    assert_eq!(map.iter().count(), map.len());
}

proptest! {
    #[test]
    fn it_holds_what_an_ordinary_map_holds(edits in edits(), later in edits()) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        let edited = edits.clone();
        edits.into_iter().for_each(|change| edit(&mut map, &mut model, change));
        let (before, was) = (map.clone(), model.clone());
        later.into_iter().for_each(|change| edit(&mut map, &mut model, change));
        assert_sound(&map);
        prop_assert!(map.iter().eq(model.iter()));
        prop_assert!((0..2_000).all(|key| map.get(&key) == model.get(&key)));
        prop_assert!(map.range(&400, &1_500).eq(model.range(400..=1_500)));
        // A copy does not see what happens to the other.
        prop_assert!(before.iter().eq(was.iter()));
        let keys: BTreeSet<u16> = was.keys().chain(model.keys()).copied().collect();
        let differs = |key: &u16| was.get(key) != model.get(key);
        let changed: Vec<u16> = keys.into_iter().filter(differs).collect();
        prop_assert_eq!(before.changed_keys(&map), &changed[..]);
        prop_assert_eq!(map.changed_keys(&before), changed);
        prop_assert_eq!(map == before, model == was);
        let entries = edited.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
        let (collected, ordinary): (Map, BTreeMap<_, _>) = (entries.clone().collect(), entries.collect());
        assert_sound(&collected);
        prop_assert!(collected.iter().eq(ordinary.iter()));
        let mut compact = map.clone();
        compact.compact();
        assert_sound(&compact);
        prop_assert_eq!(leaves(&compact).count(), map.len().div_ceil(LEAF));
        prop_assert_eq!(compact, map);
    }
}

#[test]
fn a_change_leaves_all_else_shared() {
    let map: SharedMap<u32, u32> = (0..100_000).map(|key| (key, key)).collect();
    assert_eq!(leaves(&map).count(), 100_000_usize.div_ceil(LEAF));
    assert_eq!(map.root.0.len(), 100_000_usize.div_ceil(LEAF * BRANCH));
    let mut changed = map.clone();
    changed.insert(50_000, 1);
    changed.remove(&70_000);
    *changed.get_mut(&90_000).expect("it is there") += 1;
    assert!(changed.remove(&100_000).is_none());
    assert!(changed.get_mut(&100_000).is_none());
    let branches = map.root.0.iter().zip(&changed.root.0);
    assert_eq!(branches.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 3);
    let shared = leaves(&map).zip(leaves(&changed));
    assert_eq!(shared.filter(|(a, b)| !std::ptr::eq(*a, *b)).count(), 3);
    assert_eq!(map.changed_keys(&changed), [50_000, 70_000, 90_000]);
}

/// Many branches, as the property's maps are too small to have.
#[test]
fn branches_part_and_join() {
    // Multiples of an odd number: all keys, in no order.
    let key = |number: u32| number.wrapping_mul(40_503) % 65_536;
    let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
    for number in 0..65_536 {
        map.insert(key(number), number);
        model.insert(key(number), number);
    }
    assert!(map.root.0.iter().all(|branch| is_sound(&**branch)));
    assert!(map.root.0.len() > 8, "{} branches", map.root.0.len());
    assert!(map.iter().eq(model.iter()));
    let range = map.range(&1_000, &60_000).rev();
    assert!(range.eq(model.range(1_000..=60_000).rev()));
    let whole = map.clone();
    for number in 100..65_536 {
        assert_eq!(map.remove(&key(number)), Some(number));
        model.remove(&key(number));
    }
    assert!(map.iter().eq(model.iter()));
    assert!(leaves(&map).count() < 30, "{} leaves", leaves(&map).count());
    assert_eq!(map.root.0.len(), 1);
    assert_eq!(whole.changed_keys(&map).len(), 65_436);
    assert_eq!(whole.len(), 65_536);
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
