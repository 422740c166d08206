//! Flows through random changes, against a reference that only remembers who owns each flow.

use std::collections::BTreeMap;

use lbagent_common::hash::flow_hash;
use lbagent_common::{Addr, BackendId, Slot};
use proptest::prelude::*;

use super::super::choose::{Owners, choose};
use super::super::testing::{World, draining, instance_uuid, v4};
use super::*;

/// A gateway as one flow sees it: the tables that the planner wrote, and the flows stored.
#[derive(Default)]
struct Gateway {
    stored: BTreeMap<u16, BackendId>,
}

impl Gateway {
    /// Sends one packet of a client's flow and returns the backend that gets it.
    fn send(&mut self, world: &World, client_port: u16, is_new: bool) -> Option<[u8; 16]> {
        let fake = &world.dataplane;
        let entry = fake.vips[&key(v4(250), 80)];
        let table = |region: Option<Region>| region.and_then(|region| fake.region(region));
        let slots: &[Slot] = table(table_region(&entry))?;
        let hash = flow_hash(
            fake.settings.hash_seed,
            &Addr::from(v4(99)),
            Port::new(client_port),
            Port::new(80),
            Protocol::TCP,
        );
        let owners = Owners::lookup(hash, slots, table(previous_region(&entry)))?;
        let is_alive = |id: BackendId| fake.backends.get(&id).is_some_and(BackendEntry::is_alive);
        let choice = choose(
            owners,
            self.stored.get(&client_port).copied(),
            is_new,
            is_alive,
        );
        if choice.is_stored() {
            self.stored.insert(client_port, choice.backend);
        }
        (choice.backend != 0).then(|| fake.backends[&choice.backend].instance)
    }
}

#[derive(Clone, Debug)]
enum Event {
    Add(u8),
    Remove(u8),
    Drain(u8),
    Stop(u8),
    Start(u8),
    Weigh(u8, u16),
    /// Flows begin.
    Open(u8),
    /// Every flow of a residue class sends.
    Send(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let number = 1..14_u8;
    prop_oneof![
        4 => number.clone().prop_map(Event::Add),
        1 => number.clone().prop_map(Event::Remove),
        3 => number.clone().prop_map(Event::Drain),
        1 => number.clone().prop_map(Event::Stop),
        2 => number.clone().prop_map(Event::Start),
        3 => (number, weight()).prop_map(|(number, weight)| Event::Weigh(number, weight)),
        4 => (1..20_u8).prop_map(Event::Open),
        3 => (1..4_u16).prop_map(Event::Send),
    ]
}

/// Weights that differ by ten at most, so that each has slots in the smallest table.
fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 3 => 100..=1000_u16]
}

struct Model {
    world: World,
    gateway: Gateway,
    /// The reference: client port → instance that the flow is established with.
    flows: BTreeMap<u16, [u8; 16]>,
    next_port: u16,
    /// Whether every flow sends after each change, or only when an event says so.
    all_send: bool,
}

impl Model {
    fn new(all_send: bool) -> Self {
        let mut world = World::new(&[v4(250)]);
        let capacity = Capacity {
            slots: 1 << 14,
            ..Capacity::default()
        };
        world.dataplane = crate::dataplane::fake::FakeDataplane::new(capacity);
        world.add_group(1, &[(80, 80)]);
        world.add_instance(1, 1, v4(1));
        world.converge();
        Self {
            world,
            gateway: Gateway::default(),
            flows: BTreeMap::new(),
            next_port: 1024,
            all_send,
        }
    }

    fn set_state(&mut self, number: u8, state: InstanceState) {
        if let Some(instance) = self.world.desired.instances.get_mut(&instance_uuid(number)) {
            instance.state = state;
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Add(number) => self.world.add_instance(number, 1, v4(number)),
            Event::Remove(number) => {
                self.world.desired.instances.remove(&instance_uuid(number));
            }
            Event::Drain(number) => self.set_state(number, draining(1_000)),
            Event::Stop(number) => self.set_state(number, InstanceState::Stopped),
            Event::Start(number) => self.set_state(number, InstanceState::Running),
            Event::Weigh(number, weight) => self.world.weigh(number, weight),
            Event::Open(count) => (0..count).for_each(|_| self.open()),
            Event::Send(class) => self.send_all(class),
        }
        self.world.converge();
        self.forget_dead();
        if self.all_send {
            self.send_all(1);
        }
    }

    fn duty(&self, instance: &[u8; 16]) -> drain::Duty {
        let instance = self
            .world
            .desired
            .instances
            .get(&uuid::Uuid::from_bytes(*instance));
        instance.map_or(drain::Duty::Off, |i| {
            drain::Duty::of(&i.state, self.world.now)
        })
    }

    /// A flow whose backend is gone has ended.
    fn forget_dead(&mut self) {
        let dead: Vec<u16> = self
            .flows
            .iter()
            .filter(|(_, owner)| !self.duty(owner).is_alive())
            .map(|(port, _)| *port)
            .collect();
        for port in dead {
            self.flows.remove(&port);
        }
    }

    fn open(&mut self) {
        let port = self.next_port;
        self.next_port += 1;
        let active = self.world.desired.instances.values().any(|instance| {
            drain::Duty::of(&instance.state, self.world.now) == drain::Duty::Active
                && instance.policy.weight > 0
        });
        let owner = self.gateway.send(&self.world, port, true);
        assert_eq!(
            owner.is_some(),
            active,
            "a new flow finds a backend if there is one"
        );
        if let Some(owner) = owner {
            assert_eq!(
                self.duty(&owner),
                drain::Duty::Active,
                "a new flow went to a draining one"
            );
            let weight = self.world.desired.instances[&uuid::Uuid::from_bytes(owner)]
                .policy
                .weight;
            assert_ne!(weight, 0, "a new flow went to one without weight");
            self.flows.insert(port, owner);
        }
    }

    fn send_all(&mut self, class: u16) {
        for (port, owner) in &self.flows {
            if port % class == 0 {
                let got = self.gateway.send(&self.world, *port, false);
                assert_eq!(got.as_ref(), Some(owner), "flow {port} moved");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_flow_that_sends_never_moves_while_its_backend_lives(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut model = Model::new(true);
        events.into_iter().for_each(|event| model.step(event));
    }

    /// Flows that keep silent through any number of changes are told by the slots themselves, or
    /// were stored when they began.
    #[test]
    fn a_silent_flow_never_moves_while_its_backend_lives(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut model = Model::new(false);
        events.into_iter().for_each(|event| model.step(event));
        model.send_all(1);
    }
}

#[test]
fn draining_one_after_the_other_keeps_silent_flows() {
    let mut model = Model::new(false);
    (2..=8).for_each(|number| model.step(Event::Add(number)));
    model.step(Event::Open(200));
    for number in 1..=7 {
        model.step(Event::Drain(number));
        model.step(Event::Open(50));
    }
    assert_eq!(model.flows.len(), 200 + 7 * 50);
    model.send_all(1);
}
