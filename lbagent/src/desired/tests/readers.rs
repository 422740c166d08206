//! Who reads while others write sees whole transactions only: objects with their claims, counts and
//! index, and all objects of a transaction or none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::desired::service_group::Claimed;

/// Groups that are made, and deleted, by one transaction.
const TOGETHER: u16 = 5;

/// Whether everything that follows from the objects does, and nothing else is there.
fn check_whole(state: &DesiredState) {
    let mut claims: BTreeMap<String, Claim> = BTreeMap::new();
    let mut counted = DesiredState::default();
    for group in state.service_groups.values() {
        for claimed in service_group::claims(group) {
            match claimed {
                Claimed::Alone(key) => {
                    let taken = claims.insert(key.clone(), Claim::Owner(group.uuid));
                    assert_eq!(taken, None, "{key}");
                }
                Claimed::Shared(key) => {
                    let former = claims.remove(&key);
                    let groups = match former {
                        None => 1,
                        Some(Claim::Shared { groups }) => groups + 1,
                        Some(owner) => panic!("{key}: {owner:?}"),
                    };
                    claims.insert(key, Claim::Shared { groups });
                }
            }
        }
        counted.put_group(group.clone());
        let members: Vec<&Instance> = state.members(group.uuid).collect();
        assert!(
            group.persistent || members.len() == 1,
            "'{}', made with an instance, has {}",
            group.name,
            members.len()
        );
        assert!(
            group.empty_since.is_some() == members.is_empty(),
            "'{}' with {} members is empty since {:?}",
            group.name,
            members.len(),
            group.empty_since
        );
    }
    for instance in state.instances.values() {
        claims.insert(instance::name_key(instance), Claim::Owner(instance.uuid));
        counted.put_instance(instance.clone());
        if let Some(uuid) = instance.service_group {
            let group = state.service_groups.get(&uuid);
            assert!(group.is_some(), "'{}' serves no group", instance.name);
            let mut members = state.members(uuid);
            assert!(members.any(|member| member == instance), "not indexed");
        }
    }
    let mut wanted = ByKey::default();
    claims.iter().for_each(|(key, claim)| {
        wanted.insert(key, *claim);
    });
    assert_eq!(state.claims, wanted);
    assert_eq!(state.usage(DEFAULT_ACCOUNT), counted.usage(DEFAULT_ACCOUNT));
    let listed = |state: &DesiredState| {
        let groups = state.service_groups_of(US).map(|it| it.uuid);
        let instances = state.instances_of(US).map(|it| it.uuid);
        groups.chain(instances).collect::<Vec<_>>()
    };
    assert_eq!(listed(state), listed(&counted));
    for key in claims.keys() {
        let at = state.revisions.get(key);
        assert!(at.is_some_and(|at| at <= state.generation), "{key}: {at:?}");
    }
    let names = state.service_groups.values().map(|it| it.name.as_str());
    let together = names.filter(|name| name.starts_with("together-")).count();
    assert!(
        [0, usize::from(TOGETHER)].contains(&together),
        "{together} of a transaction"
    );
}

fn make_together(desired: &Desired, exist: bool) {
    let name = |number: u16| format!("together-{number}");
    if exist {
        let groups: Vec<_> = (0..TOGETHER)
            .map(|number| group(&name(number), 100 + number))
            .collect();
        let made = desired.create_service_groups(US, &groups, &gateway(), NOW);
        assert!(made.unwrap().outcome.iter().all(Result::is_ok));
    } else {
        let all: Vec<_> = (0..TOGETHER)
            .map(|number| Selector::Name(name(number)))
            .collect();
        desired.delete_service_groups(US, &all).unwrap();
    }
}

/// A random writer's next action, by a small generator: both writers do the same in every run.
fn next_action(number: u64) -> Action {
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let (i, g) = ((random >> 4) as u8 % 4, (random >> 8) as u8 % 4);
    let join = (random >> 12).is_multiple_of(3).then_some(g);
    match random % 7 {
        0 => Action::CreateGroup(g),
        1 => Action::DeleteGroup(g),
        2 => Action::CreateInstance(i, join),
        3 => Action::CreateWithGroup(i, 4 + g % 2),
        4 => Action::DeleteInstance(i),
        5 => Action::Move(i, join, random & 8 > 0),
        _ => Action::EndDrains,
    }
}

#[test]
fn nobody_sees_a_part_of_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    let (over, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for reader in 0..6 {
            let (desired, over, seen) = (desired.clone(), &over, &seen);
            scope.spawn(move || {
                // Half of them as the reconciler does, half as the API does.
                let mut published = desired.subscribe();
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    let state = match reader % 2 {
                        0 => desired.current(),
                        _ => published.borrow_and_update().clone(),
                    };
                    assert!(state.generation >= last, "time runs backwards");
                    if state.generation > last {
                        check_whole(&state);
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                    last = state.generation;
                    thread::yield_now();
                }
            });
        }
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let desired = desired.clone();
                scope.spawn(move || {
                    for number in 0..150 {
                        act(&desired, &next_action(2 * number + writer));
                        if writer == 0 {
                            make_together(&desired, number.is_multiple_of(2));
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a writer failed");
    });
    let (generation, seen) = (desired.current().generation, seen.into_inner());
    println!("{generation} generations, {seen} states looked at");
    assert!(
        generation > 200 && seen > 200,
        "no storm: {generation}, {seen}"
    );
}
