//! Forwarding modes: which address an instance serves with, and what a change of mode writes.

use lbagent_common::{BackendId, VipEntry};

use super::*;
use crate::desired::ForwardingMode;

fn set_mode(world: &mut World, mode: ForwardingMode) {
    let group = world.desired.service_groups.get_mut(&group_uuid(1));
    group.expect("a group").policy.forwarding_mode = mode;
}

/// A group on port 80 of both families, with instance 1 on both, 2 on IPv4, 3 on IPv6.
fn mixed(mode: ForwardingMode) -> World {
    let mut world = World::new(&[v4(250), v6(250)]);
    world.add_group(1, &[(80, 80)]);
    world.add_instance(1, 1, v4(1));
    world.instance(1).addresses.push(v6(1).into());
    let path = super::super::testing::path_to(v6(1));
    world.dataplane.paths.insert(v6(1), path);
    world.add_instance(2, 1, v4(2));
    world.add_instance(3, 1, v6(3));
    set_mode(&mut world, mode);
    world
}

/// Addresses in the table of a VIP, and how many ids they have.
fn owners(world: &World, vip: IpAddr) -> (BTreeSet<IpAddr>, usize) {
    let entry = &world.dataplane.vips[&key(vip, 80)];
    let region = table_region(entry).expect("a table");
    let slots = &world.dataplane.slots[region.offset as usize..][..region.len as usize];
    let ids: BTreeSet<BackendId> = slots.iter().map(|slot| slot.current).collect();
    let addresses = ids
        .iter()
        .map(|id| world.dataplane.backends[id].addr.into());
    (addresses.collect(), ids.len())
}

#[test]
fn entries_name_the_mode_and_only_nat_has_replies() {
    for (mode, number) in [
        (ForwardingMode::Nat, VipEntry::MODE_NAT),
        (ForwardingMode::DsrL2, VipEntry::MODE_DSR_L2),
        (ForwardingMode::DsrIpip, VipEntry::MODE_DSR_IPIP),
        (ForwardingMode::DsrGue, VipEntry::MODE_DSR_GUE),
    ] {
        let mut world = mixed(mode);
        world.converge();
        for vip in [v4(250), v6(250)] {
            assert_eq!(world.dataplane.vips[&key(vip, 80)].forwarding_mode, number);
        }
        let is_nat = mode == ForwardingMode::Nat;
        assert_eq!(world.dataplane.returns.is_empty(), !is_nat, "{mode}");
    }
}

#[test]
fn encapsulated_groups_use_the_other_family_where_there_is_no_address() {
    for mode in ForwardingMode::ALL {
        let mut world = mixed(mode);
        let plan = world.converge();
        let mut want = [
            BTreeSet::from([v4(1), v4(2)]),
            BTreeSet::from([v6(1), v6(3)]),
        ];
        let encapsulates = matches!(mode, ForwardingMode::DsrIpip | ForwardingMode::DsrGue);
        if encapsulates {
            want[0].insert(v6(3));
            want[1].insert(v4(2));
        }
        assert_eq!(owners(&world, v4(250)), (want[0].clone(), want[0].len()));
        assert_eq!(owners(&world, v6(250)), (want[1].clone(), want[1].len()));
        // One id for one address, though both tables name it.
        assert_eq!(world.dataplane.backends.len(), 4, "{mode}");
        assert_eq!(plan.conditions.is_empty(), encapsulates, "{mode}");
    }
}

#[test]
fn a_change_of_mode_is_one_write_for_each_vip() {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 80)]);
    (1..=3).for_each(|number| world.add_instance(number, 1, v4(number)));
    world.converge();
    let before = world.dataplane.vips[&key(v4(250), 80)];
    for mode in [
        ForwardingMode::DsrIpip,
        ForwardingMode::DsrL2,
        ForwardingMode::DsrGue,
    ] {
        set_mode(&mut world, mode);
        let plan = world.converge();
        let vips = kinds(&plan).into_iter().filter(|kind| *kind != "-return");
        assert_eq!(vips.collect::<Vec<_>>(), ["+vip"], "{mode}");
        let after = VipEntry {
            forwarding_mode: before.forwarding_mode,
            ..world.dataplane.vips[&key(v4(250), 80)]
        };
        assert_eq!(after, before, "ids and tables stay");
    }
    // The way back is there before the first reply can come.
    set_mode(&mut world, ForwardingMode::Nat);
    let plan = world.converge();
    assert_eq!(kinds(&plan), ["+return", "+return", "+return", "+vip"]);
}

#[test]
fn nat_keeps_no_owner_of_the_other_family() {
    let mut world = mixed(ForwardingMode::DsrIpip);
    world.converge();
    set_mode(&mut world, ForwardingMode::Nat);
    world.converge();
    for vip in [v4(250), v6(250)] {
        let entry = &world.dataplane.vips[&key(vip, 80)];
        for region in [table_region(entry), previous_region(entry)]
            .into_iter()
            .flatten()
        {
            let slots = &world.dataplane.slots[region.offset as usize..][..region.len as usize];
            for id in slots
                .iter()
                .flat_map(|slot| [slot.current, slot.previous()])
            {
                let owner = (id != 0).then(|| IpAddr::from(world.dataplane.backends[&id].addr));
                assert!(owner.is_none_or(|owner| owner.is_ipv4() == vip.is_ipv4()));
            }
        }
    }
}

#[test]
fn an_instance_without_a_common_link_is_named() {
    let mut world = mixed(ForwardingMode::DsrL2);
    let mut path = super::super::testing::path_to(v4(2));
    path.onlink_prefix = 32;
    world.dataplane.paths.insert(v4(2), path);
    let on_link = (Object::Instance(instance_uuid(2)), "not_on_link");
    assert!(reasons(&world.converge()).contains(&on_link));
    set_mode(&mut world, ForwardingMode::DsrGue);
    assert_eq!(reasons(&world.converge()), []);
}
