//! What the agent wrote is what it reads back, however much it is: a restart depends on it.

use std::collections::BTreeMap;

use lbagent::dataplane::{Capacity, KernelDataplane};
use lbagent_common::{Addr, BackendEntry, Port, Protocol, ReturnEntry, ReturnKey};
use lbagent_tests::require_root;

fn key(number: u32) -> ReturnKey {
    let address = std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    ReturnKey::new(Addr::from(address), Port::new(80), Protocol::TCP)
}

#[test]
fn a_hash_map_is_read_in_whole() {
    require_root!();
    let capacity = Capacity::default();
    let mut dataplane = KernelDataplane::open_unattached(None, capacity).unwrap();
    let returns = &mut dataplane.maps_mut().returns;
    assert_eq!(returns.entries().unwrap(), []);
    let mut expected = BTreeMap::new();
    // The map's last entry comes with the last and the largest reading.
    for count in [1, 2, 4_096, 4_097, capacity.returns] {
        for number in expected.len() as u32..count {
            let entry = ReturnEntry {
                vip_id: number,
                ..ReturnEntry::default()
            };
            returns.put(&key(number), &entry).unwrap();
            expected.insert(key(number), entry);
        }
        let found = returns.entries().unwrap();
        assert_eq!(found.len(), count as usize);
        assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn backends_are_read_and_written_as_memory() {
    require_root!();
    let capacity = Capacity::default();
    let mut dataplane = KernelDataplane::open_unattached(None, capacity).unwrap();
    let backends = &mut dataplane.maps_mut().backends;
    let entry = |weight| BackendEntry {
        flags: BackendEntry::FLAG_ALIVE,
        weight,
        ..BackendEntry::default()
    };
    let last = capacity.backends - 1;
    backends.put(1, &entry(7)).unwrap();
    backends.put(last, &entry(9)).unwrap();
    let error = backends.put(last + 1, &entry(1)).unwrap_err();
    assert!(error.to_string().contains("BACKENDS is full"), "{error}");
    assert_eq!(backends.get(last + 1), None);
    let used: Vec<_> = backends.used().collect();
    assert_eq!(used, [(1, entry(7)), (last, entry(9))]);
    backends.put(1, &BackendEntry::default()).unwrap();
    assert_eq!(backends.used().count(), 1);
}
