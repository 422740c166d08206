//! Random histories and random garbage: one pass always leads to the desired state, and a second
//! one finds nothing to do.

use lbagent_common::{BackendEntry, Slot};
use proptest::prelude::*;

use super::super::testing::changes::{change, make};
use super::super::testing::{World, group_uuid, instance_uuid, v4, v6};
use super::*;

/// What must hold after every pass, whatever was there before.
#[track_caller]
fn assert_sound(world: &mut World) {
    let actual = world.read();
    let ports = actual.vips.iter().filter(|(key, _)| !key.is_address());
    let mut ids: Vec<u32> = ports.clone().map(|(_, entry)| entry.vip_id).collect();
    ids.sort_unstable();
    assert!(
        !ids.contains(&0) && ids.windows(2).all(|pair| pair[0] != pair[1]),
        "VIP ids: {ids:?}"
    );
    assert_eq!(actual.host_addresses, world.gateway.vips);
    assert_eq!(actual.settings, world.gateway.entry(&actual.capacity));
    for slot in actual.tables.values().flatten() {
        for id in [slot.current, slot.previous()] {
            assert!(
                id == 0 || actual.backends.contains_key(&id),
                "dangling backend {id}"
            );
        }
    }
    for (key, entry) in ports {
        let group = uuid::Uuid::from_bytes(entry.service_group);
        let family = Family::of_addr(&key.addr);
        let active: BTreeSet<_> = world
            .desired
            .instances
            .values()
            .filter(|instance| instance.service_group == Some(group))
            .filter(|instance| instance.address(family.is_v4()).is_some())
            .filter(|instance| drain::Duty::of(&instance.state, world.now) == drain::Duty::Active)
            .filter(|instance| instance.policy.weight > 0)
            .map(|instance| *instance.uuid.as_bytes())
            .collect();
        let table = table_region(entry).map(|region| &actual.tables[&region]);
        let owners = table
            .into_iter()
            .flatten()
            .map(|slot| slot.current)
            .filter(|id| *id != 0);
        let owners: BTreeSet<_> = owners.map(|id| actual.backends[&id].instance).collect();
        assert_eq!(owners, active, "owners of {key:?}");
        for (id, backend) in &actual.backends {
            let is_of_group = world
                .desired
                .instances
                .get(&uuid::Uuid::from_bytes(backend.instance))
                .is_some_and(|instance| instance.service_group == Some(group));
            if is_of_group && Family::of_addr(&backend.addr) == family {
                let source = ReturnKey::new(backend.addr, entry.destination_port, key.protocol);
                let returned = actual.returns.get(&source);
                let returned = returned.unwrap_or_else(|| panic!("no way back from {id}"));
                let is_ours = (returned.vip, returned.vip_port) == (key.addr, key.port);
                let is_tracked = returned.flags == ReturnEntry::FLAG_AMBIGUOUS
                    && entry.flags == VipEntry::FLAG_TRACK_RETURN;
                assert!(is_ours || is_tracked, "{key:?} from {id}");
            }
        }
    }
}

/// Entries that no plan has written.
#[derive(Clone, Debug)]
struct Garbage {
    vips: Vec<(bool, u16, [u32; 5], u8)>,
    backends: Vec<(u32, u8, u8)>,
    slots: Vec<(u32, u32, bool)>,
    returns: Vec<(u8, u16, u32)>,
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let offset = || prop_oneof![0..3000_u32, Just(u32::MAX)];
    let len = || prop_oneof![Just(0), Just(509), Just(1021), 1..2000_u32];
    let regions = (0..9_u32, offset(), len(), offset(), len()).prop_map(<[u32; 5]>::from);
    (
        prop::collection::vec((any::<bool>(), 79..84_u16, regions, 0..5_u8), 0..8),
        prop::collection::vec((1..20_u32, 0..12_u8, 0..12_u8), 0..12),
        prop::collection::vec((0..25_u32, 0..25_u32, any::<bool>()), 1..20),
        prop::collection::vec((0..12_u8, 8080..8083_u16, any::<u32>()), 0..8),
    )
        .prop_map(|(vips, backends, slots, returns)| Garbage {
            vips,
            backends,
            slots,
            returns,
        })
}

fn spoil(world: &mut World, garbage: &Garbage) {
    let fake = &mut world.dataplane;
    for (
        is_v4,
        port,
        [
            vip_id,
            table_offset,
            table_len,
            previous_offset,
            previous_len,
        ],
        group,
    ) in &garbage.vips
    {
        let vip = if *is_v4 { v4(250) } else { v6(250) };
        let entry = VipEntry {
            vip_id: *vip_id,
            table_offset: *table_offset,
            table_len: *table_len,
            previous_offset: *previous_offset,
            previous_len: *previous_len,
            service_group: *group_uuid(*group).as_bytes(),
            ..VipEntry::default()
        };
        fake.vips.insert(key(vip, *port), entry);
    }
    for (id, number, address) in &garbage.backends {
        let entry = BackendEntry {
            addr: v4(*address).into(),
            instance: *instance_uuid(*number).as_bytes(),
            flags: u16::from(number % 2),
            ..BackendEntry::default()
        };
        fake.backends.insert(*id, entry);
    }
    for (slot, (current, previous, changed)) in fake
        .slots
        .iter_mut()
        .zip(garbage.slots.iter().cycle())
        .take(6000)
    {
        *slot = if *changed {
            Slot::changed(*current, *previous)
        } else {
            Slot::settled(*current)
        };
    }
    for (address, port, vip_id) in &garbage.returns {
        let source = ReturnKey::new(v4(*address).into(), Port::new(*port), Protocol::TCP);
        let entry = ReturnEntry {
            vip_id: *vip_id,
            ..ReturnEntry::default()
        };
        fake.returns.insert(source, entry);
    }
}

fn small_world() -> World {
    let mut world = World::new(&[v4(250), v6(250)]);
    let capacity = Capacity {
        slots: 1 << 15,
        ..Capacity::default()
    };
    world.dataplane = crate::dataplane::fake::FakeDataplane::new(capacity);
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_pass_leads_to_the_desired_state(changes in prop::collection::vec(change(), 1..40)) {
        let mut world = small_world();
        for change in changes {
            make(&mut world, change);
            world.converge();
            assert_sound(&mut world);
        }
    }

    #[test]
    fn garbage_is_put_right(
        changes in prop::collection::vec(change(), 1..20),
        garbage in garbage(),
    ) {
        let mut world = small_world();
        changes.into_iter().for_each(|change| make(&mut world, change));
        spoil(&mut world, &garbage);
        world.converge();
        assert_sound(&mut world);
    }

    /// A pass that ends after any step is completed by the next one.
    #[test]
    fn an_interrupted_pass_is_completed(
        before in prop::collection::vec(change(), 1..20),
        after in prop::collection::vec(change(), 1..8),
        cut in 0..1000_usize,
    ) {
        let mut world = small_world();
        before.into_iter().for_each(|change| make(&mut world, change));
        world.converge();
        after.into_iter().for_each(|change| make(&mut world, change));
        let plan = world.plan();
        let cut = cut % (plan.steps.len() + 1);
        for step in &plan.steps[..cut] {
            crate::dataplane::Dataplane::apply(&mut world.dataplane, step).expect("applied");
        }
        world.converge();
        assert_sound(&mut world);
    }

    /// With too little room for all, passes come to rest, and whatever is published is whole.
    #[test]
    fn full_maps_come_to_rest(changes in prop::collection::vec(change(), 1..30)) {
        let mut world = small_world();
        let capacity = Capacity {
            vips: 6, slots: 3000, backends: 5, returns: 6, ..Capacity::default()
        };
        world.dataplane = crate::dataplane::fake::FakeDataplane::new(capacity);
        for change in changes {
            make(&mut world, change);
            let rested = (0..10).any(|_| world.apply().steps.is_empty());
            prop_assert!(rested, "passes go on and on");
        }
    }
}
