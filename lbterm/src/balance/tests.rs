use std::time::{Duration, Instant};

use lbagent_api::terminator::InstanceState::{Active, Draining, Unhealthy};

use super::*;

/// Instances by weight and state.
fn group(hard_limit: u64, instances: &[(u32, InstanceState)]) -> Arc<Group> {
    let instance = |(index, (weight, state)): (usize, &(u32, InstanceState))| Instance {
        uuid: Uuid::from_u128(index as u128),
        name: index.to_string(),
        addresses: Vec::new(),
        weight: *weight,
        state: *state,
        load: Arc::default(),
    };
    Arc::new(Group {
        uuid: Uuid::nil(),
        name: "group".to_owned(),
        soft_limit: 1,
        hard_limit,
        instances: instances.iter().enumerate().map(instance).collect(),
        counters: Arc::default(),
    })
}

/// How many of so many selections each instance got; all of them stay in flight.
fn shares(group: &Arc<Group>, selections: usize) -> Vec<u64> {
    let now = Instant::now();
    let leases: Vec<_> = (0..selections)
        .map(|_| select(group, &[], now).unwrap())
        .collect();
    let shares = group.instances.iter().map(|one| one.load.in_flight());
    let shares = shares.collect();
    drop(leases);
    shares
}

#[test]
fn the_fewest_in_flight_for_the_weight_win() {
    let equal = group(1000, &[(1, Active), (1, Active), (1, Active)]);
    assert_eq!(shares(&equal, 99), [33, 33, 33]);
    let weighted = group(1000, &[(1, Active), (3, Active)]);
    assert_eq!(shares(&weighted, 100), [25, 75]);
    let left_out = group(
        1000,
        &[(0, Active), (1, Draining), (1, Unhealthy), (1, Active)],
    );
    assert_eq!(shares(&left_out, 10), [0, 0, 0, 10]);
    let ended = equal.instances.iter().map(|one| one.load.in_flight());
    assert_eq!(ended.sum::<u64>(), 0);
}

#[test]
fn chance_decides_among_equals_by_weight() {
    let group = group(10, &[(1, Active), (2, Active), (1, Active)]);
    let now = Instant::now();
    let mut shares = [0_u32; 3];
    for _ in 0..4000 {
        let lease = select(&group, &[], now).unwrap();
        shares[lease.index] += 1;
    }
    // Six standard deviations of the binomial distribution, at most 32.
    for (share, expected) in shares.into_iter().zip([1000_u32, 2000, 1000]) {
        assert!(share.abs_diff(expected) < 190, "{shares:?}");
    }
}

#[test]
fn the_hard_limit_is_not_exceeded() {
    let group = group(2, &[(1, Active), (9, Active)]);
    let now = Instant::now();
    let mut leases: Vec<_> = (0..4).map(|_| select(&group, &[], now).unwrap()).collect();
    assert_eq!(select(&group, &[], now).unwrap_err(), Unavailable::Busy);
    leases.pop();
    assert!(select(&group, &[], now).is_ok());
    // Each instance got one beyond its soft limit, and one of them once more.
    assert_eq!(group.counters.get(GroupCounter::OverSoftLimit), 3);
}

/// As long as no two workers select at one moment, the choice alone keeps to the limit.
#[test]
fn a_place_is_taken_below_the_limit_only() {
    let load = Load::default();
    assert!(load.take(2) && load.take(2));
    assert!(!load.take(2));
    assert_eq!(load.in_flight(), 2);
}

#[test]
fn an_instance_is_tried_once() {
    let group = group(5, &[(1, Active), (1, Active)]);
    let now = Instant::now();
    let first = select(&group, &[], now).unwrap();
    let mut tried = vec![first.instance().uuid];
    let second = select(&group, &tried, now).unwrap();
    tried.push(second.instance().uuid);
    assert_eq!(
        select(&group, &tried, now).unwrap_err(),
        Unavailable::NoInstance
    );
}

#[test]
fn failures_in_a_row_leave_an_instance_out_for_a_while() {
    let group = group(1000, &[(1, Active), (1, Active)]);
    let now = Instant::now();
    let bad = &group.instances[0].load;
    for _ in 1..FAILURES_TO_EJECT {
        bad.note_failure(now);
    }
    assert!(!bad.is_ejected(now));
    bad.note_failure(now);
    assert!(bad.is_ejected(now));
    let lease = select(&group, &[], now).unwrap();
    assert_eq!(lease.index, 1);
    // Better an instance that failed than none.
    let other = group.instances[1].uuid;
    assert_eq!(select(&group, &[other], now).unwrap().index, 0);
    let later = now + EJECT_FIRST + Duration::from_millis(1);
    assert!(!bad.is_ejected(later));
    bad.note_failure(later);
    assert!(bad.is_ejected(later + EJECT_FIRST), "twice as long");
    bad.note_success();
    assert!(!bad.is_ejected(later));
}

#[test]
fn workers_that_select_at_once_keep_to_the_hard_limit() {
    let group = group(3, &[(1, Active), (1, Active)]);
    let taken = std::thread::scope(|scope| {
        let select_many = || {
            let select_one = |_| select(&group, &[], Instant::now()).ok();
            (0..50).filter_map(select_one).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(select_many)).collect();
        // All end before the first lease does.
        let leases: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect();
        leases.iter().map(Vec::len).sum::<usize>()
    });
    assert_eq!(taken, 6);
}
