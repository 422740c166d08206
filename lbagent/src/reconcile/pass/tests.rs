//! A pass over what has changed does what a pass over everything would do, and knows the same after.

mod parts;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::dataplane::Capacity;
use crate::dataplane::fake::FakeDataplane;
use crate::plan::testing::changes::{Change, change_of_anything, make};
use crate::plan::testing::{World, path_to, v4, v6};

/// Two gateways with the same history: on one, passes look at what has changed.
struct Twins {
    world: World,
    whole: FakeDataplane,
    memory: Memory,
    /// Passes that looked at changes only.
    partial: usize,
}

impl Twins {
    fn new(capacity: Capacity, grace: Duration, takes: bool) -> Self {
        let mut world = World::new(&[v4(250), v4(251)]);
        world.dataplane = FakeDataplane::new(capacity);
        world.terminator = Terminator {
            v4: takes,
            v6: takes,
        };
        let addresses = (0..6).flat_map(|host| [v4(host), v6(host)]);
        world.dataplane.paths = addresses.map(|ip| (ip, path_to(ip))).collect();
        Self {
            whole: world.dataplane.clone(),
            world,
            memory: Memory {
                grace: Grace::new(grace),
                ..Memory::default()
            },
            partial: 0,
        }
    }

    fn pass(&self, scope: Scope) -> Pass {
        Pass {
            desired: Arc::new(self.world.desired.clone()),
            gateway: Arc::new(self.world.gateway.clone()),
            health: self.world.health.clone(),
            terminator: self.world.terminator,
            memory: self.memory.clone(),
            scope,
            part_weight: 1,
            now: self.world.now,
        }
    }

    fn change(&mut self, changes: Vec<Change>) {
        self.change_within(changes, Scope::Changes);
    }

    /// Makes changes that are taken up by a pass of this scope, or of a wider one.
    fn change_within(&mut self, changes: Vec<Change>, scope: Scope) {
        let paths = self.world.dataplane.paths.clone();
        for change in changes {
            if matches!(change, Change::Vips(_)) {
                // As after a restart with another configuration.
                self.memory.known = None;
            }
            make(&mut self.world, change);
        }
        self.world.dataplane.tick += 1;
        self.whole.tick += 1;
        self.whole.paths = self.world.dataplane.paths.clone();
        // The kernel tells of changes of the network.
        let scope = match self.whole.paths == paths {
            true => scope,
            false => Scope::Network,
        };
        let (_, outcome) = self.pass(Scope::Everything).run(&mut self.whole);
        let reference = outcome.expect("readable");
        let had_memory = self.memory.known.is_some();
        let (memory, outcome) = self.pass(scope).run(&mut self.world.dataplane);
        let done = outcome.expect("readable");
        assert_eq!(done.plan, reference.plan);
        assert!(done.report.failures.is_empty(), "{:?}", done.report);
        assert_eq!(self.world.dataplane.probed, self.whole.probed);
        self.memory = memory;
        self.assert_known();
        if done.coverage == Coverage::Changes {
            self.partial += 1;
        } else if had_memory && scope != Scope::Part {
            assert!(is_full(&done.plan), "looked at everything for nothing");
        }
    }

    /// What is known is what can be read, and what a pass over everything makes anew.
    fn assert_known(&self) {
        let Some(known) = &self.memory.known else {
            return;
        };
        let mut maps = self.world.dataplane.clone();
        let actual = maps.read(&[].into()).expect("readable");
        assert!(known.agrees(&actual));
        assert_eq!(known.in_use, InUse::of(&actual));
        let mut pass = self.pass(Scope::Everything);
        pass.memory.known = None;
        // Nobody asks for the ways to instances of a group that does not exist.
        let mut desired = self.world.desired.clone();
        let groups = &desired.service_groups;
        let instances = desired.instances.values();
        let stray: Vec<Uuid> = instances
            .filter(|it| {
                it.service_group
                    .is_some_and(|group| !groups.contains_key(&group))
            })
            .map(|instance| instance.uuid)
            .collect();
        for uuid in stray {
            desired.instances.remove(&uuid);
        }
        for address in plan::backend_addresses(&desired) {
            assert_eq!(self.memory.paths.get(&address), maps.paths.get(&address));
        }
        let (memory, _) = pass.run(&mut maps);
        assert_eq!(memory.known.as_ref(), Some(known));
    }
}

fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let at_once = prop::collection::vec(change_of_anything(), 1..3);
    prop::collection::vec(at_once, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_part_is_planned_as_it_would_be_among_everything(history in history(), rests: bool, takes: bool) {
        let grace = if rests { Duration::from_secs(3600) } else { Duration::ZERO };
        let mut twins = Twins::new(Capacity::default(), grace, takes);
        history.into_iter().for_each(|changes| twins.change(changes));
    }

    #[test]
    fn groups_that_compete_for_room_are_planned_together(history in history()) {
        let capacity = Capacity {
            vips: 9, slots: 4000, backends: 7, returns: 9, hosts: 3, ..Capacity::default()
        };
        let mut twins = Twins::new(capacity, Duration::ZERO, true);
        history.into_iter().for_each(|changes| twins.change(changes));
    }
}
