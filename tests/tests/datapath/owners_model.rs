//! Random histories through the real program and through the model that the planner is tested with:
//! every packet must go the same way in both.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lbagent::dataplane::Capacity;
use lbagent::dataplane::fake::{ClientPacket, FakeDataplane};
use lbagent::desired::{InstanceState, Transport};
use lbagent_common::{Addr, BackendId, ConnEntry, Port, Protocol, VipKey};
use lbagent_tests::packet_builder::{Segment, describe, tcp};
use lbagent_tests::prog_run::{CLIENT_V4, Rig, Side, VIP_V4};
use lbagent_tests::random::Random;
use lbagent_tests::require_root;
use uuid::Uuid;

use crate::at;

/// Silence that stored flows may keep, in ticks. Far from every sum of [`SHORT`] and from [`LONG`],
/// because the machine's clock runs on.
const WINDOW: u32 = 60;
const SHORT: u32 = 22;
const LONG: u32 = 200;

struct Pair {
    rig: Rig,
    model: FakeDataplane,
    group: Uuid,
    random: Random,
    flows: u16,
    packets: usize,
}

impl Pair {
    fn new(conns: u32, seed: u64) -> Self {
        let capacity = Capacity {
            slots: 1 << 14,
            vips: 64,
            backends: 64,
            returns: 1 << 8,
            conns,
            ..Capacity::default()
        };
        let mut rig = Rig::with_capacity(capacity).unwrap();
        rig.gateway.settle_after = Duration::from_nanos(1 << 30) * WINDOW;
        let group = rig.group("db", &[(5432, 5432, Transport::Tcp)]);
        let mut pair = Self {
            rig,
            model: FakeDataplane::new(capacity),
            group,
            random: Random::new(seed),
            flows: 0,
            packets: 0,
        };
        (0..3).for_each(|_| pair.add());
        pair
    }

    fn add(&mut self) {
        let number = self.rig.desired.instances.len();
        if number < 14 {
            let address = format!("10.66.0.{}", 11 + number);
            let name = format!("i{number}");
            self.rig.instance(&name, self.group, &[&address]).unwrap();
        }
    }

    /// Changes the desired state of some instance, or lets time pass.
    fn change(&mut self) {
        let instances = &mut self.rig.desired.instances;
        let index = self.random.below(instances.len());
        let instance = instances.values_mut().nth(index).unwrap();
        let since = self.rig.now;
        match self.random.below(9) {
            0 => self.add(),
            1 => instance.state = InstanceState::Stopped,
            2 | 3 => {
                let deadline = since + Duration::from_secs(60);
                instance.state = InstanceState::draining(since, deadline);
            }
            4 => instance.state = InstanceState::Running,
            5 => instance.policy.weight = [0, 100, 500, 1000][self.random.below(4)],
            6 | 7 => self.rig.advance(SHORT).unwrap(),
            _ => self.rig.advance(LONG).unwrap(),
        }
        self.rig.reconcile().unwrap();
        let actual = self.rig.actual().unwrap();
        self.model.settings = actual.settings;
        for region in lbagent::plan::named_regions(&actual) {
            let slots = actual.table(region).unwrap();
            let first = region.offset as usize;
            self.model.slots[first..first + slots.len()].copy_from_slice(&slots);
        }
        self.model.vips = actual.vips;
        self.model.backends = actual.backends;
    }

    /// Sends one packet of a flow through both.
    fn send(&mut self, flow: u16, segment: Segment) {
        let client = at(&format!("{CLIENT_V4}:{}", 10_000 + flow));
        let vip = at(&format!("{VIP_V4}:5432"));
        let frame = tcp(client, vip, segment, b"");
        self.rig.await_calm_clock().unwrap();
        self.model.tick = self.rig.tick().unwrap();
        let (_, out) = self.rig.run_uncounted(Side::Client, &frame).unwrap();
        let real: Option<SocketAddr> =
            (out != frame).then(|| describe(&out).expect("right checksums").destination);
        let choice = self.model.send(&ClientPacket {
            vip: VipKey::new(Addr::from(vip.ip()), Port::new(vip.port()), Protocol::TCP),
            client: Addr::from(client.ip()),
            client_port: client.port(),
            is_syn: segment == Segment::Syn,
        });
        let modelled = choice.map(|choice| IpAddr::from(self.model.backends[&choice.backend].addr));
        self.packets += 1;
        assert_eq!(
            real.map(|address| address.ip()),
            modelled,
            "packet {}, flow {flow}, {segment:?}: program and model ({choice:?}) differ",
            self.packets
        );
    }

    fn run(mut self, steps: usize) {
        self.change();
        for _ in 0..steps {
            match self.random.below(4) {
                0 => self.change(),
                1 => self.open(),
                _ => {
                    for _ in 0..20 {
                        let flow = self.random.below(usize::from(self.flows) + 1);
                        self.send(flow as u16, Segment::Ack);
                    }
                }
            }
        }
        let buckets = self.model.conns.len();
        let refused = !self.model.refusals.is_empty();
        println!(
            "{} packets, {buckets} buckets in use, refusals: {refused}",
            self.packets
        );
        assert!(buckets > 8, "hardly a flow was stored");
        let stored = self.rig.dataplane.maps().conns.entries();
        let modelled = self.model.conns.values().flat_map(|bucket| bucket.ways);
        assert_eq!(by_flow(stored), by_flow(modelled), "what is stored");
    }

    /// Flows begin; some of them send no more than their SYN.
    fn open(&mut self) {
        for _ in 0..10 {
            self.flows += 1;
            self.send(self.flows, Segment::Syn);
            if self.random.below(4) > 0 {
                self.send(self.flows, Segment::Ack);
            }
        }
    }
}

/// Stored flows: by tag the backend, and whether the flow may not give way to a newer one.
fn by_flow(entries: impl Iterator<Item = ConnEntry>) -> BTreeMap<u64, (BackendId, bool)> {
    let taken = entries.filter(|entry| entry.backend != 0);
    taken
        .map(|entry| (entry.tag(), (entry.backend, entry.is_established())))
        .collect()
}

#[test]
fn program_and_model_agree_with_room_for_every_flow() {
    require_root!();
    for seed in [1, 0xfeed_beef] {
        Pair::new(1 << 12, seed).run(300);
    }
}

#[test]
fn program_and_model_agree_where_buckets_are_full() {
    require_root!();
    Pair::new(64, 0x00c0_ffee).run(300);
}
