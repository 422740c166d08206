//! Flows through random changes and times of silence, against a reference that only remembers who
//! owns each flow and when it last sent. ARCHITECTURE.md has the guarantees in words.

mod figures;

use std::collections::BTreeMap;

use lbagent_common::{Addr, BackendEntry};
use proptest::prelude::*;

use super::super::choose::Why;
use super::super::testing::{World, draining, instance_uuid, v4};
use super::*;
use crate::dataplane::fake::{ClientPacket, FakeDataplane};
use crate::desired::{Service, Transport};

/// Silence that a flow of a changed slot may keep, in ticks.
const WINDOW: u32 = 100;
/// The same for UDP, after which a flow is another one.
const UDP_IDLE: u32 = 60;

type InstanceId = [u8; 16];

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
    /// Time passes, and a pass is made.
    Wait(u32),
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
        5 => (1..20_u8).prop_map(Event::Open),
        3 => (1..4_u16).prop_map(Event::Send),
        4 => prop_oneof![1..WINDOW, Just(WINDOW), WINDOW + 1..3 * WINDOW].prop_map(Event::Wait),
    ]
}

/// Weights that differ by ten at most, so that each has slots in the smallest table; and ramps.
fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 3 => 100..=1000_u16]
}

/// What the reference remembers of a flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    owner: InstanceId,
    last_sent: u32,
    /// Whether a gateway that never saw the flow would have to know it: it began on a slot that was
    /// settled on both. `Some(tick)`: since when the slot has been a changed one.
    elsewhere: Option<Option<u32>>,
}

/// The reference, beside two gateways with one history of changes. Flows go to the first; the second
/// never sees a packet but those that [`Model::probe`] sends.
struct Model {
    gateways: [World; 2],
    /// By transport and client port.
    flows: BTreeMap<(Transport, u16), Flow>,
    next_port: u16,
    /// A packet after each change from every flow, or only when an event says so.
    all_send: bool,
    /// Whether every flow finds room.
    is_roomy: bool,
}

impl Model {
    fn new(all_send: bool, conns: u32) -> Self {
        Self {
            gateways: [gateway(conns), gateway(conns)],
            flows: BTreeMap::new(),
            next_port: 1024,
            all_send,
            is_roomy: conns == ROOMY,
        }
    }

    fn tick(&self) -> u32 {
        self.gateways[0].dataplane.tick
    }

    fn each(&mut self, change: impl Fn(&mut World)) {
        self.gateways.iter_mut().for_each(change);
    }

    fn set_state(&mut self, number: u8, state: InstanceState) {
        self.each(|world| {
            let found = world.desired.instances.get_mut(&instance_uuid(number));
            if let Some(instance) = found {
                instance.state = state.clone();
            }
        });
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Add(number) => self.each(|world| world.add_instance(number, 1, v4(number))),
            Event::Remove(number) => self.each(|world| {
                world.desired.remove_instance(instance_uuid(number));
            }),
            Event::Drain(number) => self.set_state(number, draining(1_000)),
            Event::Stop(number) => self.set_state(number, InstanceState::Stopped),
            Event::Start(number) => self.set_state(number, InstanceState::Running),
            Event::Weigh(number, weight) => self.each(|world| world.weigh(number, weight)),
            Event::Open(count) => (0..count).for_each(|_| self.open_both()),
            Event::Send(class) => self.send_all(class),
            Event::Wait(ticks) => self.each(|world| world.dataplane.tick += ticks),
        }
        let before = self.sizes();
        self.each(|world| drop(world.converge()));
        // A flow that found no room, on a slot whose first owner is gone, is told by the table that
        // it began with; after the second change of size within a window that table is forgotten.
        if !self.is_roomy && before[1] != 0 && before[0] != self.sizes()[0] {
            self.flows.clear();
        }
        self.forget_dead();
        self.note_changed_slots();
        if self.all_send {
            self.send_all(1);
        }
    }

    /// Slots of the table and of the former one.
    fn sizes(&self) -> [u32; 2] {
        let entry = self.gateways[0].dataplane.vips[&key(v4(250), 80)];
        [entry.table_len, entry.previous_len]
    }

    fn duty(&self, instance: &InstanceId) -> drain::Duty {
        let world = &self.gateways[0];
        let uuid = uuid::Uuid::from_bytes(*instance);
        let found = world.desired.instances.get(&uuid);
        found.map_or(drain::Duty::Off, |i| drain::Duty::of(&i.state, world.now))
    }

    /// A flow whose backend is gone has ended.
    fn forget_dead(&mut self) {
        let mut flows = std::mem::take(&mut self.flows);
        flows.retain(|_, flow| self.duty(&flow.owner).is_alive());
        self.flows = flows;
    }

    fn note_changed_slots(&mut self) {
        let now = self.tick();
        let mut flows = std::mem::take(&mut self.flows);
        for (key, flow) in &mut flows {
            if flow.elsewhere == Some(None) && !self.is_settled(*key) {
                flow.elsewhere = Some(Some(now));
            }
        }
        self.flows = flows;
    }

    /// Whether the tables of both gateways alone tell the flow's owner.
    fn is_settled(&mut self, key: (Transport, u16)) -> bool {
        [0, 1].into_iter().all(|index| {
            let choice = self.probe(index, key, false);
            choice.is_some_and(|(_, why)| why == Why::Settled)
        })
    }

    /// Sends one packet of a flow that the gateway forgets at once.
    fn probe(
        &mut self,
        index: usize,
        key: (Transport, u16),
        is_syn: bool,
    ) -> Option<(InstanceId, Why)> {
        let fake = &mut self.gateways[index].dataplane;
        let maps = (
            fake.conns.clone(),
            fake.refusals.clone(),
            fake.udp_seen.clone(),
        );
        let choice = send(fake, key, is_syn);
        (fake.conns, fake.refusals, fake.udp_seen) = maps;
        choice
    }

    fn open_both(&mut self) {
        for transport in [Transport::Tcp, Transport::Udp] {
            self.open((transport, self.next_port));
        }
        self.next_port += 1;
    }

    fn open(&mut self, key: (Transport, u16)) {
        let is_settled = self.is_settled(key);
        let world = &mut self.gateways[0];
        let takes_flows = |instance: &crate::desired::Instance, now| {
            drain::Duty::of(&instance.state, now) == drain::Duty::Active
                && instance.policy.weight > 0
        };
        let instances = || world.desired.instances.values();
        let somebody = instances().any(|instance| takes_flows(instance, world.now));
        let choice = send(&mut world.dataplane, key, true);
        // Where nobody takes new flows, a bucket without room may still lead to who drains.
        assert!(
            choice.is_some() || !somebody,
            "a new flow finds a backend if there is one"
        );
        let Some((owner, why)) = choice else {
            return;
        };
        let instance = &world.desired.instances[&uuid::Uuid::from_bytes(owner)];
        let is_welcome = takes_flows(instance, world.now);
        // Two UDP flows may share an entry of the filter.
        assert!(
            is_welcome || why == Why::Refused || key.0 == Transport::Udp,
            "a new flow went to one that drains or has no weight"
        );
        let flow = Flow {
            owner,
            last_sent: world.dataplane.tick,
            elsewhere: is_settled.then_some(None),
        };
        self.flows.insert(key, flow);
        // The handshake's end.
        self.send(key);
    }

    fn send_all(&mut self, class: u16) {
        let keys: Vec<_> = self.flows.keys().copied().collect();
        for key in keys.into_iter().filter(|(_, port)| port % class == 0) {
            self.send(key);
        }
    }

    /// A flow sends: the reference says where to.
    fn send(&mut self, key: (Transport, u16)) {
        let now = self.tick();
        let flow = self.flows[&key];
        let silence = now - flow.last_sent;
        let allowed = match key.0 {
            Transport::Tcp => WINDOW,
            Transport::Udp => UDP_IDLE,
        };
        // A gateway that never saw the flow, within a window of the slot's first change.
        if let Some(changed) = flow.elsewhere
            && key.0 == Transport::Tcp
            && changed.is_none_or(|changed| now - changed <= WINDOW)
        {
            let got = self.probe(1, key, false).map(|(owner, _)| owner);
            assert_eq!(
                got,
                Some(flow.owner),
                "{key:?} moved with the gateway: {flow:?} at {now}"
            );
        }
        let choice = send(&mut self.gateways[0].dataplane, key, false);
        let got = choice.map(|(owner, _)| owner);
        if silence <= allowed || (key.0 == Transport::Tcp && flow.elsewhere == Some(None)) {
            assert_eq!(
                got,
                Some(flow.owner),
                "{key:?} moved: {flow:?} at {now}, {choice:?}"
            );
        }
        match got {
            // Past its time a flow is one that starts again, with one packet where it began with two.
            Some(owner) if owner == flow.owner && (silence <= allowed || self.is_roomy) => {
                self.flows.insert(
                    key,
                    Flow {
                        last_sent: now,
                        ..flow
                    },
                );
            }
            _ => drop(self.flows.remove(&key)),
        }
    }

    /// Every flow is silent for so long that nobody remembers a change.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.step(Event::Wait(WINDOW + 1));
        }
        for world in &mut self.gateways {
            let actual = world.read();
            let slots = actual.tables.values().flatten();
            let changed = slots.filter(|slot| !slot.is_settled()).count();
            assert_eq!(changed, 0, "slots are still changed");
            let entries = actual.vips.values();
            assert!(
                entries
                    .clone()
                    .all(|entry| entry.changed_at == 0 && entry.previous_len == 0)
            );
        }
    }
}

fn gateway(conns: u32) -> World {
    let mut world = World::new(&[v4(250)]);
    let tick = Duration::from_nanos(1 << 30);
    world.gateway.settle_after = tick * WINDOW;
    world.gateway.udp_idle = tick * UDP_IDLE;
    world.dataplane = FakeDataplane::new(Capacity {
        slots: 1 << 14,
        conns,
        ..Capacity::default()
    });
    world.dataplane.tick = 1_000;
    world.add_group(1, &[(80, 80)]).services.push(Service {
        port: 80,
        destination_port: 80,
        protocol: Transport::Udp,
        ip: None,
        handlers: Vec::new(),
    });
    world.add_instance(1, 1, v4(1));
    world.converge();
    world
}

fn send(
    fake: &mut FakeDataplane,
    (transport, client_port): (Transport, u16),
    is_syn: bool,
) -> Option<(InstanceId, Why)> {
    let choice = fake.send(&ClientPacket {
        vip: VipKey::new(v4(250).into(), Port::new(80), protocol(transport)),
        client: Addr::from(v4(99)),
        client_port,
        is_syn,
    })?;
    let backend = &fake.backends[&choice.backend];
    assert!(BackendEntry::is_alive(backend));
    Some((backend.instance, choice.why))
}

/// Room for every flow.
const ROOMY: u32 = 1 << 19;
/// Eight buckets: most flows of changed slots find no room.
const CROWDED: u32 = 32;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_flow_that_sends_never_moves_while_its_backend_lives(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut model = Model::new(true, ROOMY);
        events.into_iter().for_each(|event| model.step(event));
    }

    /// Flows that keep silent for less than the window, through any number of changes.
    #[test]
    fn a_silent_flow_never_moves_within_the_window(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut model = Model::new(false, ROOMY);
        events.into_iter().for_each(|event| model.step(event));
        model.send_all(1);
    }

    /// A bucket without room costs no connection either, and keeps slots from settling.
    #[test]
    fn a_flow_without_room_never_moves_within_the_window(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut model = Model::new(false, CROWDED);
        events.into_iter().for_each(|event| model.step(event));
        model.send_all(1);
    }

    /// After changes of any kind, all slots are settled again when every flow had been silent.
    #[test]
    fn silence_settles_every_slot(events in prop::collection::vec(event(), 1..40)) {
        let mut model = Model::new(false, ROOMY);
        events.into_iter().for_each(|event| model.step(event));
        model.settle();
    }
}

#[test]
fn draining_one_after_the_other_keeps_silent_flows() {
    let mut model = Model::new(false, ROOMY);
    (2..=8).for_each(|number| model.step(Event::Add(number)));
    model.step(Event::Open(200));
    for number in 1..=7 {
        model.step(Event::Drain(number));
        model.step(Event::Open(50));
    }
    assert_eq!(model.flows.len(), 2 * (200 + 7 * 50));
    model.send_all(1);
}
